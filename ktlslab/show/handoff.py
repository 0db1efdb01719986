"""The handoff as pictures, every byte shown and named: what notebook 01 is made of.

    overview(*artefacts)             the five stages and how far a session got
    records(handshake)               the handshake's records in order
    key_derivation(handshake)        secret -> key and write IV, in both directions
    struct(crypto_info)              the kernel's struct, field by field
    waiting(connection)              the records that lie unread in the socket
    record_bytes(raw, suite, ...)    one record on the wire, and what it hides
    xor_of(parts, gives)             a sum of bytes, for opening a record by hand
    opened(keys, records), contents  many records, and what each holds
    verdict(answer)                  what the kernel's answer to install means
    read_back(connection, keys)      the struct again, as getsockopt returns it
    counters(before, after)          what moved in /proc/net/tls_stat

Key bytes are shown only where `reveal=True` asks for them. Nothing here imports more than the session itself does, so
the pictures can be made in a guest as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ktlslab.show.arithmetic import xor_of
from ktlslab.show.fivestages import overview, verdict
from ktlslab.show.html import Html, Picture, code, markup, picture, prose, table
from ktlslab.show.keys import key_derivation, struct
from ktlslab.show.readback import read_back
from ktlslab.show.recordviews import (
    Opened,
    application_data,
    application_records,
    contents,
    holds,
    opened,
    record_bytes,
    records,
    waiting,
)

if TYPE_CHECKING:
    from ktlslab.linux.counters import Counters

__all__ = [
    "Opened",
    "application_data",
    "application_records",
    "contents",
    "counters",
    "holds",
    "key_derivation",
    "opened",
    "overview",
    "read_back",
    "record_bytes",
    "records",
    "struct",
    "verdict",
    "waiting",
    "xor_of",
]

# Documentation/networking/tls.rst, "Statistics".
_MEANINGS = {
    "TlsCurrTxSw": "open sessions whose send keys the kernel has, encrypting on the CPU",
    "TlsCurrRxSw": "open sessions whose receive keys the kernel has, decrypting on the CPU",
    "TlsCurrTxDevice": "open sessions whose send keys the network card has",
    "TlsCurrRxDevice": "open sessions whose receive keys the network card has",
    "TlsTxSw": "sessions so far whose send keys the kernel took, to encrypt on the CPU",
    "TlsRxSw": "sessions so far whose receive keys the kernel took, to decrypt on the CPU",
    "TlsTxDevice": "sessions so far whose send keys the network card took",
    "TlsRxDevice": "sessions so far whose receive keys the network card took",
    "TlsDecryptError": "records that did not open",
    "TlsRxDeviceResync": "times the kernel told the network card its place in the stream anew",
    "TlsDecryptRetry": "records decrypted twice: padded or not data, where TLS_RX_EXPECT_NO_PAD was set",
    "TlsRxNoPadViolation": "data records decrypted twice: padded, where TLS_RX_EXPECT_NO_PAD was set",
    "TlsRxRekeyOk": "receive keys changed",
    "TlsRxRekeyError": "receive keys that could not be changed",
    "TlsTxRekeyOk": "send keys changed",
    "TlsTxRekeyError": "send keys that could not be changed",
    "TlsRxRekeyReceived": "KeyUpdate messages received",
}


def counters(before: Counters, after: Counters) -> Picture:
    """Show /proc/net/tls_stat before and after, and what changed."""
    title = "/proc/net/tls_stat, before and after"
    if not after.values:
        said = "This kernel has no /proc/net/tls_stat: its tls module is not loaded."
        return picture(title, prose(said), text=said)
    rows = []
    for name, value in after.values.items():
        change = value - before[name]
        line = (
            code(name),
            f"{before[name]:,}",
            f"{value:,}",
            f"{change:+,}" if change else "",
            _MEANINGS.get(name, ""),
        )
        rows.append(tuple(Html(f"<b>{markup(cell)}</b>") for cell in line) if change else line)
    changed = (after - before).values
    text = ", ".join(f"{name} {value:+,}" for name, value in changed.items()) or "nothing changed"
    return picture(title, table(("counter", "before", "after", "change", "counts"), rows, numbers=(1, 2, 3)), text=text)
