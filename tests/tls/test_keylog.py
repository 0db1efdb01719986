"""Key log lines: read exactly, and never shown by accident."""

from __future__ import annotations

import pytest

from ktlslab.tls.keylog import CLIENT_TRAFFIC_SECRET_0, RSA, KeylogLine

RANDOM = "0123456789abcdef" * 4
SECRET = "fe" * 32
LINE = f"CLIENT_TRAFFIC_SECRET_0 {RANDOM} {SECRET}"


@pytest.mark.parametrize("line", [LINE, LINE + "\n", LINE + "\r\n", LINE.encode()])
def test_a_line_is_read(line):
    parsed = KeylogLine.parse(line)
    assert parsed.label == CLIENT_TRAFFIC_SECRET_0
    assert parsed.client_random == bytes.fromhex(RANDOM)
    assert parsed.secret == bytes.fromhex(SECRET)


def test_an_unknown_label_is_kept():
    assert KeylogLine.parse(f"ECH_SECRET {RANDOM} {SECRET}").label == "ECH_SECRET"


def test_openssls_extra_line_of_an_rsa_key_exchange_is_read():
    parsed = KeylogLine.parse(f"RSA 0123456789abcdef {SECRET}")
    assert (parsed.label, parsed.client_random) == (RSA, bytes.fromhex("0123456789abcdef"))
    with pytest.raises(ValueError, match="not a key log line"):
        KeylogLine.parse(f"RSA {RANDOM} {SECRET}")


@pytest.mark.parametrize(
    "line",
    [
        "",
        "# a comment",
        f"{LINE} more",
        f"CLIENT_RANDOM {RANDOM[:-2]} {SECRET}",
        f"CLIENT_RANDOM {RANDOM} {SECRET}f",
        f"CLIENT_RANDOM {RANDOM}",
        f"client random {RANDOM} {SECRET}",
        LINE.replace("fe", "zz"),
        LINE.encode() + b"\xff",
    ],
)
def test_anything_else_is_an_error_that_keeps_the_secret(line):
    with pytest.raises(ValueError, match="not a key log line") as caught:
        KeylogLine.parse(line)
    assert SECRET[:8] not in str(caught.value)


def test_the_secret_is_not_in_the_repr():
    assert SECRET[:8] not in repr(KeylogLine.parse(LINE))
    assert "\\xfe" not in repr(KeylogLine.parse(LINE))
