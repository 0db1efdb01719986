"""Alerts: a clean end, an error, and numbers without a name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktlslab.tls.alerts import Alert, AlertDescription, AlertLevel


@given(st.binary(min_size=2, max_size=2))
def test_any_two_bytes_are_an_alert_and_survive(data):
    alert = Alert.parse(data)
    assert alert.encode() == data
    assert alert.name
    assert str(alert)


@pytest.mark.parametrize("data", [b"", b"\x01", b"\x01\x00\x00"])
def test_other_lengths_are_errors(data):
    with pytest.raises(ValueError, match="2 bytes"):
        Alert.parse(data)


def test_an_unknown_number_is_kept_and_fatal():
    alert = Alert.parse(bytes((1, 200)))
    assert (alert.name, alert.description, alert.fatal) == ("unknown(200)", 200, True)
    assert str(Alert.parse(bytes((7, 0)))) == "unknown(7) close_notify"


@pytest.mark.parametrize(
    ("data", "close_notify", "fatal"),
    [
        ((1, 0), True, False),
        ((2, 0), True, False),
        ((2, 20), False, True),
        ((1, 40), False, True),  # RFC 8446 6: the level of an error alert does not matter
        ((1, 90), False, False),
        ((1, 100), False, False),
        ((2, 100), False, True),
    ],
)
def test_what_ends_a_connection_and_how(data, close_notify, fatal):
    alert = Alert.parse(bytes(data))
    assert (alert.is_close_notify, alert.fatal) == (close_notify, fatal)


def test_names_are_the_rfcs():
    assert str(Alert(level=AlertLevel.FATAL, description=AlertDescription.BAD_RECORD_MAC)) == "fatal bad_record_mac"
    assert str(Alert.parse(b"\x01\x00")) == "warning close_notify"
    # RFC 8446 B.2, a few of the numbers that are easy to get wrong.
    assert (AlertDescription(80).name, AlertDescription(109).name) == ("INTERNAL_ERROR", "MISSING_EXTENSION")
    assert (AlertDescription(116).name, AlertDescription(120).name) == (
        "CERTIFICATE_REQUIRED",
        "NO_APPLICATION_PROTOCOL",
    )
