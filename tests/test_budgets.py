"""The benchmark's arithmetic, and its C program over plain TCP: the parts that need neither kTLS nor a guest."""

import contextlib
import itertools
import json
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from ktlslab.measure.table import read_table

SERVED = Path(__file__).parents[1] / "data" / "serve10k.parquet"
HERE = Path(__file__).parent / "budgets"
ENGINES = ("blocking", "uring", "uring-timed", "uring-batch")
DIRECTIONS = ("echo", "upload", "sends", "replies", "receives")


@pytest.fixture(scope="module")
def parts():
    """(benchmark, budgets): modules beside the command, not in a package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HERE))
        import benchmark
        import budgets

        yield benchmark, budgets


@pytest.fixture
def bindings(parts):
    return parts[0].bindings


@pytest.fixture(scope="module")
def reference(parts, tmp_path_factory):
    """reference(engine, *work) -> the finished C client, run against the C peer."""
    program = parts[0].compile_reference(tmp_path_factory.mktemp("reference"))

    def client(engine, port, *work):
        argv = [program, "client", "plain", engine, str(port), *map(str, work)]
        return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)

    with subprocess.Popen([program, "peer", "plain"], stdout=subprocess.PIPE, text=True) as peer:
        try:
            port = int(peer.stdout.readline())
            yield lambda engine, *work, port=port: client(engine, port, *work)
        finally:
            peer.kill()


def run(work, who, step, cpu=1.0, number=0):
    return {"work": work, "who": who, "round": number, "step": step, "cpu": cpu}


@pytest.mark.parametrize(("ours", "met"), [(104.0, True), (105.0, True), (105.1, False)])
def test_a_ratio_is_of_the_middle_half_of_the_rounds_and_met_up_to_its_limit(parts, ours, met):
    budgets = parts[1]
    runs = [run("echo 64 B", "C uring", step) for step in (1.0, 98.0, 102.0, 5000.0)]
    runs += [run("echo 64 B", "ktlslab uring", step) for step in (9999.0, ours + 1, 1.0, ours - 1)]
    echo, *others = budgets.ratios(runs)
    assert echo.value == pytest.approx(ours / 100)
    assert echo.met is met
    assert [other.word for other in others] == ["NOT MEASURED"] * 6
    assert not any(other.met for other in others)


DEEP = "upload 64 B, depth 16"


@pytest.mark.parametrize(("ours", "words"), [(99.0, ["met"] * 2), (108.0, ["MISSED", "met"]), (109.0, ["MISSED"] * 2)])
def test_engines_at_depth_are_also_held_to_what_they_cost_in_c(parts, ours, words):
    runs = [run(DEEP, "ktlslab uring", 1.0, ours), run(DEEP, "ktlslab syscall", 1.0, 100.0)]
    runs += [run(DEEP, "C uring, a batch", 1.0, 53.0), run(DEEP, "C blocking", 1.0, 50.0)]
    lines = [line for line in parts[1].ratios(runs) if line.value]
    assert [line.word for line in lines] == words
    assert lines[0].notes == ["in C alone the same two ways are 1.060 x (53 / 50)"]
    assert [lines[1].ours, lines[1].reference] == pytest.approx([ours / 100, 1.06])
    assert f"{ours / 100:.3f} x    1.060 x  {ours / 106:.3f} x  1.02 x" in parts[1].verdict_table(lines)


def test_engines_at_depth_without_the_c_program_are_not_measured(parts):
    runs = [run(DEEP, "ktlslab uring", 1.0, 99.0), run(DEEP, "ktlslab syscall", 1.0, 100.0)]
    both = [line for line in parts[1].ratios(runs) if DEEP in line.budget]
    assert [line.word for line in both] == ["met", "NOT MEASURED"]


def test_the_upload_budget_is_about_cpu_and_not_about_what_elapsed(parts):
    runs = [run("upload 64 B", "C uring", 1.0, cpu=10.0), run("upload 64 B", "ktlslab uring", 99.0, cpu=12.0)]
    (upload,) = [line for line in parts[1].ratios(runs) if line.value]
    assert upload.value == pytest.approx(1.2)


def functions(**of_arms):
    """Return a profile's rows for an echo of 64 bytes: by arm and function, and others that are not binding."""
    alike = {"workload": "echo", "payload_bytes": 64, "depth": 1, "end": "client", "mode": "user", "class": "our C"}
    rows = [
        {**alike, "record_layer": layer, "io_engine": engine, "function": function, "instructions": count}
        for (layer, engine), counts in ((arm.split("_"), counts) for arm, counts in of_arms.items())
        for function, count in counts.items()
    ]
    others = {"instructions": 1e6, "function": "work", "record_layer": "plain", "io_engine": "uring"}
    rows += [{**alike, **others, "end": "peer"}, {**alike, **others, "class": "libc"}]
    elsewhere = [{"payload_bytes": 16384}, {"workload": "upload"}, {"depth": 16}]
    return pd.DataFrame(rows + [{**alike, **others, **one} for one in elsewhere])


@pytest.mark.parametrize(("most", "met"), [(1500, True), (1501, False)])
def test_the_binding_budget_is_the_largest_arm_less_the_smallest_by_interpreter_and_our_c(bindings, most, met):
    arms = {"plain_syscall": {"send": 1000}, "kernel_uring": {"send": 900, "fill": most - 900}}
    verdict = bindings.binding(functions(**arms), 64)
    assert (verdict.value, verdict.met) == (most - 1000, met)
    assert f"plain+syscall 1,000, kernel+uring {most:,}" in verdict.notes[0]
    assert ("most is in fill (our C) 601" in verdict.notes[0]) is not met


@pytest.mark.parametrize(("difference", "met"), [(0.005, True), (-0.0051, False)])
def test_the_worst_cell_decides_how_far_a_profile_is_off_the_clock(bindings, difference, met):
    alike = {"record_layer": "plain", "io_engine": "uring", "workload": "echo", "counted": 1.0, "clock": 1.0}
    cells = [alike | {"payload_bytes": 64, "difference": share} for share in (0.001, difference)]
    assert bindings.agreement(cells).met is met


def test_a_missed_ratio_is_explained_by_what_python_itself_executes(parts, bindings):
    frame = functions(kernel_uring={"fill": 100}, kernel_syscall={"send": 50})
    frame = frame[frame["record_layer"] == "kernel"]
    python = frame.assign(**{"class": "interpreter", "instructions": 60.0})
    verdict = parts[1].ratios([run("echo 64 B", "ktlslab uring", 160.0), run("echo 64 B", "C uring", 100.0)])[0]
    said = bindings.explanation(pd.concat([frame, python]), verdict)
    assert "60 instructions" in said
    assert "1.000 x" in said
    deep = parts[1].Verdict(budget="", unit="", ours=1.0, limit=1, explained=("echo", 64, 1, "ktlslab syscall"))
    assert "more of our C 50, interpreter 0" in bindings.explanation(pd.concat([frame, python]), deep)


def test_a_figure_of_instructions_has_no_ratio_where_nothing_is_compared(parts):
    verdict = parts[1].Verdict(budget="spread", unit="instructions apart", ours=441.0, limit=500)
    assert parts[1].verdict_table([verdict]).splitlines()[1] == "spread  441 apart          -      -  500 apart  met"


def test_a_server_is_judged_by_its_fullest_and_its_emptiest_process(parts):
    lines = {"connections": [10, 10, 1000], "operations": 2, "client_cpu": [180, 220, 210]}
    table = pd.DataFrame(lines | {"record_layer": "kernel", "session_bytes": [10.0, 10.0, 204800.0]})
    cost, memory = parts[0].scale.served(table)
    assert (cost.value, cost.word) == (1.05, "met")
    assert (memory.value, memory.word) == (200, "MISSED")


def test_the_recorded_server_meets_its_budgets(parts):
    assert [line.word for line in parts[0].scale.served(read_table(SERVED))] == ["met"] * 4


def test_an_estimate_is_judged_by_the_arms_that_were_left_out(parts):
    rows = {"left_out": ["arm", "arm", "suite"], "cells": [1, 1, 5], "error": [0.21, 0.0, 0.9], "worst": 1.0}
    (line,) = parts[0].scale.estimated(pd.DataFrame(rows))
    assert (line.value, line.word) == (pytest.approx(10), "met")


def test_a_layer_shows_what_it_adds_to_the_one_below(parts):
    budgets = parts[1]
    below = [("C blocking", 10_000), ("C uring", 11_000), ("C uring-timed", 11_500)]
    above = [("uring: Stream", 15_000), ("uring: Ring", 13_000)]  # from the caller down, as layers.py has them
    text = budgets.profile_table([run("send", *layer) for layer in below + above], "uring", [("send", "step")])
    assert [line.split()[-2:] for line in text.splitlines()[2:]] == [
        ["11,000", "+1,000"],
        ["11,500", "+500"],
        ["13,000", "+1,500"],
        ["15,000", "+2,000"],
    ]


@pytest.fixture
def command(parts, monkeypatch, tmp_path):
    """command(measure) -> (exit status, what --json holds) of the benchmark with `measure` in place of its imports."""
    benchmark = parts[0]
    file = tmp_path / "figures.json"

    def run(measure):
        monkeypatch.setattr(benchmark.walls, "importing", measure)
        monkeypatch.setattr(benchmark, "measuring", lambda _: contextlib.nullcontext())  # nothing is measured here
        status = benchmark.main(["--only", "import", "--json", str(file)])
        return status, json.loads(file.read_text())["budgets"]

    return run


@pytest.mark.parametrize(("ours", "status", "word"), [(59.0, 0, "met"), (60.5, 1, "MISSED")])
def test_the_command_prints_and_keeps_budgets_and_fails_for_a_missed_one(  # noqa: PLR0917
    parts, command, capsys, ours, status, word
):
    verdict = parts[1].Verdict(budget="import", unit="ms", ours=ours, limit=60)
    done, (line,) = command(lambda: [verdict])
    assert done == status
    assert (line["value"], line["met"]) == (ours, status == 0)
    assert capsys.readouterr().out.splitlines()[1].endswith(word)


def test_what_cannot_be_measured_is_a_budget_not_met(command, capsys):
    def fails():
        raise OSError("no such thing")

    status, (line,) = command(fails)
    assert status == 1
    assert (line["value"], line["met"]) == (None, False)
    said = capsys.readouterr()
    assert "NOT MEASURED" in said.out
    assert "no such thing" in said.err


@pytest.mark.parametrize(("engine", "direction"), list(itertools.product(ENGINES, DIRECTIONS)))
def test_the_c_program_does_every_direction_with_every_engine(reference, engine, direction):
    done = reference(engine, direction, 1000, 8, 4)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["step"] > 0
    assert figures["cpu"] > 0
    assert figures["sent"] == figures["received"] == 0  # plain TCP: no kernel made a record


def test_the_c_program_without_a_peer_fails_and_gives_no_figures(reference):
    done = reference("uring", "echo", 64, 1, 4, port=1)
    assert done.returncode == 1
    assert not done.stdout
    assert "connect" in done.stderr


def fetched(way="download", size=1 << 30, peak=40_000, **other):
    line = {"client": "ktlslab", "http": "1.1", "layer": "kernel", "way": way, "size": size, "seconds": 4.0, "cpu": 3.0}
    return line | {"peak_kib": peak, "path": "kernel uring 1.1", "equal": True} | other


@pytest.mark.parametrize(
    ("large", "word"),
    [
        ({"peak": 40_900}, "met"),
        ({"peak": 60_000}, "MISSED"),
        ({"equal": False}, "NOT MEASURED"),
        ({"path": "userspace uring 1.1"}, "NOT MEASURED"),
    ],
)
def test_a_large_body_may_take_no_more_memory_and_must_be_equal_and_by_the_kernel(parts, large, word):
    (verdict,) = parts[0].clients.judged([fetched(size=1 << 20), fetched(**large)])
    assert verdict.word == word
    assert bool(verdict.notes) == (word == "NOT MEASURED")


def test_large_bodies_stand_in_a_table_by_direction(parts):
    curl = {"client": "curl", "layer": "userspace", "seconds": 2.0, "path": "", "equal": False}
    lines = [fetched(), fetched("upload"), fetched(**curl), fetched(size=0, cpu=1.0)]
    _, _, *rows = parts[0].clients.table(lines, "x").splitlines()
    assert [row.split()[:2] for row in rows] == [["download", "ktlslab"], ["download", "curl"], ["upload", "ktlslab"]]
    assert rows[0].split()[4:8] == ["4.00", "256", "3.00", "2.00"]
    assert rows[1].endswith("DIFFERENT")
