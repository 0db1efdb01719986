"""The chosen part of the matrix, on the newest user-mode kernel: every stack, each of its features, each arm."""

from __future__ import annotations

import json
import re

import pytest

from tests.interop.guests import collect
from tests.interop.running import CLIENTS, SERVERS, Chosen
from tests.interop.stacks import FEATURES
from tests.interop.table import RIGHT

STACKS = {f"{role} {stack.name}": stack for role, some in (("client", SERVERS), ("server", CLIENTS)) for stack in some}
# The only stack whose own program may end by a signal before any handshake: Debian 13's does, in a user-mode kernel.
CRASHES = "client lighttpd on mbedTLS"
CRASHED = re.compile(r"left out: it does not start \(-\d+\)")
pytestmark = pytest.mark.timeout(900)  # most of a minute on an idle machine, for all of them


@pytest.fixture(scope="module")
def rows():
    found, runs = collect("uml", Chosen(thin=True))
    assert all(run["kernel"] for run in runs.values())
    return found


@pytest.mark.parametrize("name", STACKS)
def test_every_cell_of_a_stack_is_right(rows, name, record_property):
    role, _, stack = name.partition(" ")
    mine = [row for row in rows if (row["role"], row["stack"]) == (role, stack)]
    for row in mine:
        record_property("interop", json.dumps(row))
    if mine and name == CRASHES and all(CRASHED.match(row["outcome"]) for row in mine):
        return  # the table at the end names it, with the reason
    wrong = [f"{row['suite']}, {row['feature']}, {row['record_layer']}: {row['outcome']}" for row in mine]
    assert not [said for said, row in zip(wrong, mine, strict=True) if row["outcome"] != RIGHT]
    assert {row["feature"] for row in mine} <= STACKS[name].features
    assert {row["tls"] for row in mine} == {suite.version.label for suite in STACKS[name].suites}


def test_every_feature_is_tried_with_some_stack(rows):
    assert {row["feature"] for row in rows} == set(FEATURES)
