"""A guest that runs one command, and the result of that command.

`run` is like `subprocess.run`, with a kernel as its first argument. The command is a list of words; its exit status,
stdout and stderr are returned separately and complete. It sees this machine's files, and a temporary layer takes what
it writes, except in the folder `rw`, where writes are kept. Leaving the context of a `Guest` ends the guest, and so
does the end of the program that started it, for whatever reason.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

from ktlslab import _checks
from ktlslab._closing import Closing
from ktlslab.errors import GuestError, UsageError
from ktlslab.guests import console, folders, initramfs, qemu, usermode, vmlinux
from ktlslab.guests.acceleration import accelerator, give_up
from ktlslab.guests.cache import storage
from ktlslab.guests.kernels import Kernel, find
from ktlslab.guests.process import kill, start
from ktlslab.guests.streams import MarkedOutput, Pump

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
}
BOOT_TIMEOUT = 90.0
_TRIED = "starting a guest"
KVM_BOOT_TIMEOUT = 20.0  # a real CPU needs two or three; one that hangs is not waited for as long as an emulated one


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """The result of a command in a guest. As in a shell, 128 + N means that signal N ended the command."""

    returncode: int
    stdout: bytes
    stderr: bytes


class Guest(Closing):
    """A running guest."""

    def __init__(
        self,
        name: str,
        process: subprocess.Popen[bytes],
        pump: Pump,
        *,
        out: MarkedOutput,
        err: MarkedOutput,
        folder: Path,
    ) -> None:
        self._name = name
        self.process = process
        self._pump = pump
        self._out, self._err = out, err
        self._folder = folder
        self._last_console = ""
        self._closer = weakref.finalize(self, _end, process, pump, folder)

    @property
    def pid(self) -> int:
        """The guest's process: QEMU, or a user-mode kernel."""
        return self.process.pid

    def poll(self) -> int | None:
        """Return the command's exit status, or None while it runs. GuestError if the guest ended without one."""
        return self.wait(0).returncode if self._pump.done.is_set() else None

    def wait(self, timeout: float | None = None) -> Completed:
        """Wait for the command to end. After a time-out the guest keeps running until its context is left."""
        if not self._pump.done.wait(timeout):
            remedy = "Give it a longer timeout, or find out why it does not end."
            raise GuestError(f"running {self._name}", answered=f"it still ran after {timeout:g} s", remedy=remedy)
        if self._pump.sink_error:
            raise GuestError(
                f"passing on the output of {self._name}",
                answered=str(self._pump.sink_error),
                remedy="Keep the streams given to the guest open until it ends.",
            ) from self._pump.sink_error
        if self._pump.returncode is None:
            raise self._error(self._pump.failure or "it was ended")
        out, err = self._out.captured.getvalue(), self._err.captured.getvalue()
        return Completed(returncode=self._pump.returncode, stdout=out, stderr=err)

    def come_up(self) -> Self:
        """Wait until the command has started. If the boot fails, remove the guest and raise GuestError."""
        try:
            while not self._pump.up.wait(0.05):
                if self._pump.done.is_set():
                    self.wait(0)
        except BaseException:
            self.close()
            raise
        return self

    def console(self) -> str:
        """Return the end of the messages of the kernel and its process."""
        if self._closer.alive:
            self._last_console = console.tail(self._folder)
        return self._last_console

    def close(self) -> None:
        """End the guest, if it is still running, and remove its files."""
        self.console()
        self._closer()

    def _error(self, answered: str) -> GuestError:
        said = self.console() or "nothing"
        remedy = "Read the console above; another kernel or a longer timeout may help: see `ktlslab guest list`."
        remedy = next((known for sign, known in usermode.TROUBLES.items() if sign in said), remedy)
        return GuestError(f"running {self._name}", answered=f"{answered}; its console says:\n{said}\n", remedy=remedy)


def boot(
    kernel: Kernel | str | Path,
    argv: Sequence[str],
    *,
    clock: qemu.Clock = "wall",
    rw: str | Path | None = None,
    cwd: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    memory: str = "1G",
    cpus: int | None = None,
    modules: Sequence[str] = ("tls",),
    stdout: BinaryIO | None = None,
    stderr: BinaryIO | None = None,
    boot_timeout: float = BOOT_TIMEOUT,
    forwards: Sequence[int] = (),
    image: tuple[Path, Path] | None = None,
    outbound: bool = False,
    files: Mapping[str, bytes] | None = None,
    plugin: str = "",
    cpu: str = qemu.CPU_NAME,
) -> Guest:
    """Start a command in a guest of this kernel (or series, alias, path of an image).

    `clock`: "wall", or for a command that measures "instructions": a nanosecond per instruction (one emulated CPU). By
    it time passes at once while nothing runs, so a time-out of a wait for this machine's disk or network expires too
    early, except this library's own (`ktlslab.linux.patience`).
    `rw` is the only folder whose writes are kept. `env` is the command's whole environment, except for a few defaults.
    `memory` is "512M", "2G", etc. Output goes to the given binary streams as it arrives, or is kept for `wait`.
    `forwards` forwards TCP ports of this machine's loopback to the guest. `image` is (an ext4 image, the folder to
    mount it over). `files` are put into the guest's `initramfs.FILES`. `outbound` lets the guest reach what this
    machine reaches (IPv4; this machine's loopback is 10.0.2.2 there). `plugin` is QEMU's option of that name, FILE,
    NAME=VALUE...: code that watches the emulated CPU, which needs clock="instructions". `cpu` is that CPU, one of
    `qemu.CPUS`.

    Returns when the command has started. If a kernel does not boot on KVM, it is booted emulated and a warning is
    logged. Raises UsageError, GuestError, KernelUnavailableError, StorageError.
    """
    _check(argv, clock, boot_timeout, env, cpu)
    _checks.instance(_TRIED, "outbound", outbound, bool)
    ports = _checks.several(_TRIED, "forwards", forwards, functools.partial(_checks.whole, low=1, high=65535))
    found = kernel if isinstance(kernel, Kernel) else find(kernel)
    begin = functools.partial(
        _begin,
        found,
        tuple(argv),
        clock=clock,
        rw=_checks.optional(folders.writable, _TRIED, "rw", rw),
        cwd=folders.folder(_TRIED, "cwd", cwd if cwd is not None else folders.here(_TRIED)),
        env=dict(env or {}),
        memory_bytes=qemu.memory_bytes(memory),
        cpus=qemu.cpus(clock, cpus),
        modules=modules,
        stdout=stdout,
        stderr=stderr,
        forwards=ports,
        image=image,
        outbound=outbound,
        files=files or {},
        plugin=plugin,
        cpu=cpu,
    )
    if found.user_mode:
        usermode.check(clock=clock, cpus=cpus, network=bool(ports) or outbound, plugin=plugin)
    elif clock != "instructions" and accelerator(found) == "kvm":
        guest = begin(accelerated="kvm", boot_timeout=min(boot_timeout, KVM_BOOT_TIMEOUT))
        try:
            return guest.come_up()
        except GuestError as error:
            give_up(found, error.answered.partition(";")[0])  # without the console
    return begin(accelerated="tcg", boot_timeout=boot_timeout).come_up()


def _begin(
    kernel: Kernel,
    argv: tuple[str, ...],
    *,
    accelerated: qemu.Accelerator,
    clock: qemu.Clock,
    rw: Path | None,
    cwd: Path,
    env: Mapping[str, str],
    memory_bytes: int,
    cpus: int | None,
    modules: Sequence[str],
    stdout: BinaryIO | None,
    stderr: BinaryIO | None,
    boot_timeout: float,
    forwards: tuple[int, ...],
    image: tuple[Path, Path] | None,
    outbound: bool,
    files: Mapping[str, bytes],
    plugin: str,
    cpu: str,
) -> Guest:
    """Start the guest's process, without waiting for it to boot."""
    mark = f"\x04ktlslab-end-{secrets.token_hex(16)}\x04"
    job = initramfs.GuestJob(
        argv=argv,
        env={**_environment(env), "KTLSLAB_GUEST": "1", "KTLSLAB_CLOCK": clock},
        cwd=cwd,
        release=kernel.release,
        modules=kernel.modules.resolve(),
        rw=rw,
        mark=mark,
        user_mode=kernel.user_mode,
        image_at=image[1] if image else None,
        network=bool(forwards) or outbound,
        outbound=outbound,
        files=files,
    )
    constant = initramfs.build(kernel, modules, image=bool(image), network=bool(forwards) or outbound)
    name = f"`{' '.join(argv)[:80]}` on {kernel}"
    with contextlib.ExitStack() as undo:
        with storage("making a guest's scratch folder", "$TMPDIR"):
            folder = Path(tempfile.mkdtemp(prefix="ktlslab-guest-"))
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
            with (folder / initramfs.INITRD).open("wb") as initrd, constant.open("rb") as base:
                shutil.copyfileobj(base, initrd, 1 << 20)
                initrd.write(initramfs.pack_job(job))
        pairs = [socket.socketpair() for _ in range(3)]
        for ours, theirs in pairs:
            undo.callback(ours.close)
            undo.callback(theirs.close)
        ports = tuple(theirs.fileno() for _, theirs in pairs)
        if kernel.user_mode:
            command = usermode.command(
                kernel,
                folder,
                ports=ports,
                memory_bytes=memory_bytes,
                image=image[0] if image else None,
                forwards=forwards,
                outbound=outbound,
            )
        else:
            machine = qemu.VirtualMachine(
                kernel=vmlinux.bootable(kernel.vmlinuz),
                initrd=folder / initramfs.INITRD,
                console=folder / console.CONSOLE,
                ports=ports,
                clock=clock,
                accelerator=accelerated,
                cpus=1 if clock == "instructions" else cpus or min(2, os.cpu_count() or 1),
                memory_bytes=memory_bytes,
                rw=job.rw,
                image=image[0] if image else None,
                forwards=forwards,
                outbound=outbound,
                plugin=plugin,
                cpu=cpu,
                takes_unsigned=kernel.takes_unsigned,
            )
            command = qemu.arguments(machine)
        # A user-mode kernel and its processes take turns. On two CPUs they would wait for each other to be woken, half
        # of the time.
        process = start(command, folder, ports, one_cpu=kernel.user_mode)
        undo.callback(kill, process)
        for _, theirs in pairs:
            theirs.close()
        out, err = (MarkedOutput(f"{mark}\n".encode(), sink) for sink in (stdout, stderr))
        pump = Pump(process, [ours for ours, _ in pairs], out, err, boot_timeout)
        pump.start()
        undo.pop_all()
    return Guest(name, process, pump, out=out, err=err, folder=folder)


def run(
    kernel: Kernel | str | Path,
    argv: Sequence[str],
    *,
    clock: qemu.Clock = "wall",
    rw: str | Path | None = None,
    cwd: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    memory: str = "1G",
    cpus: int | None = None,
    modules: Sequence[str] = ("tls",),
    timeout: float | None = None,
    stdout: BinaryIO | None = None,
    stderr: BinaryIO | None = None,
    boot_timeout: float = BOOT_TIMEOUT,
    outbound: bool = False,
    cpu: str = qemu.CPU_NAME,
) -> Completed:
    """Run a command in a guest and wait for it; see `boot`. `timeout` bounds the command, in seconds."""
    _checks.seconds("running a command in a guest", "timeout", timeout)
    with boot(
        kernel,
        argv,
        clock=clock,
        rw=rw,
        cwd=cwd,
        env=env,
        memory=memory,
        cpus=cpus,
        modules=modules,
        stdout=stdout,
        stderr=stderr,
        boot_timeout=boot_timeout,
        outbound=outbound,
        cpu=cpu,
    ) as guest:
        return guest.wait(timeout)


def _end(process: subprocess.Popen[bytes], pump: Pump, folder: Path) -> None:
    """End the guest's process and remove its folder; the pump reaps the process."""
    if not pump.done.is_set():  # the process was not reaped long ago, so its number is still its own
        kill(process)
    pump.join(10)
    shutil.rmtree(folder, ignore_errors=True)


def _environment(env: Mapping[str, str]) -> dict[str, str]:
    """Merge the caller's variables over the defaults; PATH always includes this Python's environment."""
    values = {**ENVIRONMENT, **env}
    programs, path = str(Path(sys.prefix) / "bin"), values["PATH"]
    return values if programs in path.split(":") else {**values, "PATH": f"{programs}:{path}"}


def _check(argv: Any, clock: Any, boot_timeout: Any, env: Any, cpu: Any) -> None:
    if not isinstance(argv, str) and isinstance(argv, Sequence) and not argv:
        raise UsageError(_TRIED, answered="there is no command", remedy="Give one: `-- COMMAND ARGUMENT...`.")
    _checks.items(_TRIED, "argv", argv, str, "a list of words: ['uname', '-r']")
    _checks.word(_TRIED, "clock", clock, qemu.CLOCKS)
    _checks.word(_TRIED, "cpu", cpu, qemu.CPUS)
    if cpu != qemu.CPU_NAME and clock != "instructions":
        answered = "the emulated CPU can be chosen only where its instructions are counted"
        raise UsageError(_TRIED, answered=answered, remedy="Leave out cpu, or take the clock instructions.")
    _checks.number(_TRIED, "boot_timeout", boot_timeout, 0.001, _checks.MAX_SECONDS, source="seconds, 0.001 or more")
    if env is not None:
        _checks.instance(_TRIED, "env", env, Mapping, "a mapping of names to text")
        for name, value in env.items():
            _checks.instance(_TRIED, "env", name, str, "a mapping of names to text")
            _checks.instance(_TRIED, f"env[{name!r}]", value, str, "a mapping of names to text")
