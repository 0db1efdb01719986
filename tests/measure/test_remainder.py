"""What is left of a plan, and its parts: every sample is in exactly one of them."""

from dataclasses import asdict, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktlslab.errors import UsageError
from ktlslab.measure.blocks import Blocks
from ktlslab.measure.estimate import duration
from ktlslab.measure.plan import Plan
from ktlslab.measure.progress import announcement
from ktlslab.measure.remainder import remaining
from ktlslab.runs.journal import Journal

PLAN = Plan(name="p", suites=("TLS_AES_128_GCM_SHA256",), payloads=(64, 4096, 262144), repeats=2, steps=4)
WHOLE = list(PLAN.schedule())


def row(repeat, cell, **changed):
    here = {"run_id": "r", "machine": "7.3", "clock": "instructions", "repeat": repeat, "latency_p50": 1.0}
    return {**asdict(cell), **here, "client_cpu": 1.0, "peer_cpu": 1.0} | changed


def journal(samples, plan=PLAN, **changed):
    run = {"run_id": "r", "machine": "7.3", "clock": "instructions", "plan": plan.to_json()} | changed
    return Journal(rows=[row(*sample) for sample in samples], runs={"r": run})


def block_of(sample):
    return sample[0], sample[1].setting


def left(part):
    plan = Plan.from_json(part.plan)
    return [(repeat, cell) for repeat, _, cell in Blocks(plan, part.rows, part.settings)]


@settings(deadline=None)
@given(st.sets(st.integers(0, len(WHOLE) - 1)), st.integers(1, 12))
def test_the_parts_hold_together_what_is_left_and_each_sample_once(taken, pieces):
    wanted = remaining(PLAN, "7.3", "instructions", journal([WHOLE[at] for at in taken]))
    parts = wanted.parts(pieces)
    samples = [sample for part in parts for sample in left(part)]
    assert len(samples) == len(set(samples)) == wanted.at_least == wanted.at_most
    missing = {block_of(sample) for at, sample in enumerate(WHOLE) if at not in taken}
    assert set(samples) == {sample for sample in WHOLE if block_of(sample) in missing}
    assert (wanted.done, wanted.torn) == (len(WHOLE) - len(samples), len(samples) - len(WHOLE) + len(taken))
    assert len({part.run_id for part in parts}) == len(parts) <= pieces
    settings = [setting for part in parts for setting in part.settings]
    assert len(settings) == len(set(settings))


def test_blocks_that_were_cut_are_announced():
    wanted = remaining(PLAN, "7.3", "instructions", journal(WHOLE[:8]))
    (line,) = [line for line in announcement([wanted], parts=1, at_once=1) if "on 7.3" in line]
    whole = len(next(iter(PLAN.settings().values())))
    assert line.endswith(
        f", {8 // whole * whole} are there already, {8 % whole} of blocks that were cut are measured again"
    )


def test_parts_take_about_as_long():
    wanted = remaining(PLAN, "7.3", "instructions", Journal())
    loads = [sum(wanted.seconds[setting] for setting in part.settings) for part in wanted.parts(3)]
    assert max(loads) < 1.5 * min(loads)


def test_rows_of_other_machines_and_clocks_are_not_taken_for_these():
    for other in ({"machine": "6.1"}, {"clock": "wall"}):
        rows = [row(*sample, **other) for sample in WHOLE]
        assert remaining(PLAN, "7.3", "instructions", Journal(rows=rows)).at_least == len(WHOLE)


def test_unavailable_arms_are_not_waited_for():
    arm = WHOLE[0][1].session_name
    samples = [sample for sample in WHOLE if sample[1].session_name != arm]
    wanted = remaining(PLAN, "7.3", "instructions", journal(samples, left_out={arm: "no"}))
    assert (wanted.at_least, wanted.parts(4)) == (0, [])
    assert announcement([wanted], parts=0, at_once=1)[-1].strip() == "nothing is left to measure"


def test_a_plan_that_asks_for_precision_tells_at_least_and_at_most():
    plan = replace(PLAN, precision=0.01, max_repeats=6)
    wanted = remaining(plan, "7.3", "instructions", Journal())
    assert (wanted.at_least, wanted.at_most) == (len(WHOLE), 3 * len(WHOLE))
    said = "\n".join(announcement([wanted], parts=1, at_once=1))
    assert f"{len(PLAN.cells())} cells in {len(PLAN.settings())} settings" in said
    assert f"on 7.3, instructions clock: {len(WHOLE)} to {3 * len(WHOLE)} samples" in said
    assert wanted.most_seconds == pytest.approx(3 * sum(wanted.seconds.values()))


@pytest.mark.parametrize("changed", [{"seed": 2}, {"payloads": (64,)}, {"steps": 5}, {"control": "plain+uring"}])
def test_another_plan_is_refused_and_what_differs_is_named(changed):
    with pytest.raises(UsageError, match=f"resuming plan 'p' on 7.3: the plan has {next(iter(changed))} "):
        remaining(replace(PLAN, **changed), "7.3", "instructions", journal(WHOLE[:3]))


def test_more_time_is_not_another_plan():
    assert remaining(replace(PLAN, minutes=5), "7.3", "instructions", journal(WHOLE)).at_least == 0


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.2, "1 s"), (89, "89 s"), (95, "2 min"), (3600, "60 min"), (7800, "2 h 10 min")]
)
def test_a_duration_is_said_as_a_person_does(seconds, said):
    assert duration(seconds) == said


def test_guests_side_by_side_take_half_as_long():
    wanted = remaining(PLAN, "7.3", "instructions", Journal())
    alone, two = (
        [announcement([replace(wanted, seconds={0: 600.0}, most_seconds=600.0)], parts=2, at_once=lanes)[-1]]
        for lanes in (1, 2)
    )
    assert ("about 10 min" in alone[0], "about 5 min" in two[0], "2 guests side by side" in two[0]) == (
        True,
        True,
        True,
    )


def test_opening_thousands_of_sessions_is_a_part_of_how_long_a_plan_takes():
    few, many = (
        Plan(workloads="serve", requests=64, payloads=64, connections=count, suites="TLS_AES_256_GCM_SHA384")
        for count in (10, 10_000)
    )
    short, long = (sum(remaining(plan, "7.3", "instructions", Journal()).seconds.values()) for plan in (few, many))
    assert long > short + 300
