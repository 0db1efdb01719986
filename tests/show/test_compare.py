"""Ratios and their sentences, against figures that are known because they were made up."""

from __future__ import annotations

import pytest

from ktlslab.errors import UsageError
from ktlslab.show.compare import place_name, ratios, size_name, suite_name, suite_names, summary


def test_a_ratio_divides_what_is_alike_in_all_else(make_frame):
    frame = make_frame(repeats=3)
    kernel = frame["record_layer"] == "kernel"
    frame["client_cpu"] = 100.0
    frame.loc[kernel, "client_cpu"] = frame.loc[kernel, "repeat"].map({0: 50.0, 1: 80.0, 2: 150.0})
    compared = ratios(frame)
    assert len(compared) == 3 * 4 * 3 * 2  # directions, payloads, suites, I/O engines
    assert set(compared["client_cpu"]) == {0.8}
    assert set(compared["client_cpu_low"]) == {0.5}
    assert set(compared["client_cpu_high"]) == {1.5}


def test_repeats_without_a_partner_do_not_count(frame):
    lone = frame[~((frame["record_layer"] == "userspace") & (frame["repeat"] > 0))]
    assert (ratios(lone)["latency_p50_low"] == ratios(lone)["latency_p50_high"]).all()


def test_the_summary_counts_cells(make_frame):
    frame = make_frame()
    kernel = frame["record_layer"] == "kernel"
    frame["latency_p50"] = 100.0
    frame.loc[kernel, "latency_p50"] = 100.0
    frame.loc[kernel & (frame["payload_bytes"] == 64), "latency_p50"] = 50.0
    frame.loc[kernel & (frame["payload_bytes"] == 1024), "latency_p50"] = 200.0
    said = summary(frame)
    line = next(line for line in repr(said).split("\n") if line.startswith("echo, latency"))
    assert line == "echo, latency: kernel / userspace 1.00 in the median of 24 cells, 0.50 to 2.00; less in 6"
    assert "6 of 24" in said._repr_html_()
    assert "counted in instructions" in said._repr_html_()


def test_other_layers_can_be_compared(make_frame):
    frame = make_frame(layers=("userspace", "kernel-tx"))
    assert len(ratios(frame, layer="kernel-tx")) == 72
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
