"""A sweep's messages on standard error, in a notebook on its page: what it will do, how far it is, what it left out."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ktlslab._traceback import publisher
from ktlslab.measure.estimate import duration, rate
from ktlslab.measure.remainder import Remaining
from ktlslab.packages import extra
from ktlslab.runs.journal import run_files, whole_lines


class Progress:
    """Lines, and below them a bar that counts samples; nothing unless `shown`."""

    def __init__(self, *, shown: bool) -> None:
        self._tqdm = _bars()
        self._shown = shown
        self._bar: Any = None
        self._read: Counter[Path] = Counter()

    def line(self, text: str) -> None:
        if self._shown:
            # JupyterLab shows standard error as trouble, in red.
            self._tqdm.write(text, file=sys.stdout if publisher() else sys.stderr)

    def begin(self, wanted: Sequence[Remaining], journal: Path, *, parts: int, at_once: int) -> None:
        """Announce the sweep, and start the bar with the rows in the journal."""
        for text in announcement(wanted, parts=parts, at_once=at_once):
            self.line(text)
        total = sum(one.done + one.torn + one.at_least for one in wanted)
        looked_at = sys.stderr.isatty() or "ipykernel" in sys.modules
        often = 0.2 if looked_at else 10.0  # seconds; a log file does not need every step
        self._bar = self._tqdm(total=total, unit="sample", disable=not self._shown, smoothing=0.05, mininterval=often)
        self.look(journal)

    def look(self, journal: Path) -> None:
        """Add new rows of the journal to the bar."""
        rows = 0
        for path in run_files(journal):
            lines = whole_lines(path, self._read[path])
            self._read[path] += len(lines)
            rows += sum(not line.startswith(b'{"provenance"') for line in lines.splitlines())
        if rows:
            self._bar.total = max(self._bar.total, self._bar.n + rows)
            self._bar.update(rows)

    def left_out(self, runs: Mapping[str, Mapping[str, Any]]) -> None:
        """Say which arms are not available on a machine, and why."""
        found = {(run["machine"], arm): why for run in runs.values() for arm, why in run.get("left_out", {}).items()}
        for (machine, arm), why in found.items():
            self.line(f"left out on {machine}: {arm}: {why}")

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def _bars() -> Any:
    """Return tqdm as it fits: a widget in a notebook where ipywidgets are installed, text everywhere else."""
    in_widgets = publisher() and importlib.util.find_spec("ipywidgets")
    with extra("lab"):
        return importlib.import_module("tqdm.notebook" if in_widgets else "tqdm").tqdm


def announcement(wanted: Sequence[Remaining], *, parts: int, at_once: int) -> list[str]:
    """Return lines on what a sweep will do and about how long it takes. `at_once`: 0 where an executor decides."""
    plan = wanted[0].plan
    lines = [f"plan {plan.name}: {len(plan.cells())} cells in {len(plan.settings())} settings, seed {plan.seed}"]
    least = most = 0.0
    for one in wanted:
        span = f"{one.at_least}" if one.at_least == one.at_most else f"{one.at_least} to {one.at_most}"
        there = f", {one.done} are there already" if one.done else ""
        there += f", {one.torn} of blocks that were cut are measured again" if one.torn else ""
        lines.append(f"  on {one.machine}, {one.clock} clock: {span} samples{there}")
        share = at_once if at_once and one.clock == "instructions" else 1
        least += sum(one.seconds.values()) / share
        most += one.most_seconds / share
    start = parts * max(rate(one.machine, one.clock).run for one in wanted) / max(1, at_once)
    span = " to ".join(dict.fromkeys((duration(least + start), duration(most + start))))
    how = f"{parts} run{'s' * (parts != 1)}"
    if at_once > 1:
        how += f", {at_once} guests side by side"
    ends = f", ended after {plan.minutes:g} min" if plan.minutes else ""
    lines.append(f"  {how}, about {span}{' of measuring, shared by the hosts' if not at_once else ''}{ends}")
    return lines if parts else [*lines[:-1], "  nothing is left to measure"]
