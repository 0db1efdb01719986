"""The kernel proper, out of a compressed image: unpacked once here instead of at every boot in an emulated CPU.

A bzImage carries its own unpacker and a compressed ELF file (Documentation/arch/x86/boot.rst: payload_offset,
payload_length). QEMU starts that ELF file directly where it has a PVH entry point, as every distribution's kernel of
today does. This only saves time: whatever stands in its way means booting the image as it is.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import subprocess
from typing import TYPE_CHECKING

from ktlslab.guests.cache import cache_dir, lock, scratch, storage

if TYPE_CHECKING:
    from pathlib import Path

_PVH_NOTE = b"\x04\x00\x00\x00\x04\x00\x00\x00\x12\x00\x00\x00Xen\x00"  # 32-bit entry; an 8-byte one follows
_PVH_NOTE_LONG = b"\x04\x00\x00\x00\x08\x00\x00\x00\x12\x00\x00\x00Xen\x00"


def bootable(image: Path) -> Path:
    """Return the unpacked kernel of an image, from the cache if it is there, or the image itself."""
    status = image.stat()
    place = cache_dir("vmlinux") / f"{image.name}-{status.st_size:x}-{status.st_mtime_ns:x}"
    with lock("vmlinux"):
        if not place.exists():
            kernel = unpacked(image.read_bytes())
            with scratch(place) as folder, storage(f"writing {place}"):
                (folder / "new").write_bytes(kernel)  # empty: known not to work
                (folder / "new").rename(place)
    return place if place.stat().st_size else image


def unpacked(image: bytes) -> bytes:
    """Return the ELF file in a bzImage, or nothing if it is not one that QEMU can start."""
    if image[0x202:0x206] != b"HdrS":
        return b""
    start = ((image[0x1F1] or 4) + 1) * 512 + int.from_bytes(image[0x248:0x24C], "little")
    payload = image[start : start + int.from_bytes(image[0x24C:0x250], "little")]
    try:
        kernel = _decompress(payload)
    except (OSError, EOFError, ValueError, lzma.LZMAError, subprocess.CalledProcessError):
        return b""
    pvh = _PVH_NOTE in kernel or _PVH_NOTE_LONG in kernel
    return kernel if kernel[:4] == b"\x7fELF" and pvh else b""


def _decompress(payload: bytes) -> bytes:
    # What follows the compressed data is its size, four bytes that no decompressor may be shown.
    if payload.startswith(b"\xfd7zXZ"):
        return lzma.LZMADecompressor().decompress(payload)
    if payload.startswith(b"\x28\xb5\x2f\xfd"):
        return subprocess.run(["zstd", "-dcq"], input=payload[:-4], capture_output=True, check=True).stdout
    if payload.startswith(b"\x1f\x8b"):
        return gzip.decompress(payload[:-4])
    return bz2.decompress(payload[:-4])
