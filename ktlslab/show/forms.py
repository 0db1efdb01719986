"""A form for a sweep: what to measure and where, how long it takes, and the rows in a plot as they arrive.

    form = ktlslab.SweepForm("mine.parquet")
    form                                    # choose, press Run; Stop loses nothing, and Run goes on from there
    form.table                              # afterwards: the frame

The sweep runs in a thread, and its samples are taken in processes of their own, as in every sweep. Under the wall clock
the plot is drawn so rarely that drawing takes a twentieth of one CPU at most.
"""

from __future__ import annotations

import contextvars
import threading
import time
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ktlslab import _traceback, guests
from ktlslab.errors import KtlsLabError, StoppedError, UsageError
from ktlslab.linux import capabilities
from ktlslab.measure.dimensions import IO_ENGINES, KIB
from ktlslab.measure.plan import PLANS, Plan
from ktlslab.measure.progress import Progress
from ktlslab.measure.sweeping import forecast, sweep
from ktlslab.packages import extra
from ktlslab.runs.journal import Journal, interrupted, journal_path
from ktlslab.runs.storage import table_path
from ktlslab.show import live
from ktlslab.show.html import Html, plural, prose, table
from ktlslab.show.names import size_name, suite_name

with extra("lab"):
    import ipywidgets as widgets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import pandas as pd

_SUITES = (*PLANS["standard"].suites, "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256")
_GROUPS: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]] = {  # what there is, and what is chosen at first
    "record_layers": (
        ("plain", "userspace", "kernel", "kernel-tx", "kernel-rx", "stdlib-ssl", "openssl-ktls"),
        ("userspace", "kernel"),
    ),
    "suites": (_SUITES, ("TLS_AES_128_GCM_SHA256",)),
    "payloads": (tuple(64 * 4**power for power in range(7)), (64, KIB, 16 * KIB)),
    "workloads": (("echo", "upload", "download"), ("echo",)),
    "io_engines": (IO_ENGINES, IO_ENGINES),
}
_TRIED = "sweeping by a form"
_LOOK_S = 1.0
_IDLE_SHARE = {"wall": 19, "instructions": 2}  # of the time between two drawings, in multiples of what one takes


class SweepForm:
    """A form for one sweep into `output`, NAME.parquet. Show it in a notebook: it is ipywidgets.

    `table` is the frame once a sweep has ended, `error` why one has not, `plan` what is chosen now.
    """

    def __init__(self, output: str | Path = "sweep.parquet") -> None:
        table_path(_TRIED, "output", output)
        self.table: pd.DataFrame | None = None
        self.error: KtlsLabError | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._boxes = {name: _boxes(name, *group) for name, group in _GROUPS.items()}
        self._machine = widgets.Dropdown(options=_machines(), description="machine", **_named("26em"))
        self._file = widgets.Text(value=str(output), description="table", **_named("16em"))
        self._repeats = widgets.BoundedIntText(value=3, min=1, max=100, description="blocks", **_named("8em"))
        self._forecast, self._said, self._bar = widgets.HTML(), widgets.HTML(), widgets.IntProgress()
        self._run = widgets.Button(description="Run", button_style="primary", icon="play")
        self._halt = widgets.Button(description="Stop", icon="stop", disabled=True)
        self._plot = widgets.Image(format="png", layout={"display": "none", "max_width": "100%"})
        groups = [
            widgets.VBox([widgets.HTML(f"<b>{_title(name)}</b>"), *boxes.values()])
            for name, boxes in self._boxes.items()
        ]
        buttons = widgets.HBox([self._run, self._halt, self._bar], layout={"align_items": "center"})
        self._box = widgets.VBox(
            [
                widgets.HBox(groups, layout={"flex_flow": "row wrap", "grid_gap": "0 2.5em"}),
                widgets.HBox(
                    [self._machine, self._repeats, self._file], layout={"flex_flow": "row wrap", "grid_gap": "0 2em"}
                ),
                *(self._forecast, buttons, self._said, self._plot),
            ]
        )
        for choice in self._choices():
            choice.observe(lambda _: self._foresee(), "value")
        self._run.on_click(lambda _: self.run())
        self._halt.on_click(lambda _: self.stop())
        self._foresee()

    @property
    def output(self) -> Path:
        """The table's file. UsageError where it is not NAME.parquet."""
        return table_path(_TRIED, "output", self._file.value)

    @property
    def plan(self) -> Plan:
        """What is chosen now. UsageError where that is no plan, such as one without a payload."""
        chosen: dict[str, Any] = {
            name: [value for value, box in boxes.items() if box.value] for name, boxes in self._boxes.items()
        }
        return Plan(name="form", repeats=self._repeats.value, steps=PLANS["quick"].steps, **chosen)

    def run(self) -> None:
        """Begin the sweep, or go on with one that was stopped. Returns at once; errors are shown in the form."""
        if self._thread and self._thread.is_alive():
            return
        self._stop.clear()
        self.table = self.error = None
        self._plot.layout.display = "none"
        self._busy(busy=True)
        self._say("Starting …")
        context = contextvars.copy_context()  # what is shown belongs to the cell of the form
        self._thread = threading.Thread(target=context.run, args=(self._measure,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the sweep. Its rows are kept, and `run` goes on from there."""
        self._stop.set()
        self._halt.disabled = True
        self._say("Stopping …")

    def wait(self) -> None:
        """Return once the sweep has ended."""
        if self._thread:
            self._thread.join()

    def _measure(self) -> None:
        """Sweep and show how far it is; the thread's function."""
        ended = threading.Event()
        says = _Lines()
        try:
            plan, output, (machine, clock) = self.plan, self.output, self._machine.value
            journal = journal_path(output)
            context = contextvars.copy_context()
            watching = threading.Thread(target=context.run, args=(self._watch, plan, journal, says, ended), daemon=True)
            watching.start()
            again = interrupted(output)
            try:
                self.table = sweep(
                    plan, machine, clock=clock, output=output, resume=again, progress=says, stop=self._stop
                )
            finally:
                ended.set()
                watching.join()
            self._show(self.table.to_dict("records"), plan)
            count = plural(len(self.table), "sample")
            self._say(f"{count}, written to {self._file.value}. The frame is the form's .table.", *says.left_out_lines)
        except StoppedError as error:
            self.error = error
            kept = f"{plural(error.samples, 'sample')} in whole blocks are safe in {journal_path(Path(error.output))}"
            self._say(f"Stopped. {kept}: Run goes on from there." if error.samples else "Stopped. Nothing is lost.")
        except KtlsLabError as error:
            self.error = error
            self._said.value = _traceback.html(error)
        finally:
            self._busy(busy=False)

    def _watch(self, plan: Plan, journal: Path, says: _Lines, ended: threading.Event) -> None:
        """Draw the rows as they arrive, until the sweep has ended."""
        interval, drawn = _LOOK_S, 0
        while not ended.wait(interval):
            rows = Journal.read(journal).rows
            if len(rows) == drawn:
                self._say(*says.latest)
                continue
            began, drawn = time.monotonic(), len(rows)
            self._show(rows, plan)
            if not self._stop.is_set():
                self._say(f"{drawn} of {self._bar.max} samples")
            share = _IDLE_SHARE[rows[0]["clock"]]
            interval = max(_LOOK_S, share * (time.monotonic() - began))

    def _show(self, rows: Any, plan: Plan) -> None:
        self._bar.max = max(len(rows), len(plan.cells()) * plan.repeats)
        self._bar.value = len(rows)
        figure = live.progress(rows, plan)
        self._plot.value, size = figure._repr_png_()
        self._plot.width = size["width"]
        self._plot.layout.display = None

    def _foresee(self) -> None:
        """Show what the choice would measure and how long that takes, or what is wrong with it."""
        machine, clock = self._machine.value
        try:
            _refuse_kernel_without_ktls(self.plan, machine)
            lines = forecast(self.plan, machine, clock=clock, output=self.output)
            self._run.disabled = False
        except KtlsLabError as error:
            lines = [f"{error.answered}. {error.remedy}"]
            self._run.disabled = True
        self._forecast.value = _paragraph(lines)

    def _choices(self) -> list[Any]:
        return [
            self._machine,
            self._repeats,
            self._file,
            *(box for boxes in self._boxes.values() for box in boxes.values()),
        ]

    def _busy(self, *, busy: bool) -> None:
        for choice in self._choices():
            choice.disabled = busy
        self._run.disabled = busy
        self._halt.disabled = not busy
        if not busy:
            self._foresee()

    def _say(self, *lines: str) -> None:
        self._said.value = _paragraph(lines)

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        shown: dict[str, Any] = self._box._repr_mimebundle_(**options)
        plain = "A form, which this editor does not show: use %%ktls_sweep instead."
        return {**shown, "text/plain": plain, "text/html": self._still()}

    def _still(self) -> str:
        """Return what the form shows now as a page can show it, on which nothing can be pressed."""
        marked = [
            "<br>".join(f"{'☑' if box.value else '☐'} {escape(box.description)}" for box in boxes.values())
            for boxes in self._boxes.values()
        ]
        chosen = f"machine: {self._machine.label}, blocks: {self._repeats.value}, table: {self._file.value}"
        columns = table([_title(name) for name in self._boxes], [tuple(map(Html, marked))])
        return f"<div>{columns}{prose(chosen)}{self._forecast.value}{prose('In JupyterLab this is a form.')}</div>"

    def __repr__(self) -> str:
        return f"SweepForm({self._file.value!r})"


class _Lines(Progress):
    """Keeps what a sweep says instead of printing it."""

    def __init__(self) -> None:
        super().__init__(shown=False)
        self.latest: list[str] = []
        self.left_out_lines: list[str] = []

    def line(self, text: str) -> None:
        self.latest = [text.strip()]
        if text.startswith("left out"):
            self.left_out_lines.append(text)


def _boxes(name: str, values: tuple[Any, ...], chosen: tuple[Any, ...]) -> dict[Any, Any]:
    """Return a check box for each value of a dimension."""
    named: dict[str, Callable[[Any], str]] = {"suites": suite_name, "payloads": size_name}
    return {
        value: widgets.Checkbox(
            value=value in chosen,
            description=named.get(name, str)(value),
            indent=False,
            layout={"width": "auto", "margin": "0"},
        )
        for value in values
    }


def _title(name: str) -> str:
    """Return what a dimension is called in the form."""
    return name.replace("_", " ").replace("io ", "I/O ")


def _named(width: str) -> dict[str, Any]:
    return {"style": {"description_width": "initial"}, "layout": {"width": width}}


def _paragraph(lines: Iterable[str]) -> str:
    return f'<div style="line-height:1.4">{"<br>".join(escape(line.strip()) for line in lines)}</div>'


def _refuse_kernel_without_ktls(plan: Plan, machine: str) -> None:
    """Say before a sweep what would end it."""
    asked = [layer for layer in plan.record_layers if layer.startswith("kernel") or layer == "openssl-ktls"]
    if asked and machine == "here" and not capabilities.probe().ktls:
        answered = f"this machine's kernel has no kTLS, so there is no record layer {asked[0]!r}"
        raise UsageError(_TRIED, answered=answered, remedy="Choose a guest as the machine, or other record layers.")


def _machines() -> list[tuple[str, tuple[str, str | None]]]:
    """Return the machines to choose from without fetching anything: label, and (name, clock). The best is first."""
    ktls = capabilities.probe().ktls
    here: list[tuple[str, tuple[str, str | None]]] = [("here" if ktls else "here, without kTLS", ("here", None))]
    kernels = list({one.series: one for one in reversed(guests.cached())}.values())
    emulated: list[tuple[str, tuple[str, str | None]]] = [
        (f"Linux {one.series}, a guest", (one.series, None)) for one in kernels if not one.user_mode
    ]
    user_mode: list[tuple[str, tuple[str, str | None]]] = [
        (f"Linux {one.series.removeprefix('uml-')} in user mode, whose times are no figures", (one.series, "wall"))
        for one in kernels
        if one.user_mode
    ]
    return [*here, *emulated, *user_mode] if ktls or not emulated else [*emulated, *here, *user_mode]
