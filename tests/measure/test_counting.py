"""What two different CPUs counted is neither merged, compared nor resumed, and the reason names both."""

import pandas as pd
import pytest

from ktlslab.cli import main
from ktlslab.errors import TableError, UsageError
from ktlslab.guests import fetch, qemu
from ktlslab.measure.analysis import effects
from ktlslab.measure.comparison import compared
from ktlslab.measure.plan import Plan
from ktlslab.measure.sweeping import sweep
from ktlslab.measure.table import comparable, merge, write_table
from ktlslab.runs.journal import Journal, journal_path
from tests.measure.test_comparison import table as made

OLD = {"cpu": "QEMU TCG CPU version 2.5+", "emulator": "QEMU emulator version 7.2.22 (Debian)", "emulated": True}
NEW = {"cpu": qemu.CPU_NAME, "emulated_cpu": qemu.CPU, "emulator": "QEMU emulator version 10.0.2", "emulated": True}
WHO = f"run r1 was counted by {OLD['cpu']}, run r2 by {qemu.CPU_NAME}"


def table(seed, run, **options):
    frame = made(seed=seed, payloads=(64,), **options)
    clock = options.get("clock", "instructions")
    frame.attrs["provenance"] = {f"r{seed}": {"run_id": f"r{seed}", "machine": "7.3", "clock": clock, **run}}
    return frame


@pytest.fixture
def old_and_new():
    return table(1, OLD), table(2, NEW)


def test_they_are_not_merged(old_and_new):
    assert comparable(*old_and_new) == [WHO]
    with pytest.raises(TableError, match="Measure one of them again on the CPU of the other") as caught:
        merge(old_and_new)
    assert WHO in str(caught.value)


def test_they_are_not_compared(old_and_new, tmp_path, capsys):
    with pytest.raises(UsageError) as caught:
        compared(*old_and_new)
    assert WHO in str(caught.value)
    paths = [str(tmp_path / f"{name}.parquet") for name in "ab"]
    for path, frame in zip(paths, old_and_new, strict=True):
        write_table(frame.assign(elapsed=1), path)
    assert main(["compare", *paths]) == 2
    assert WHO in capsys.readouterr().err


@pytest.mark.parametrize("finished", [True, False])
def test_what_the_old_one_counted_is_not_resumed_and_not_lost(finished, small, tmp_path):
    newest = fetch("newest").series
    path = tmp_path / "t.parquet"
    frame = table(1, OLD | {"plan": small.to_json()}, machine=newest)
    if finished:
        write_table(frame, path)
    else:
        Journal(rows=frame.to_dict("records"), runs=frame.attrs["provenance"]).write(journal_path(path))
    kept = {place: place.read_bytes() for place in tmp_path.rglob("*") if place.is_file()}
    said = rf"run r1 was counted by {OLD['cpu'][:12]}.*the rest would be by {qemu.CPU_NAME}.*another output"
    with pytest.raises(UsageError, match=said):
        sweep(small, newest, clock="instructions", output=path, resume=True, progress=False)
    assert {place: place.read_bytes() for place in tmp_path.rglob("*") if place.is_file()} == kept


def test_one_cpu_by_two_versions_of_qemu_is_one_and_the_versions_are_named():
    one, two = table(1, NEW), table(2, NEW | {"emulator": "QEMU emulator version 7.2.22"})
    assert comparable(one, two) == []
    assert len(merge([one, two])) == len(one) + len(two)
    assert "QEMU: QEMU emulator version 10.0.2 in A, QEMU emulator version 7.2.22 in B" in compared(one, two).notes


def test_equal_names_come_with_the_features_that_differ():
    erms = NEW | {"emulated_cpu": qemu.CPU.replace("erms=off", "erms=on")}
    said = f"run r1 was counted by {qemu.CPU_NAME} (erms=off), run r2 by {qemu.CPU_NAME} (erms=on)"
    assert comparable(table(1, NEW), table(2, erms)) == [said]


def test_times_are_as_comparable_as_before():
    assert comparable(table(1, OLD, clock="wall"), table(2, NEW, clock="wall")) == [
        f"the CPU is {OLD['cpu']!r} in run r1 and {NEW['cpu']!r} in run r2"
    ]
    assert compared(table(1, OLD, clock="wall"), table(2, NEW, clock="wall")).notes


def test_hosts_with_different_cpus_are_not_one_fleet():
    frames = [table(1, OLD).assign(host="h1"), table(2, NEW).assign(host="h2", payload_bytes=128)]
    fleet = pd.concat(frames, ignore_index=True)
    fleet.attrs["provenance"] = {**frames[0].attrs["provenance"], **frames[1].attrs["provenance"]}
    assert set(effects(fleet, ["latency_p50"])["host"]) == {"h1", "h2"}


def test_one_table_is_counted_by_one_cpu(small, tmp_path):
    path = tmp_path / "t.parquet"
    with pytest.raises(UsageError, match=r"by QEMU .*, of another by QEMU .* with erms.*a table of its own"):
        sweep(small, ["newest", "newest+erms"], clock="instructions", output=path, progress=False)
    assert not list(tmp_path.iterdir())


def test_a_table_of_another_cpu_is_resumed_on_that_cpu_alone(small, tmp_path):
    newest = fetch("newest").series
    path = tmp_path / "t.parquet"
    run = NEW | {"emulated_cpu": qemu.CPU, "plan": small.to_json()}
    write_table(table(1, run, machine=f"{newest}+erms"), path)
    with pytest.raises(UsageError, match=f"by {qemu.CPU_NAME}, and the rest would be by {qemu.FEATURES['erms']}"):
        sweep(small, f"{newest}+erms", output=path, resume=True, progress=False)
    with pytest.raises(UsageError, match="which is not among the machines"):
        sweep(small, newest, clock="instructions", output=path, resume=True, progress=False)


@pytest.mark.timeout(300)
def test_a_cpu_with_erms_counts_a_table_that_is_not_merged_or_compared_with_the_usual():
    plan = Plan(
        name="erms", record_layers=("userspace",), io_engines=("syscall",), control="", suites=("AES-128-GCM",),
        payloads=(65536,), workloads=("upload",), repeats=1, steps=6,
    )  # fmt: skip
    usual, erms = (sweep(plan, f"newest{more}", clock="instructions", progress=False) for more in ("", "+erms"))
    run = next(iter(erms.attrs["provenance"].values()))
    assert (run["cpu"], run["emulated_cpu"]) == (qemu.FEATURES["erms"], qemu.CPUS[qemu.FEATURES["erms"]])
    assert set(erms["machine"]) == {f"{usual['machine'][0]}+erms"}
    assert erms["latency_p50"].mean() > 1.3 * usual["latency_p50"].mean()
    for refused, error in ((lambda: merge([usual, erms]), TableError), (lambda: compared(usual, erms), UsageError)):
        with pytest.raises(error, match=f"{qemu.CPU_NAME}, .* {qemu.FEATURES['erms']}"):
            refused()
