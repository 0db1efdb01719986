"""The order of samples: each arm once per block, none twice, more blocks only where an interval is wide."""

import itertools
import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktlslab.measure.blocks import Blocks, cell_of, half_width, unbroken
from ktlslab.measure.plan import Plan


def row(repeat, cell, cost, run="r"):
    figures = {"repeat": repeat, "latency_p50": cost, "client_cpu": cost}
    labels = {"run_id": run, "machine": "7.3", "clock": "instructions"}
    return {name: getattr(cell, name) for name in cell.__slots__} | labels | figures


def run(blocks, noise, most=10_000, name="r"):
    """Take samples whose cost varies by that share; return the rows."""
    draw = random.Random(1)  # noqa: S311 - noise, not a secret
    rows = []
    for repeat, _, cell in itertools.islice(blocks, most):
        rows.append(row(repeat, cell, 1000 * math.exp(draw.gauss(0, noise)), name))
        blocks.take(rows[-1])
    return rows


def keys(rows):
    return [(cell_of(row), row["repeat"]) for row in rows]


def test_without_a_precision_each_setting_gets_the_plans_blocks_in_turns(small):
    blocks = Blocks(small)
    assert blocks.left() == len(small.cells()) * small.repeats
    rows = run(blocks, 0.1)
    assert sorted(map(str, keys(rows))) == sorted(str((cell, repeat)) for repeat, cell in small.schedule())
    assert blocks.left() == 0
    turns = [(cell.setting, repeat) for (cell, repeat), _ in itertools.groupby(keys(rows))]
    assert [name for name, _ in itertools.groupby(turns)] == list(itertools.product(small.settings(), range(1))) + list(
        itertools.product(small.settings(), range(1, 2))
    )


def test_complete_blocks_of_a_machine_that_lacks_an_arm_are_not_taken_again(small):
    lacking = small.cells()[0]
    first = [row for row in run(Blocks(small), 0.1) if cell_of(row) != lacking and row["repeat"] == 0]
    blocks = Blocks(small, first, whole=True)
    assert {key for key in keys(run(blocks, 0.1)) if key[1] == 0} == {(lacking, 0)}


def test_a_noisy_setting_gets_more_blocks_and_a_quiet_one_does_not(small):
    plan = replace(small, repeats=4, max_repeats=30, precision=0.01)
    assert max(repeat for _, repeat in keys(run(Blocks(plan), 0.0001))) == 3
    blocks = Blocks(plan)
    rows = run(blocks, 0.01)
    assert 3 < max(repeat for _, repeat in keys(rows)) < 29
    assert all(blocks.widest(setting) <= plan.precision for setting in plan.settings())
    assert max(repeat for _, repeat in keys(run(Blocks(plan), 1.0))) == 29


@settings(deadline=None)
@given(cuts=st.lists(st.integers(0, 60), max_size=3))
def test_resuming_takes_what_is_missing_and_torn_blocks_anew_as_a_whole(cuts):
    plan = Plan(name="p", record_layers=("plain",), payloads=(64, 128), repeats=4, max_repeats=8, precision=0.02)
    rows = []
    for number, cut in enumerate([*cuts, 10_000]):
        blocks = Blocks(plan, rows)
        left = blocks.left()
        rows += run(blocks, 0.03, most=cut, name=f"run {number}")
    assert len([row for row in rows if row["run_id"] == f"run {len(cuts)}"]) >= left
    rows = unbroken(rows)
    taken = keys(rows)
    assert len(taken) == len(set(taken))
    whole = {}
    for row in rows:
        whole.setdefault((cell_of(row).setting, row["repeat"]), {})[cell_of(row)] = row["run_id"]
    assert all(cells.keys() == set(plan.settings()[setting]) for (setting, _), cells in whole.items())
    assert all(len(set(cells.values())) == 1 for cells in whole.values())


def test_two_torn_halves_do_not_make_a_block(small):
    setting, cells = next(iter(small.settings().items()))
    rows = [row(0, cell, 1.0, "1" if at < 2 else "2") for at, cell in enumerate(cells)]
    assert Blocks(small, rows, [setting]).left() == small.repeats * len(cells)


def test_some_settings_alone(small):
    chosen = list(small.settings())[:1]
    rows = run(Blocks(small, settings=chosen), 0.1)
    assert {cell.setting for cell, _ in keys(rows)} == set(chosen)
    with pytest.raises(KeyError):
        Blocks(small, rows, settings=list(small.settings())[1:])


def test_an_arm_that_turns_out_to_be_unavailable_is_waited_for_no_longer(small):
    plan = replace(small, repeats=4, max_repeats=6, precision=0.01)
    gone = plan.cells()[0].session_name
    blocks = Blocks(plan)
    rows = []
    for repeat, _, cell in blocks:
        if cell.session_name == gone:
            blocks.leave_out(gone)
            continue
        rows.append(row(repeat, cell, 1000.0))
        blocks.take(rows[-1])
    assert blocks.left() == 0
    assert gone not in {cell.session_name for cell, _ in keys(rows)}
    assert max(repeat for _, repeat in keys(rows)) == 3
    assert run(Blocks(plan, rows, left_out=[gone]), 0) == []


def test_the_interval_is_students():
    assert half_width([1.0]) == math.inf
    assert half_width([1.0, 2.0, 3.0, 4.0]) == pytest.approx(3.18 * 1.29099 / 2, rel=1e-3)
    assert half_width([5.0] * 9) == 0


def test_the_sessions_of_each_number_of_connections_are_open_alone():
    plan = Plan(workloads="serve", requests=64, payloads=(64, 1024), connections=(10, 100), repeats=2)
    numbers = [cell.connections for _, _, cell in Blocks(plan)]
    assert numbers == sorted(numbers)
    assert len(numbers) == len(list(plan.schedule()))
