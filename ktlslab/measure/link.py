"""The network between the two ends of a measured connection: loopback, or a veth pair between two network namespaces.

Loopback hides bugs and costs: it loses nothing and has no delay. A veth pair can delay packets and lose a share of
them, in each direction (tc-netem(8)).

The namespaces have no name. Only file descriptors of this process, and programs that it started in them, keep them
alive. However this process ends, the namespaces and the veth pair end with it. The host's network is not touched.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

from ktlslab.errors import MachineError, UsageError
from ktlslab.linux import namespaces
from ktlslab.packages import how_to_get

NEAR, FAR = "198.18.0.1", "198.18.0.2"  # of the address block for network benchmarks (RFC 2544)
_PREFIX = 30
_NUMBER = r"\d+(?:\.\d+)?"
_VETH = re.compile(rf"veth(?: (?P<delay>{_NUMBER})ms)?(?: (?P<loss>{_NUMBER})%)?", re.ASCII)
_PACKETS = 100_000  # netem's queue: TCP's windows are far smaller, so it never causes a loss
_PROGRAMS = ("ip", "tc", "nsenter")
_ROOTS = "/usr/sbin:/sbin"
_SECONDS = 60.0  # an emulated machine loads modules slowly


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A link's kind and what it does to packets: `delay_ms` each way, `loss_percent` of them each way."""

    kind: str
    delay_ms: float = 0.0
    loss_percent: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Link:
        """Read `loopback`, `veth`, `veth 5ms`, `veth 5ms 0.1%`. UsageError for anything else."""
        if text == "loopback":
            return cls(kind="loopback")
        found = _VETH.fullmatch(text)
        if found is None or float(found["loss"] or 0) > 100:
            remedy = "Links are `loopback`, `veth`, `veth 5ms`, `veth 5ms 0.1%`."
            raise UsageError("reading a plan", answered=f"no link {text!r}", remedy=remedy)
        return cls(kind="veth", delay_ms=float(found["delay"] or 0), loss_percent=float(found["loss"] or 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """The two ends of a link.

    `address`: where the far end listens; `near_address`: where this one can. `prefix`: put before a command, runs it in
    the far namespace. `near()`: a context manager; inside it this thread is in the near namespace, and what it opens
    there stays there.
    """

    address: str
    near_address: str
    prefix: tuple[str, ...]
    near: Callable[[], AbstractContextManager[None]]


@contextlib.contextmanager
def lay(link: Link) -> Iterator[Ends]:
    """Set up a link, and remove it at the end. MachineError: a program, a kernel module or a permission is missing."""
    if link.kind == "loopback":
        yield Ends(address="127.0.0.1", near_address="127.0.0.1", prefix=(), near=contextlib.nullcontext)
        return
    programs = {name: _program(name) for name in _PROGRAMS}
    with contextlib.ExitStack() as stack:
        near, far = (stack.enter_context(namespaces.new()) for _ in range(2))
        pair = f"link add name veth type veth peer name veth netns {namespaces.path(far)}"
        _run(near, programs["ip"], [pair, *_raising(NEAR, link)])
        _run(far, programs["ip"], _raising(FAR, link))
        if link.delay_ms or link.loss_percent:
            for namespace in (near, far):
                _run(namespace, programs["tc"], [_netem(link)])
        prefix = (programs["nsenter"], f"--net={namespaces.path(far)}", "--")
        yield Ends(address=FAR, near_address=NEAR, prefix=prefix, near=lambda: namespaces.inside(near))


def _raising(address: str, link: Link) -> list[str]:
    """Return the commands of ip(8) for one end."""
    return [
        "link set dev lo up",
        # No link-local address: its upkeep would send packets of its own.
        "link set dev veth addrgenmode none",
        # A loss should be one packet of wire size, not the 64 KiB that a veth takes at once.
        *(["link set dev veth gso_max_segs 1"] if link.loss_percent else []),
        f"address add {address}/{_PREFIX} dev veth",
        "link set dev veth up",
    ]


def _netem(link: Link) -> str:
    delay, loss = f"{link.delay_ms * 1000:.0f}us", f"{link.loss_percent}%"
    return f"qdisc add dev veth root netem limit {_PACKETS} delay {delay} loss {loss}"


def _run(namespace: int, program: str, commands: list[str]) -> None:
    """Run commands of an iproute2 program in a namespace."""
    with namespaces.inside(namespace):
        done = subprocess.run(
            [program, "-batch", "-"],
            input="\n".join(commands),
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS,
        )
    if done.returncode:
        module = "sch_netem" if program.endswith("tc") else "veth"
        answered = done.stderr.strip().partition("\n")[0].rstrip(".") or f"{program} returned {done.returncode}"
        remedy = f"This needs the kernel module {module}. Guests' kernels have it: measure with `--on newest`."
        raise MachineError(f"setting up a link with `{'; '.join(commands)}`", answered=answered, remedy=remedy)


def _program(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path=_ROOTS)
    if not found:
        raise MachineError(
            f"setting up a link: looking for {name}", answered="it is not installed", remedy=how_to_get(name)
        )
    return found
