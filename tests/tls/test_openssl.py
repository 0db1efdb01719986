"""Against OpenSSL: from a key log and the bytes on the wire to its plaintext, and back.

This tests a handoff's arithmetic end to end. If keys, nonces or sequence numbers were wrong in any suite, OpenSSL's
records would not open here, or ours there.
"""

from __future__ import annotations

import pytest
from OpenSSL import SSL

from ktlslab.tls import (
    Alert,
    ContentType,
    HandshakeType,
    Suite,
    Version,
    describe,
    key_block,
    keylog,
    next_traffic_secret,
    traffic_key,
)
from ktlslab.tls.protect import open_record, seal
from ktlslab.tls.suites import CIPHERS

# Suites with certificates whose ciphers `cryptography` has: not PSK, ARIA or SM4, which tests/stages has.
PROVEN = [suite for suite in Suite if suite.cipher in CIPHERS and "_PSK_" not in suite.name]
TLS12 = [suite for suite in PROVEN if suite.version is Version.TLS12]
TLS13 = [suite for suite in PROVEN if suite.version is Version.TLS13]


def tls12_keys(pair, suite):
    """Return ((key, iv) of what the client sends, (key, iv) of what the server sends)."""
    client = pair.client.connection
    keys = key_block(client.master_key(), client.client_random(), client.server_random(), suite)
    return (keys.client_key, keys.client_iv), (keys.server_key, keys.server_iv)


@pytest.mark.parametrize("suite", TLS13)
def test_tls13_both_ways(suite, openssl_pair):
    pair = openssl_pair(suite)
    to_server = traffic_key(pair.secrets[keylog.CLIENT_TRAFFIC_SECRET_0].secret, suite)
    to_client = traffic_key(pair.secrets[keylog.SERVER_TRAFFIC_SECRET_0].secret, suite)

    # OpenSSL's tickets are the server's first records under these keys, so they count (RFC 8446 4.6.1).
    assert pair.after_handshake
    for sequence, record in enumerate(pair.after_handshake):
        kind, message = open_record(suite, *to_client, sequence, record)
        assert (kind, message[0]) == (ContentType.HANDSHAKE, HandshakeType.NEW_SESSION_TICKET)

    # OpenSSL seals, we open.
    pair.client.connection.send(b"question")
    (question,) = pair.client.flush()
    assert open_record(suite, *to_server, 0, question) == (ContentType.APPLICATION_DATA, b"question")
    pair.server.connection.send(b"answer")
    (answer,) = pair.server.flush()
    sequence = len(pair.after_handshake)
    assert open_record(suite, *to_client, sequence, answer) == (ContentType.APPLICATION_DATA, b"answer")
    # The same input gives the same bytes: nothing in TLS 1.3 is random at this point.
    assert seal(suite, *to_client, sequence, ContentType.APPLICATION_DATA, b"answer") == answer

    # We seal, OpenSSL opens: padded data after its own record, then the end.
    pair.server.give(question, seal(suite, *to_server, 1, ContentType.APPLICATION_DATA, b" and more", padding=100))
    assert pair.server.connection.recv(100) == b"question"
    assert pair.server.connection.recv(100) == b" and more"
    pair.server.give(seal(suite, *to_server, 2, ContentType.ALERT, b"\x01\x00"))
    assert_clean_end(pair)


@pytest.mark.parametrize("suite", TLS12)
def test_tls12_both_ways(suite, openssl_pair):
    pair = openssl_pair(suite)
    to_server, to_client = tls12_keys(pair, suite)
    logged = pair.secrets[keylog.CLIENT_RANDOM]
    assert logged.secret == pair.client.connection.master_key()
    assert logged.client_random == pair.client.connection.client_random()

    # Finished was number 0 in both directions.
    pair.client.connection.send(b"question")
    (question,) = pair.client.flush()
    assert open_record(suite, *to_server, 1, question) == (ContentType.APPLICATION_DATA, b"question")
    pair.server.connection.send(b"answer")
    (answer,) = pair.server.flush()
    assert open_record(suite, *to_client, 1, answer) == (ContentType.APPLICATION_DATA, b"answer")

    pair.server.give(question, seal(suite, *to_server, 2, ContentType.APPLICATION_DATA, b" and more"))
    assert pair.server.connection.recv(100) == b"question"
    assert pair.server.connection.recv(100) == b" and more"
    pair.server.give(seal(suite, *to_server, 3, ContentType.ALERT, b"\x01\x00"))
    assert_clean_end(pair)


@pytest.mark.parametrize("suite", [*TLS13, Suite.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256])
def test_openssls_goodbye_is_a_close_notify(suite, openssl_pair):
    pair = openssl_pair(suite)
    pair.client.connection.shutdown()
    (goodbye,) = pair.client.flush()
    if suite.version is Version.TLS13:
        keys, sequence = traffic_key(pair.secrets[keylog.CLIENT_TRAFFIC_SECRET_0].secret, suite), 0
    else:
        keys, sequence = tls12_keys(pair, suite)[0], 1
    kind, alert = open_record(suite, *keys, sequence, goodbye)
    assert kind == ContentType.ALERT
    assert Alert.parse(alert).is_close_notify


@pytest.mark.parametrize("suite", TLS13)
def test_a_key_update_of_ours_is_followed_by_openssl_and_answered(suite, openssl_pair):
    pair = openssl_pair(suite)
    to_server = pair.secrets[keylog.CLIENT_TRAFFIC_SECRET_0].secret
    to_client = pair.secrets[keylog.SERVER_TRAFFIC_SECRET_0].secret
    request = bytes((HandshakeType.KEY_UPDATE, 0, 0, 1, 1))  # update_requested, RFC 8446 4.6.3
    pair.server.give(seal(suite, *traffic_key(to_server, suite), 0, ContentType.HANDSHAKE, request))
    to_server = next_traffic_secret(to_server, suite)
    # The sequence number starts again with the new key.
    pair.server.give(seal(suite, *traffic_key(to_server, suite), 0, ContentType.APPLICATION_DATA, b"new key"))
    assert pair.server.connection.recv(100) == b"new key"

    pair.server.connection.send(b"mine too")
    update, data = pair.server.flush()
    sequence = len(pair.after_handshake)
    kind, message = open_record(suite, *traffic_key(to_client, suite), sequence, update)
    assert (kind, message) == (ContentType.HANDSHAKE, bytes((HandshakeType.KEY_UPDATE, 0, 0, 1, 0)))
    to_client = next_traffic_secret(to_client, suite)
    _, plaintext = open_record(suite, *traffic_key(to_client, suite), 0, data)
    assert plaintext == b"mine too"


def test_large_writes_are_cut_and_counted(openssl_pair):
    suite = Suite.TLS_CHACHA20_POLY1305_SHA256
    pair = openssl_pair(suite)
    keys = traffic_key(pair.secrets[keylog.CLIENT_TRAFFIC_SECRET_0].secret, suite)
    sent = bytes(range(256)) * 200
    pair.client.connection.sendall(sent)
    opened = [open_record(suite, *keys, n, record) for n, record in enumerate(pair.client.flush())]
    assert len(opened) == 4
    assert b"".join(plaintext for _, plaintext in opened) == sent


@pytest.mark.parametrize(
    ("suite", "server_says"),
    [
        (Suite.TLS_AES_128_GCM_SHA256, ["server_hello"]),
        (
            Suite.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            ["server_hello", "certificate", "server_key_exchange", "server_hello_done"],
        ),
    ],
)
def test_a_handshake_on_the_wire_is_described(suite, server_says, openssl_pair):
    pair = openssl_pair(suite)
    client, server = (list(map(describe, side.sent)) for side in (pair.client, pair.server))
    assert client[0].startswith("handshake, ")
    assert client[0].endswith(": client_hello")
    in_clear = [line.split(": ")[1] for line in server if line.startswith("handshake") and ": " in line]
    assert [name for names in in_clear for name in names.split(", ")][: len(server_says)] == server_says
    hidden = "application_data" if suite.version is Version.TLS13 else "handshake"
    assert server[-1].startswith(hidden)
    assert "encrypted" in server[-1]


def assert_clean_end(pair):
    with pytest.raises(SSL.ZeroReturnError):
        pair.server.connection.recv(100)
