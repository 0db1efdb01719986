"""What the kernel says that it was given: getsockopt, beside what setsockopt handed over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ktlslab.linux import ktls
from ktlslab.show.html import MONO, Html, Picture, code, dots, hexes, picture, prose, table
from ktlslab.stages import Direction

if TYPE_CHECKING:
    from ktlslab.linux.ktls import CryptoInfo
    from ktlslab.stages import Connection, TrafficKeys

_NONE = (
    "The kernel has no keys of this session, so there is nothing to read back: the library goes on with them. Where it "
    "has them, getsockopt(TLS_TX) returns the bytes of the struct above."
)


def read_back(connection: Connection, keys: TrafficKeys, reveal: bool = False) -> Picture:  # noqa: FBT001, FBT002
    """Show the struct of each direction as getsockopt returns it, field by field, and whether it is what was given.

    Whoever holds the socket can read its keys in this way. The number of the next record is the kernel's own, and rises
    with each record. `keys` must not have been wiped.
    """
    rows, told = [], []
    for direction in Direction:
        given = keys.of(direction).crypto_info()
        if ktls.installed(connection.socket, direction) is None:
            continue
        now = ktls.get_keys(connection.socket, direction, given.cipher_type)
        rows += [_row(direction, name, given, now, reveal=reveal) for name in ktls.FIELDS]
        same = [name for name in ktls.FIELDS if getattr(given, name) == getattr(now, name)]
        told.append(f"{direction.name}: {', '.join(same)} as handed over; next record {_number(now)}")
    title = "Read back by getsockopt"
    if not rows:
        return picture(title, prose(_NONE), text=_NONE)
    head = ("direction", "field", "bytes", "the kernel has", "as handed over")
    return picture(title, table(head, rows, numbers=(2,)), text="\n".join(told))


def _row(direction: Direction, name: str, given: CryptoInfo, now: CryptoInfo, *, reveal: bool) -> tuple[object, ...]:
    value = getattr(now, name)
    shown = hexes(value) if reveal or name == "rec_seq" else dots(len(value))
    said = "yes" if value == getattr(given, name) else "no: it has moved on" if name == "rec_seq" else "no"
    return direction.name, code(name), str(len(value)), Html(f'<span style="{MONO}">{shown}</span>'), said


def _number(info: CryptoInfo) -> int:
    return int.from_bytes(info.rec_seq, "big")
