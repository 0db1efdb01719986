"""The one field of an ELF program that guests care about: which loader it asks for. Source: elf(5)."""

from __future__ import annotations

from collections.abc import Iterator

from ktlslab.errors import GuestError

_PT_INTERP = 3


def is_dynamic(program: bytes) -> bool:
    """Whether a program needs a loader, and so libraries. What is no 64-bit ELF program counts as one that does."""
    return not _is_elf64(program) or any(True for _ in _interpreters(program))


def set_interpreter(program: bytes, loader: str) -> bytes:
    """Return the program with another loader, whose path may not be longer than the earlier one.

    A relative path is resolved in the current folder of whoever starts the program. GuestError if it has no such field.
    """
    changed, path = bytearray(program), loader.encode()
    for start, size in _interpreters(program) if _is_elf64(program) else ():
        if len(path) < size:
            changed[start : start + size] = path.ljust(size, b"\0")
            return bytes(changed)
    answered = "it is no ELF program that names one, or its place is too short"
    raise GuestError(
        f"making {loader} the loader of a kernel", answered=answered, remedy="Fetch the kernel again, or another one."
    )


def _is_elf64(program: bytes) -> bool:
    return program[:4] == b"\x7fELF" and program[4] == 2


def _interpreters(program: bytes) -> Iterator[tuple[int, int]]:
    """Yield where the path of the loader lies in the file: offset and size, final NUL included."""
    start = int.from_bytes(program[32:40], "little")
    size, count = int.from_bytes(program[54:56], "little"), int.from_bytes(program[56:58], "little")
    for at in range(start, start + size * count, size):
        if int.from_bytes(program[at : at + 4], "little") == _PT_INTERP:
            yield (
                int.from_bytes(program[at + 8 : at + 16], "little"),
                int.from_bytes(program[at + 32 : at + 40], "little"),
            )
