"""The handoff race: which records the library has read, which wait in the socket, and which number follows from that.

ledger(handshake, queued)   every record that the other end has sent, and the number that each implies
tried(keys, record)         one record, opened by hand with several numbers
trials(server)              handoffs with a right number and with wrong ones, by hand and to this kernel
"""

from __future__ import annotations

import select
import socket
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ktlslab.errors import errno_name
from ktlslab.linux import capabilities, ktls
from ktlslab.show.html import Html, Picture, markup, picture, prose, table
from ktlslab.show.recordviews import holds, waiting
from ktlslab.stages import ClientConfig, Direction, connect, export, handshake
from ktlslab.tls.protect import open_record
from ktlslab.tls.records import HEADER_BYTES, Record, describe
from ktlslab.tls.suites import Version

if TYPE_CHECKING:
    from ktlslab.show.server import DemoServer
    from ktlslab.stages import Connection, DirectionKeys, Handshake
    from ktlslab.tls.suites import Suite

_NO_KERNEL = "this kernel has no tls module"
_ROOM = 1 << 14  # bytes: the most that a record holds
_WAIT_S = 5.0
_TICKETS = 2  # that OpenSSL's servers send


def ledger(shake: Handshake, queued: Iterable[Record]) -> Picture:
    """Show each record that the other end has sent: its number, where it is, and rec_seq once the library has read it.

    `queued` is what waits in the socket (`handoff.waiting`). The record that a handoff would begin with is marked.
    """
    first = 1 if shake.version is Version.TLS12 else 0  # TLS 1.2's Finished was number 0 under these keys
    keys = export(shake).rx
    received = [record for direction, record in shake.machine.transcript if direction == "received"]
    rows = [("", describe(record), "read by the library, in the handshake", str(first)) for record in received]
    rows += [
        (str(number), "made with the application key", "read by the library", str(number + 1))
        for number in range(first, keys.sequence)
    ]
    following = keys.sequence
    for record in queued:
        rows.append(
            (
                str(following),
                _opened(keys, record, following).removeprefix("opens: "),
                "waits in the socket",
                str(following + 1),
            )
        )
        following += 1
    rows.append((str(following), "whatever comes next", "not sent yet, or under way", ""))
    keys.wipe()
    marked = [
        (*(Html(f"<b>{markup(cell)}</b>") for cell in row[:3]), row[3]) if row[0] == str(keys.sequence) else row
        for row in rows
    ]
    said = f"The handoff begins with record {keys.sequence}, in bold: its number is what rec_seq must say now."
    head = ("number", "record", "where it is", "rec_seq once it is read")
    return picture("What the other end has sent", table(head, marked, numbers=(0, 3)), prose(said), text=said)


def tried(keys: DirectionKeys, record: Record, numbers: Iterable[int] = range(4)) -> Picture:
    """Show what becomes of a record that is opened by hand with each of these numbers. The keys must not be wiped."""
    rows = [(str(number), _opened(keys, record, number)) for number in numbers]
    text = "\n".join(f"{number}: {said}" for number, said in rows)
    return picture("One record, several numbers", table(("number", "by hand"), rows, numbers=(0,)), text=text)


def opens(suite: Suite, key: bytes, write_iv: bytes, number: int, record: bytes) -> bool:
    """Return whether a record, header included, was sealed with this key, write IV and number."""
    try:
        open_record(suite, key, write_iv, number, record)
    except ValueError:
        return False
    return True


def both_tickets(connection: Connection) -> list[Record]:
    """Return the two tickets that an OpenSSL server sends, once both wait in the socket."""
    queued = waiting(connection, _WAIT_S)
    while len(queued) < _TICKETS:
        select.select([], [], [], 0.05)
        queued = waiting(connection, _WAIT_S)
    return queued


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trial:
    """How many records, and bytes of the next one, are read before a handoff, and what rec_seq then says."""

    said: str
    records: int = 0
    header: bool = False
    number: int = 0


_TRIALS = (
    _Trial(said="nothing was read"),
    _Trial(said="one record was read, and counted", records=1, number=1),
    _Trial(said="one record was read, and not counted", records=1, number=0),
    _Trial(said="nothing was read, but one was counted", number=1),
    _Trial(said="the next record's header was read", header=True),
)


def trials(server: DemoServer) -> Picture:
    """Hand over the receive keys of several sessions, some too early or too late, and show what becomes of each.

    By hand everywhere; to this machine's kernel where it has kTLS.
    """
    rows = [(trial.said, str(trial.number), *_trial(server, trial)) for trial in _TRIALS]
    head = ("before the handoff", "rec_seq", "the next record by hand", "the next record by the kernel")
    text = "\n".join(" | ".join(row) for row in rows)
    return picture("Five handoffs", table(head, rows, numbers=(1,)), text=text)


def _trial(server: DemoServer, trial: _Trial) -> tuple[str, str]:
    with connect(server.host, server.port, io_engine="syscall") as connection:
        shake = handshake(connection, ClientConfig(ca=server.ca))
        keys = replace(export(shake).rx, sequence=trial.number)
        queued = both_tickets(connection)
        sock = connection.socket
        sock.recv(sum(len(record.raw) for record in queued[: trial.records]) + trial.header * HEADER_BYTES)
        if trial.header:
            by_hand = "cannot even begin: the first five bytes are no header"
        else:
            by_hand = _opened(keys, queued[trial.records], trial.number)
        by_kernel = _received(sock, keys) if capabilities.ulp() else _NO_KERNEL
        keys.wipe()
        return by_hand, by_kernel


def _received(sock: socket.socket, keys: DirectionKeys) -> str:
    """Give the kernel the keys as they are, and say what it makes of the next record."""
    info = keys.crypto_info()
    ktls.attach(sock)
    ktls.set_keys(sock, Direction.RX, info.pack())
    sock.settimeout(_WAIT_S)
    try:
        data, control, _, _ = sock.recvmsg(_ROOM, ktls.RECORD_TYPE_SPACE)
    except OSError as error:
        return f"{errno_name(error.errno or 0)}" if error.errno else "nothing within 5 seconds"
    kind = next(
        (told[0] for level, name, told in control if (level, name) == (ktls.SOL_TLS, ktls.TLS_GET_RECORD_TYPE)), 23
    )
    return f"opens: {holds(kind, data)}"


def _opened(keys: DirectionKeys, record: Record, number: int) -> str:
    try:
        return (
            f"opens: {holds(*open_record(keys.suite, keys.key.reveal(), keys.write_iv.reveal(), number, record.raw))}"
        )
    except ValueError:
        return "does not open"
