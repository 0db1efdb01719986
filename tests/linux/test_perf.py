"""Counting by performance events: exact where the kernel lets us, NaN with its errno where not, never a silent 0."""

from __future__ import annotations

import errno
import math
import mmap
import os
import threading
from pathlib import Path

import pytest

from ktlslab.linux import perf
from ktlslab.linux.perf import Counter, HardwareCounters, count_syscalls

SOFTWARE, PAGE_FAULTS, TASK_CLOCK = 1, 2, 1  # PERF_TYPE_SOFTWARE, PERF_COUNT_SW_*
MOUNTS = Path("/proc/self/mountinfo")
# No such counter; not for this user; not by this CPU: all that a well-formed request may be answered with.
REFUSALS = {errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP, errno.EACCES, errno.EPERM}


@pytest.fixture
def permitted():
    """Fails a test that needs to see the kernel's part, where that is forbidden."""
    try:
        Counter(SOFTWARE, TASK_CLOCK).close()
    except OSError as error:
        pytest.fail(f"perf_event_open: {error}; run as root, or lower kernel.perf_event_paranoid to 1", pytrace=False)


def touch(pages):
    with mmap.mmap(-1, pages * mmap.PAGESIZE) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        for at in range(0, len(memory), mmap.PAGESIZE):
            memory[at] = 1


@pytest.mark.usefixtures("permitted")
def test_a_counter_counts_this_process_from_where_it_was_opened():
    counter = Counter(SOFTWARE, PAGE_FAULTS)
    before = counter.read()
    touch(500)
    counted = counter.read() - before
    counter.close()
    assert 500 <= counted < 700


@pytest.mark.usefixtures("permitted")
def test_a_thread_started_while_it_counts_is_counted_too_but_no_child_process():
    counter = Counter(SOFTWARE, PAGE_FAULTS)
    before = counter.read()
    thread = threading.Thread(target=touch, args=(500,))
    thread.start()
    thread.join()
    assert counter.read() - before >= 500
    before = counter.read()
    child = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(child, 0)
    counted = counter.read() - before
    counter.close()
    assert counted < 100  # a program's start alone is more than that


def test_hardware_counters_count_or_say_why_not():
    with HardwareCounters() as counters:
        before = counters.read()
        sum(range(200_000))
        after = counters.read()
    assert list(after) == ["cycles", "instructions", "cache_misses"]
    for name, value in after.items():
        if name in counters.why:
            assert math.isnan(value)
            assert counters.why[name] in REFUSALS
        elif name != "cache_misses":
            assert value - before[name] > 200_000


def test_a_counter_that_never_ran_is_no_zero(monkeypatch):
    monkeypatch.setattr(os, "read", lambda *_: perf._READING.pack(0, 1000, 0))
    with HardwareCounters() as counters:
        counters._counters = {"cycles": Counter.__new__(Counter)}
        counters._counters["cycles"]._descriptor = os.open("/dev/null", os.O_RDONLY)
        assert math.isnan(counters.read()["cycles"])


def test_a_counter_that_shared_the_cpu_is_scaled_up(monkeypatch):
    counter = Counter.__new__(Counter)
    counter._descriptor = os.open("/dev/null", os.O_RDONLY)
    monkeypatch.setattr(os, "read", lambda *_: perf._READING.pack(100, 3000, 1000))
    assert counter.read() == 300
    counter.close()


def test_system_calls_are_counted_exactly_or_it_says_why_not():
    with count_syscalls() as found:
        for _ in range(100):
            os.getppid()
    if found.why:
        assert found.why in REFUSALS
        assert math.isnan(found.count)
    else:
        assert found.count == 100


def test_where_tracefs_is_not_for_us_the_count_is_nan_and_the_work_is_done(monkeypatch):
    def refuse():
        raise PermissionError(errno.EPERM, "fsopen")

    monkeypatch.setattr(perf, "_sys_enter", refuse)
    done = []
    with count_syscalls() as found:
        done.append(1)
    assert (done, found.why) == ([1], errno.EPERM)
    assert math.isnan(found.count)


def test_nothing_stays_open_or_mounted():
    before = descriptors(), MOUNTS.read_text()
    for _ in range(3):
        with count_syscalls(), HardwareCounters():
            pass
    assert (descriptors(), MOUNTS.read_text()) == before


def descriptors():
    return {path.name for path in Path("/proc/self/fd").iterdir()}
