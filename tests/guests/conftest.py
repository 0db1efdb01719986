"""What the guests' tests share: kernels to boot, and checks that no process of a guest outlives its test."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ktlslab.guests import fetch


def running() -> Iterator[tuple[int, bytes, str]]:
    """Yield the running processes: pid, command line, current folder."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line, cwd = (entry / "cmdline").read_bytes(), str((entry / "cwd").readlink())
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if state != "Z":
                yield int(entry.name), line, cwd


@pytest.fixture
def qemus():
    """qemus(marker) -> the QEMU processes whose command line mentions it."""
    return lambda marker: [
        pid for pid, line, _ in running() if b"qemu-system" in line.split(b"\0")[0] and marker.encode() in line
    ]


@pytest.fixture
def processes():
    """processes(folder) -> all processes of the guests whose scratch folders lie in it, their watchers included."""
    return lambda folder: [pid for pid, _, cwd in running() if cwd.startswith(f"{folder}/ktlslab-guest-")]


@pytest.fixture
def left(processes):
    """left(folder) -> those that are still there some seconds after the end: a watcher takes a moment to notice it."""

    def wait(folder):
        deadline = time.monotonic() + 10
        while processes(folder) and time.monotonic() < deadline:
            time.sleep(0.02)
        return processes(folder)

    return wait


@pytest.fixture(scope="session")
def newest():
    return fetch("newest")


@pytest.fixture(scope="session", params=["newest", "uml"])
def kernel(request):
    """Return a kernel of each kind: for an emulated CPU, and a user-mode one."""
    return fetch(request.param)
