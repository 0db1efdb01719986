"""The structs, as the C compiler lays them out, and the socket options' answers where no kTLS is needed."""

from __future__ import annotations

import errno
import socket
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktlslab import guests
from ktlslab.linux import ktls
from ktlslab.linux.ktls import CryptoInfo, Direction
from ktlslab.tls.suites import CIPHERS, RARE_CIPHERS

BYTES = {  # iv, key, salt: linux/tls.h
    51: (8, 16, 4),
    52: (8, 32, 4),
    53: (8, 16, 4),
    54: (12, 32, 0),
    55: (8, 16, 4),
    56: (8, 16, 4),
    57: (8, 16, 4),
    58: (8, 32, 4),
}


@st.composite
def infos(draw):
    cipher_type = draw(st.sampled_from(sorted(BYTES)))
    iv, key, salt = (draw(st.binary(min_size=n, max_size=n)) for n in BYTES[cipher_type])
    version = draw(st.sampled_from([0x0303, 0x0304]))
    rec_seq = draw(st.binary(min_size=8, max_size=8))
    return CryptoInfo(version=version, cipher_type=cipher_type, iv=iv, key=key, salt=salt, rec_seq=rec_seq)


@given(infos())
def test_what_was_packed_unpacks(info):
    assert CryptoInfo.unpack(bytes(info.pack())) == info


@given(infos())
def test_the_struct_holds_version_and_cipher_and_the_fields_in_the_kernels_order(info):
    head = info.version.to_bytes(2, "little") + info.cipher_type.to_bytes(2, "little")
    assert bytes(info.pack()) == head + info.iv + info.key + info.salt + info.rec_seq


@given(info=infos(), name=st.sampled_from(ktls.FIELDS), change=st.sampled_from([-1, 1]))
def test_a_field_of_another_length_is_refused(info, name, change):
    value = getattr(info, name)
    other = value + b"x" if change > 0 else value[:-1]
    if other != value:
        values = {field: getattr(info, field) for field in ktls.FIELDS} | {name: other}
        wrong = CryptoInfo(version=info.version, cipher_type=info.cipher_type, **values)
        with pytest.raises(ValueError, match=f"{name} takes {len(value)} bytes .* not {len(other)}"):
            wrong.pack()


@given(infos())
def test_the_repr_shows_no_key(info):
    shown = repr(info)
    assert "key" not in shown
    assert "salt" not in shown
    assert "iv=" not in shown


def test_an_unknown_cipher_is_refused_with_those_that_are_known():
    info = CryptoInfo(version=0x0304, cipher_type=99, iv=b"", key=b"", salt=b"", rec_seq=b"")
    with pytest.raises(ValueError, match=r"cipher type 99 .*\[51, 52, 53, 54, 55, 56, 57, 58\]"):
        info.pack()


@pytest.mark.parametrize("cipher", CIPHERS + RARE_CIPHERS, ids=lambda cipher: cipher.name)
def test_the_layout_is_gapless_and_agrees_with_the_suites_table(cipher):
    parts = ktls.layout(cipher.kernel_type)
    sizes = {name: size for name, _, size in parts}
    expected = ["info.version", "info.cipher_type", "iv", "key", "salt", "rec_seq"]
    assert [name for name, _, size in parts if size or name == "salt"] == expected
    assert ktls.STRUCTS[cipher.kernel_type] == cipher.kernel_struct
    assert (sizes["iv"], sizes["key"], sizes["salt"]) == (cipher.iv_bytes, cipher.key_bytes, cipher.salt_bytes)
    at = 0
    for _, offset, size in parts:
        assert offset == at
        at += size


@pytest.mark.parametrize(
    "call",
    [
        lambda sock: ktls.set_max_payload(sock, 512),
        ktls.get_max_payload,
        lambda sock: ktls.set_no_pad(sock, expect=True),
        ktls.get_no_pad,
        lambda sock: ktls.set_zerocopy_sendfile(sock, on=True),
    ],
)
def test_a_socket_without_kernel_tls_takes_none_of_its_options(call):
    with socket.socket() as sock, pytest.raises(OSError, check=lambda e: e.errno) as caught:
        call(sock)
    assert caught.value.errno in {errno.ENOPROTOOPT, errno.EOPNOTSUPP}


def test_a_socket_without_kernel_tls_has_none_attached():
    with socket.socket() as sock:
        assert not ktls.attached(sock)
        with pytest.raises(OSError, check=lambda e: e.errno) as caught:
            ktls.get_keys(sock, Direction.TX, 51)
        assert caught.value.errno in {errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.EINVAL}


def test_an_unconnected_socket_cannot_be_attached():
    with socket.socket() as sock, pytest.raises(OSError, check=lambda e: e.errno) as caught:
        ktls.attach(sock)
    assert caught.value.errno in {errno.ENOTCONN, errno.ENOENT}  # ENOENT: no tls module at all


SLOW = """
import errno, pathlib, socket, sys
from ktlslab.linux import ktls, capabilities

slow = pathlib.Path("/tmp/modprobe")
slow.write_text("#!/bin/sh\\ncase $* in *crypto-*) sleep 70;; esac; exec /sbin/modprobe $*\\n")
slow.chmod(0o755)
pathlib.Path("/proc/sys/kernel/modprobe").write_text(str(slow))
keys = capabilities._made_up(0x0304, ktls.lib.TLS_CIPHER_AES_CCM_128)
with capabilities.connected() as (sock, _):
    ktls.attach(sock)
    try:
        sock.setsockopt(ktls.SOL_TLS, ktls.Direction.TX.value, keys)
    except OSError as error:
        print(errno.errorcode[error.errno])
    ktls.set_keys(sock, ktls.Direction.TX, keys)
    print(ktls.get_keys(sock, ktls.Direction.TX, ktls.lib.TLS_CIPHER_AES_CCM_128).cipher_type)
"""


def test_a_cipher_whose_modules_load_slowly_is_not_called_missing():
    """In a guest that counts instructions, where to sleep costs nothing."""
    done = guests.run(guests.find("6.12"), [sys.executable, "-c", SLOW], clock="instructions", timeout=100)
    assert done.stdout.decode().split() == ["ETIMEDOUT", "53"], done.stderr
