"""Executors of all kinds; Dask with a real scheduler and two real workers, one of which is killed while it measures.

The workers are processes of this machine that see two different host names (uts_namespaces(7)) and share its lock.
"""

import contextlib
import itertools
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace

import distributed
import psutil
import pytest

from ktlslab.errors import MachineError
from ktlslab.measure import remainder
from ktlslab.measure.plan import Cell
from ktlslab.measure.sweeping import sweep
from ktlslab.measure.table import read_table
from ktlslab.runs import lock
from ktlslab.runs.journal import Journal, journal_path

PATIENCE = 60.0
HOSTS = ("alpha", "beta")


@pytest.fixture(autouse=True)
def own_lock(tmp_path, monkeypatch):
    """Use a separate lock, so that tests do not wait for other measurements, and short parts."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(lock, "LOCK", tmp_path / "tmp" / lock.LOCK.name)
    monkeypatch.setattr(remainder, "PART_S", 1.0)


@pytest.fixture
def tiny(small):
    """Make a plan of three settings."""
    return replace(small, payloads=(64,), repeats=1)


def keys(frame):
    return sorted(map(tuple, frame[[*Cell.__slots__, "repeat"]].itertuples(index=False)))


def expected(plan):
    return sorted((*(getattr(cell, name) for name in Cell.__slots__), repeat) for repeat, cell in plan.schedule())


def measuring_below(process):
    """Return the measuring processes that this one started; until exec their children look the same."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [child for child in psutil.Process(process.pid).children() if measures(child)]
    return []


def measures(process):
    with contextlib.suppress(psutil.NoSuchProcess):  # a zombie counts, too
        return "ktlslab.measure.worker" in process.cmdline()
    return False


@contextlib.contextmanager
def started(argv, log):
    with log.open("wb") as said, subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture
def fleet(tmp_path):
    """Yield a client of a fleet, and its worker processes by host name."""
    where = ["--scheduler-file", str(tmp_path / "scheduler.json"), "--no-dashboard"]
    dask = [sys.executable, "-m", "dask"]
    flags = "-u" if os.geteuid() == 0 else "-ru"
    with contextlib.ExitStack() as stack:
        argv = [*dask, "scheduler", "--host", "127.0.0.1", "--port", "0", *where]
        stack.enter_context(started(argv, tmp_path / "scheduler.log"))
        workers = {}
        for host in HOSTS:
            argv = [*dask, "worker", *where, "--host", "127.0.0.1", "--no-nanny", "--nworkers", "1", "--nthreads", "1"]
            argv += ["--resources", "measure=1", "--memory-limit", "0", "--death-timeout", "60"]
            argv += ["--local-directory", str(tmp_path / host)]
            # One process: each of these commands executes the next.
            argv = ["unshare", flags, "--", "sh", "-c", 'hostname "$0" && exec "$@"', host, *argv]
            workers[host] = stack.enter_context(started(argv, tmp_path / f"{host}.log"))
        deadline = time.monotonic() + PATIENCE
        while not (tmp_path / "scheduler.json").exists():
            assert time.monotonic() < deadline, (tmp_path / "scheduler.log").read_text()
            time.sleep(0.1)
        address = json.loads((tmp_path / "scheduler.json").read_text())["address"]
        client = stack.enter_context(distributed.Client(address, timeout=PATIENCE))
        client.wait_for_workers(2, timeout=PATIENCE)
        yield client, workers


def test_a_fleet_measures_each_sample_once_though_a_worker_is_killed_while_it_measures(fleet, small, tmp_path):
    client, workers = fleet
    path = tmp_path / "t.parquet"
    most_at_once, killed, orphans = 0, "", []
    with ThreadPoolExecutor(1) as aside:
        executor = client.get_executor(pure=False, resources={"measure": 1})
        swept = aside.submit(sweep, small, "here", output=path, progress=False, executor=executor)
        while not swept.done():
            at_work = {host: measuring_below(process) for host, process in workers.items()}
            # Hosts are checked one after the other; those still measuring after all checks measured at the same time.
            most_at_once = max(most_at_once, sum(map(measures, itertools.chain(*at_work.values()))))
            finished = set()
            with contextlib.suppress(FileNotFoundError):  # the sweep removes its journal when it has its table
                finished = {row["host"] for row in Journal.read(journal_path(path)).rows}
            for host in finished:
                if not killed and at_work[host]:
                    killed, orphans = host, at_work[host]
                    workers[host].kill()
            time.sleep(0.02)
        frame = swept.result()
    assert killed
    assert workers[killed].wait(PATIENCE) == -signal.SIGKILL
    assert psutil.wait_procs(orphans, PATIENCE)[1] == []  # its children ended with it
    assert most_at_once == 1
    assert keys(frame) == expected(small)
    assert set(frame.host) == set(HOSTS)
    assert set(frame.attrs["provenance"]) == set(frame.run_id)
    assert all(run["host"] in HOSTS for run in frame.attrs["provenance"].values())
    assert frame.groupby("run_id").host.nunique().max() == 1
    assert frame.run_id.nunique() >= 3
    assert keys(read_table(path)) == expected(small)


def test_threads_are_given_parts_and_wait_for_each_other(tiny, tmp_path):
    running, most = [], 0
    with ThreadPoolExecutor(2) as executor, ThreadPoolExecutor(1) as aside:
        swept = aside.submit(sweep, tiny, "here", output=tmp_path / "t.parquet", progress=False, executor=executor)
        while not swept.done():
            running = measuring_below(psutil.Process())
            most = max(most, len(running))
            time.sleep(0.02)
    assert keys(swept.result()) == expected(tiny)
    assert swept.result().run_id.nunique() >= 2
    assert most == 1


def test_a_process_pool_that_breaks_loses_the_part_in_flight_and_no_other(tiny, tmp_path):
    path = tmp_path / "t.parquet"
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        watching = threading.Thread(target=kill_after_a_part, args=(executor, path))
        watching.start()
        with pytest.raises(MachineError, match=r"BrokenProcessPool.*--resume"):
            sweep(tiny, "here", output=path, progress=False, executor=executor)
        watching.join(PATIENCE)
    before = Journal.read(journal_path(path)).rows
    assert 0 < len(before) < len(expected(tiny))
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        frame = sweep(tiny, "here", output=path, resume=True, progress=False, executor=executor)
    assert keys(frame) == expected(tiny)
    assert {row["run_id"] for row in before} < set(frame.run_id)


def kill_after_a_part(executor, path):
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        (process,) = executor._processes.values() if executor._processes else (None,)
        if process and Journal.read(journal_path(path)).rows and measuring_below(process):
            process.kill()
            return
        time.sleep(0.02)


def test_what_an_executor_cannot_measure_is_said(small, tmp_path):
    plan = replace(small, record_layers=("kernel",), control="kernel+uring")
    with ThreadPoolExecutor(1) as executor, pytest.raises(MachineError, match=r"measuring on here: .*no tls module"):
        sweep(plan, "here", output=tmp_path / "t.parquet", progress=False, executor=executor)
