"""The public functions of measuring and promises raise errors with a remedy for invalid arguments."""

from __future__ import annotations

import functools

import pytest

from ktlslab import promises
from ktlslab.errors import KtlsLabError
from ktlslab.measure.analysis import effects, false_alarms, intervals, noise_floor
from ktlslab.measure.comparison import compared, difference
from ktlslab.measure.plan import Plan, named
from ktlslab.measure.sweeping import sweep
from ktlslab.measure.table import check, comparable, merge, read_table, to_frame, write_table
from ktlslab.promises.table import summary
from tests.measure.test_analysis import table

JUNK = (5, -1.5, True, b"x", object(), {"a": 1}, [5], [[]], float("nan"))
Q = "latency_p50"


@functools.cache
def frame():
    return table(blocks=2, payloads=(64,))


CALLS = {
    "a plan": named,
    "a machine": lambda junk: sweep(on=junk),
    "a clock": lambda junk: sweep(on="here", clock=junk),
    "a sweep's output": lambda junk: sweep(on="here", output=junk),
    "an executor": lambda junk: sweep(on="here", executor=junk),
    "a table's name": read_table,
    "a table to be written": lambda junk: write_table(junk, "t.parquet"),
    "a name to be written to": lambda junk: write_table(frame(), junk),
    "rows": lambda junk: to_frame(junk, {}),
    "their provenance": lambda junk: to_frame([{}], junk),
    "a table": check,
    "one table": lambda junk: comparable(junk, frame()),
    "another table": lambda junk: comparable(frame(), junk),
    "tables": merge,
    "tables one of which is none": lambda junk: merge([frame(), junk]),
    "a frame": effects,
    "quantities": lambda junk: effects(frame(), junk),
    "a confidence": lambda junk: effects(frame(), confidence=[junk]),
    "questions": lambda junk: effects(frame(), Q, asked=junk),
    "a frame of cells": lambda junk: intervals(junk, Q),
    "a quantity": lambda junk: intervals(frame(), junk),
    "a confidence in cells": lambda junk: intervals(frame(), Q, [junk]),
    "a frame of noise": noise_floor,
    "a quantity of noise": lambda junk: noise_floor(frame(), junk),
    "a frame of equal arms": false_alarms,
    "table A": lambda junk: difference(junk, frame()),
    "table B": lambda junk: compared(frame(), junk),
    "a tolerance": lambda junk: compared(frame(), frame(), [junk]),
    "a quantity to compare": lambda junk: compared(frame(), frame(), None, junk),
    "where promises are checked": promises.scoreboard,
    "which promises": lambda junk: promises.scoreboard("here", names=junk),
    "a scoreboard's output": lambda junk: promises.scoreboard("here", output=junk),
    "who is told": lambda junk: promises.scoreboard("here", say=junk),
    "whether danger is meant": lambda junk: promises.scoreboard("here", dangerous=junk),
    "whether to go on": lambda junk: promises.scoreboard("here", resume=junk),
    "promises to choose": lambda junk: promises.select(junk or [junk]),
    "a scoreboard's name": promises.read_scoreboard,
    "a scoreboard": summary,
}
FIELDS = [name for name in Plan.__dataclass_fields__ if name != "name"]


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("junk", JUNK, ids=lambda junk: type(junk).__name__)
def test_what_cannot_be_meant_is_an_error_of_ours_with_a_remedy(call, junk):
    with pytest.raises(KtlsLabError) as caught:
        call(junk)
    assert caught.value.remedy


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("junk", [None, b"x", [[]], {"a": 1}, [b"x"], float("nan"), "no such thing"])
def test_so_it_is_in_every_field_of_a_plan(name, junk):
    with pytest.raises(KtlsLabError) as caught:
        Plan(**{name: junk})
    assert caught.value.remedy


@pytest.mark.parametrize("call", [effects, noise_floor, false_alarms, lambda frame: intervals(frame, Q)])
def test_a_frame_of_other_columns_is_refused_with_those_it_lacks(call):
    with pytest.raises(KtlsLabError, match="it lacks the columns"):
        call(frame().drop(columns=["unit", "repeat"]))


def test_a_near_miss_of_a_promise_or_a_quantity_says_which_is_meant():
    with pytest.raises(KtlsLabError, match="Did you mean a_send_is_a_record"):
        promises.scoreboard("here", names="a_send_is_a_recrod")
    with pytest.raises(KtlsLabError, match="Did you mean latency_p50"):
        effects(frame(), "latency_p5")
