"""What is said to a kernel that sends, beside data: records of any type, new keys, a limit for each record."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from ktlslab import _checks
from ktlslab.errors import KeyUpdateError, MachineError, UsageError, errno_name
from ktlslab.linux import ktls
from ktlslab.linux.ktls import Direction
from ktlslab.linux.ring import Buffer
from ktlslab.linux.views import in_bytes
from ktlslab.stages.transfer.keyupdate import KeyUpdates, key_update
from ktlslab.tls.records import MAX_PLAINTEXT, ContentType

if TYPE_CHECKING:
    from ktlslab.stages.transfer.condition import Condition
    from ktlslab.stages.transfer.watch import Watch

_MAX_TYPE = 255


class Control:
    """The records of one stream that are not simply data, and what holds for all of them."""

    def __init__(self, condition: Condition, watch: Watch, updates: KeyUpdates | None) -> None:
        self._condition, self._watch, self._updates = condition, watch, updates
        self.record_bytes = MAX_PLAINTEXT

    def send_record(self, data: Buffer, record_type: int) -> None:
        """`Stream.send_record`."""
        verb = "sending a record"
        condition, tried = self._condition, self._condition.tried(verb)
        self._needs_the_kernel(tried, "Let the kernel send.")
        _checks.whole(tried, "record_type", record_type, 0, _MAX_TYPE)
        _checks.buffer(tried, "data", data)
        size = len(data := in_bytes(data))
        if not 1 <= size <= self.record_bytes:
            answered = f"`data` has {size} bytes"
            raise UsageError(tried, answered=answered, remedy=f"One record holds 1 to {self.record_bytes} bytes.")
        condition.attend(verb)
        self._watch.count(verb, 1, 0)
        try:
            sent = condition.sender.send_record(data, record_type)
        except BaseException as error:  # noqa: BLE001
            condition.give_up(verb, error)
        if sent != size:
            condition.give_up(verb, TimeoutError(errno.ETIMEDOUT, f"{sent} of {size} bytes were sent"))
        condition.unconfirmed = True

    def update_keys(self, *, request_peer: bool) -> None:
        """`Stream.update_keys`."""
        verb = "changing keys"
        condition, tried = self._condition, self._condition.tried(verb)
        if self._updates is None or condition.layers[Direction.TX] != "kernel":
            answered = f"the sending side is {condition.layers[Direction.TX]}"
            remedy = "The kernel must send: OpenSSL's binding for Python cannot be asked for a KeyUpdate."
            raise KeyUpdateError(tried, answered=answered, remedy=remedy)
        self._updates.check(tried)
        with self._updates.alone(tried):
            condition.owed = False
            condition.attend(verb)
            try:
                condition.sender.send_record(key_update(request_peer=request_peer), ContentType.HANDSHAKE)
                self._updates.install(Direction.TX, tried)
            except KeyUpdateError as error:
                condition.fail(error)
                raise
            except BaseException as error:  # noqa: BLE001
                condition.give_up(verb, error)

    def limit_records(self, size: int) -> None:
        """`Stream.limit_records`."""
        tried = self._condition.tried(f"limiting records to {size} bytes")
        self._needs_the_kernel(tried, "Let the kernel send, or send pieces of that size: each send ends its record.")
        _checks.whole(tried, "size", size, 1, MAX_PLAINTEXT)
        self._condition.attend("limiting records")
        try:
            ktls.set_max_payload(self._condition.connection.socket, size)
        except OSError as error:
            if error.errno in {errno.ENOPROTOOPT, errno.EOPNOTSUPP}:
                remedy = "Send pieces of that size instead: each send ends its record."
                raise MachineError(tried, answered=errno_name(error.errno), remedy=remedy) from error
            remedy = "Give 64 to 16384 bytes for TLS 1.2, 63 to 16384 for TLS 1.3, while no record is held back."
            raise UsageError(tried, answered=errno_name(error.errno or 0), remedy=remedy) from error
        self._condition.record_bytes = self.record_bytes = size

    def _needs_the_kernel(self, tried: str, remedy: str) -> None:
        layer = self._condition.layers[Direction.TX]
        if layer != "kernel":
            raise UsageError(tried, answered=f"the sending side is {layer}", remedy=remedy)
