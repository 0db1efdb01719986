"""A plan is the product of its dimensions, in blocks in which every arm runs once."""

import json
from dataclasses import replace
from itertools import groupby

import pytest

from ktlslab.errors import UsageError
from ktlslab.measure.plan import PLANS, Plan, named


def test_quick_has_six_arms_three_suites_and_payloads_from_64_bytes_to_256_kib():
    cells = PLANS["quick"].cells()
    assert {(c.record_layer, c.io_engine) for c in cells} == {
        (layer, engine) for layer in ("plain", "userspace", "kernel") for engine in ("syscall", "uring")
    }
    assert len({c.suite for c in cells} - {""}) == 3
    assert {c.direction for c in cells} == {"echo", "upload", "download"}
    assert min(c.payload_bytes for c in cells) == 64
    assert max(c.payload_bytes for c in cells) == 256 * 1024
    assert len(cells) == len(set(cells)) == 3 * 4 * (2 + 2 * 2 * 3)


def test_plain_tcp_has_no_suite_and_is_measured_once():
    plain = [c for c in PLANS["quick"].cells() if c.record_layer == "plain"]
    assert {(c.suite, c.tls_version) for c in plain} == {("", "")}


def test_every_block_holds_each_arm_once_in_an_order_that_the_seed_decides(small):
    def block(item):
        return item[0], item[1].direction, item[1].payload_bytes

    blocks = [[cell for _, cell in items] for _, items in groupby(small.schedule(), key=block)]
    assert len(blocks) == small.repeats * len(small.directions) * len(small.payloads)
    for cells in blocks:
        assert len(cells) == len(set(cells)) == 4
    assert list(small.schedule()) == list(small.schedule())
    assert list(small.schedule()) != list(replace(small, seed=2).schedule())


def test_a_plan_survives_json(small):
    assert Plan.from_json(json.loads(json.dumps(small.to_json()))) == small


def test_a_plan_file_names_only_what_differs(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('payloads = [100]\nrecord_layers = ["plain"]\n')
    assert named(file) == Plan(name="mine", payloads=(100,), record_layers=("plain",))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('suites = ["TLS_AES_128_CCM_8_SHA256"]', "TLS_AES_128_CCM_8_SHA256"),
        ('record_layers = ["quic"]', "quic"),
        ("payloads = [0]", "out of range"),
        ("payloads = []", "out of range"),
        ("sizes = [1]", "sizes"),
        ("payloads = [", "reading plan"),
    ],
)
def test_a_plan_that_cannot_be_meant_is_refused_with_what_is_known(tmp_path, text, says):
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=says) as caught:
        named(file)
    assert caught.value.remedy


def test_an_unknown_plan_lists_the_known_ones():
    with pytest.raises(UsageError, match="quick, standard, full"):
        named("slow")


@pytest.mark.parametrize("payload", [1, 64, 1024, 16384, 262144, 16 * 1024 * 1024])
def test_a_sample_has_a_few_steps_and_moves_a_bounded_amount(payload):
    plan = Plan(name="one", payloads=(payload,))
    for cell in plan.cells():
        steps = plan.bursts(cell)
        assert 4 <= steps <= plan.steps
        assert steps * cell.burst * payload <= max(1024 * 1024, 4 * payload)
