"""What a forked process leaves to its parent.

A fork copies the state of every io_uring and of every TLS session. If both processes used a copy, they would write into
the ring that they share, or protect two records with one nonce. So each object that only one process may use registers
here, and refuses its calls in a child. This is done once, in the child (os.register_at_fork), so calls need no check.
"""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class OneProcess(Protocol):
    """What only the process that made it may use."""

    def leave(self, owner: int, /) -> None:
        """In a child: refuse every later call, and leave the state that is shared to its `owner`, a process ID."""


class _Register:
    """Every live object that must leave its state to this process if it forks."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.objects: WeakSet[OneProcess] = WeakSet()

    def leave(self) -> None:
        owner, self.process = self.process, os.getpid()
        for one in list(self.objects):
            one.leave(owner)


_here = _Register()
os.register_at_fork(after_in_child=_here.leave)


def register(one: OneProcess) -> None:
    """Call `one.leave` in every child that this process forks."""
    _here.objects.add(one)


def belongs(what: str, owner: int) -> str:
    """Return the sentence for an error: what was made before the fork belongs to its owner."""
    return f"{what} belongs to process {owner}, from which this one was forked"
