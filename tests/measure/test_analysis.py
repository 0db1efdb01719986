"""Effects of simulated tables with known answers."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktlslab.errors import UsageError
from ktlslab.measure.analysis import contrasts, effects, intervals, noise_floor
from ktlslab.measure.blocks import unbroken

SUITES = ("TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256")
COST = {"plain": 1.0, "userspace": 4.0, "kernel": 2.0, "stdlib-ssl": 5.0}
Q = "latency_p50"


def table(*, cost=None, blocks=6, noise=0.002, payloads=(64, 16384), drift=0.0, twice=("kernel", "uring"), seed=1):
    """Return a table in which io_uring makes each arm 10 % slower, and userspace another 20 %."""
    draw = np.random.default_rng(seed)
    cost = COST if cost is None else cost
    rows = []
    for block, payload, layer, engine in itertools.product(range(blocks), payloads, cost, ("syscall", "uring")):
        if layer == "stdlib-ssl" and engine == "uring":
            continue
        for suite in ("",) if layer == "plain" else SUITES:
            replicas = 2 if (layer, engine) == twice and suite in (SUITES[0], "") else 1
            for replica in range(replicas):
                dearer = 1.1 * (1.2 if layer == "userspace" else 1) if engine == "uring" else 1
                value = 1000 * cost[layer] * dearer * math.exp(noise * draw.standard_normal() + drift * block)
                row = {"record_layer": layer, "record_layer_observed": layer, "io_engine": engine, "suite": suite}
                row |= {"tls_version": "TLS 1.3" if suite else "", "payload_bytes": payload, "repeat": block}
                rows.append(row | {"replica": replica, Q: value, "client_cpu": value / 2})
    fixed = {"machine": "7.3", "kernel": "7.3.4", "clock": "instructions", "unit": "instructions", "host": "h"}
    fixed |= {"run_id": "r", "payload_ok": True, "link": "loopback", "workload": "echo", "depth": 1}
    return pd.DataFrame(rows).assign(**fixed, connections=1, record_size=16384, request_bytes=0)


def one(found, effect, of, over, *, suite=SUITES[0], payload=64):
    chosen = found[(found["effect"] == effect) & (found["of"] == of) & (found["over"] == over)]
    chosen = chosen[(chosen["suite"] == suite) & (chosen["payload_bytes"] == payload) & (chosen["quantity"] == Q)]
    assert len(chosen) == 1, f"{effect}, {of} over {over}: {len(chosen)} rows"
    return chosen.iloc[0]


@pytest.fixture(scope="module")
def found():
    return effects(table(), (Q,))


@pytest.mark.parametrize(
    ("names", "at", "ratio"),
    [
        (("kTLS", "kernel+syscall", "userspace+syscall"), "syscall", 0.5),
        (("kTLS", "kernel+uring", "userspace+uring"), "uring", 0.5 / 1.2),
        (("kTLS over ssl", "kernel+syscall", "stdlib-ssl+syscall"), "syscall", 0.4),
        (("userspace over ssl", "userspace+syscall", "stdlib-ssl+syscall"), "syscall", 0.8),
        (("io_uring", "kernel+uring", "kernel+syscall"), "kernel", 1.1),
        (("io_uring", "userspace+uring", "userspace+syscall"), "userspace", 1.32),
        (("TLS tax", "userspace+uring", "plain+uring"), "uring", 4.8),
        (("TLS tax", "kernel+syscall", "plain+syscall"), "syscall", 2.0),
        (("interaction", "kernel+uring / kernel+syscall", "userspace+uring / userspace+syscall"), "", 1 / 1.2),
    ],
)
def test_each_effect_is_its_ratio_at_all_else_equal(found, names, at, ratio):
    for suite in SUITES:
        row = one(found, *names, suite=suite)
        assert row["ratio"] == pytest.approx(ratio, rel=0.01)
        assert row["low"] < row["ratio"] < row["high"]
        assert (row["blocks"], row["at"]) == (6, at)
        assert row["verdict"] == ("less" if ratio < 1 else "more")


def test_plain_has_no_suite_of_its_own(found):
    assert one(found, "io_uring", "plain+uring", "plain+syscall", suite="")["ratio"] == pytest.approx(1.1, rel=0.01)
    assert set(found.loc[found["suite"] == "", "of"]) == {"plain+uring"}


def test_equal_arms_are_none(found):
    row = one(found, "A/A", "kernel+uring", "kernel+uring")
    assert row["verdict"] == "none"
    assert row["reason"] in {"interval", "floor"}
    assert 1 < row["floor"] < 1.05


def test_what_drifts_alike_cancels():
    steady, drifting = effects(table(), (Q,)), effects(table(drift=0.3), (Q,))
    assert np.allclose(steady["ratio"], drifting["ratio"])
    assert np.allclose(steady["high"], drifting["high"])
    assert np.allclose(steady["floor"], drifting["floor"])


def test_blocks_without_a_partner_do_not_count():
    frame = table()
    lone = (frame["record_layer"] == "userspace") & (frame["repeat"] > 3)
    frame.loc[lone, "run_id"] = "another"  # the same block number, at another time
    assert one(effects(frame, (Q,)), "kTLS", "kernel+uring", "userspace+uring")["blocks"] == 4


def test_fewer_than_three_blocks_are_no_verdict():
    row = one(effects(table(blocks=2), (Q,)), "kTLS", "kernel+uring", "userspace+uring")
    assert row["ratio"] == pytest.approx(0.5 / 1.2, rel=0.01)
    assert math.isnan(row["low"])
    assert (row["verdict"], row["reason"]) == ("none", "blocks")


def test_without_equal_arms_there_is_no_verdict():
    row = one(effects(table(twice=()), (Q,)), "kTLS", "kernel+uring", "userspace+uring")
    assert math.isnan(row["floor"])
    assert (row["verdict"], row["reason"]) == ("none", "no A/A arm")


def test_a_difference_that_all_blocks_show_is_none_within_the_floor():
    frame = table(noise=0.0005, payloads=(64,), cost={"userspace": 1.0, "kernel": 1.005})
    frame.loc[frame["replica"] == 1, Q] *= 1.004  # two sessions of the same arm, as far apart in every block
    row = one(effects(frame, (Q,)), "kTLS", "kernel+syscall", "userspace+syscall")
    assert row["low"] > 1
    assert (row["verdict"], row["reason"]) == ("none", "floor")


def test_an_interaction_has_two_ratios_noise(found):
    names = "kernel+uring / kernel+syscall", "userspace+uring / userspace+syscall"
    row, simple = one(found, "interaction", *names), one(found, "A/A", "kernel+uring", "kernel+uring")
    assert math.log(row["floor"]) == pytest.approx(math.sqrt(2) * math.log(simple["floor"]))


def test_a_floor_is_borrowed_less_from_afar():
    frame = table(payloads=(64, 1024, 262144), noise=0.0005)
    frame.loc[(frame["replica"] == 1) & (frame["payload_bytes"] == 262144), Q] *= 1.1
    floors = noise_floor(frame, (Q,)).set_index("payload_bytes")["floor"]
    assert 1.001 < floors[64] < floors[1024] < floors[262144]


def torn(frame, block=3):
    """Return the frame with one block split: its kTLS samples are from another run."""
    later = (frame["repeat"] == block) & (frame["record_layer"] == "kernel")
    return frame.assign(run_id=frame["run_id"].mask(later, "s"))


def test_a_block_that_was_cut_in_two_hardly_moves_the_floor_and_hides_no_effect():
    frame = table(noise=0.0005, cost={"plain": 1.0, "userspace": 1.0, "kernel": 0.893})
    floors = [noise_floor(each, (Q,))["floor"].to_numpy() for each in (frame, torn(frame))]
    assert np.log(floors[1]) == pytest.approx(np.log(floors[0]), rel=0.3)
    row = one(effects(torn(frame), (Q,)), "kTLS", "kernel+syscall", "userspace+syscall")
    assert (row["verdict"], row["blocks"]) == ("less", 5)


def test_a_torn_block_that_was_measured_again_leaves_the_floor_as_it_is():
    frame = table()
    cut = frame[(frame["repeat"] == 3) & (frame["record_layer"] != "userspace")]
    again = frame.assign(run_id=frame["run_id"].mask(frame["repeat"] >= 3, "s"))
    rows = unbroken([*cut.assign(**{Q: 1.0}).to_dict("records"), *again.to_dict("records")])
    assert len(rows) == len(frame)
    assert noise_floor(pd.DataFrame(rows), (Q,)).equals(noise_floor(frame, (Q,)))


def test_missing_figures_do_not_count_and_weigh_nothing():
    frame = table(blocks=8, payloads=(64,))
    draw = np.random.default_rng(5)
    holes = frame.assign(**{Q: frame[Q].where(draw.random(len(frame)) > 0.15)})
    floors = [float(noise_floor(each, (Q,))["floor"].iloc[0]) for each in (frame, holes)]
    assert math.log(floors[1]) == pytest.approx(math.log(floors[0]), rel=0.4)


def test_intervals_are_of_cells_and_cover_their_drift():
    found = intervals(table(drift=0.1), Q)
    cell = found[(found["record_layer"] == "kernel") & (found["io_engine"] == "syscall")].iloc[0]
    assert cell["value"] == pytest.approx(2000 * math.exp(0.25), rel=0.01)
    assert cell["low"] < 2000 * math.exp(0.1)
    assert cell["high"] > 2000 * math.exp(0.4)
    assert cell["blocks"] == 6
    assert len(found) == 2 * (2 + 2 * 2 * 2 + 2)  # payloads x (plain, userspace and kernel, stdlib-ssl)


def test_places_are_kept_apart():
    frame = pd.concat([table(), table(seed=2).assign(machine="6.1", kernel="6.1.0")])
    found = effects(frame, (Q,))
    assert dict(found.groupby("machine").size()) == {"6.1": len(found) / 2, "7.3": len(found) / 2}
    assert (found["blocks"] == 6).all()


@given(st.floats(0.5, 2), st.integers(0, 50))
@settings(max_examples=8, deadline=None)
def test_swapped_arms_invert_ratios_and_verdicts(factor, seed):
    frame = table(cost={"userspace": 1.0, "kernel": factor}, noise=0.01, payloads=(64,), twice=("", ""), seed=seed)
    frame = pd.concat([frame, frame[(frame["suite"] == SUITES[0])].assign(replica=1).eval(f"{Q} = {Q} * 1.001")])
    names = {"userspace": "kernel", "kernel": "userspace"}
    swapped = frame.assign(
        record_layer=frame["record_layer"].map(names), record_layer_observed=lambda new: new.record_layer
    )
    for engine in ("syscall", "uring"):
        rows = [
            one(effects(each, (Q,)), "kTLS", f"kernel+{engine}", f"userspace+{engine}") for each in (frame, swapped)
        ]
        assert rows[0]["ratio"] * rows[1]["ratio"] == pytest.approx(1)
        assert rows[0]["low"] * rows[1]["high"] == pytest.approx(1)
        assert rows[0]["floor"] == pytest.approx(rows[1]["floor"])
        assert {"less": "more", "more": "less", "none": "none"}[rows[0]["verdict"]] == rows[1]["verdict"]


def test_questions_are_named_once():
    names = [tuple(question.names.values()) for question in contrasts()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("quantity", ["no_such", "machine"])
def test_what_is_no_figure_is_refused(quantity):
    with pytest.raises(UsageError, match=f"no column of figures '{quantity}'"):
        effects(table(), (quantity,))


def test_a_fleet_that_counts_instructions_is_one_place_and_its_figures_those_of_one_host(found):
    fleet = table().assign(host=lambda frame: np.where(frame["payload_bytes"] == 64, "h2", "h1"))
    fleet["run_id"] = fleet["host"]
    there = effects(fleet, (Q,))
    assert set(there["host"]) == {"h1, h2"}
    pd.testing.assert_frame_equal(there.drop(columns="host"), found.drop(columns="host"))


@pytest.mark.parametrize("apart", ["times", "other CPUs"])
def test_hosts_stay_apart_where_they_are_in_the_figures(apart):
    fleet = table().assign(host=lambda frame: np.where(frame["payload_bytes"] == 64, "h2", "h1"))
    fleet["run_id"] = fleet["host"]
    if apart == "times":
        fleet = fleet.assign(unit="ns", clock="wall")
    else:
        fleet.attrs["provenance"] = {"h1": {"cpu_flags": ["aes"]}, "h2": {"cpu_flags": ["aes", "vaes"]}}
    assert set(effects(fleet, (Q,))["host"]) == {"h1", "h2"}
