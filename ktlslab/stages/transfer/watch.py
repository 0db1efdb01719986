"""Whether TCP still has the connection, and how much each key has protected: looked at once in so many records.

The kernel does neither: a send on a connection that is gone "succeeds" into nothing, and no one counts what RFC 8446
(5.5) lets one key protect. So a stream counts down `until_check_up` by the records that it sends and `until_look` by
its receives, and calls when one has run out. New keys are agreed on in time, or the stream ends with KeyUpdateError.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ktlslab.errors import KeyUpdateError
from ktlslab.linux.ktls import Direction
from ktlslab.tls.records import MAX_PLAINTEXT

if TYPE_CHECKING:
    from ktlslab.stages.transfer.condition import Condition
    from ktlslab.stages.transfer.keyupdate import KeyUpdates

# A check-up costs a few thousand instructions, so it comes once in so many records; on the receiving side, where only
# the number of records under one key is looked at, once in so many receives.
CHECK_EVERY = 64
_LOOK_EVERY = 1 << 14
_NEVER = 1 << 62


class Watch:
    """Over one stream, whose `kernel` directions the kernel has. `update(request_peer=...)` changes its keys."""

    def __init__(
        self,
        condition: Condition,
        updates: KeyUpdates | None,
        kernel: tuple[Direction, ...],
        update: Callable[..., None],
        *,
        limit: int | None = None,
    ) -> None:
        self._condition, self._updates, self._kernel, self._update = condition, updates, kernel, update
        self.limit = limit or (updates.suite.cipher.record_limit if updates else _NEVER)
        self.until_check_up = CHECK_EVERY if Direction.TX in kernel else _NEVER
        self._look_every = min(_LOOK_EVERY, max(1, self.limit >> 2)) if Direction.RX in kernel else _NEVER
        self.until_look = self._look_every
        self.shift = MAX_PLAINTEXT.bit_length() - 1  # a send of n bytes makes at most 1 + (n >> shift) records
        self._requested = -1  # the generation of the peer's keys that we asked it to leave

    def count(self, verb: str, records: int, size: int) -> None:
        """Count what is about to be sent, and check up where it is time."""
        self.until_check_up -= records + (size >> self.shift)
        if self.until_check_up < 0:
            self.check_up(verb)

    def check_up(self, verb: str) -> None:
        """Whether the connection lives, and whether its keys may protect what is about to be sent."""
        condition, coming = self._condition, CHECK_EVERY - self.until_check_up
        self.until_check_up = CHECK_EVERY
        if condition.closed or condition.failure:
            condition.attend(verb)
        if lost := condition.lost():
            condition.fail(lost)
            raise lost
        condition.unconfirmed = False
        if self._updates is None:
            return
        for direction in self._kernel:
            used = self._updates.records(direction)
            if used + coming + CHECK_EVERY < self.limit:
                continue
            asked = direction is Direction.RX and self._requested == self._updates.generation[direction]
            if asked and used < self.limit:
                continue  # the peer has not answered yet
            self._change(verb, direction, used)

    def _change(self, verb: str, direction: Direction, used: int) -> None:
        """Change the key of what this end sends, or ask the peer for a new one."""
        assert self._updates is not None  # noqa: S101 - else nobody counts
        try:
            self._update(request_peer=direction is Direction.RX)
        except KeyUpdateError as error:
            said = f"this {direction.name} key has protected {used} records and may protect {self.limit}; {error}"
            failure = KeyUpdateError(self._condition.tried(verb), answered=said, remedy="Open a new session.")
            self._condition.fail(failure)
            raise failure from error
        if direction is Direction.RX:
            self._requested = self._updates.generation[direction]

    def look(self) -> None:
        """Whether the peer's key may still protect what it sends. It is asked for a new one when this end sends.

        Counting costs as much as 500 instructions, so a `recv_exactly_into` that one receive fills does without.
        """
        self.until_look = self._look_every
        if self._updates is None or self._condition.closed or self._condition.failure:
            return
        used = self._updates.records(Direction.RX)
        if used >= self.limit:
            answered = f"the peer's key has protected {used} records and may protect {self.limit}"
            remedy = "Open a new session; where this end sends now and then, it asks for new keys in time."
            failure = KeyUpdateError(self._condition.tried("receiving"), answered=answered, remedy=remedy)
            self._condition.fail(failure)
            raise failure
