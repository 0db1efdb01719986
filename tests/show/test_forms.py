"""The form, without a browser: what it forecasts, that rows arrive, and that stopping loses nothing."""

from __future__ import annotations

import re
import time
from html import unescape

import pytest

from ktlslab.errors import StoppedError, UsageError
from ktlslab.linux import capabilities
from ktlslab.runs.journal import Journal, journal_path
from ktlslab.show.forms import SweepForm

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # ipywidgets' own


@pytest.fixture
def form(tmp_path):
    """Give a form for a small sweep on this machine, whatever its kernel."""
    form = SweepForm(tmp_path / "t.parquet")
    form._machine.value = ("here", None)
    choose(form, record_layers=["userspace"], payloads=[64, 1024], workloads=["echo"], io_engines=["syscall"])
    return form


def choose(form, **values):
    for name, chosen in values.items():
        for value, box in form._boxes[name].items():
            box.value = value in chosen


def wait_for(what, seconds=30):
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def said(form):
    return re.sub(r"<.*?>", " ", form._said.value)


def test_it_says_what_a_choice_takes_and_what_is_wrong_with_one(form):
    assert form.plan.payloads == (64, 1024)
    assert re.search(r"plan form: \d+ cells in 2 settings.*about \d+ s", form._forecast.value)
    choose(form, payloads=[])
    assert "payloads is empty" in form._forecast.value
    assert form._run.disabled
    choose(form, payloads=[64])
    assert not form._run.disabled
    if not capabilities.probe().ktls:
        choose(form, record_layers=["kernel"])
        assert "no record layer 'kernel'. Choose a guest" in unescape(form._forecast.value)
        assert form._run.disabled
    form._file.value = "t.csv"
    choose(form, record_layers=["userspace"])
    assert "NAME.parquet" in form._forecast.value
    with pytest.raises(UsageError):
        SweepForm("t.csv")


def test_where_no_widget_can_be_shown_it_is_a_picture_of_what_is_chosen(form):
    shown = form._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in shown
    assert "☑ userspace<br>☐ kernel" in shown["text/html"]
    assert "machine: here" in shown["text/html"]
    assert "plan form: " in shown["text/html"]


def test_a_sweep_by_the_form(form):
    form.run()
    form.run()  # a second press changes nothing
    form.wait()
    assert form.error is None, said(form)
    assert sorted(form.table["payload_bytes"].unique()) == [64, 1024]
    assert f"{len(form.table)} samples, written to" in said(form)
    assert bytes(form._plot.value).startswith(b"\x89PNG")
    assert form._bar.value == form._bar.max == len(form.table)
    assert form._halt.disabled


def test_stopped_it_loses_nothing_and_goes_on(form):
    form._repeats.value = 100
    form.run()
    journal = journal_path(form.output)
    wait_for(lambda: len(Journal.read(journal).rows) >= 8)
    form.stop()
    form.wait()
    assert isinstance(form.error, StoppedError)
    assert form.error.samples >= 6
    assert f"{form.error.samples} samples in whole blocks are safe in {form.error.output}.rows: Run goes on" in said(
        form
    )
    assert f"{form.error.samples} are there already" in form._forecast.value
    kept = len(Journal.read(journal).rows)
    form.run()
    wait_for(lambda: len(Journal.read(journal).rows) > kept)
    form.stop()
    form.wait()
    assert form.error.samples > kept - 2


def test_an_editor_without_widgets_is_told_what_else_there_is(form):
    shown = form._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in shown
    assert "%%ktls_sweep" in shown["text/plain"]
