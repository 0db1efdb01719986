"""The plot of cost and memory against open connections."""

import math

import pandas as pd

from ktlslab.show import plots


def test_memory_per_session_is_drawn_below_the_cost_where_it_was_measured(make_frame):
    frame = make_frame(workloads=("serve",), payloads=(1024,))
    many = frame.assign(connections=1000, run_id="r1", request_bytes=64, session_bytes=56 * 1024.0)
    both = pd.concat(
        [frame.assign(connections=200, request_bytes=64, session_bytes=40 * 1024.0), many], ignore_index=True
    )
    both.attrs = frame.attrs
    figure = plots.against(both, "connections")
    memory = figure.axes[-1]
    assert "KiB per session" in memory.get_ylabel()
    assert figure.axes[-2].get_ylabel().startswith("server CPU")
    assert {round(y) for line in memory.lines for y in line.get_ydata()} == {40, 56}


def test_memory_that_the_process_had_free_before_is_not_drawn_as_a_sessions(make_frame):
    frame = make_frame(workloads=("serve",), payloads=(1024,)).assign(request_bytes=64, session_bytes=3 * 1024.0)
    many = frame.assign(connections=1000, run_id="r1", session_bytes=52 * 1024.0)
    both = pd.concat([frame.assign(connections=10), many], ignore_index=True)
    both.attrs = frame.attrs
    memory = plots.against(both, "connections").axes[-1]
    assert {round(y) for line in memory.lines for y in line.get_ydata() if not math.isnan(y)} == {52}
