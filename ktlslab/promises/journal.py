"""What was found so far on one kernel: a file with a line of JSON per event, each on the disk before the next check.

A start (of a guest, or of the process that checks here), the run's provenance, the check that begins, its verdict. So
if the kernel goes down, or the machine does, one check has no verdict, and the file says which.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(slots=True)
class Journal:
    """What a journal holds: verdicts by name, the first provenance, and about the last start:

    `began`, the check that began and did not end, and `boot`, the boot of the kernel that it began on, "" in a guest.
    """

    verdicts: dict[str, dict[str, Any]] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    began: str | None = None
    boot: str = ""

    @classmethod
    def read(cls, path: Path) -> Journal:
        """Read it; one that is missing is empty, and of a line that was cut short nothing counts."""
        journal = cls()
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n") if path.exists() else ():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if "boot" in entry:
                journal.boot, journal.began = entry["boot"], None
            elif "provenance" in entry:
                journal.provenance = journal.provenance or entry["provenance"]
            elif "began" in entry:
                journal.began = entry["began"]
            else:
                journal.verdicts[entry["promise"]] = entry
                journal.began = None
        return journal


def note(path: Path, entry: dict[str, Any]) -> None:
    """Add an event, and wait until the disk has it."""
    with path.open("a+b") as out:
        if out.tell() and os.pread(out.fileno(), 1, out.tell() - 1) != b"\n":
            out.write(b"\n")  # after a line that was cut short
        out.write(json.dumps(entry).encode() + b"\n")
        out.flush()
        os.fsync(out.fileno())


def note_verdict(path: Path, promise: str, verdict: str, seen: str, seconds: float | None = None) -> None:
    """Add a verdict; `seconds` is None where the check did not end by itself."""
    note(path, {"promise": promise, "verdict": verdict, "seen": seen, "seconds": seconds})


def boot_id() -> str:
    """Return what names the current boot of this machine (proc(5): /proc/sys/kernel/random/boot_id)."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
