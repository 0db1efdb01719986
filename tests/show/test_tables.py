"""Where a notebook's table comes from, and that recorded figures never pass for measured ones."""

from __future__ import annotations

import pytest

from ktlslab.errors import GuestError, StorageError, TableError
from ktlslab.measure.table import write_table
from ktlslab.show import tables


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
        assert (plan, on, resume) == ("quick", "auto", True)
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
