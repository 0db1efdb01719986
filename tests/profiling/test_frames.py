"""A profile is what was counted, written and read without loss, and named in words."""

from __future__ import annotations

from dataclasses import asdict

import pandas as pd
import pytest

from ktlslab.measure.plan import Cell
from ktlslab.profiling.frames import CELL, cell_name, nodes_of, read_profile, rows_of, to_profile
from ktlslab.profiling.symbols import Place
from ktlslab.profiling.trees import Node

CELLS = [
    Cell(
        record_layer=layer,
        io_engine="syscall",
        suite="TLS_AES_256_GCM_SHA384",
        tls_version="TLS 1.3",
        payload_bytes=16384,
        workload="echo",
    )
    for layer in ("kernel", "userspace")
]


def node(name, own, *children):
    made = Node(Place("kernel", name, 0), in_kernel=True, instructions=own, calls=1, first=0)
    for at, child in enumerate(children):
        child.first = at
        made.children["kernel", child.place.function] = child
    return made


@pytest.fixture
def profile():
    rows, nodes = [], []
    for cell in CELLS:
        about = {"run_id": "r", "machine": "7.3", "kernel": "7.3.4"} | {name: asdict(cell)[name] for name in CELL}
        tree = node("", 0, node("send", 4, node("copy", 2), node("encrypt", 8, node("aes", 16))), node("recv", 6))
        nodes += nodes_of(about, {"client": tree, "peer": node("", 0, node("recv", 3))}, 2)
        rows += rows_of(about, [], 2)
    return to_profile(rows, nodes, {"r": {"cells": []}})


def test_the_tree_has_callers_and_sums(profile):
    one = profile.trees.iloc[:6]
    assert one["function"].tolist() == ["send", "copy", "encrypt", "aes", "recv", "recv"]
    assert one["node"].tolist() == [0, 1, 2, 3, 4, 0]
    assert one["parent"].tolist() == [-1, 0, 0, 2, -1, -1]
    assert one["total"].tolist() == [15, 1, 12, 8, 3, 1.5]
    assert one["end"].tolist() == ["client"] * 5 + ["peer"]


def test_what_is_written_is_read(profile, tmp_path):
    profile.write(tmp_path / "p.parquet")
    assert "total" not in pd.read_parquet(tmp_path / "p.tree.parquet")
    pd.testing.assert_frame_equal(read_profile(tmp_path / "p.parquet").trees, profile.trees)


def test_the_typical_operation_by_function(profile):
    found = profile.typical
    kernel = found[(found["record_layer"] == "kernel") & (found["end"] == "client")]
    assert kernel.set_index("function")["instructions"].to_dict() == {
        "send": 2,
        "copy": 1,
        "encrypt": 4,
        "aes": 8,
        "recv": 3,
    }


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ({}, "echo of 16,384 B, kernel+syscall, AES-256-GCM, TLS 1.3"),
        (
            {"end": "peer", "machine": "6.1"},
            "echo of 16,384 B, kernel+syscall, AES-256-GCM, TLS 1.3, Linux 6.1: the peer",
        ),
        ({"suite": "", "depth": 4}, "echo of 16,384 B, kernel+syscall, no TLS, depth 4"),
    ],
)
def test_a_cell_is_named_by_what_is_given(more, name):
    assert cell_name(asdict(CELLS[0]) | more) == name


def test_what_is_compared_is_not_in_the_name():
    assert cell_name({"io_engine": "uring", "workload": "upload"}) == "upload, uring"
