"""Installing on whatever kernel this is: the answer agrees with what the probe found, and a refusal harms nothing."""

from __future__ import annotations

import errno

from ktlslab.linux import capabilities
from ktlslab.linux.ktls import Direction
from ktlslab.stages import BOTH, Installed, Refused, Stream, Why, export, install
from ktlslab.tls.suites import Suite

SUITE = Suite.TLS_AES_128_GCM_SHA256


def test_the_answer_is_what_the_probe_promises_and_the_session_goes_on_either_way(tls_pair):
    pair = tls_pair(suite=SUITE, first=b"data")
    keys = export(pair.handshake)
    answer = install(pair.connection, keys)
    if capabilities.ulp():
        assert isinstance(answer, Installed)
        assert keys.tx.key.wiped
    else:
        assert answer == Refused(step="probing setsockopt(TCP_ULP)", reason=Why.NO_TLS_MODULE, errno=errno.ENOENT)
        assert (
            repr(answer) == "Refused(NO_TLS_MODULE at probing setsockopt(TCP_ULP): ENOENT (No such file or directory))"
        )
        assert not keys.tx.key.wiped
    assert bool(answer) == bool(capabilities.ulp())
    assert "<" in answer._repr_html_()
    stream = Stream(pair.connection, pair.handshake, answer.directions)
    assert stream.recv() == b"data"
    stream.send(b"back")
    assert pair.tls.recv(9) == b"back"


def test_a_cipher_that_the_probe_refuses_is_refused_before_the_socket_is_touched(tls_pair, monkeypatch):
    from ktlslab.linux.capabilities import Answer

    answers = {Direction.TX: Answer(accepted=True), Direction.RX: Answer(accepted=False, errno=errno.ENOENT)}
    monkeypatch.setattr(capabilities, "ulp", lambda: Answer(accepted=True))
    monkeypatch.setattr(capabilities, "accepts", lambda _version, _cipher, direction: answers[direction])
    pair = tls_pair(suite=SUITE)
    keys = export(pair.handshake)
    refused = install(pair.connection, keys, BOTH)
    assert (refused.reason, refused.directions) == (Why.CIPHER_REFUSED, ())
    assert refused.step == "probing setsockopt(SOL_TLS, TLS_RX)"
    pair.tls.sendall(b"untouched")
    assert Stream(pair.connection, pair.handshake).recv() == b"untouched"
