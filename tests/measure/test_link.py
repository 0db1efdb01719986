"""Links: their names, and the errors where one cannot be set up. tests/kernel/test_link.py tests traffic."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ktlslab.errors import KtlsLabError, MachineError, UsageError
from ktlslab.measure import link as module
from ktlslab.measure.link import Link, lay


@pytest.mark.parametrize(
    ("text", "link"),
    [
        ("loopback", Link(kind="loopback")),
        ("veth", Link(kind="veth")),
        ("veth 5ms", Link(kind="veth", delay_ms=5)),
        ("veth 0.25ms 0.1%", Link(kind="veth", delay_ms=0.25, loss_percent=0.1)),
        ("veth 2%", Link(kind="veth", loss_percent=2)),
    ],
)
def test_a_links_name_says_what_it_does(text, link):
    assert Link.parse(text) == link


@pytest.mark.parametrize(
    "text",
    [
        "",
        "wifi",
        "loopback 5ms",
        "veth 5",
        "veth ms",
        "veth -1ms",
        "veth 5 ms",
        "veth nanms",
        "veth 1ms 2ms",
        "veth 1% 1ms",
        "veth 101%",
        "veth infms",
    ],
)
def test_what_is_no_link_is_refused(text):
    with pytest.raises(UsageError, match="no link"):
        Link.parse(text)


def test_loopback_needs_nothing_and_changes_nothing():
    here = Path("/proc/thread-self/ns/net")
    before = here.readlink()
    with lay(Link.parse("loopback")) as ends:
        assert (ends.address, ends.prefix) == ("127.0.0.1", ())
        with ends.near():
            assert here.readlink() == before


@pytest.mark.parametrize(("program", "package"), [("ip", "iproute2"), ("tc", "iproute2"), ("nsenter", "util-linux")])
def test_a_missing_program_is_named_with_its_package_before_anything_is_done(monkeypatch, program, package):
    found = module.shutil.which
    monkeypatch.setattr(module.shutil, "which", lambda name, **where: None if name == program else found(name, **where))
    with (
        pytest.raises(MachineError, match=rf"looking for {program}.*apt-get install {package}"),
        lay(Link.parse("veth 1ms")),
    ):
        pytest.fail("it was laid")


def test_without_the_right_to_make_a_namespace_it_says_so():
    """Even root has no permissions in a process with an empty capability bounding set."""
    program = "from ktlslab.measure.link import Link, lay\nwith lay(Link.parse('veth')): pass\n"
    without = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*without, sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"{KtlsLabError.__module__}.MachineError: making a network namespace: EPERM")
    assert "--on newest" in last
