"""How often equal arms are said to differ, and how often a real difference is found, over many simulated sweeps.

Each column of figures is one sweep, so that one frame holds them all. The noise imitates a machine: noise of blocks, of
sessions (constant for a run), drift, heavy tails, and more noise in large cells.
"""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from ktlslab.errors import UsageError
from ktlslab.measure.analysis import effects, false_alarms

NOISE = 0.01
SWEEPS = 30
PLACE = ("workload", "payload_bytes")
WORLDS = {
    "block noise": {},
    "sessions that differ by half the block noise": {"session": 0.5},
    "sessions that differ by the block noise": {"session": 1},
    "sessions that differ by three times the block noise": {"session": 3},
    "sessions that differ alike in all settings": {"everywhere": 0.4},
    "drift by 30 % within the sweep": {"drift": 30},
    "heavy tails": {"tails": lambda draw: draw.standard_t(2, SWEEPS)},
    "outliers to one side": {"tails": lambda draw: draw.lognormal(0, 1, SWEEPS)},
    "large cells noisier": {"grow": 1.3, "session": 0.5},
    "all at once": {"grow": 1.2, "session": 0.5, "drift": 30, "tails": lambda draw: draw.standard_t(3, SWEEPS)},
}


def simulated(
    *, replicas=4, blocks=6, effect=0.0, session=0.0, everywhere=0.0, drift=0.0, grow=1.0, tails=None, seed=1
):
    """Return a frame of SWEEPS sweeps and their columns; sizes are multiples of the block noise."""
    draw = np.random.default_rng(seed)
    arms = [(layer, replica) for layer in ("userspace", "kernel") for replica in range(replicas)]
    places = list(itertools.product(("echo", "upload", "download"), (64, 1024, 16384, 262144)))
    stays = {(place, arm): draw.standard_normal(SWEEPS) for place in places for arm in arms}
    whole = {arm: draw.standard_normal(SWEEPS) for arm in arms}
    rows, values = [], []
    for block, place in itertools.product(range(blocks), places):
        noise = NOISE * grow ** np.log2(place[1] / 64)
        common = draw.standard_normal(SWEEPS)
        for at in draw.permutation(len(arms)):
            layer, replica = arms[at]
            drifted = drift * len(rows) / (blocks * len(places) * len(arms))
            own = tails(draw) if tails else draw.standard_normal(SWEEPS)
            off = session * stays[place, arms[at]] + everywhere * whole[arms[at]] + drifted + common + own
            values.append(np.exp(10 + noise * off + (effect if layer == "kernel" else 0)))
            rows.append((layer, layer, replica, block, *place))
    frame = pd.DataFrame(rows, columns=["record_layer", "record_layer_observed", "replica", "repeat", *PLACE])
    fixed = {
        "machine": "m",
        "kernel": "k",
        "clock": "wall",
        "unit": "ns",
        "host": "h",
        "run_id": "r",
        "payload_ok": True,
    }
    fixed |= {
        "link": "loopback",
        "depth": 1,
        "connections": 1,
        "record_size": 16384,
        "request_bytes": 0,
        "io_engine": "uring",
    }
    fixed |= {"suite": "TLS_AES_128_GCM_SHA256", "tls_version": "TLS 1.3"}
    names = [f"sweep{number}" for number in range(SWEEPS)]
    return pd.concat([frame.assign(**fixed), pd.DataFrame(np.array(values), columns=names)], axis=1), names


@pytest.mark.parametrize("world", WORLDS)
def test_at_most_five_in_a_hundred_equal_arms_are_said_to_differ(world):
    alarms, comparisons = false_alarms(*simulated(**WORLDS[world]))
    print(f"{world}: {alarms} of {comparisons}, {100 * alarms / comparisons:.1f} in 100")  # noqa: T201 - shown by -rP
    assert comparisons == SWEEPS * 12 * 7  # in a setting six pairs of userspace, one of kernel that made no floor
    assert alarms / comparisons <= 0.05


def test_intervals_alone_would_raise_more():
    found = effects(*simulated(session=1.0))
    equal = found[(found["effect"] == "A/A") & (found["of"] == "userspace+uring")]
    assert (~equal["reason"].isin(["interval", "blocks"])).mean() > 0.1


def test_three_percent_are_found_at_one_percent_of_noise():
    found = effects(*simulated(replicas=2, effect=0.03))
    found = found[found["effect"] == "kTLS"]
    power = (found["verdict"] == "more").mean()
    print(f"found in {100 * power:.0f} of 100")  # noqa: T201
    assert len(found) == SWEEPS * 12
    assert power > 0.8


def test_a_floor_is_larger_where_cells_are_noisier():
    found = effects(*simulated(replicas=2, grow=1.3))
    floors = found.groupby("payload_bytes")["floor"].median()
    assert floors.is_monotonic_increasing
    assert floors[262144] - 1 > 5 * (floors[64] - 1)


def test_counting_alarms_takes_four_equal_arms():
    with pytest.raises(UsageError, match="replicas = 4"):
        false_alarms(*simulated(replicas=2))
