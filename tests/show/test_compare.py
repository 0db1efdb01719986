"""Ratios and their sentences, against figures that are known because they were made up."""

from __future__ import annotations

import pytest

from ktlslab.errors import UsageError
from ktlslab.show.compare import compared, ratios, summary, verdict_sentence
from ktlslab.show.names import place_name, size_name, suite_name, suite_names

TWO = ("TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256")


@pytest.fixture(scope="module")
def known(make_frame):
    """Make a table in which the kernel's latency is half of userspace's at 64 B, twice at 1 KiB, and else the same."""
    frame = make_frame(
        payloads=(64, 1024, 16384), repeats=5, suites=TWO, workloads=("echo",), control=True, noise=0.001
    )
    kernel = frame["record_layer"] == "kernel"
    noise = frame["latency_p50"] / frame.groupby(["record_layer", "io_engine", "suite", "payload_bytes"])[
        "latency_p50"
    ].transform("mean")
    frame["latency_p50"] = 100.0 * noise
    frame.loc[kernel & (frame["payload_bytes"] == 64), "latency_p50"] *= 0.5
    frame.loc[kernel & (frame["payload_bytes"] == 1024), "latency_p50"] *= 2.0
    return frame


def test_a_ratio_divides_what_is_alike_in_all_else(known):
    found = ratios(known).set_index(["payload_bytes", "suite", "io_engine"])
    assert len(found) == 3 * 2 * 2  # payloads, suites, I/O engines
    for payload, ratio in ((64, 0.5), (1024, 2.0), (16384, 1.0)):
        rows = found.loc[payload]
        assert rows["latency_p50"].tolist() == pytest.approx([ratio] * 4, rel=0.002)
        assert (rows["latency_p50_low"] < rows["latency_p50"]).all()
        assert (rows["latency_p50_high"] > rows["latency_p50"]).all()


def test_verdicts_come_with_the_ratios(known):
    found = compared(known)
    latency = found[found["quantity"] == "latency_p50"].set_index("payload_bytes")["verdict"]
    assert [set(latency.loc[payload]) for payload in (64, 1024, 16384)] == [{"less"}, {"more"}, {"none"}]


def test_a_lone_block_has_a_ratio_and_no_interval(known):
    lone = ratios(known[known["repeat"] == 0])
    assert lone["latency_p50"].notna().all()
    assert lone["latency_p50_low"].isna().all()


def test_the_summary_counts_cells(known):
    said = summary(known)
    line = next(line for line in repr(said).split("\n") if line.startswith("echo, latency"))
    assert line == (
        "echo, latency: kernel / userspace 1.00 in the median of 12 cells, 0.50 to 2.00; 4 less, 4 more, 4 none"
    )
    assert "4 of 12" in said._repr_html_()
    assert "counted in instructions" in said._repr_html_()


def test_the_answer_is_one_sentence_whatever_the_figures_say(known):
    said = verdict_sentence(known)
    assert said.startswith("With the kernel record layer instead of userspace's, all else equal, on Linux 7.3.4-test")
    assert "latency is less in 4, more in 4 and not different from noise in 4 of 12 cells" in said
    assert "% by syscall and " in said
    assert "all from -50.0 % to +10" in said
    assert said.count(". ") == 0
    assert "is not known: no cell was measured both ways; there are plain" in verdict_sentence(
        known[known["record_layer"] == "plain"]
    )


def test_other_layers_can_be_compared(make_frame):
    frame = make_frame(layers=("userspace", "kernel-tx"))
    assert len(ratios(frame, layer="kernel-tx")) == 72
    assert len(ratios(frame, layer="userspace", over="kernel-tx")) == 72
    with pytest.raises(UsageError, match="there are kernel-tx, userspace"):
        ratios(frame)


def test_names_for_people():
    assert [size_name(size) for size in (64, 1024, 1536, 262144, 1 << 20)] == [
        "64 B",
        "1 KiB",
        "1.5 KiB",
        "256 KiB",
        "1 MiB",
    ]
    assert suite_name("TLS_AES_128_GCM_SHA256") == "AES-128-GCM, TLS 1.3"
    assert suite_name("") == "no TLS"
    alike = ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"]
    assert list(suite_names(alike).values()) == alike


def test_the_place_names_machine_and_clock(frame):
    assert place_name(frame) == "Linux 7.3.4-test (guest 7.3), counted in instructions"
    assert place_name(frame.assign(machine="here", unit="ns")).endswith(
        "(this machine), timed in nanoseconds, on an emulated CPU"
    )
