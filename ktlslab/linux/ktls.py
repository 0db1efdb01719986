"""kTLS as the kernel offers it: one protocol to attach, two sets of keys to install, one byte beside each record.

A socket becomes a kTLS socket in two steps. ``setsockopt(SOL_TCP, TCP_ULP, "tls")`` puts the tls module between the
socket and TCP; bytes still pass in clear. ``setsockopt(SOL_TLS, TLS_TX or TLS_RX, struct)`` hands over one direction.
The struct differs by cipher only in its lengths, and the C compiler lays it out.

Source: Documentation/networking/tls.rst, include/uapi/linux/tls.h.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from ktlslab.linux import _native

ffi, lib = _native.ffi, _native.lib

TCP_ULP = 31
SOL_TLS: int = lib.SOL_TLS
TLS_SET_RECORD_TYPE: int = lib.TLS_SET_RECORD_TYPE
TLS_GET_RECORD_TYPE: int = lib.TLS_GET_RECORD_TYPE

# Cipher type (TLS_CIPHER_*) -> the struct that carries its keys.
STRUCTS: dict[int, str] = {
    lib.TLS_CIPHER_AES_GCM_128: "tls12_crypto_info_aes_gcm_128",
    lib.TLS_CIPHER_AES_GCM_256: "tls12_crypto_info_aes_gcm_256",
    lib.TLS_CIPHER_AES_CCM_128: "tls12_crypto_info_aes_ccm_128",
    lib.TLS_CIPHER_CHACHA20_POLY1305: "tls12_crypto_info_chacha20_poly1305",
}
FIELDS = ("iv", "key", "salt", "rec_seq")
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
        """Return the struct's bytes, to be wiped after use. ValueError: an unknown cipher, or a field of wrong length."""
        info = _new(self.cipher_type)
        info.info.version, info.info.cipher_type = self.version, self.cipher_type
        for name in FIELDS:
            room, value = getattr(info, name), getattr(self, name)
            if len(room) != len(value):
                raise ValueError(f"{name} takes {len(room)} bytes for cipher type {self.cipher_type}, not {len(value)}")
            ffi.buffer(room)[:] = value
        view = ffi.buffer(info)
        packed = bytearray(view)
        view[:] = bytes(len(view))
        return packed

    @classmethod
    def unpack(cls, data: bytes) -> CryptoInfo:
        """Read the struct back, as getsockopt gives it."""
        head = ffi.from_buffer("struct tls_crypto_info *", data)
        info = _new(head.cipher_type)
        ffi.buffer(info)[:] = data[: ffi.sizeof(info[0])]
        values: dict[str, Any] = {name: bytes(ffi.buffer(getattr(info, name))) for name in FIELDS}
        return cls(version=info.info.version, cipher_type=info.info.cipher_type, **values)


def layout(cipher_type: int) -> list[tuple[str, int, int]]:
    """Return (field, offset, bytes) of the cipher's struct, in the order in which they lie in memory."""
    kind = ffi.typeof(f"struct {STRUCTS[cipher_type]}")
    head = ffi.typeof("struct tls_crypto_info")
    parts = [(f"info.{name}", part.offset, ffi.sizeof(part.type)) for name, part in head.fields]
    parts += [(name, part.offset, ffi.sizeof(part.type)) for name, part in kind.fields if name != "info"]
    return sorted(parts, key=lambda part: part[1])


def attach(sock: socket.socket) -> None:
    """Put the tls module on an established socket. OSError: ENOENT no module, ENOTCONN, EEXIST already there."""
    sock.setsockopt(socket.IPPROTO_TCP, TCP_ULP, b"tls")


def attached(sock: socket.socket) -> bool:
    """Whether the socket has the tls module on it."""
    return sock.getsockopt(socket.IPPROTO_TCP, TCP_ULP, 16).rstrip(b"\0") == b"tls"


def set_keys(sock: socket.socket, direction: Direction, packed: bytearray) -> None:
    """Hand one direction's keys to the kernel. OSError: ENOENT no such cipher, EINVAL version or length, EBUSY set."""
    sock.setsockopt(SOL_TLS, direction.value, packed)


def get_keys(sock: socket.socket, direction: Direction, cipher_type: int) -> CryptoInfo:
    """Read one direction's live keys and sequence number back. OSError (EBUSY, ENOPROTOOPT): none are set."""
    size = ffi.sizeof(f"struct {STRUCTS[cipher_type]}")
    return CryptoInfo.unpack(sock.getsockopt(SOL_TLS, direction.value, size))


def sequence_number(sock: socket.socket, direction: Direction, cipher_type: int) -> int:
    """How many records the kernel has made (TX) or taken (RX) under these keys, counted from the number it was given."""
    return int.from_bytes(get_keys(sock, direction, cipher_type).rec_seq, "big")


def _new(cipher_type: int) -> Any:
    if cipher_type not in STRUCTS:
        raise ValueError(f"no struct for cipher type {cipher_type} in linux/tls.h; known are {sorted(STRUCTS)}")
    return ffi.new(f"struct {STRUCTS[cipher_type]} *")
