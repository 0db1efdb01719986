"""What both ends of a measured connection must agree on: the payload, where it lies in memory, its checksum.

How many pages a payload touches decides how the kernel cuts it up, and a page's first touch is a fault, dearer than the
bytes that it brings. So every buffer here begins on a page, is all in memory, and is used again.
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
    """Return a buffer that begins on a page, all of it in memory."""
    return memoryview(mmap.mmap(-1, max(size, 1), flags=_IN_MEMORY))[:size]


class Room:
    """Room for what is received, wiped each time: what did not come cannot pass for what did."""

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
    """CRC-32 of the payload of that size."""
    return zlib.crc32(payload(size))


def checksum(room: memoryview, size: int) -> int:
    """CRC-32 of the `size` bytes that fill `room` again and again; 0 where they are not the same all along.

    What repeats equals itself moved on by a period: one comparison, far cheaper than a checksum of all of it.
    """
    start = _address(room)
    if _memcmp(start, start + size, len(room) - size):
        return 0
    return zlib.crc32(room[:size])


def _address(room: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(room))
