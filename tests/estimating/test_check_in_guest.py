"""An estimate is checked where there is kTLS: in a guest that runs by the wall clock, with a profile taken before."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import ktlslab
from ktlslab.guests import run

HERE = Path(__file__).parent
PLAN = """
record_layers = ["plain", "userspace", "kernel"]
suites = ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384"]
payloads = [64, 1024]
workloads = ["echo"]
repeats = 1
steps = 6
"""
# The file that a reader follows lies on the share, and a process beside it, in the same guest, is adding lines.
FOLLOW = """
import os, sys
from pathlib import Path
from ktlslab.runs.journal import whole_lines
path = Path(sys.argv[1])
path.touch()
child = os.fork()
if not child:
    with path.open("w") as out:
        for _ in range(2000):
            out.write("x" * 900 + "\\n")
            out.flush()
    os._exit(0)
at, ended = 0, False
while not ended:
    ended = os.waitpid(child, os.WNOHANG)[0] == child
    at += len(whole_lines(path, at))
print(at)
"""

pytestmark = pytest.mark.timeout(1000)


@pytest.fixture(scope="module")
def share(tmp_path_factory):
    return tmp_path_factory.mktemp("share")


def test_a_growing_file_on_the_share_is_followed(share):
    """At the end of a file that another process makes longer, Linux 7.3 answers read(2) with ENODATA there."""
    done = run("newest", [sys.executable, "-c", FOLLOW, str(share / "lines")], rw=share, timeout=300)
    assert done.stdout.strip() == b"1802000", done.stderr.decode()


def test_estimates_stand_beside_measurements_or_say_why_not(share):
    (share / "plan.toml").write_text(PLAN)
    argv: list[str | Path] = [sys.executable, "-m", "ktlslab", "estimate", "--check", "--plan", share / "plan.toml"]
    argv += ["--profiled", HERE / "recorded.profiled.parquet", "-o", share / "e.parquet"]
    done = run("newest", [*map(str, argv)], rw=share, timeout=900)
    said = done.stdout.decode()
    found = ktlslab.read_estimate(share / "e.parquet")
    cells = found.predicted[found.predicted["payload_bytes"] <= 1024]
    assert cells["measured_ratio"].notna().all(), said
    refused = found.predicted["reason"] != ""
    assert done.returncode == int(refused.all()), said + done.stderr.decode()
    assert found.predicted["estimate_ns"].isna().eq(refused).all()
    assert said.count("; measured ") == len(cells)
    assert "The CPU was emulated in software" in said
    assert not (share / "e.measured.parquet.rows").exists()
