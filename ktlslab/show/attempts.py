"""Trying something that may be refused, and showing the result: the refusal is the lesson."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ktlslab.errors import KtlsLabError
from ktlslab.relay import HTTP, Fault, Relay
from ktlslab.session import open_session
from ktlslab.show.html import Picture, card, table
from ktlslab.show.server import DemoServer
from ktlslab.stages import ClientConfig


def attempt(action: Callable[..., Any], *arguments: Any, **options: Any) -> Picture:
    """Call `action` and show what it returned, or a KtlsLabError's type and three parts."""
    try:
        result = action(*arguments, **options)
    except KtlsLabError as error:
        rows = [("tried", error.tried), ("answered", error.answered), ("remedy", error.remedy)]
        text = f"{type(error).__name__}: {error}"
        return Picture(card(f"Refused: {type(error).__name__}", [row for row in rows if row[1]]), text)
    if hasattr(result, "_repr_html_"):
        return Picture(result._repr_html_(), repr(result))
    return Picture(
        card("Done", [("result", "no error; it returns nothing" if result is None else repr(result))]), repr(result)
    )


FAULTS: tuple[tuple[str, Fault | None], ...] = (
    ("nothing", None),
    ("a bit of the ciphertext flipped", Fault("flip", record=2)),
    ("a bit of the tag flipped", Fault("flip", record=2, part="tag")),
    ("a record dropped", Fault("drop", record=1)),
    ("a record replayed", Fault("replay", record=2)),
    ("two records swapped", Fault("swap", record=1)),
    ("an impossible length", Fault("length", record=2, length=0xFFFF)),
    ("cut in the middle of a record", Fault("truncate", record=2, keep=20)),
    ("cut between two records", Fault("truncate", record=2)),
    ("the connection reset", Fault("reset", record=2)),
    ("an answer in clear text", Fault("replace", handshake=True, data=HTTP)),
)


def faults(server: DemoServer, harms: Iterable[tuple[str, Fault | None]] = FAULTS, timeout: float = 5.0) -> Picture:
    """Fetch the server's page once for each harm, done by a relay in between, and show what the client saw."""
    with Relay(("127.0.0.1", server.port)) as relay:
        rows = [(name, *_fetch(server, relay, fault, timeout)) for name, fault in harms]
    head = ("what happens on the way", "record layer", "outcome")
    return Picture(table(head, rows), "\n".join(": ".join(row) for row in rows))


def _fetch(server: DemoServer, relay: Relay, fault: Fault | None, timeout: float) -> tuple[str, str]:
    """Return the record layer and what became of one request."""
    layer, got = "", bytearray()
    config = ClientConfig(ca=server.ca, server_name=server.host)
    try:
        relay.use(fault)
        with open_session(*relay.address, config=config, timeout=timeout) as session:
            layer = session.record_layer
            session.stream.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            while part := session.stream.recv():
                got += part
    except KtlsLabError as error:
        return layer or "(handshake)", f"{type(error).__name__}: {error.answered}"
    return layer, f"all {len(got)} bytes and a clean end"
