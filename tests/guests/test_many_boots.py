"""User-mode kernels booted again and again, and killed at every moment of a boot: nothing stays behind.

`KTLSLAB_BOOTS=1000 KTLSLAB_KILLS=60 pytest -s tests/guests/test_many_boots.py` boots a thousand and kills one at each
50 ms of the first 3 s; by default there are fewer.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from pathlib import Path

import pytest

from ktlslab.errors import GuestError
from ktlslab.guests import fetch, guest, run
from ktlslab.guests.process import start

BOOTS = int(os.environ.get("KTLSLAB_BOOTS", "25"))
KILLS = int(os.environ.get("KTLSLAB_KILLS", "10"))
FIRST_S = 3.0  # of a boot and what follows
MAX_GROWTH_KB = 8 << 10


def of_this_process():
    """Return what could grow from boot to boot: descriptors, threads, children, mounts; and the memory in kB."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    counts = (len(list(Path("/proc/self/fd").iterdir())), threading.active_count(), children, mounts)
    return counts, int(status["VmRSS"].split()[0])


@pytest.mark.timeout(60 + 10 * BOOTS)
def test_many_boots_leave_no_process_file_mount_or_memory(left, tmp_path, monkeypatch, record_property):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    kernel, took = fetch("uml"), []
    for number in range(BOOTS):
        began = time.monotonic()
        done = run(kernel, ["echo", str(number)], timeout=60)
        took.append(time.monotonic() - began)
        assert (done.returncode, done.stdout) == (0, f"{number}\n".encode())
        if number == min(4, BOOTS - 1):
            before, memory = of_this_process()
    after, memory_now = of_this_process()
    said = f"{BOOTS} boots, median {statistics.median(took):.2f} s, longest {max(took):.2f} s"
    print(f"\n{said}; {len(after[3])} mounts, {after[0]} descriptors, {memory_now - memory} kB more")  # noqa: T201
    record_property("boots", said)
    assert after == before
    assert memory_now - memory < MAX_GROWTH_KB
    assert left(str(tmp_path)) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", range(KILLS))
def test_a_kernel_killed_at_any_moment_is_one_error_and_leaves_nothing(number, left, tmp_path, monkeypatch):
    after = FIRST_S / KILLS * number

    def start_and_kill(*arguments, **options):
        process = start(*arguments, **options)
        threading.Timer(after, process.kill).start()
        return process

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(guest, "start", start_and_kill)
    with pytest.raises(GuestError, match=r"went down (before|while) the command.*ended with -9"):
        run(fetch("uml"), ["sleep", "60"], timeout=30)
    assert left(str(tmp_path)) == []
    assert list(tmp_path.iterdir()) == []
