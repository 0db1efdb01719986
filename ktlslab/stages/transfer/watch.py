"""Periodic checks: whether TCP still has the connection, and how many records each key has protected.

The kernel does neither. A send on a lost connection "succeeds", and nothing enforces the limit of RFC 8446 (5.5) on
what one key may protect. So a stream's condition counts down `until_check_up` by the records that it sends and
`until_look` by its receives, and this checks when one falls below 0. It changes keys before the limit, or ends with
KeyUpdateError.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ktlslab.errors import KeyUpdateError
from ktlslab.linux import _hot, ktls, tcpinfo
from ktlslab.linux.ktls import Direction
from ktlslab.tls.records import MAX_PLAINTEXT

if TYPE_CHECKING:
    from ktlslab.stages.transfer.condition import Condition
    from ktlslab.stages.transfer.keyupdate import KeyUpdates

# A check-up costs a few thousand instructions, so there is one per CHECK_EVERY records. The receiving side only checks
# the number of records under one key, once per _LOOK_EVERY receives.
CHECK_EVERY = 64
_LOOK_EVERY = 1 << 14
_NEVER = 1 << 62
_WITHOUT = 256  # where there is nothing to check: the largest int that Python does not allocate anew


class Watch:
    """Watches one stream. `kernel` names its directions in the kernel; `update(request_peer=...)` changes its keys."""

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
        # Between sends of one record the compiled part checks up, and calls `check_up` where something is found.
        condition.until_check_up = CHECK_EVERY if Direction.TX in kernel else _WITHOUT
        condition.check_every, condition.free_records = CHECK_EVERY, min(self.limit, _NEVER) - 2 * CHECK_EVERY - 1
        self._watched = ktls.to_watch(
            condition.connection.socket, updates.suite.cipher.kernel_type if updates else None
        )
        condition.watched = self._watched if Direction.TX in kernel else None
        self._look_every = min(_LOOK_EVERY, max(1, self.limit >> 2)) if Direction.RX in kernel else _WITHOUT
        condition.until_look = self._look_every
        condition.record_bytes = MAX_PLAINTEXT
        self._requested = -1  # the generation of the peer's keys that it was asked to change

    def count(self, verb: str, records: int, size: int) -> None:
        """Count what is about to be sent, and check up if it is time: full records, and `records` that are not."""
        condition = self._condition
        condition.until_check_up -= records + size // condition.record_bytes
        if condition.until_check_up < 0:
            self.check_up(verb)

    def check_up(self, verb: str) -> None:
        """Raise if the connection is lost; change keys that are near their limit."""
        condition = self._condition
        if Direction.TX not in self._kernel:
            condition.until_check_up = _WITHOUT
            return
        coming = CHECK_EVERY - condition.until_check_up
        condition.until_check_up = CHECK_EVERY
        if condition.closed or condition.failure or condition.finished:
            condition.attend(verb)
        fileno, *places = self._watched
        state, sent, received = _hot.watched(fileno(), *places)
        if state in tcpinfo.SENDING_OVER and (lost := condition.lost()):
            condition.fail(lost)
            raise lost
        condition.unconfirmed = False
        free = self.limit - coming - CHECK_EVERY
        if sent >= free or received >= free:
            self._change_keys(verb, free)

    def _change_keys(self, verb: str, free: int) -> None:
        """Change the keys that have protected `free` records or more."""
        if self._updates is None:
            return
        for direction in self._kernel:
            used = self._updates.records(direction)
            if used < free:
                continue
            asked = direction is Direction.RX and self._requested == self._updates.generation[direction]
            if asked and used < self.limit:
                continue  # the peer has not answered yet
            self._change(verb, direction, used)

    def _change(self, verb: str, direction: Direction, used: int) -> None:
        """Change this end's sending key, or ask the peer to change its own."""
        assert self._updates is not None  # noqa: S101 - otherwise nothing is counted
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
        """Raise if the peer's key has reached its limit. The peer is asked for a new one when this end sends.

        This costs about 500 instructions, so a `recv_exactly_into` that one receive fills does not count.
        """
        condition = self._condition
        condition.until_look = self._look_every
        if Direction.RX not in self._kernel:
            return
        if self._updates is None or condition.closed or condition.failure:
            return
        used = self._updates.records(Direction.RX)
        if used >= self.limit:
            answered = f"the peer's key has protected {used} records and may protect {self.limit}"
            remedy = "Open a new session; if this end sends now and then, it asks for new keys in time."
            failure = KeyUpdateError(condition.tried("receiving"), answered=answered, remedy=remedy)
            condition.fail(failure)
            raise failure
