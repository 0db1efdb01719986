"""A Jupyter kernel whose process runs in a guest: JupyterLab and nbclient on this machine use it like any other.

A kernelspec names this class (see `kernelspec`). For Jupyter the kernel's process is QEMU, a local process, so
`LocalProvisioner` is the base class. Three things differ. The kernel's ports are forwarded into the guest. QEMU accepts
connections long before the guest listens, so a launch is complete only when the kernel's heartbeat answers. A signal
would reach QEMU, so the kernel is interrupted by a message.
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections import deque
from io import RawIOBase
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from ktlslab.errors import GuestError
from ktlslab.guests import folders, kernelguest
from ktlslab.packages import extra

with extra("lab"):
    import zmq
    import zmq.asyncio
    from jupyter_client.provisioning.local_provisioner import LocalProvisioner
    from traitlets import Float, Unicode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ktlslab.guests.guest import Guest


class Tail(RawIOBase):
    """Keeps the end of a kernel's output outside its messages, for error messages."""

    def __init__(self) -> None:
        self._kept: deque[bytes] = deque(maxlen=64)

    def write(self, data: Any) -> int:
        self._kept.append(bytes(data)[-2000:])
        return len(data)

    def text(self) -> str:
        return b"".join(self._kept)[-2000:].decode("utf-8", "replace").strip()


class GuestProvisioner(LocalProvisioner):
    """Starts a kernel's command in a guest."""

    kernel = Unicode("newest", config=True, help="The guest's kernel: a series, oldest, newest, or an image's path.")
    clock = Unicode("wall", config=True, help="wall or instructions")
    memory = Unicode("1G", config=True, help="The guest's memory: 512M, 2G.")
    rw = Unicode("", config=True, help="The only folder whose writes are kept; if empty, where Jupyter was started.")
    boot_timeout = Float(kernelguest.BOOT_TIMEOUT, config=True, help="Seconds until the kernel must have answered.")

    guest: Guest | None = None

    def get_shutdown_wait_time(self, recommended: float = 5.0) -> float:
        """Return how long a kernel may take to shut down; an emulated one is slow."""
        return max(recommended, 20.0)

    def get_stable_start_time(self, recommended: float = 10.0) -> float:
        """Return for how many seconds the end of a kernel counts as a failed start, which is not restarted."""
        return max(recommended, float(self.boot_timeout))

    async def send_signal(self, signum: int) -> None:
        """Pass on signals that end QEMU. An interrupt reaches the kernel as a message instead."""
        if signum != signal.SIGINT:
            await super().send_signal(signum)

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        """Boot the guest, start the kernel in it, and wait until it answers."""
        self._release()  # a restart's earlier guest
        said = Tail()
        self.guest = await asyncio.to_thread(self._begin, cmd, kwargs, said)
        self.process = self.guest.process
        self.pid, self.pgid = self.guest.pid, None
        self.cwd = kwargs.get("cwd", Path.cwd())
        try:
            await self._answering(said)
        except BaseException:
            self._release()
            raise
        return self.connection_info

    async def wait(self) -> int | None:
        """Wait for the kernel to end, and remove its guest."""
        result = await super().wait()
        self._release()
        return result

    async def cleanup(self, restart: bool = False) -> None:  # noqa: FBT001, FBT002 - jupyter_client's signature
        self._release()
        await super().cleanup(restart=restart)

    def _begin(self, cmd: list[str], kwargs: Mapping[str, Any], said: Tail) -> Guest:
        file = self._connection_file()
        after = cmd.index(str(file)) + 1 if str(file) in cmd else len(cmd)
        cwd = kwargs.get("cwd")
        return kernelguest.begin(
            file,
            kernel=str(self.kernel),
            clock=str(self.clock),
            memory=str(self.memory),
            rw=self._kept(cwd),
            env=kwargs.get("env") or {},
            cwd=Path(cwd) if cwd else None,
            extra=cmd[after:],  # the client's arguments for ipykernel; the rest is for other programs
            stdout=cast("BinaryIO", said),
            stderr=cast("BinaryIO", said),
            boot_timeout=float(self.boot_timeout),
        )

    def _connection_file(self) -> Path:
        return Path(str(cast("Any", self.parent).connection_file)).resolve()  # as jupyter_client puts it into commands

    def _kept(self, cwd: Any) -> Path:
        """Return the folder whose writes are kept: where Jupyter was started, otherwise the notebook's folder."""
        started = getattr(getattr(self.parent, "parent", None), "root_dir", "")  # of a MappingKernelManager
        return Path(str(self.rw or started or cwd or folders.here("starting a guest"))).expanduser()

    async def _answering(self, said: Tail) -> None:
        """Wait for the heartbeat's echo; an accepted connection proves nothing, because QEMU accepts it."""
        info = json.loads(self._connection_file().read_text(encoding="utf-8"))
        guest = self.guest
        deadline = time.monotonic() + float(self.boot_timeout)
        while guest and time.monotonic() < deadline:
            status = guest.poll()  # raises an error with the end of the console if the guest went down
            if status is not None:
                remedy = "Try the command in a guest by hand: `ktlslab guest run`."
                answered = f"it ended with {status}: {said.text()}"
                raise GuestError("starting a Jupyter kernel in a guest", answered=answered, remedy=remedy)
            with zmq.asyncio.Context.instance().socket(zmq.REQ) as heart:
                heart.linger = 0
                if info.get("curve_publickey"):
                    heart.curve_publickey = heart.curve_serverkey = info["curve_publickey"].encode()
                    heart.curve_secretkey = info["curve_secretkey"].encode()
                heart.connect(f"tcp://127.0.0.1:{info['hb_port']}")
                await heart.send(b"ping")
                if await heart.poll(500):
                    return
        answered = f"no heartbeat within {self.boot_timeout:g} s; it said: {said.text() or 'nothing'}; console: "
        answered += guest.console() if guest else ""
        remedy = "Raise GuestProvisioner.boot_timeout on a slow or busy machine."
        raise GuestError("starting a Jupyter kernel in a guest", answered=answered, remedy=remedy)

    def _release(self) -> None:
        if self.guest:
            self.guest.close()
            self.guest = None
