"""A plan is the product of its dimensions, in blocks in which every arm runs once."""

import json
from dataclasses import replace
from itertools import groupby

import numpy as np
import pytest

from ktlslab.errors import UsageError
from ktlslab.measure.plan import PLANS, Arm, Plan, named
from ktlslab.tls.suites import Suite


def test_quick_has_six_arms_two_suites_and_payloads_from_64_bytes_to_256_kib():
    cells = PLANS["quick"].cells()
    assert {(c.record_layer, c.io_engine) for c in cells} == {
        (layer, engine) for layer in ("plain", "userspace", "kernel") for engine in ("syscall", "uring")
    }
    assert len({c.suite for c in cells} - {""}) == 2
    assert {c.workload for c in cells} == {"echo", "upload", "download"}
    assert min(c.payload_bytes for c in cells) == 64
    assert max(c.payload_bytes for c in cells) == 256 * 1024
    assert len(cells) == len(set(cells)) == 3 * 4 * (2 + 2 * 2 * 2 + 1)


def test_every_setting_has_one_pair_of_equal_arms():
    for plan in PLANS.values():
        for cells in plan.settings().values():
            (second,) = [cell for cell in cells if cell.replica]
            assert replace(second, replica=0) in cells
            engine = "syscall" if second.workload == "sendfile" else "uring"  # io_uring has no sendfile
            assert f"{second.record_layer}+{second.io_engine}" == f"kernel+{engine}"


def test_replicas_are_equal_arms_of_every_cell(small):
    cells = replace(small, replicas=3).cells()
    assert len(cells) == 3 * len({replace(cell, replica=0) for cell in cells}) == len(set(cells))


def test_products_leave_out_what_makes_no_sense_and_also_adds_what_is_wanted():
    plan = Plan(
        name="p",
        record_layers=("userspace", "stdlib-ssl"),
        workloads=("echo", "download"),
        payloads=(64,),
        also=({"depths": (4, 16), "workloads": ("echo", "download")}, {"connections": (1, 8), "links": ("veth 1ms",)}),
    )
    assert {c.io_engine for c in plan.cells() if c.record_layer == "stdlib-ssl"} == {"syscall"}
    assert {(c.workload, c.depth) for c in plan.cells()} == {("echo", 1), ("download", 1), ("echo", 4), ("echo", 16)}
    assert {(c.link, c.connections) for c in plan.cells()} == {("loopback", 1), ("veth 1ms", 1), ("veth 1ms", 8)}
    assert len(plan.cells()) == len(set(plan.cells()))
    assert [c for cells in plan.settings().values() for c in cells] == plan.cells()


def test_plain_tcp_has_no_suite_and_is_measured_once():
    plain = [c for c in PLANS["quick"].cells() if c.record_layer == "plain"]
    assert {(c.suite, c.tls_version) for c in plain} == {("", "")}


def test_every_block_holds_each_arm_once_in_an_order_that_the_seed_decides(small):
    def block(item):
        return item[0], item[1].workload, item[1].payload_bytes

    blocks = [[cell for _, cell in items] for _, items in groupby(small.schedule(), key=block)]
    assert len(blocks) == small.repeats * len(small.workloads) * len(small.payloads)
    for cells in blocks:
        assert len(cells) == len(set(cells)) == 5
    assert len({tuple((c.record_layer, c.io_engine, c.replica) for c in cells) for cells in blocks}) > 3
    assert list(small.schedule()) == list(small.schedule())
    assert list(small.schedule()) != list(replace(small, seed=2).schedule())


def test_an_arm_over_a_link_is_another_arm_to_leave_out():
    cell = PLANS["quick"].cells()[0]
    assert replace(cell, link="veth 1ms").session_name == f"{cell.session_name} over veth 1ms"


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_a_plan_survives_json(plan):
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


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
        ("payloads = []", "payloads is empty"),
        ('payloads = ["64"]', r'payloads is \["64"\]'),
        ("payloads = [64.0]", r"payloads is \[64.0\]"),
        ("suites = [1]", "suites is .*list of names"),
        ('repeats = "3"', 'repeats is "3".*whole number'),
        ("repeats = true", "repeats is true"),
        ("also = [3]", "also is"),
        ('also = [{payloads = "64"}]', 'payloads is "64"'),
        ('io_engines = "io_uring"', "Did you mean uring"),
        ('record_layers = ["kernel_tx"]', "Did you mean kernel-tx"),
        ('workloads = ["uplaod"]', "Did you mean upload"),
        ('suites = ["AES-129-GCM"]', "Did you mean AES-128-GCM"),
        ('control = "kernel+urng"', r"Did you mean kernel\+uring"),
        ('handicap = "kernal+uring: 0.03"', r"Did you mean kernel\+uring"),
        ('handicap = "kernel+uring: nan"', "handicap"),
        ("precision = nan", "precision"),
        ("payload = [64]", "reading plan 'bad': a plan has no field 'payload'. Did you mean payloads"),
        ("sizes = [1]", "sizes"),
        ("depths = [0]", "out of range"),
        ("record_sizes = [16385]", "out of range"),
        ('links = ["pigeon"]', "pigeon"),
        ('links = ["veth 5"]', "veth 5"),
        ('handicap = "kernel+uring"', "handicap"),
        ("also = [{steps = 3}]", "steps"),
        ('record_layers = ["stdlib-ssl"]\nio_engines = ["uring"]', "no cell"),
        ("payloads = [", "reading plan"),
    ],
)
def test_a_plan_that_cannot_be_meant_is_refused_with_what_is_known(tmp_path, text, says):
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=says) as caught:
        named(file)
    assert caught.value.remedy


SHORT = {"payloads": (64,), "suites": ("TLS_AES_128_GCM_SHA256",), "io_engines": ("uring",), "repeats": 2}


@pytest.mark.parametrize(
    "given",
    [
        {"payloads": [64], "suites": ["AES-128-GCM"], "io_engines": ["uring"]},
        {"payloads": 64, "suites": "AES-128-GCM", "io_engines": "uring"},
        {"payloads": range(64, 65), "suites": Suite.TLS_AES_128_GCM_SHA256, "io_engines": {"uring"}},
        {"payloads": np.array([64]), "suites": (Suite.TLS_AES_128_GCM_SHA256,), "io_engines": iter(["uring"])},
        {"payloads": (np.int64(64),), "suites": [" tls_aes_128_gcm_sha256"], "io_engines": ("uring",)},
        {"control": Arm("kernel", "uring"), **SHORT},
        {"also": {"payloads": 64, "suites": Suite.TLS_AES_128_GCM_SHA256}, **SHORT},
    ],
)
def test_what_a_person_writes_becomes_the_one_form_of_a_plan(given):
    plan, wanted = Plan(**{"repeats": 2, **given}), Plan(**SHORT)
    assert plan.cells() == wanted.cells()
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    assert hash(plan.cells()[0]) == hash(wanted.cells()[0])


@pytest.mark.parametrize("plan", [5, None, ["quick"], {"payloads": [64]}])
def test_what_is_no_plan_is_refused(plan):
    with pytest.raises(UsageError, match="reading plan") as caught:
        named(plan)
    assert caught.value.remedy


def test_a_json_file_that_holds_a_list_is_no_plan(tmp_path):
    (tmp_path / "p.json").write_text("[1, 2]")
    with pytest.raises(UsageError, match="not a mapping of fields"):
        named(tmp_path / "p.json")


def test_a_near_miss_of_a_plans_name_says_which_is_meant():
    with pytest.raises(UsageError, match="Did you mean standard"):
        named("standart")


def test_an_unknown_plan_lists_the_known_ones():
    with pytest.raises(UsageError, match=r"no plan and no file of that name.*quick, standard, full"):
        named("slow")


@pytest.mark.parametrize("payload", [1, 64, 1024, 16384, 262144, 16 * 1024 * 1024])
def test_a_sample_has_a_few_steps_and_moves_a_bounded_amount(payload):
    plan = Plan(name="one", payloads=(payload,))
    for cell in plan.cells():
        steps = plan.steps_of(cell)
        assert 6 <= steps <= plan.steps
        assert steps * cell.batch * payload <= max(1024 * 1024, 6 * payload)
