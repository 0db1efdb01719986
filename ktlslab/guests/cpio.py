"""The archive format of an initramfs: cpio's `newc`, as in Documentation/driver-api/early-userspace/buffer-format.rst.

It is not compressed, because an emulated CPU unpacks more slowly than a disk reads. The kernel accepts several archives
in one file, so a guest's constant part (busybox, modules) and its command can be concatenated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_FOLDER, _FILE = 0o040000, 0o100000


def pack(files: Mapping[str, bytes], *, mode: int = 0o755, folders: tuple[str, ...] = ()) -> bytes:
    """Return an archive of `files` (path: content) and empty `folders`, with their parent folders."""
    made: dict[str, None] = {}
    for path in [*folders, *(name.rpartition("/")[0] for name in files)]:
        parts = path.split("/") if path else []
        for depth in range(1, len(parts) + 1):
            made["/".join(parts[:depth])] = None
    entries = [_entry(number, path, _FOLDER | 0o755, b"") for number, path in enumerate(made, 1)]
    entries += [
        _entry(number, path, _FILE | mode, data) for number, (path, data) in enumerate(files.items(), len(made) + 1)
    ]
    entries.append(_entry(0, "TRAILER!!!", 0, b""))
    archive = b"".join(entries)
    return archive + b"\0" * (-len(archive) % 512)


def _entry(inode: int, path: str, mode: int, data: bytes) -> bytes:
    name = path.encode() + b"\0"
    links = 2 if mode & _FOLDER == _FOLDER else 1
    fields = (inode, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(name), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
    return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)
