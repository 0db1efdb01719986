"""The pictures: every byte named, no key without being asked, plain HTML that any notebook may show."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import unescape

import pytest

from ktlslab.errors import UsageError
from ktlslab.linux import ktls
from ktlslab.linux.counters import Counters
from ktlslab.show import handoff
from ktlslab.show.server import PAGE, Wire, demo_server
from ktlslab.stages import (
    ClientConfig,
    Connection,
    Direction,
    Handshake,
    Installed,
    Refused,
    Stream,
    TrafficKeys,
    Why,
    connect,
    export,
    handshake,
    install,
)
from ktlslab.tls.records import ContentType
from ktlslab.tls.suites import Suite, Version

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
SUITES = (
    Suite.TLS_AES_256_GCM_SHA384,
    Suite.TLS_CHACHA20_POLY1305_SHA256,
    Suite.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    Suite.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
)


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """One whole session as notebook 01 has it."""

    connection: Connection
    shake: Handshake
    keys: TrafficKeys
    queued: list
    answer: Installed | Refused
    stream: Stream
    reply: bytes
    wire: Wire


@pytest.fixture(scope="module", params=SUITES, ids=lambda suite: suite.name)
def lesson(request):
    with demo_server() as server, connect(server.host, server.port) as connection:
        shake = handshake(connection, ClientConfig(ca=server.ca, suites=(request.param,)))
        keys = export(shake)
        queued = handoff.waiting(connection, 1.0 if shake.version is Version.TLS13 else 0.05)
        answer = install(connection, keys, wipe=False)
        stream = Stream(connection, shake, answer.directions)
        stream.send(REQUEST)
        reply = b"".join(iter(stream.recv, b""))
        stream.close()
        yield Lesson(
            connection=connection,
            shake=shake,
            keys=keys,
            queued=queued,
            answer=answer,
            stream=stream,
            reply=reply,
            wire=server.wire(connection),
        )


def plain(picture):
    """Return a picture's HTML without its tags, blanks and line ends, so that bytes of several lines stand together."""
    return re.sub(r"<[^>]*>|\s", "", picture._repr_html_())


def packed(data):
    return data.hex()


def pictures(lesson, *, reveal=False):
    info = lesson.keys.tx.crypto_info()
    yield handoff.records(lesson.shake)
    yield handoff.key_derivation(lesson.shake, reveal=reveal)
    yield handoff.struct(info, reveal=reveal)
    yield handoff.overview(lesson.connection, lesson.shake, lesson.keys, lesson.answer, lesson.stream)
    yield handoff.verdict(lesson.answer)
    yield handoff.counters(Counters({}), Counters({"TlsTxSw": 1}))
    tx, rx = lesson.keys.tx, lesson.keys.rx
    number, record = handoff.application_records(lesson.shake, lesson.wire.sent, "sent")[0]
    yield handoff.record_bytes(record, tx.suite, tx.key.reveal(), tx.write_iv.reveal(), number)
    yield handoff.contents(
        handoff.opened(rx, handoff.application_records(lesson.shake, lesson.wire.received, "received"))
    )


def secrets(lesson):
    found = [side.key.reveal() for side in (lesson.keys.tx, lesson.keys.rx)]
    found += [line.secret for line in lesson.shake.secrets.values()]
    if lesson.shake.version is Version.TLS12:
        return [*found, lesson.shake.machine.library.connection.master_key()]
    return [*found, lesson.keys.tx.write_iv.reveal(), lesson.keys.rx.write_iv.reveal()]


def test_no_picture_shows_a_key_unasked(lesson):
    for picture in pictures(lesson):
        for secret in secrets(lesson):
            assert packed(secret) not in plain(picture)
            assert packed(secret) not in repr(picture).replace(" ", "")


def test_keys_are_shown_to_whoever_asks(lesson):
    derivation = handoff.key_derivation(lesson.shake, reveal=True)
    for side in (lesson.keys.tx, lesson.keys.rx):
        assert packed(side.key.reveal()) in plain(derivation)
        assert packed(side.write_iv.reveal()) in plain(derivation)
        assert packed(side.key.reveal()) in plain(handoff.struct(side.crypto_info(), reveal=True))


def test_pictures_are_html_that_a_notebook_may_show_untrusted(lesson):
    for picture in pictures(lesson, reveal=True):
        html = picture._repr_html_()
        tags = set(re.findall(r"<([a-z]+)", html))
        assert tags <= {"div", "span", "table", "thead", "tbody", "tr", "td", "th", "b", "details", "summary"}
        assert not re.search(r"http|url\(|class=|src=|href=", html.replace("HTTP", ""))
        for colour in re.findall(r"(?<![-\w])color:([^;\"]*)", html):
            assert colour == "inherit"  # the text's colour is the page's own, light or dark
        assert html.count("<div") == html.count("</div")
        assert html.count("<span") == html.count("</span")


def test_the_records_are_listed_in_order(lesson):
    html = handoff.records(lesson.shake)._repr_html_()
    transcript = lesson.shake.machine.transcript
    assert html.count("client → server") == sum(direction == "sent" for direction, _ in transcript)
    assert "client hello" in html
    assert "server hello" in html
    assert "finished" in html
    assert "not opened" not in html
    for _, record in transcript:
        assert record.raw[:5].hex(" ") in html


def test_the_struct_is_shown_field_by_field(lesson):
    info = lesson.keys.tx.crypto_info()
    html = handoff.struct(info, reveal=True)._repr_html_()
    for name, offset, size in ktls.layout(info.cipher_type):
        assert name in html
        assert f">{offset}</td>" in html
        assert f">{size}</td>" in html
    assert packed(bytes(info.pack())[:16]) in plain(handoff.struct(info, reveal=True))


def test_a_record_is_taken_apart_to_its_last_byte(lesson):
    number, record = handoff.application_records(lesson.shake, lesson.wire.sent, "sent")[0]
    tx = lesson.keys.tx
    picture = handoff.record_bytes(record, tx.suite, tx.key.reveal(), tx.write_iv.reveal(), number)
    text = plain(picture)
    for part in ("type", "version", "length", "ciphertext", "tag"):
        assert part in text
    assert packed(record.payload[-16:]) in text
    assert "GET/HTTP/1.1" in text
    assert ("explicitnonce" in text) == bool(tx.suite.version is Version.TLS12 and tx.suite.cipher.explicit_nonce_bytes)
    assert "GET" not in plain(handoff.record_bytes(record.raw, tx.suite))
    assert "ciphertext" not in plain(handoff.record_bytes(record.raw))
    with pytest.raises(ValueError, match="does not open"):
        handoff.record_bytes(record, tx.suite, tx.key.reveal(), tx.write_iv.reveal(), number + 1)


def test_the_pictures_say_what_the_standards_say_of_this_version(lesson):
    """What differs between TLS 1.2 and 1.3: the write IV and its place, what the tag covers, what is encrypted."""
    tx, tls12 = lesson.keys.tx, lesson.shake.version is Version.TLS12
    struct = unescape(handoff.struct(tx.crypto_info())._repr_html_())
    salted = bool(tx.suite.cipher.salt_bytes)
    assert ("the next record's explicit nonce" in struct) == (tls12 and salted)  # RFC 5288, 3
    assert ("the write IV's first part" in struct) == (salted and not tls12)  # RFC 8446, 5.3
    assert f"{len(tx.write_iv)} of write IV" in repr(handoff.key_derivation(lesson.shake))
    records = unescape(handoff.records(lesson.shake)._repr_html_())
    assert ("only Finished is protected" in records) == tls12
    assert ("handshake's own traffic secrets" in records) != tls12
    assert ("from here on this direction is protected" in records) == tls12  # RFC 5246, 7.1
    assert ("only for middleboxes" in records) != tls12  # RFC 8446, D.4
    number, record = handoff.application_records(lesson.shake, lesson.wire.sent, "sent")[0]
    picture = handoff.record_bytes(record, tx.suite, tx.key.reveal(), tx.write_iv.reveal(), number)._repr_html_()
    assert ("its type and its padding" in picture) != tls12  # RFC 8446, 5.2
    assert ("number, type, version and length" in picture) == tls12  # RFC 5246, 6.2.3.3
    assert ("no longer names the version" in picture) != tls12  # RFC 8446, 5.2


def test_a_counter_is_explained_as_the_kernel_documents_it():
    """Nobody promises not to pad, and a session is counted when its keys are taken, not when it sends."""
    zero = Counters(dict.fromkeys(("TlsTxSw", "TlsDecryptRetry", "TlsRxNoPadViolation"), 0))
    page = handoff.counters(zero, zero)._repr_html_()
    assert page.count("TLS_RX_EXPECT_NO_PAD was set") == 2
    assert "promised" not in page
    assert "sessions so far whose send keys the kernel took" in page


def test_what_was_opened_by_hand_is_what_the_stream_gave(lesson):
    assert lesson.reply.endswith(PAGE)
    received = handoff.opened(
        lesson.keys.rx, handoff.application_records(lesson.shake, lesson.wire.received, "received")
    )
    assert handoff.application_data(received) == lesson.reply
    assert [record.raw for record in lesson.queued] == [
        record.raw
        for _, record in handoff.application_records(lesson.shake, lesson.wire.received, "received")[
            : len(lesson.queued)
        ]
    ]
    sent = handoff.opened(lesson.keys.tx, handoff.application_records(lesson.shake, lesson.wire.sent, "sent"))
    assert handoff.application_data(sent) == REQUEST
    assert (sent[-1].content_type, sent[-1].plain) == (ContentType.ALERT, b"\x01\x00")
    assert "close_notify" in repr(handoff.contents(sent))


def test_the_overview_marks_what_is_done(lesson):
    nothing = repr(handoff.overview()).split("\n")
    assert [line.split(": ")[0] for line in nothing] == [
        "1 connect",
        "2 handshake",
        "3 export",
        "4 install",
        "5 transfer",
    ]
    assert "…" in nothing[0]
    half = repr(handoff.overview(lesson.connection, lesson.shake)).split("\n")
    assert ["✓" in line for line in half] == [True, True, False, False, False]
    assert "…" in half[2]
    whole = handoff.overview(lesson.connection, lesson.shake, lesson.keys, lesson.answer, lesson.stream)
    assert lesson.stream.record_layer in repr(whole)
    assert ("✗" in repr(whole)) == (not lesson.answer)


def test_the_verdict_says_what_the_kernel_did():
    taken = Installed(
        suite=Suite.TLS_AES_256_GCM_SHA384, directions=(Direction.TX,), counters=Counters({}), sequence={}
    )
    assert "what is sent" in repr(handoff.verdict(taken))
    refused = Refused(step="setsockopt(TCP_ULP)", reason=Why.NO_TLS_MODULE, errno=2)
    assert "ENOENT" in repr(handoff.verdict(refused))
    assert "userspace" in repr(handoff.verdict(refused))
    half = Refused(step="x", reason=Why.CIPHER_REFUSED, errno=2, directions=(Direction.TX,))
    assert "keeps that direction" in repr(handoff.verdict(half))


def test_counters_show_what_changed():
    before, after = Counters({"TlsTxSw": 3, "TlsRxSw": 3}), Counters({"TlsTxSw": 4, "TlsRxSw": 3})
    picture = handoff.counters(before, after)
    assert repr(picture) == "TlsTxSw +1"
    assert "<b>+1</b>" in picture._repr_html_()
    assert "tls module is not loaded" in repr(handoff.counters(Counters({}), Counters({})))
    assert repr(handoff.counters(after, after)) == "nothing changed"


def test_a_wrong_way_or_connection_is_refused(lesson):
    with pytest.raises(UsageError, match="sent or received"):
        handoff.application_records(lesson.shake, [], "up")
    with demo_server() as other, pytest.raises(UsageError, match="no such connection"):
        other.wire(lesson.connection)
