"""What both ends of a measured connection must agree on: the payload, its place in memory, its checksum.

The number of pages of a payload decides how the kernel splits it, and the first access to a page is a fault, which
costs more than copying it. So every buffer here begins on a page boundary, is fully in memory, and is reused.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import random
import zlib

_memcmp = ctypes.CDLL(None).memcmp
_memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_IN_MEMORY = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE


def room_for(size: int) -> memoryview:
    """Return a buffer that begins on a page boundary, all of it in memory."""
    return memoryview(mmap.mmap(-1, max(size, 1), flags=_IN_MEMORY))[:size]


class Room:
    """A receive buffer, zeroed each time: old bytes cannot pass for received ones."""

    def __init__(self) -> None:
        self._room = memoryview(b"")

    def take(self, size: int) -> memoryview:
        """Return `size` zero bytes, good until the next call."""
        if size > len(self._room):
            self._room = room_for(1 << (size - 1).bit_length())  # new memory is zero
        elif size:
            ctypes.memset(_address(self._room), 0, size)
        return self._room[:size]


@functools.lru_cache(maxsize=8)
def payload(size: int) -> memoryview:
    """Return the payload of that size, the same at both ends and in every arm."""
    data = room_for(size)
    data[:] = random.Random(size).randbytes(size)  # noqa: S311 - filler, not a secret
    return data


@functools.lru_cache(maxsize=64)
def crc_of(size: int) -> int:
    """Return the CRC-32 of the payload of that size."""
    return zlib.crc32(payload(size))


def checksum(room: memoryview, size: int) -> int:
    """Return the CRC-32 of the `size` bytes that `room` repeats; 0 where it does not repeat them.

    Repeating bytes equal themselves shifted by one period: one comparison, far cheaper than a checksum of all.
    """
    start = _address(room)
    if _memcmp(start, start + size, len(room) - size):
        return 0
    return zlib.crc32(room[:size])


def _address(room: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(room))
