"""What the guests' tests share: a kernel to boot, and a check that no QEMU outlives its test."""

from __future__ import annotations

from pathlib import Path

import pytest

from ktlslab.guests import fetch


def children_of_tests(marker: str) -> list[int]:
    """Return the QEMU processes whose command line mentions `marker`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if b"qemu-system" in line.split(b"\0")[0] and marker.encode() in line and state != "Z":
                found.append(int(entry.name))
    return found


@pytest.fixture
def qemus():
    return children_of_tests


@pytest.fixture(scope="session")
def newest():
    return fetch("newest")
