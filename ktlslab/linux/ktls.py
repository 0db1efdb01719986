"""kTLS as the kernel offers it: one protocol to attach, two sets of keys to install, one byte beside each record.

A socket becomes a kTLS socket in two steps. ``setsockopt(SOL_TCP, TCP_ULP, "tls")`` puts the tls module between the
socket and TCP; bytes still pass in clear. ``setsockopt(SOL_TLS, TLS_TX or TLS_RX, struct)`` hands over one direction.
The struct differs by cipher only in its lengths, and the C compiler lays it out.

Source: Documentation/networking/tls.rst, include/uapi/linux/tls.h.
"""

from __future__ import annotations

import functools
import socket
import struct
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from ktlslab.linux import _native
from ktlslab.tls.suites import CIPHERS, RARE_CIPHERS

ffi, lib = _native.ffi, _native.lib

TCP_ULP = 31
ULP_NAME = "tls"
SOL_TLS: int = lib.SOL_TLS
TLS_SET_RECORD_TYPE: int = lib.TLS_SET_RECORD_TYPE
TLS_GET_RECORD_TYPE: int = lib.TLS_GET_RECORD_TYPE

# Cipher type (TLS_CIPHER_*) -> the struct that carries its keys.
STRUCTS: dict[int, str] = {cipher.kernel_type: cipher.kernel_struct for cipher in CIPHERS + RARE_CIPHERS}
# Those that kernels usually have. Asking for one that a kernel has not built costs it a search by modprobe: seconds.
COMMON = tuple(cipher.kernel_type for cipher in CIPHERS)
FIELDS = ("iv", "key", "salt", "rec_seq")
_LOADS = 5  # modules that a cipher takes, at most: itself, and what it is made of
RECORD_TYPE_SPACE = socket.CMSG_SPACE(1)


class Direction(Enum):
    """Whose keys: TX for what this end sends, RX for what it receives."""

    TX = lib.TLS_TX
    RX = lib.TLS_RX


@dataclass(frozen=True, slots=True, kw_only=True)
class CryptoInfo:
    """The struct's contents, by the kernel's field names. `version`: 0x0303 or 0x0304; `cipher_type`: TLS_CIPHER_*."""

    version: int
    cipher_type: int
    iv: bytes = field(repr=False)
    key: bytes = field(repr=False)
    salt: bytes = field(repr=False)
    rec_seq: bytes

    def pack(self) -> bytearray:
        """Return the struct's bytes, to be wiped after use.

        ValueError: an unknown cipher, or a field of wrong length.
        """
        places = _places(self.cipher_type)
        packed = bytearray(_size(self.cipher_type))
        head = ffi.from_buffer("struct tls_crypto_info *", packed)
        head.version, head.cipher_type = self.version, self.cipher_type
        for name in FIELDS:
            value, place = getattr(self, name), places[name]
            size = place.stop - place.start
            if size != len(value):
                raise ValueError(f"{name} takes {size} bytes for cipher type {self.cipher_type}, not {len(value)}")
            packed[place] = value
        return packed

    @classmethod
    def unpack(cls, data: bytes) -> CryptoInfo:
        """Read the struct back, as getsockopt gives it."""
        head = ffi.from_buffer("struct tls_crypto_info *", data)
        places = _places(head.cipher_type)
        values: dict[str, Any] = {name: bytes(data[places[name]]) for name in FIELDS}
        return cls(version=head.version, cipher_type=head.cipher_type, **values)


def layout(cipher_type: int) -> list[tuple[str, int, int]]:
    """Return (field, offset, bytes) of the cipher's struct, in the order in which they lie in memory."""
    head = ffi.typeof("struct tls_crypto_info")
    parts = [(f"info.{name}", part.offset, ffi.sizeof(part.type)) for name, part in head.fields]
    parts += [(name, place.start, place.stop - place.start) for name, place in _places(cipher_type).items()]
    return sorted(parts, key=lambda part: part[1])


def attach(sock: socket.socket) -> None:
    """Put the tls module on an established socket. OSError: ENOENT no module, ENOTCONN, EEXIST already there."""
    sock.setsockopt(socket.IPPROTO_TCP, TCP_ULP, ULP_NAME.encode())


def attached(sock: socket.socket) -> bool:
    """Whether the socket has the tls module on it."""
    return sock.getsockopt(socket.IPPROTO_TCP, TCP_ULP, 16).rstrip(b"\0") == ULP_NAME.encode()


def set_keys(sock: socket.socket, direction: Direction, packed: bytearray) -> None:
    """Hand one direction's keys to the kernel. OSError: ENOENT no such cipher, EINVAL version or length, EBUSY set.

    Where a cipher's modules must be loaded first the kernel waits 60 s for each, then answers ETIMEDOUT and goes on
    loading (crypto_larval_wait in crypto/api.c): it is asked again. In a guest that counts instructions those seconds
    are over at once, for its time leaps while it waits for the host's disk.
    """
    for left in reversed(range(_LOADS)):
        try:
            sock.setsockopt(SOL_TLS, direction.value, packed)
        except TimeoutError:
            if not left:
                raise
        else:
            return


def get_keys(sock: socket.socket, direction: Direction, cipher_type: int) -> CryptoInfo:
    """Read one direction's live keys and sequence number back. OSError (EBUSY, ENOPROTOOPT): none are set."""
    return CryptoInfo.unpack(sock.getsockopt(SOL_TLS, direction.value, _size(cipher_type)))


def sequence_number(sock: socket.socket, direction: Direction, cipher_type: int) -> int:
    """How many records the kernel has made (TX) or taken (RX), counted from the number that it was given."""
    return int.from_bytes(
        sock.getsockopt(SOL_TLS, direction.value, _size(cipher_type))[_places(cipher_type)["rec_seq"]]
    )


def send_record(sock: socket.socket, data: bytes | bytearray | memoryview, record_type: int) -> int:
    """Send a record of any type by sendmsg(2) with TLS_SET_RECORD_TYPE; how many bytes went. OSError as there."""
    return sock.sendmsg([data], [(SOL_TLS, TLS_SET_RECORD_TYPE, bytes([record_type]))])


def set_max_payload(sock: socket.socket, size: int) -> None:
    """Let no record that the kernel makes hold more than `size` bytes: RFC 8449's record_size_limit for the sender.

    In TLS 1.3 the limit that a peer announces counts the type of the record as well: set one less. OSError: ENOPROTOOPT
    the kernel does not know the option (TLS_TX_MAX_PAYLOAD_LEN), EINVAL not within 64 (TLS 1.3: 63) and 16384, EBUSY a
    record is half filled.
    """
    sock.setsockopt(SOL_TLS, lib.TLS_TX_MAX_PAYLOAD_LEN, struct.pack("=H", size))


def get_max_payload(sock: socket.socket) -> int:
    """How many bytes a record may hold. OSError as in `set_max_payload`."""
    return int(struct.unpack("=H", sock.getsockopt(SOL_TLS, lib.TLS_TX_MAX_PAYLOAD_LEN, 2))[0])


def set_no_pad(sock: socket.socket, *, expect: bool) -> None:
    """Tell the kernel that the peer pads no records, so that it may decrypt straight into the reader's memory.

    One that is padded after all is decrypted twice (TlsRxNoPadViolation). After TLS_RX. OSError: EINVAL in TLS 1.2 or
    without keys, ENOPROTOOPT the kernel does not know the option (TLS_RX_EXPECT_NO_PAD).
    """
    sock.setsockopt(SOL_TLS, lib.TLS_RX_EXPECT_NO_PAD, int(expect))


def get_no_pad(sock: socket.socket) -> bool:
    """Whether `set_no_pad` is on. OSError as there."""
    return bool(sock.getsockopt(SOL_TLS, lib.TLS_RX_EXPECT_NO_PAD))


def set_zerocopy_sendfile(sock: socket.socket, *, on: bool) -> None:
    """Promise that files are not changed while sendfile(2) sends them: a network card that encrypts may then read them.

    It changes nothing where the kernel encrypts itself. OSError: ENOPROTOOPT the kernel does not know the option
    (TLS_TX_ZEROCOPY_RO).
    """
    sock.setsockopt(SOL_TLS, lib.TLS_TX_ZEROCOPY_RO, int(on))


def _kind(cipher_type: int) -> Any:
    if cipher_type not in STRUCTS:
        raise ValueError(f"no struct for cipher type {cipher_type} in linux/tls.h; known are {sorted(STRUCTS)}")
    return ffi.typeof(f"struct {STRUCTS[cipher_type]}")


@functools.cache  # asked for in the midst of sending
def _size(cipher_type: int) -> int:
    return int(ffi.sizeof(_kind(cipher_type)))


@functools.cache
def _places(cipher_type: int) -> dict[str, slice]:
    """Where each field lies. An array of no bytes, ChaCha20's salt, is a pointer to cffi and has no size there."""
    fields = {name: part for name, part in _kind(cipher_type).fields if name in FIELDS}
    sizes = {name: ffi.sizeof(part.type) if part.type.kind == "array" else 0 for name, part in fields.items()}
    return {name: slice(part.offset, part.offset + sizes[name]) for name, part in fields.items()}
