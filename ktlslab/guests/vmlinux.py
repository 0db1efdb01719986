"""The kernel's ELF file from a compressed image, unpacked once here instead of at every boot on an emulated CPU.

A bzImage holds its own unpacker and a compressed ELF file (Documentation/arch/x86/boot.rst: payload_offset,
payload_length). QEMU starts that ELF file directly if it has a PVH entry point, as the kernels of current distributions
do. This only saves time: if it does not work, the image is booted as it is.
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
    """Return the unpacked kernel of an image, from the cache if possible, or the image itself."""
    status = image.stat()
    place = cache_dir("vmlinux") / f"{image.name}-{status.st_size:x}-{status.st_mtime_ns:x}"
    with lock("vmlinux"):
        if not place.exists():
            kernel = unpacked(image.read_bytes())
            with scratch(place) as folder, storage(f"writing {place}"):
                (folder / "new").write_bytes(kernel)  # empty: this image is known not to work
                (folder / "new").rename(place)
    return place if place.stat().st_size else image


def unpacked(image: bytes) -> bytes:
    """Return the ELF file in a bzImage, or nothing if QEMU cannot start it."""
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
    # The compressed data is followed by its size, four bytes that must not reach the decompressor.
    if payload.startswith(b"\xfd7zXZ"):
        return lzma.LZMADecompressor().decompress(payload)
    if payload.startswith(b"\x28\xb5\x2f\xfd"):
        return subprocess.run(["zstd", "-dcq"], input=payload[:-4], capture_output=True, check=True).stdout
    if payload.startswith(b"\x1f\x8b"):
        return gzip.decompress(payload[:-4])
    return bz2.decompress(payload[:-4])
