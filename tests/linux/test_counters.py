"""The kernel's counters as a snapshot, and a difference that holds only what changed."""

from __future__ import annotations

import pytest

from ktlslab.linux import counters
from ktlslab.linux.counters import Counters

BEFORE = """TlsCurrTxSw                     \t1
TlsTxSw                         \t4
TlsRxSw                         \t4
TlsDecryptError                 \t0
"""


@pytest.fixture
def stat(tmp_path, monkeypatch):
    path = tmp_path / "tls_stat"
    monkeypatch.setattr(counters, "TLS_STAT", path)
    return path


def test_the_kernels_table_is_read_by_its_names(stat):
    stat.write_text(BEFORE)
    assert Counters.read().values == {"TlsCurrTxSw": 1, "TlsTxSw": 4, "TlsRxSw": 4, "TlsDecryptError": 0}


def test_a_difference_holds_only_what_changed_falls_included(stat):
    stat.write_text(BEFORE)
    before = Counters.read()
    stat.write_text("TlsCurrTxSw 0\nTlsTxSw 6\nTlsRxSw 4\nTlsDecryptError 0\nTlsTxRekeyOk 1\n")
    assert (Counters.read() - before).values == {"TlsCurrTxSw": -1, "TlsTxSw": 2, "TlsTxRekeyOk": 1}


def test_what_this_kernel_does_not_count_is_zero(stat):
    stat.write_text(BEFORE)
    assert Counters.read()["TlsNoSuch"] == 0


def test_a_kernel_without_the_module_has_no_counters(stat):
    assert not stat.exists()
    assert Counters.read() == Counters({})
    assert Counters.read() - Counters.read() == Counters({})
