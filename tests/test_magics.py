"""The magics, in the shell that a notebook has: what they leave, and what they say of mistakes."""

from __future__ import annotations

import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell

from ktlslab.diagnosis import Diagnosis
from ktlslab.errors import UsageError
from ktlslab.magics import plan_of
from ktlslab.measure.plan import PLANS
from ktlslab.measure.table import read_table

CELL = """
record_layers = userspace   # who makes the records
suites = TLS_AES_128_GCM_SHA256
payloads = 64, 1 KiB
workloads = echo
io_engines = syscall
control = userspace+syscall
repeats = 1
steps = 6
"""


@pytest.fixture
def shell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance()
    shell.run_line_magic("load_ext", "ktlslab")
    yield shell
    InteractiveShell.clear_instance()


def test_the_doctor_and_nothing_else_on_its_line(shell):
    assert isinstance(shell.run_line_magic("ktls_doctor", ""), Diagnosis)
    with pytest.raises(UsageError, match="It takes nothing"):
        shell.run_line_magic("ktls_doctor", "now")


def test_a_cell_is_a_plan_and_its_frame_is_in_the_namespace(shell, tmp_path, capsys):
    shell.run_cell_magic("ktls_sweep", "mine --on here", CELL)
    frame = shell.user_ns["mine"]
    assert isinstance(frame, pd.DataFrame)
    assert sorted(frame["payload_bytes"].unique()) == [64, 1024]
    assert read_table(tmp_path / "mine.parquet").equals(frame)
    assert f"mine is a frame of {len(frame)} samples, written to mine.parquet" in capsys.readouterr().out


def test_words_sizes_and_toml_mean_the_same():
    words = plan_of("payloads = 64, 16 KiB\nworkloads = echo\nprecision = 0.01\n", PLANS["quick"])
    toml = plan_of('payloads = [64, 16384]\nworkloads = ["echo"]\nprecision = 0.01\n', PLANS["quick"])
    mixed = plan_of("payloads = [64, 16384]\nworkloads = echo\nprecision = 0.01\n", PLANS["quick"])
    assert words == toml == mixed
    assert words.suites == PLANS["quick"].suites
    assert plan_of("[[also]]\npayloads = [5]", PLANS["quick"]).also == ({"payloads": (5,)},)


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("payload = 64", "Did you mean payloads"),
        ("payloads", "line 1 is 'payloads'.*payloads = 64, 16 KiB"),
        ("\npayloads = [64,", "line 2 is"),
        ("workloads = ecko", "Did you mean echo"),
        ("suites = AES-129-GCM", "there is no suite 'AES-129-GCM'"),
        ("[[also]]\npayloads = 64, 128", r"line 1 is '\[\[also\]\]'"),
        ("payloads = 0", "out of range"),
    ],
)
def test_a_mistake_in_the_cell_is_said_with_its_remedy(cell, says):
    with pytest.raises(UsageError, match=says):
        plan_of(cell, PLANS["quick"])


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("a b", "not the name of one variable"),
        ("1a", "not the name of one variable"),
        ("--onn here", "Did you mean --on"),
        ("a --on", "--on has no value"),
        ("'a", "No closing quotation"),
        ("a --plan quikc", "Did you mean quick"),
        ("a --clock sundial", "one of wall, instructions"),
        ("a --output a.csv", "NAME.parquet"),
    ],
)
def test_a_mistake_in_the_line_is_said_with_its_remedy(shell, line, says):
    with pytest.raises(UsageError, match=says):
        shell.run_cell_magic("ktls_sweep", line, CELL)
