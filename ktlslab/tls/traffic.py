"""Application data through OpenSSL: pyOpenSSL's private names, for calls that are made once per operation.

pyOpenSSL's methods allocate a buffer, copy, and raise an exception at nearly every call. In an echo of 64 bytes this
cost more than the encryption, and would make userspace TLS look slower than it is. So a stream calls OpenSSL from C, by
the addresses that `FUNCTIONS` and `Traffic` give it (`SSL._lib`, `SSL._ffi`, `Connection._ssl`), and what is sealed and
opened here goes around those methods. `tests/stages` fails if a new pyOpenSSL renames one.
"""
# ruff: noqa: SLF001 - see above

from __future__ import annotations

import errno
import os
from typing import Any

from cryptography.hazmat.bindings._rust import _openssl
from OpenSSL import SSL

from .records import MAX_PLAINTEXT

Buffer = bytes | bytearray | memoryview

_ffi: Any = SSL._ffi  # type: ignore[attr-defined]
_lib: Any = SSL._lib  # type: ignore[attr-defined]
_OVERHEAD = 64  # bytes; header, explicit nonce, tag and inner type never take more
_MAX_BYTES = 1 << 30  # per call of OpenSSL, which takes an int


def _address(pointer: Any) -> int:
    return int(_ffi.cast("uintptr_t", pointer))


# Where OpenSSL's functions are, in the order of `struct functions` in linux/native/tls.h.
FUNCTIONS = tuple(
    _address(_ffi.addressof(_openssl.lib, name))  # `_lib` is a module of names without addresses
    for name in (
        *("SSL_write", "SSL_read", "SSL_pending", "SSL_get_error", "ERR_peek_error", "ERR_clear_error"),
        *("BIO_write", "BIO_read", "BIO_get_mem_data"),
    )
)


class Traffic:
    """Sealing and opening on a connection whose handshake is over, and the handing over of both to C.

    OpenSSL's connections are not safe to use in two threads at once (openssl-threads(7)): `seal` and `open_into` raise
    OSError EBUSY where another thread is in one of them.
    """

    def __init__(self, connection: SSL.Connection) -> None:
        self._connection: Any = connection
        self._ssl: Any = self._connection._ssl
        self._incoming: Any = self._connection._into_ssl
        self._outgoing: Any = self._connection._from_ssl
        self.uncounted = False  # some records were not counted: too late for a handoff
        self._busy = False
        self._room(MAX_PLAINTEXT)

    # For C: the addresses of the SSL and of its memory BIOs. What goes through them is not counted.

    def own(self, descriptor: int) -> tuple[int, int, int]:
        """Let OpenSSL read and write the socket itself, by its own system calls. Returns 0 for the BIOs."""
        self.uncounted = True
        _lib.SSL_set_fd(self._ssl, descriptor)
        self._incoming = self._outgoing = None
        return _address(self._ssl), 0, 0

    def memory(self) -> tuple[int, int, int]:
        """Let OpenSSL read and write memory, also where it had the socket."""
        self.uncounted = True
        if self._incoming is None:
            self._incoming, self._outgoing = (_lib.BIO_new(_lib.BIO_s_mem()) for _ in range(2))
            for memory in (self._incoming, self._outgoing):
                _lib.BIO_set_mem_eof_return(memory, -1)
            _lib.SSL_set_bio(self._ssl, self._incoming, self._outgoing)  # which frees them with the connection
        return _address(self._ssl), _address(self._incoming), _address(self._outgoing)

    @property
    def ended(self) -> bool:
        """Whether the peer's close_notify has come, which SSL_get_error takes for EOF where user_canceled preceded it.

        A fatal alert counts as well: look at its error first. Java sends both alerts at each end (RFC 8446, 6.1).
        """
        return bool(_lib.SSL_get_shutdown(self._ssl) & _lib.SSL_RECEIVED_SHUTDOWN)

    def explained(self, answer: int, error: int) -> SSL.Error:
        """Return pyOpenSSL's exception for what a function has answered, and left in errno."""
        _ffi.errno = error
        try:
            self._connection._raise_ssl_error(self._ssl, answer)
        except SSL.Error as failure:
            return failure
        return SSL.Error([])

    # By memory, in Python

    def check_free(self) -> None:
        """Raise OSError EBUSY while another thread is in OpenSSL."""
        if self._busy:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    def seal(self, data: Buffer) -> memoryview:
        """Return the records that carry `data`, in a buffer that is valid until the next call."""
        self.check_free()
        held = _ffi.from_buffer(data)
        size = len(held)
        at = 0
        try:
            self._busy = True
            while at < size:  # pyOpenSSL's contexts write one record per call (SSL_MODE_ENABLE_PARTIAL_WRITE)
                done = _lib.SSL_write(self._ssl, held + at if at else held, size - at)
                if done <= 0:
                    raise self.explained(done, _ffi.errno)
                at += done
        finally:
            self._busy = False
            del held  # in the frame of a traceback it could crash the garbage collector: see linux/views.py
        if size > self._plaintext:
            self._room(size)
        count = _lib.BIO_read(self._outgoing, self._sealed, len(self._records))
        return memoryview(self._records)[: max(0, count)]

    def open_into(self, buffer: Buffer) -> int | None:
        """Fill `buffer` from one record. 0 means close_notify, or no room; None that bytes are missing.

        SSL.Error for a bad record.
        """
        self.check_free()
        room = _ffi.from_buffer("char[]", buffer, True)  # noqa: FBT003 - writable; the keyword is dear
        try:
            if not len(room):
                return 0  # OpenSSL would read a record first
            self._busy = True
            count: int = _lib.SSL_read(self._ssl, room, min(len(room), _MAX_BYTES))
        finally:
            self._busy = False
            del room  # as in `seal`
        if count > 0:
            return count
        answer = _lib.SSL_get_error(self._ssl, count)
        if answer == _lib.SSL_ERROR_WANT_READ:
            return None
        if answer == _lib.SSL_ERROR_ZERO_RETURN or (answer == _lib.SSL_ERROR_SYSCALL and self.ended):
            return 0
        raise self.explained(count, _ffi.errno)

    def _room(self, plaintext: int) -> None:
        """Make room for the records of this many bytes."""
        self._plaintext = plaintext
        self._records = bytearray(plaintext + (plaintext // MAX_PLAINTEXT + 4) * _OVERHEAD)
        self._sealed: Any = _ffi.from_buffer("char[]", self._records, True)  # noqa: FBT003
