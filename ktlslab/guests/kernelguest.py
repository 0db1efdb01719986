"""ipykernel in a guest, reachable at the ports in a Jupyter connection file.

There are two ways to start it. Jupyter uses the provisioner in the kernelspec (see `provisioner`). An editor that
ignores provisioners starts the kernelspec's command as an ordinary process. That command is this module as a program,
which boots the guest, passes on its output, and ends with it or with the editor.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from ktlslab.errors import KtlsLabError, UsageError
from ktlslab.guests import kernelimage, qemu
from ktlslab.guests.guest import Guest, boot
from ktlslab.guests.initramfs import FILES
from ktlslab.guests.kernels import find

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BOOT_TIMEOUT = 120.0
PORTS = ("shell_port", "iopub_port", "stdin_port", "hb_port", "control_port")
# On an emulated CPU, completion by jedi takes 3 to 20 s and blocks the kernel.
OPTIONS = ("--IPCompleter.use_jedi=False",)
_LOOK_S = 0.5


def begin(
    connection_file: Path,
    *,
    kernel: str,
    clock: str,
    memory: str,
    rw: Path,
    env: Mapping[str, str],
    cwd: Path | None = None,
    extra: Sequence[str] = (),
    stdout: BinaryIO | None = None,
    stderr: BinaryIO | None = None,
    boot_timeout: float = BOOT_TIMEOUT,
) -> Guest:
    """Start ipykernel in a guest. It is ready some seconds after this returns, when its heartbeat port answers.

    The guest gets a copy of the connection file; its ports on this machine's loopback are forwarded to the guest. `rw`
    is the folder whose writes are kept. Raises what `boot` raises.
    """
    info = json.loads(connection_file.read_text(encoding="utf-8"))
    if info.get("transport", "tcp") != "tcp":
        remedy = "Leave KernelManager.transport at tcp."
        answered = f"the connection file says transport {info['transport']!r}"
        raise UsageError("starting a Jupyter kernel in a guest", answered=answered, remedy=remedy)
    inside = json.dumps({**info, "ip": "0.0.0.0"}).encode()  # noqa: S104 - the guest's network, which nobody else is in
    # A kernel watches its parent process by its pid, which does not exist in the guest.
    named = {name: value for name, value in env.items() if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name)}
    named.pop("JPY_PARENT_PID", None)
    image = kernelimage.build()
    if image:
        named["PYTHONPATH"] = ":".join([str(kernelimage.PLACE), *filter(None, [named.get("PYTHONPATH")])])
    return boot(
        find(kernel),
        [sys.executable, "-m", "ipykernel_launcher", "-f", str(FILES / "connection.json"), *OPTIONS, *extra],
        clock=cast("qemu.Clock", clock),
        rw=rw,
        cwd=cwd,
        env=named,
        memory=memory,
        forwards=[int(info[port]) for port in PORTS],
        image=(image, kernelimage.PLACE) if image else None,
        files={"connection.json": inside},
        stdout=stdout,
        stderr=stderr,
        boot_timeout=boot_timeout,
    )


def command(kernel: str, clock: str, memory: str, rw: str) -> list[str]:
    """Return the command of a kernelspec, for programs that start it without a provisioner."""
    options = [f"--kernel={kernel}", f"--clock={clock}", f"--memory={memory}", f"--rw={rw}"]
    return [sys.executable, "-m", "ktlslab.guests.kernelguest", *options, "-f", "{connection_file}"]


def main(argv: Sequence[str] | None = None) -> int:
    """Act as a Jupyter kernel's process: boot the guest, and run as long as it runs."""
    parser = argparse.ArgumentParser(prog="ktlslab.guests.kernelguest", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-f", dest="connection_file", required=True, type=Path, metavar="FILE")
    parser.add_argument("--kernel", default="newest")
    parser.add_argument("--clock", default="wall")
    parser.add_argument("--memory", default="1G")
    parser.add_argument("--rw", default="", help="the folder whose writes are kept; default: the current one")
    options, extra = parser.parse_known_args(argv)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the kernel is interrupted by message
    parent = os.getppid()
    try:
        with begin(
            options.connection_file,
            kernel=options.kernel,
            clock=options.clock,
            memory=options.memory,
            rw=Path(options.rw or Path.cwd()),
            env=os.environ,
            extra=extra,
            stdout=sys.stdout.buffer,
            stderr=sys.stderr.buffer,
        ) as guest:
            while (status := guest.poll()) is None and os.getppid() == parent:
                time.sleep(_LOOK_S)
    except KtlsLabError as error:
        sys.stderr.write(f"ktlslab: {error}\n")
        return 1
    return status or 0


if __name__ == "__main__":
    sys.exit(main())
