"""kTLS as the kernel offers it: attaching the tls module, installing keys, and the type of each record.

A socket becomes a kTLS socket in two steps. ``setsockopt(SOL_TCP, TCP_ULP, "tls")`` puts the tls module between the
socket and TCP; bytes still pass in clear. ``setsockopt(SOL_TLS, TLS_TX or TLS_RX, struct)`` hands over one direction.
The structs of the ciphers differ only in their lengths, and the C compiler lays them out.

Source: Documentation/networking/tls.rst, include/uapi/linux/tls.h.
"""

from __future__ import annotations

import functools
import socket
import struct
from collections.abc import Callable
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
# The usual ciphers. Trying a cipher that a kernel does not have can take seconds, because the kernel runs modprobe.
COMMON = tuple(cipher.kernel_type for cipher in CIPHERS)
FIELDS = ("iv", "key", "salt", "rec_seq")
_LOADS = 5  # the most modules that a cipher needs: its own and its parts
RECORD_TYPE_SPACE = socket.CMSG_SPACE(1)


class Direction(Enum):
    """The direction of a set of keys: TX for what this end sends, RX for what it receives."""

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
        """Return the struct's bytes; wipe them after use.

        ValueError for an unknown cipher, or a field of the wrong length.
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
        """Parse the struct as getsockopt returns it."""
        head = ffi.from_buffer("struct tls_crypto_info *", data)
        places = _places(head.cipher_type)
        values: dict[str, Any] = {name: bytes(data[places[name]]) for name in FIELDS}
        return cls(version=head.version, cipher_type=head.cipher_type, **values)


def layout(cipher_type: int) -> list[tuple[str, int, int]]:
    """Return (field, offset, bytes) of the cipher's struct, in memory order."""
    head = ffi.typeof("struct tls_crypto_info")
    parts = [(f"info.{name}", part.offset, ffi.sizeof(part.type)) for name, part in head.fields]
    parts += [(name, place.start, place.stop - place.start) for name, place in _places(cipher_type).items()]
    return sorted(parts, key=lambda part: part[1])


def attach(sock: socket.socket) -> None:
    """Attach the tls module to an established socket. OSError: ENOENT no module, ENOTCONN, EEXIST already attached."""
    sock.setsockopt(socket.IPPROTO_TCP, TCP_ULP, ULP_NAME.encode())


def attached(sock: socket.socket) -> bool:
    """Whether the tls module is attached to the socket."""
    return sock.getsockopt(socket.IPPROTO_TCP, TCP_ULP, 16).rstrip(b"\0") == ULP_NAME.encode()


def set_keys(sock: socket.socket, direction: Direction, packed: bytearray) -> None:
    """Hand one direction's keys to the kernel. OSError: ENOENT no such cipher, EINVAL version or length, EBUSY set.

    If a cipher's modules must be loaded first, the kernel waits up to 60 s for each, then answers ETIMEDOUT and
    continues loading (crypto_larval_wait in crypto/api.c), so the call is repeated. In a guest that counts
    instructions those seconds pass at once, because its clock jumps while it waits for the host's disk.
    """
    for left in reversed(range(_LOADS)):
        try:
            sock.setsockopt(SOL_TLS, direction.value, packed)
        except TimeoutError:
            if not left:
                raise
        else:
            return


def installed(sock: socket.socket, direction: Direction) -> tuple[int, int] | None:
    """Return (TLS version, cipher type) of one direction's keys, or None if the kernel has none for this socket.

    Only this head of the struct is asked for, so no key is copied to this process.
    """
    try:
        head = sock.getsockopt(SOL_TLS, direction.value, ffi.sizeof("struct tls_crypto_info"))
    except OSError:  # EBUSY: no keys; ENOPROTOOPT, EOPNOTSUPP: no tls module on this socket
        return None
    info = ffi.from_buffer("struct tls_crypto_info *", head)
    return info.version, info.cipher_type


def get_keys(sock: socket.socket, direction: Direction, cipher_type: int) -> CryptoInfo:
    """Read back one direction's current keys and sequence number. OSError (EBUSY, ENOPROTOOPT) if none are set."""
    return CryptoInfo.unpack(sock.getsockopt(SOL_TLS, direction.value, _size(cipher_type)))


def sequence_number(sock: socket.socket, direction: Direction, cipher_type: int) -> int:
    """Return the kernel's sequence number: the installed one plus the records made (TX) or received (RX) since."""
    return int.from_bytes(
        sock.getsockopt(SOL_TLS, direction.value, _size(cipher_type))[_places(cipher_type)["rec_seq"]]
    )


def to_watch(sock: socket.socket, cipher_type: int | None) -> tuple[Callable[[], int], int, int]:
    """Return (fileno, bytes, at): with these `_hot.watched` tells TCP's state and the sequence numbers of TX and RX.

    Each is 0 where the kernel does not tell. Without a cipher only the state (`tcpinfo`) is asked for.
    """
    size, at = (_size(cipher_type), _places(cipher_type)["rec_seq"].start) if cipher_type is not None else (0, 0)
    return sock.fileno, size, at


def send_record(sock: socket.socket, data: bytes | bytearray | memoryview, record_type: int) -> int:
    """Send a record of any type by sendmsg(2) with TLS_SET_RECORD_TYPE; return the number of bytes sent."""
    return sock.sendmsg([data], [(SOL_TLS, TLS_SET_RECORD_TYPE, bytes([record_type]))])


def set_max_payload(sock: socket.socket, size: int) -> None:
    """Limit the records that the kernel makes to `size` bytes of payload, for RFC 8449's record_size_limit.

    In TLS 1.3 the limit that a peer announces includes the record type, so set one less. OSError: ENOPROTOOPT if the
    kernel does not have the option (TLS_TX_MAX_PAYLOAD_LEN), EINVAL if `size` is not between 64 (TLS 1.3: 63) and
    16384, EBUSY while a record is partly filled.
    """
    sock.setsockopt(SOL_TLS, lib.TLS_TX_MAX_PAYLOAD_LEN, struct.pack("=H", size))


def get_max_payload(sock: socket.socket) -> int:
    """Return how many bytes a record may hold. OSError as in `set_max_payload`."""
    return int(struct.unpack("=H", sock.getsockopt(SOL_TLS, lib.TLS_TX_MAX_PAYLOAD_LEN, 2))[0])


def set_no_pad(sock: socket.socket, *, expect: bool) -> None:
    """Tell the kernel not to expect padding, so that it can decrypt straight into the reader's memory.

    A padded record is then decrypted twice (TlsRxNoPadViolation). Set this after TLS_RX. OSError: EINVAL in TLS 1.2 or
    without keys, ENOPROTOOPT if the kernel does not have the option (TLS_RX_EXPECT_NO_PAD).
    """
    sock.setsockopt(SOL_TLS, lib.TLS_RX_EXPECT_NO_PAD, int(expect))


def get_no_pad(sock: socket.socket) -> bool:
    """Whether `set_no_pad` is on. OSError as in `set_no_pad`."""
    return bool(sock.getsockopt(SOL_TLS, lib.TLS_RX_EXPECT_NO_PAD))


def set_zerocopy_sendfile(sock: socket.socket, *, on: bool) -> None:
    """Promise not to change files while sendfile(2) sends them, so that an encrypting network card may read them.

    This has no effect if the kernel encrypts. OSError: ENOPROTOOPT if the kernel does not have the option
    (TLS_TX_ZEROCOPY_RO).
    """
    sock.setsockopt(SOL_TLS, lib.TLS_TX_ZEROCOPY_RO, int(on))


def _kind(cipher_type: int) -> Any:
    if cipher_type not in STRUCTS:
        raise ValueError(f"no struct for cipher type {cipher_type} in linux/tls.h; known are {sorted(STRUCTS)}")
    return ffi.typeof(f"struct {STRUCTS[cipher_type]}")


@functools.cache  # called while sending
def _size(cipher_type: int) -> int:
    return int(ffi.sizeof(_kind(cipher_type)))


@functools.cache
def _places(cipher_type: int) -> dict[str, slice]:
    """Return where each field lies. To cffi an empty array (ChaCha20's salt) is a pointer, without a size."""
    fields = {name: part for name, part in _kind(cipher_type).fields if name in FIELDS}
    sizes = {name: ffi.sizeof(part.type) if part.type.kind == "array" else 0 for name, part in fields.items()}
    return {name: slice(part.offset, part.offset + sizes[name]) for name, part in fields.items()}
