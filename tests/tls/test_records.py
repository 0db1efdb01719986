"""Records: however the stream is split they are the same, and input that is not TLS is an error."""

from __future__ import annotations

from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktlslab.tls.records import (
    HEADER_BYTES,
    MAX_CIPHERTEXT,
    MAX_CIPHERTEXT_TLS12,
    ContentType,
    Record,
    RecordHeader,
    RecordSplitter,
    describe,
)


def a_record(content_type: int, payload: bytes) -> Record:
    header = RecordHeader(content_type=content_type, legacy_version=0x0303, length=len(payload))
    return Record(header=header, payload=payload)


records = st.builds(a_record, st.sampled_from(ContentType), st.binary(max_size=40))


@given(sent=st.lists(records, max_size=6), tail=st.binary(max_size=4), data=st.data())
def test_records_do_not_depend_on_how_the_bytes_arrive(sent, tail, data):
    tail = bytes((ContentType.ALERT,)) + tail[1:] if tail else tail
    wire = b"".join(record.raw for record in sent) + tail
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=12)))
    splitter = RecordSplitter()
    got = []
    for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
        splitter.feed(wire[start:end])
        got.extend(splitter)
    assert got == sent
    assert splitter.pending == len(tail)
    assert splitter.count.total() == len(sent)
    assert all(splitter.count[kind] == sum(r.header.content_type == kind for r in sent) for kind in ContentType)


@given(sent=st.lists(records, min_size=1, max_size=4))
def test_a_reader_that_takes_what_is_needed_never_takes_a_byte_too_many(sent):
    wire = b"".join(record.raw for record in sent)
    splitter = RecordSplitter()
    stream = BytesIO(wire)
    for record in sent:
        while splitter.needed:
            assert splitter.next() is None
            splitter.feed(stream.read(splitter.needed))
        assert splitter.next() == record
        assert splitter.pending == 0
    assert splitter.needed == HEADER_BYTES


@given(record=records)
def test_a_header_survives_the_wire(record):
    assert RecordHeader.parse(record.header.encode()) == record.header
    assert record.raw == record.header.encode() + record.payload


def test_parse_gives_the_fields():
    header = RecordHeader.parse(bytes.fromhex("1603010200"))
    assert header == RecordHeader(content_type=22, legacy_version=0x0301, length=512)


@pytest.mark.parametrize(
    "data", [b"HTTP/", b"SSH-2", b"\x80\x2e\x01\x00\x02", b"\x15\x02\x00\x00\x02", b"\x18\x03\x03\x00\x00"]
)
def test_what_is_not_tls_is_called_so(data):
    with pytest.raises(ValueError, match="not TLS"):
        RecordHeader.parse(data)


def test_readable_bytes_are_shown_readably():
    with pytest.raises(ValueError, match="b'HTTP/'"):
        RecordHeader.parse(b"HTTP/")


@pytest.mark.parametrize("size", [0, 4, 6])
def test_a_header_has_five_bytes(size):
    with pytest.raises(ValueError, match="has 5 bytes"):
        RecordHeader.parse(b"\x17\x03\x03\x00\x01\x00"[:size])


def test_the_largest_record_there_can_be():
    assert (MAX_CIPHERTEXT, MAX_CIPHERTEXT_TLS12) == (16640, 18432)
    assert RecordHeader.parse(b"\x17\x03\x03" + (18432).to_bytes(2, "big")).length == 18432
    with pytest.raises(ValueError, match="too large"):
        RecordHeader.parse(b"\x17\x03\x03" + (18433).to_bytes(2, "big"))


@pytest.mark.parametrize("field", [{"length": 65536}, {"legacy_version": -1}, {"content_type": 256}])
def test_a_header_that_does_not_fit_is_not_encoded(field):
    with pytest.raises(ValueError, match=r"fit|range"):
        RecordHeader(**({"content_type": 23, "legacy_version": 0x0303, "length": 0} | field)).encode()


def test_after_a_bad_header_the_splitter_stays_broken():
    splitter = RecordSplitter()
    splitter.feed(a_record(23, b"good").raw + b"HTTP/1.1 400")
    assert splitter.next() == a_record(23, b"good")
    for _ in range(2):
        with pytest.raises(ValueError, match="not TLS"):
            splitter.next()
        with pytest.raises(ValueError, match="not TLS"):
            _ = splitter.needed


@pytest.mark.parametrize(
    ("content_type", "payload", "said"),
    [
        (22, b"\x01\x00\x00\x76" + bytes(118), "handshake, 122 bytes: client_hello"),
        (22, b"\x02\x00\x00\x01x\x0e\x00\x00\x00", "handshake, 9 bytes: server_hello, server_hello_done"),
        (22, b"\x01\x00\x00\x76" + bytes(117), "handshake, 121 bytes (encrypted, or part of a message)"),
        (22, b"\x63\x00\x00\x00", "handshake, 4 bytes (encrypted, or part of a message)"),
        (22, b"\x0e\x00\x00", "handshake, 3 bytes (encrypted, or part of a message)"),
        (22, b"", "handshake, 0 bytes (encrypted, or part of a message)"),
        (23, bytes(23), "application_data, 23 bytes (encrypted)"),
        (20, b"\x01", "change_cipher_spec, 1 byte"),
        (21, b"\x02\x28", "alert, 2 bytes: fatal handshake_failure"),
        (21, bytes(26), "alert, 26 bytes (encrypted)"),
    ],
)
def test_describe(content_type, payload, said):
    assert describe(a_record(content_type, payload)) == said
