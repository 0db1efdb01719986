"""What installing leaves behind: proof, wiped keys, and an answer where the kernel says no."""

from __future__ import annotations

import errno

import pytest

from ktlslab.errors import UsageError
from ktlslab.linux import capabilities, ktls
from ktlslab.linux.ktls import CryptoInfo, Direction
from ktlslab.stages import BOTH, Refused, Stream, Why, export, install
from ktlslab.tls.suites import Suite

TLS13 = Suite.TLS_AES_256_GCM_SHA384
TLS12 = Suite.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256


def test_this_kernel_takes_every_suite_of_the_table_in_both_directions():
    found = capabilities.probe()
    assert found.ulp
    assert {key: str(answer) for key, answer in found.suites.items() if not answer} == {}
    assert found.ktls


def test_what_the_kernel_reads_back_is_what_was_exported(tls_pair, suite):
    pair = tls_pair(suite=suite)
    keys = export(pair.handshake)
    infos = {Direction.TX: keys.tx.crypto_info(), Direction.RX: keys.rx.crypto_info()}
    installed = install(pair.connection, keys)
    assert installed
    assert installed.sequence == {Direction.TX: keys.tx.sequence, Direction.RX: keys.rx.sequence}
    assert (installed.counters["TlsTxSw"], installed.counters["TlsRxSw"]) == (1, 1)
    for direction, info in infos.items():
        back = ktls.get_keys(pair.connection.socket, direction, suite.cipher.kernel_type)
        assert (back.version, back.key, back.salt, back.rec_seq) == (info.version, info.key, info.salt, info.rec_seq)


def test_installed_keys_are_wiped_and_nothing_shown_holds_one(tls_pair):
    pair = tls_pair(suite=TLS13)
    keys = export(pair.handshake)
    secret = keys.tx.key.reveal()
    installed = install(pair.connection, keys)
    assert keys.tx.key.wiped
    assert keys.rx.write_iv.wiped
    shown = repr(installed) + installed._repr_html_() + repr(keys) + keys._repr_html_()
    assert secret.hex() not in shown
    assert repr(secret) not in shown


def test_only_the_installed_directions_keys_are_wiped_and_the_other_may_follow(tls_pair):
    pair = tls_pair(suite=TLS13, first=b"data")
    keys = export(pair.handshake)
    assert install(pair.connection, keys, (Direction.TX,)).directions == (Direction.TX,)
    assert (keys.tx.key.wiped, keys.rx.key.wiped) == (True, False)
    assert install(pair.connection, keys, (Direction.RX,)).directions == (Direction.RX,)
    assert Stream(pair.connection, pair.handshake, BOTH).recv() == b"data"


def test_keys_are_kept_where_that_is_asked_for(tls_pair):
    pair = tls_pair(suite=TLS13)
    keys = export(pair.handshake)
    assert install(pair.connection, keys, wipe=False)
    assert keys.tx.key.reveal()


def test_a_refusal_names_what_the_kernel_has_taken_before_and_trying_that_again_says_so(tls_pair, monkeypatch):
    """The kernel takes both directions with one version alone: this is how it is made to refuse the second one."""
    pair = tls_pair(suite=TLS13)
    keys = export(pair.handshake)
    other = export(pair.handshake)
    set_keys = ktls.set_keys

    def spoil(sock, direction, packed):
        if direction is Direction.RX:
            packed[:2] = (0x0303).to_bytes(2, "little")
        set_keys(sock, direction, packed)

    monkeypatch.setattr(ktls, "set_keys", spoil)
    answer = install(pair.connection, keys)
    monkeypatch.undo()
    assert isinstance(answer, Refused)
    assert not answer
    assert (answer.step, answer.reason, answer.errno, answer.directions) == (
        "setsockopt(SOL_TLS, TLS_RX)",
        Why.VERSION_REFUSED,
        errno.EINVAL,
        (Direction.TX,),
    )
    assert "EINVAL (Invalid argument); the kernel has TX" in repr(answer)
    assert "the kernel has" in answer._repr_html_()
    assert (keys.tx.key.wiped, keys.rx.key.wiped) == (True, False)
    for given in (keys, other):
        with pytest.raises(UsageError, match="install of TX was already called on this connection"):
            install(pair.connection, given)
    assert install(pair.connection, keys, Direction.RX)
    Stream(pair.connection, pair.handshake, BOTH).send(b"both")
    assert pair.tls.recv(9) == b"both"


def test_a_connection_that_is_over_is_refused_as_not_established(tls_pair):
    pair = tls_pair(suite=TLS12)
    keys = export(pair.handshake)
    pair.close_peer()
    while pair.connection.socket.recv(100):
        pass
    answer = install(pair.connection, keys)
    assert isinstance(answer, Refused)
    assert (answer.step, answer.reason, answer.errno) == ("setsockopt(TCP_ULP)", Why.NOT_ESTABLISHED, errno.ENOTCONN)
    assert not keys.tx.key.wiped


def test_the_kernel_names_a_version_that_it_does_not_take(tls_pair):
    pair = tls_pair(suite=TLS13)
    ktls.attach(pair.connection.socket)
    assert ktls.attached(pair.connection.socket)
    info = CryptoInfo(version=0x0301, cipher_type=51, iv=bytes(8), key=bytes(16), salt=bytes(4), rec_seq=bytes(8))
    with pytest.raises(OSError, match="Invalid argument"):
        ktls.set_keys(pair.connection.socket, Direction.TX, info.pack())
