"""Published figures beside ours: a rule decides, noise is no difference, and each claim names what it needs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from ktlslab.errors import UsageError
from ktlslab.estimating.frames import Estimate
from ktlslab.measure.table import read_table
from ktlslab.profiling.frames import read_profile
from ktlslab.show import published
from ktlslab.show.published import CLAIMS, FALLS, LESS, NOT_LESS, SAME

DATA = Path(__file__).parents[2] / "data"


def cells(*ratios, verdict=""):
    verdicts = [verdict or ("less" if ratio < 1 else "more") for ratio in ratios]
    return pd.DataFrame(
        {"ratio": ratios, "verdict": verdicts, "payload_bytes": [1024 << at for at in range(len(ratios))]}
    )


@pytest.mark.parametrize(
    ("rule", "ours", "agrees"),
    [
        (FALLS, cells(0.9, 0.7, 0.5), True),
        (FALLS, cells(0.9, 0.7, 0.8), False),
        (FALLS, cells(1.1, 0.7, 0.5), False),
        (SAME, cells(0.96, 1.04), True),
        (SAME, cells(1.0, 1.06), False),
        (LESS, cells(0.9, 0.99), True),
        (LESS, cells(0.9, 0.99, verdict="none"), False),
        (NOT_LESS, cells(0.99, verdict="none"), True),
        (NOT_LESS, cells(1.2, 0.9), False),
    ],
)
def test_a_rule_decides_and_noise_is_no_difference(rule, ours, agrees):
    assert published.agrees(replace(CLAIMS[0], rule=rule), ours) is agrees


@pytest.fixture(scope="module")
def recorded():
    return read_table(DATA / "field.parquet"), read_profile(DATA / "field-profile.parquet")


def test_every_claim_has_its_cells_in_the_recorded_table_and_a_reason_by_the_profile(recorded):
    shown = published.beside(*recorded)
    assert [row[0].splitlines()[0] for row in shown.rows] == [claim.source for claim in CLAIMS]
    words = {row[column].splitlines()[-1].split(": ")[0] for row in shown.rows for column in (2, 3)}
    assert words <= {"agrees", "disagrees"}
    for claim, row in zip(CLAIMS, shown.rows, strict=True):
        assert len(row) == len(shown.head)
        assert row[-1].count("(kernel)") + row[-1].count("(user)") == 3 * len(row[-1].splitlines())
        assert len(row[-1].splitlines()) == min(2, len(claim.payloads))


def test_the_reason_adds_up_to_the_difference_of_the_arms(recorded):
    claim = CLAIMS[1]  # one payload, one end
    rows = recorded[1].functions
    rows = rows[
        (rows["workload"] == claim.workload) & (rows["payload_bytes"] == claim.payloads[0]) & (rows["end"] == "client")
    ]
    arms = (rows["record_layer"] + "+" + rows["io_engine"]).rename("arm")
    sums = rows.groupby(arms)["instructions"].sum()
    said = published.why(claim, recorded[1]).split(": ")[1].replace("\N{MINUS SIGN}", "-").replace(",", "")
    assert float(said) == pytest.approx(sums[claim.of] - sums[claim.over], abs=1)


def test_a_table_without_the_cells_is_refused_with_what_to_sweep(recorded):
    frame = recorded[0]
    less = frame[frame["workload"] != "download"]
    less.attrs = frame.attrs
    with pytest.raises(UsageError, match=r"dotnet.*0 of 1 cells.*data/field.toml"):
        published.beside(less, recorded[1])
    with pytest.raises(UsageError, match="profile"):
        published.beside(frame, "a profile")


def test_without_the_binding_the_ratio_is_of_everything_else(recorded):
    claim = CLAIMS[1]
    rows = recorded[1].functions
    rows = rows[(rows["workload"] == "upload") & (rows["payload_bytes"] == 65536) & (rows["end"] == "client")]
    rows = rows[~rows["class"].isin(["interpreter", "our C"])]
    sums = rows.groupby(rows["record_layer"] + "+" + rows["io_engine"])["instructions"].sum()
    found = published.unbound(claim, recorded[1])
    assert found["ratio"].tolist() == [pytest.approx(sums[claim.of] / sums[claim.over])]
    falling = published.unbound(CLAIMS[0], recorded[1])["ratio"]
    assert (falling < 1).all()


def test_an_estimate_of_the_cells_has_a_column_that_says_what_it_is(recorded):
    cells = [
        {"record_layer": layer, "io_engine": engine, "payload_bytes": size, "workload": claim.workload}
        | {"suite": "" if layer == "plain" else "TLS_AES_256_GCM_SHA384", "estimate_ns": cost}
        for claim in CLAIMS[3:4]
        for size in claim.payloads
        for arm, cost in ((claim.of, 1100.0), (claim.over, 1000.0))
        for layer, engine in [arm.split("+")]
    ]
    about = {"weights": pd.DataFrame(), "checks": pd.DataFrame(), "notes": [], "runs": {}}
    shown = published.beside(*recorded, Estimate(cells=pd.DataFrame(cells), **about))
    assert "ESTIMATED on silicon, not measured" in shown.head
    column = shown.head.index("ESTIMATED on silicon, not measured")
    assert [row[column] for row in shown.rows] == [*["not estimated"] * 3, "+10 %, +10 %", "not estimated"]
    assert "ESTIMATED" not in " ".join(published.beside(*recorded).head)
