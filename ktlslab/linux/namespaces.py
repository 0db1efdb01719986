"""Network namespaces, held by descriptors. They have no name, and end with the process that holds them.

Each thread is in one namespace (unshare(2), setns(2), network_namespaces(7)). A thread can enter another one for a
while; sockets that it opens there stay there.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator

from ktlslab.errors import MachineError, errno_name

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def new() -> Iterator[int]:
    """Yield a new network namespace as a descriptor; the thread stays in its own."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.unshare(_CLONE_NEWNET):
            number = ctypes.get_errno()
            remedy = "Run as root, or measure in a guest: `--on newest`; a container needs CAP_SYS_ADMIN for this."
            raise MachineError("making a network namespace", answered=errno_name(number), remedy=remedy)
        try:
            made = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            _enter(home)
    finally:
        os.close(home)
    try:
        yield made
    finally:
        os.close(made)


@contextlib.contextmanager
def inside(namespace: int) -> Iterator[None]:
    """Move this thread into a namespace, and back at the end."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter(namespace)
        try:
            yield
        finally:
            _enter(home)
    finally:
        os.close(home)


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, _CLONE_NEWNET):
        answered = errno_name(ctypes.get_errno())
        raise MachineError("entering a network namespace", answered=answered, remedy="Run as root.")


def path(namespace: int) -> str:
    """Return a path by which other programs can open a namespace while this process lives."""
    return f"/proc/{os.getpid()}/fd/{namespace}"
