"""One record's way, from the recorded profile: its stations, its classes, its icicles."""

from __future__ import annotations

from pathlib import Path

import pytest

from ktlslab import read_profile
from ktlslab.errors import UsageError
from ktlslab.show import way
from ktlslab.show.html import INDENT

DATA = Path(__file__).parents[2] / "data"
WAYS = [
    ("send", "kernel"),
    ("send", "userspace"),
    ("receive", "kernel"),
    ("receive", "userspace"),
    ("arrive", "kernel"),
]
STATIONS = {key: len(value) for key, value in way._STATIONS.items()}


@pytest.fixture(scope="module")
def profile():
    return read_profile(DATA / "profile.parquet")


def number(text):
    return float(text.replace(",", ""))


@pytest.mark.parametrize(("of", "layer"), WAYS)
def test_every_station_is_found_on_both_kernels_and_lies_where_it_is_said_to(profile, of, layer):
    for machine in profile.trees["machine"].unique():
        shown = way.stations(profile, of, layer, machine=machine)
        assert len(shown.rows) == STATIONS[of, layer]
        assert f"Linux {machine}" in shown.caption
        levels = [len(row[0]) - len(row[0].lstrip(INDENT)) for row in shown.rows]
        totals = [number(row[-1]) for row in shown.rows]
        assert levels[0] == 0
        for at in range(1, len(levels)):
            assert levels[at] <= levels[at - 1] + 1
            above = max(each for each in range(at) if levels[each] < levels[at]) if levels[at] else None
            assert above is None or totals[at] <= totals[above]


def test_the_newest_kernel_is_meant_where_none_is_named(profile):
    assert repr(way.stations(profile, "send", "kernel")) == repr(way.stations(profile, "send", "kernel", machine="7.3"))


def test_the_kernel_sends_without_a_copy_and_receives_with_one(profile):
    sent, received = (repr(way.stations(profile, of, "kernel")) for of in ("send", "receive"))
    assert "copy" not in sent.replace("not copied", "").replace("zerocopy", "")
    assert "skb_copy_datagram_iter | net/core/datagram.c" in received
    assert repr(way.stations(profile, "send", "userspace")).count("copied") == 2


def test_a_tree_is_a_frame_whose_own_instructions_add_up(profile):
    for of, layer in WAYS:
        tree = way.tree(profile, of, layer)
        assert tree["instructions"].sum() == pytest.approx(tree["total"].iloc[0])
        assert (tree["caller"] == "").sum() == 1
        assert tree["level"].iloc[0] == 0


def test_the_classes_add_up_to_the_trees(profile):
    rows = {row[0]: [number(one) for one in row[1:]] for row in way.classes(profile).rows}
    for at, (of, layer) in enumerate(WAYS[:4]):
        total = way.tree(profile, of, layer)["total"].iloc[0]
        assert rows["in all"][at] == pytest.approx(total, abs=1)
        assert sum(row[at] for name, row in rows.items() if name != "in all") == pytest.approx(total, abs=len(rows))
    assert rows["tls"][1] == rows["OpenSSL"][0] == 0


def test_both_ways_are_drawn_on_one_scale(profile):
    shown = way.both(profile, "send")
    assert "the client, __send, as in " in repr(shown)
    assert 'title="tls_sw_sendmsg [tls]' in shown.html
    assert 'title="SSL_write [' in shown.html
    assert "recvfrom" not in shown.html


@pytest.mark.parametrize(("of", "layer"), [("arrive", "userspace"), ("send", "plain"), ("x", "kernel")])
def test_what_is_no_way_is_refused(profile, of, layer):
    with pytest.raises(UsageError, match="there is no"):
        way.stations(profile, of, layer)


def test_a_machine_that_the_profile_lacks_and_a_profile_without_an_echo_are_refused(profile):
    with pytest.raises(UsageError):
        way.stations(profile, "send", "kernel", machine="5.4")
    with pytest.raises(UsageError, match="no cell"):
        way.classes(read_profile(DATA / "field-profile.parquet"))
