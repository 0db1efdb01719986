"""A sum of bytes, and the struct read back from the kernel."""

from __future__ import annotations

import pytest

from ktlslab import ClientConfig, connect, export, handshake
from ktlslab.errors import UsageError
from ktlslab.show import handoff
from ktlslab.show.server import demo_server


def test_a_sum_is_the_xor_of_its_parts():
    picture = handoff.xor_of({"write IV": b"\x0f\xf0", "number": b"\x00\x01"}, gives="nonce")
    assert repr(picture) == "0ff0 (write IV) XOR 0001 (number) = 0ff1 (nonce)"
    html = picture._repr_html_()
    assert html.index("0f f0") < html.index("00 01") < html.index("0f f1")
    assert "<b>nonce</b>" in html


def test_parts_of_different_lengths_make_no_sum():
    with pytest.raises(UsageError, match="the parts have 2, 1 bytes"):
        handoff.xor_of({"a": b"xx", "b": b"x"})
    for parts in (None, {}, {"a": "text"}, [b"x"]):
        with pytest.raises(UsageError):
            handoff.xor_of(parts)


def test_without_keys_in_the_kernel_there_is_nothing_to_read_back():
    with demo_server() as server, connect(server.host, server.port) as connection:
        keys = export(handshake(connection, ClientConfig(ca=server.ca)))
        picture = handoff.read_back(connection, keys)
    assert "nothing to read back" in repr(picture)
    assert "getsockopt(TLS_TX)" in picture._repr_html_()
