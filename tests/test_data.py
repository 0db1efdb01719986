"""The tables in data/ can be read, have provenance, and give the same results when part of them is measured again."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ktlslab.guests import qemu
from ktlslab.measure.analysis import effects, false_alarms
from ktlslab.measure.blocks import cell_of
from ktlslab.measure.plan import Plan, named, shuffled
from ktlslab.measure.sweeping import sweep
from ktlslab.measure.table import comparable, read_table
from ktlslab.profiling.collecting import TOLERANCE
from ktlslab.profiling.comparison import compared
from ktlslab.profiling.frames import read_profile
from ktlslab.runs.counting import counted, definition
from ktlslab.show import plots
from ktlslab.show.icicles import bars
from ktlslab.show.interop import RIGHT, read_interop
from tests.interop.running import CLIENTS, SERVERS
from tests.interop.stacks import FEATURES

DATA = Path(__file__).resolve().parents[1] / "data"
TABLES = ("quick", "standard", "standard-wall", "serve")
CELL = ["record_layer", "io_engine", "suite", "payload_bytes"]
# How much a rerun of the same builds on the same CPU may differ. Part of a plan has fewer sessions and settings, which
# shifts an operation by some hundred instructions: a percent of the cheapest ones.
SAME = 0.02
# What an arm may be off, as a multiple of the plain one beside it, where the kernel, a library or the interpreter is
# another build: that moves both.
OTHER = 0.15


@pytest.mark.parametrize("name", TABLES)
def test_a_recorded_table_is_whole(name):
    frame = read_table(DATA / f"{name}.parquet")
    runs = frame.attrs["provenance"]
    assert set(frame["run_id"]) == set(runs)
    assert {run["plan"]["name"] for run in runs.values()} == {name.partition("-")[0]}
    assert all(run["commit"] and not run["commit"].endswith("-dirty") for run in runs.values())
    found = effects(frame)
    assert {"kTLS", "io_uring", "interaction", "TLS tax", "A/A"} <= set(found["effect"])
    assert (found["floor"] >= 1).all()
    assert {definition(run) for run in counted(frame).values()} <= {qemu.CPU}  # or nobody could add to it


def test_the_arms_of_a_recorded_block_took_turns_as_they_would_now():
    """Or a table could not be resumed: its blocks would differ from those that follow."""
    frame = read_table(DATA / "quick.parquet").sort_values("position")
    plan = Plan.from_json(next(iter(frame.attrs["provenance"].values()))["plan"])
    settings = plan.settings()
    for repeat, rows in frame.groupby("repeat"):
        taken = {}
        for cell in map(cell_of, rows.to_dict("records")):
            taken.setdefault(cell.setting, []).append(cell)
        assert taken == {setting: shuffled(settings[setting], plan.seed, setting, repeat) for setting in settings}


@pytest.mark.parametrize("name", ["erms", "erms-off", "field"])
def test_a_table_of_the_notebook_on_trust_is_whole_and_of_the_plan_beside_it(name):
    frame = read_table(DATA / f"{name}.parquet")
    plan = named(DATA / f"{name.partition('-')[0]}.toml")
    assert set(map(cell_of, frame.to_dict("records"))) == set(plan.cells())
    runs = frame.attrs["provenance"].values()
    assert all(run["commit"] and not run["commit"].endswith("-dirty") for run in runs)
    assert {definition(run) for run in runs} == {qemu.CPUS[qemu.FEATURES["erms"]] if name == "erms" else qemu.CPU}


def test_the_two_tables_of_the_same_work_differ_in_the_cpu_alone():
    (reason,) = comparable(*(read_table(DATA / f"{name}.parquet") for name in ("erms-off", "erms")))
    assert "was counted by" in reason


def test_a_profile_of_two_cpus_names_the_one_with_erms_and_differs_in_copying():
    profile = read_profile(DATA / "erms-profile.parquet")
    cpus = {run["machine"]: run["emulated_cpu"] for run in profile.provenance.values()}
    (usual, name) = sorted(cpus)
    assert (name, cpus) == (f"{usual}+erms", {usual: qemu.CPU, name: qemu.CPUS[qemu.FEATURES["erms"]]})
    sums = profile.functions.groupby(["machine", "class"])["instructions"].sum()
    assert sums[name, "copying"] > 4 * sums[usual, "copying"]
    assert sums[name, "AEAD AES-256-GCM"] == pytest.approx(sums[usual, "AEAD AES-256-GCM"], rel=0.001)


def test_the_standard_plan_was_recorded_on_three_kernels_by_instructions_and_on_one_in_time():
    counted, timed = (read_table(DATA / f"{name}.parquet") for name in TABLES[1:3])
    assert counted.groupby("machine")["unit"].unique().map(list).tolist() == [["instructions"]] * 3
    assert [list(timed[name].unique()) for name in ("machine", "unit")] == [[max_series(counted)], ["ns"]]


@pytest.mark.parametrize("layer", ["userspace", "kernel"])
def test_the_cost_of_an_answer_does_not_grow_with_open_sessions_and_they_are_small(layer, record_property):
    frame = read_table(DATA / "serve.parquet")
    rows = frame[(frame["record_layer"] == layer) & (frame["io_engine"] == "uring") & (frame["payload_bytes"] == 1024)]
    typical = rows.groupby("connections")[["client_cpu", "latency_p50", "session_bytes"]].median()
    assert {10, 100, 1000} <= set(typical.index)
    record_property("medians", typical.to_dict())
    assert typical["client_cpu"].max() <= 1.1 * typical["client_cpu"][10]
    assert typical["session_bytes"].max() < 100 * 1024


def test_an_answer_costs_a_server_of_ten_thousand_sessions_little_more_than_one_of_ten():
    frame = read_table(DATA / "serve10k.parquet")
    assert set(map(cell_of, frame.to_dict("records"))) == set(named(DATA / "serve10k.toml").cells())
    for _, rows in frame.groupby("record_layer"):
        typical = rows.groupby("connections")[["client_cpu", "session_bytes"]].median()
        assert list(typical.index) == [10, 10_000]
        assert typical["client_cpu"][10_000] <= 1.1 * typical["client_cpu"][10]
        assert typical["session_bytes"][10_000] < 100 * 1024


@pytest.mark.parametrize("name", ["equal-arms", "equal-arms-here"])
def test_of_equal_arms_that_really_ran_five_in_a_hundred_at_most_are_said_to_differ(name, record_property):
    alarms, comparisons = false_alarms(read_table(DATA / f"{name}.parquet"))
    record_property("false alarms", f"{alarms} of {comparisons}")
    assert comparisons > 400
    assert alarms / comparisons <= 0.05


def test_the_recorded_profile_is_whole():
    profile = read_profile(DATA / "profile.parquet")
    runs = profile.provenance
    assert all(run["commit"] and not run["commit"].endswith("-dirty") for run in runs.values())
    assert {definition(run) for run in runs.values()} == {qemu.CPU}
    plan = named(DATA / "profile.toml")
    cells = {replace(cell, replica=0) for cell in plan.cells()}
    for run in runs.values():
        assert Plan.from_json(run["plan"]) == plan
        assert len(run["cells"]) == len(cells)
        assert max(abs(check["difference"]) for check in run["cells"]) < TOLERANCE
        assert max(check["other"] for check in run["cells"]) < 0.002  # the kernel's own background work: DAMON
    assert profile.functions.groupby("machine")["kernel"].nunique().tolist() == [1, 1]
    assert sum(path.stat().st_size for path in DATA.glob("profile.*")) < 1 << 20


def test_the_recorded_profile_shows_the_way_of_a_record_on_both_kernels():
    profile = read_profile(DATA / "profile.parquet")
    machines = sorted(profile.trees["machine"].unique(), key=lambda name: [int(part) for part in name.split(".")])
    only = {"workload": "echo", "io_engine": "syscall", "suite": "TLS_AES_256_GCM_SHA384", "payload_bytes": 16384}
    for machine in machines:
        (kernel, userspace) = (
            {bar.name for root in bars(profile, machine=machine, record_layer=layer, **only) for _, bar in root.walk()}
            for layer in ("kernel", "userspace")
        )
        assert {"tls_sw_sendmsg", "tls_sw_recvmsg", "__tcp_transmit_skb"} <= kernel
        assert {"SSL_write", "SSL_read", "__tcp_transmit_skb"} <= userspace
        assert not any(name.startswith("_esb_loop") for name in kernel)
    cell = {"record_layer": "kernel", **only}
    found = compared(profile, profile, a_only={"machine": machines[0], **cell}, b_only={"machine": machines[1], **cell})
    assert found.of == {"machine": tuple(machines)}
    assert found.classes["class"].iloc[0] == "AEAD AES-256-GCM"


def test_the_cpu_is_split_by_the_profile_of_the_same_kernel_and_no_other():
    frame, profile = read_table(DATA / "quick.parquet"), read_profile(DATA / "profile.parquet")

    def says(profile):
        legend = plots.cpu_split(frame, profile=profile, workload="echo").legends[0]
        return legend.get_title().get_text(), {text.get_text() for text in legend.get_texts()}

    note, keys = says(profile)
    assert "user and system by the profile" in note
    assert keys == {"client, user", "client, system", "peer, user", "peer, system"}
    other = replace(profile, functions=profile.functions.assign(kernel="another"))
    note, keys = says(other)
    assert "by the profile" not in note
    assert "client, not split: too few ticks" in keys


def test_the_interoperation_matrix_is_right_on_three_kernels_and_leaves_no_stack_out():
    frame = read_interop(DATA / "interop.parquet")
    assert set(frame["outcome"]) == {RIGHT}
    assert frame["machine"].nunique() == 3
    stacks = {(role, stack.name) for role, some in (("client", SERVERS), ("server", CLIENTS)) for stack in some}
    for _, rows in frame.groupby("machine"):
        assert set(zip(rows["role"], rows["stack"], strict=True)) == stacks
        assert set(rows["feature"]) == set(FEATURES)
    runs = frame.attrs["provenance"]
    assert set(frame["run_id"]) == set(runs)
    assert all(run["commit"] and not run["commit"].endswith("-dirty") for run in runs.values())


def test_what_is_recorded_is_small():
    assert sum(path.stat().st_size for path in DATA.iterdir()) < 5 << 20


@pytest.fixture
def recorded():
    frame = read_table(DATA / "standard.parquet")
    return frame[frame["machine"] == max_series(frame)]


@pytest.fixture
def plan(recorded):
    """All arms of these settings: the number of open sessions at the peer affects an echo of 64 B by a percent."""
    whole = Plan.from_json(next(iter(recorded.attrs["provenance"].values()))["plan"])
    return replace(whole, name="again", payloads=(64, 16384), workloads=("echo",), also=whole.also[:1])


@pytest.mark.timeout(300)
def test_some_cells_measured_anew_come_out_the_same(recorded, plan, tmp_path):
    again = sweep(plan, on="newest", clock="instructions", output=tmp_path / "again.parquet", progress=False)
    before, now = (typical(frame, plan) for frame in (recorded, again))
    assert len(now) == len(plan.cells()) - 2  # the two controls
    same = facts(recorded, recorded) == facts(again, recorded)
    assert not differing(before, now, same=same)


def test_another_interpreter_is_no_difference_and_an_arm_that_costs_more_is_one(recorded, plan):
    before = typical(recorded, plan)
    kernel = before.index.get_level_values("record_layer") == "kernel"
    assert differing(before, before * 1.08, same=True)
    assert not differing(before, before * 1.08, same=False)
    dearer = before.copy()
    dearer.loc[kernel] *= 1.3
    assert differing(before, dearer, same=False)


def differing(before, now, *, same):
    """Return the medians that differ by more than allowed; for other builds as multiples of the plain arm."""
    if not same:
        before, now = map(over_plain, (before, now))
    off = (now / before - 1).abs()
    allowed = SAME if same else OTHER
    return off[(off["latency_p50"] >= allowed) | (off["client_cpu"] >= 0.05 + allowed)].to_dict("index")


def typical(frame, plan):
    """Return the median of each cell that the plan has."""
    cells = set(plan.cells())
    chosen = frame[[cell_of(row) in cells for row in frame.to_dict("records")]]
    return chosen[chosen["replica"] == 0].groupby(CELL)[["latency_p50", "client_cpu"]].median()


def over_plain(medians):
    """Return each cell as a multiple of the plain arm with the same I/O engine and payload."""
    plain = medians.xs("plain", level="record_layer").droplevel("suite")
    columns = medians.reset_index(["record_layer", "suite"], drop=True)
    return medians / plain.reindex(columns.index).to_numpy()


def facts(frame, recorded):
    """Return what decides how many instructions there are, as far as it was recorded: kernel, builds and CPU."""
    run, kept = (table.attrs["provenance"][table["run_id"].iloc[0]] for table in (frame, recorded))
    names = ("kernel", "client_openssl", "peer_openssl", "python", "python_build", "packages", "cpu_flags")
    return json.dumps({name: run.get(name) for name in names if name in kept}, sort_keys=True)


def max_series(frame):
    return max(frame["machine"].unique(), key=lambda name: [int(part) for part in name.split(".")])
