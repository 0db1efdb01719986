"""The messages of a guest's kernel and of its process, cut to the part that explains why the guest ended."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PANIC = "Kernel panic"
CONSOLE = "console.log"  # the serial console of an emulated machine
OUTPUT = "output.log"  # what the process prints: QEMU, or a user-mode kernel with its console
_TAIL = 1500


def tail(folder: Path) -> str:
    """Return the end of the messages in a guest's folder."""
    texts = []
    for name in (CONSOLE, OUTPUT):
        with contextlib.suppress(OSError):
            texts.append(last_words((folder / name).read_text(encoding="utf-8", errors="replace")))
    return "\n".join(text for text in texts if text)


def last_words(text: str) -> str:
    """Return the end of a console; after a panic, its reason without the registers that follow."""
    text = text.replace("\r", "").strip()
    panic = text.find(PANIC)
    if panic >= 0:
        end = re.compile(r"Call Trace|Hardware name|Stack:").search(text, panic)
        text = text[: text.rfind("\n", 0, end.start())] if end else text
    return text[-_TAIL:]
