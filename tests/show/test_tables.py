"""Where a notebook's table comes from, and that recorded figures never pass for measured ones."""

from __future__ import annotations

import pytest

from ktlslab.errors import GuestError, StorageError, TableError
from ktlslab.measure.table import write_table
from ktlslab.show import tables

RUN = {
    "host": "bench",
    "cpu": "Made-up CPU",
    "emulated": True,
    "emulator": "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)",
    "kernel": "7.3.4-test",
    "kernel_config": {"CONFIG_TLS": "m", "CONFIG_TLS_DEVICE": "y", "CONFIG_HZ": "250"},
    "commit": "c0ffee",
    "left_out": {"openssl-ktls+syscall": "OpenSSL was built without it."},
    "unusual": ["The CPUs were hot."],
}


@pytest.fixture
def frame(make_frame):
    """Give the made-up table what a table on disk must have."""
    made = make_frame()
    columns = {"elapsed": 1, "record_size": 16384, "request_bytes": 0, "link": "loopback"}
    frame = made.assign(**columns, latency_histogram=[[[cost, 1]] for cost in made.latency_p50])
    frame.attrs["provenance"] = {"r1": RUN}
    return frame


@pytest.fixture
def at(tmp_path, monkeypatch):
    """Make a folder like notebooks/, with data/ beside it."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    monkeypatch.delenv("KTLSLAB_TABLE", raising=False)
    return tmp_path


@pytest.fixture
def nothing_runs(monkeypatch):
    def sweep(*_, **__):
        raise GuestError("booting", answered="no QEMU", remedy="Install it.")

    monkeypatch.setattr(tables, "sweep", sweep)


def test_a_named_table_is_taken_before_all_else(at, frame, monkeypatch):
    write_table(frame, at / "mine.parquet")
    monkeypatch.setenv("KTLSLAB_TABLE", str(at / "mine.parquet"))
    table = tables.find_table()
    assert len(table.frame) == len(frame)
    assert not table.recorded
    assert "mine.parquet" in repr(table)


@pytest.mark.usefixtures("at")
def test_a_sweep_is_tried_and_kept(frame, monkeypatch):
    def sweep(plan, on, *, output, resume):
        assert (plan, on, resume) == ("quick", "auto", False)
        output.parent.mkdir()
        write_table(frame, output)
        return frame

    monkeypatch.setattr(tables, "sweep", sweep)
    assert "measured now" in repr(tables.find_table())
    assert "measured earlier" in repr(tables.find_table())
    assert not tables.find_table().recorded


@pytest.mark.usefixtures("nothing_runs")
def test_recorded_figures_stand_in_and_say_so(at, frame):
    for name in ("quick-6.12", "quick-7.3", "quick-10.1", "other"):
        write_table(frame.assign(kernel=name), at / "data" / f"{name}.parquet")
    table = tables.find_table()
    assert table.recorded
    assert set(table.frame["kernel"]) == {"quick-10.1"}
    assert "recorded in quick-10.1.parquet" in repr(table)
    assert "no QEMU" in repr(table)
    assert "These are recorded figures" in table._repr_html_()


@pytest.mark.usefixtures("at", "nothing_runs")
def test_no_table_at_all_is_an_error_that_says_why():
    with pytest.raises(TableError, match="no QEMU"):
        tables.find_table()


@pytest.mark.usefixtures("at")
def test_a_full_disk_is_not_hidden_behind_recorded_figures(monkeypatch):
    def sweep(*_, **__):
        raise StorageError("writing", answered="ENOSPC", remedy="Free space.")

    monkeypatch.setattr(tables, "sweep", sweep)
    with pytest.raises(StorageError):
        tables.find_table()


def test_a_recorded_table_named_by_variable_is_known_as_such(at, frame, monkeypatch):
    write_table(frame, at / "data/quick-7.3.parquet")
    monkeypatch.setenv("KTLSLAB_TABLE", str(at / "data/quick-7.3.parquet"))
    assert tables.find_table().recorded


def test_the_card_tells_what_a_reader_needs(frame):
    card = tables.Table(frame=frame, origin="made up", recorded=False)._repr_html_()
    for said in ("504", "made up", "plain, userspace, kernel", "AES-128-GCM", "64 B", "echo", "Linux 7.3.4-test"):
        assert said in card
    for said in (
        "3 of each setting",
        "Made-up CPU, emulated by QEMU 10.0.2 on host bench",
        "CONFIG_TLS=m, CONFIG_TLS_DEVICE=y",
        "c0ffee",
    ):
        assert said in card
    assert "openssl-ktls+syscall: OpenSSL was built without it." in card
    assert "The CPUs were hot." in card
    assert "CONFIG_HZ" not in card


def test_runs_of_which_the_same_is_to_be_said_are_told_together_and_others_apart(frame):
    half = len(frame) // 2
    frame["run_id"] = ["r1"] * half + ["r2"] * (len(frame) - half)
    frame.attrs["provenance"] = {"r1": RUN | {"started": "today"}, "r2": RUN | {"started": "later"}}
    card = tables.Table(frame=frame, origin="made up", recorded=False)._repr_html_()
    assert "r1, r2" in card
    assert card.count("Made-up CPU") == 1
    frame.attrs["provenance"]["r2"] = RUN | {"unusual": []}
    card = tables.Table(frame=frame, origin="made up", recorded=False)._repr_html_()
    assert card.count("Made-up CPU") == 1
    assert card.count("The CPUs were hot.") == 1
    frame.attrs["provenance"]["r2"] = RUN | {"kernel": "6.1.0-other"}
    card = tables.Table(frame=frame, origin="made up", recorded=False)._repr_html_()
    assert card.count("Made-up CPU") == 2
    frame.attrs.clear()
    assert "lost" in tables.Table(frame=frame, origin="made up", recorded=False)._repr_html_()
