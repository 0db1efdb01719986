"""The alert among records that OpenSSL does not read any more, because it failed to write to the same socket.

It had the socket, so nobody counted the records that it has read, and the number of the next one is not known. It is
found by trying: an alert mostly comes early.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from ktlslab.linux import tcpinfo
from ktlslab.stages.keys import first_keys
from ktlslab.tls.alerts import ALERT_BYTES, Alert
from ktlslab.tls.protect import open_record
from ktlslab.tls.records import HEADER_BYTES, MAX_PLAINTEXT, ContentType, RecordSplitter
from ktlslab.tls.suites import Version

if TYPE_CHECKING:
    from ktlslab.stages.handshaking import Handshake

_MAX_BYTES = 1 << 18  # of what is unread
_MAX_TRIES = 1 << 10  # some 20 µs each
_MIN_RECORD_BYTES = HEADER_BYTES + 1 + 16  # the inner type, or a byte of data, and a tag


def unread_alert(handshake: Handshake) -> Alert | None:
    """Return the fatal alert in a socket's receive queue, if one is found; what is there is discarded.

    None also if the peer has changed its keys, pads its records, or has sent very many before.
    """
    sock, suite = handshake.connection.socket, handshake.suite
    splitter, size = RecordSplitter(), 0
    while size < _MAX_BYTES and (part := sock.recv(MAX_PLAINTEXT, socket.MSG_DONTWAIT)):
        splitter.feed(part)
        size += len(part)
    if suite is None:
        return None
    _, (key, write_iv) = first_keys(handshake)
    first = handshake.machine.sequence_numbers[1]
    tries = min(_MAX_TRIES, (tcpinfo.moved(sock)[1] - size) // _MIN_RECORD_BYTES + 1)
    cipher = suite.cipher
    more = 1 if suite.version is Version.TLS13 else cipher.explicit_nonce_bytes  # the inner type, or part of the nonce
    alert_bytes = more + ALERT_BYTES + cipher.tag_bytes
    for before, record in enumerate(splitter):
        if record.header.length != alert_bytes:
            continue
        for sequence in range(first + before, first + before + tries):
            try:
                kind, contents = open_record(suite, key, write_iv, sequence, record.raw)
            except ValueError:  # another number
                continue
            if kind == ContentType.ALERT and (alert := Alert.parse(contents)).fatal:
                return alert
    return None
