"""A progress bar on standard error, for downloads into a file."""

from __future__ import annotations

import sys
import time

from ktlslab import _output

_EVERY_S = 0.2
_WIDTH = 30


class Progress:
    """Draws while bytes move: `moved` is called with the number of each step. `total` is None if it is not known."""

    def __init__(self, name: str, total: int | None, done: int = 0, *, shown: bool) -> None:
        self._name, self._total, self._done, self._shown = name, total, done, shown
        self._began = self._drawn = time.monotonic()
        self._at_first = done

    def moved(self, count: int) -> None:
        self._done += count
        if self._shown and time.monotonic() - self._drawn >= _EVERY_S:
            self._draw()

    def end(self) -> None:
        if self._shown:
            self._draw()
            _output.note("")

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        rate = (self._done - self._at_first) / max(self._drawn - self._began, 1e-9)
        of, bar, left = "", "", ""
        if self._total:
            share = min(1.0, self._done / self._total)
            of = f" of {in_units(self._total)}"
            bar = f" [{'#' * int(share * _WIDTH):<{_WIDTH}}] {share:4.0%}"
            left = f", {max(0, self._total - self._done) / rate:.0f} s left" if rate else ""
        _output.note(f"\r{self._name}{bar} {in_units(self._done)}{of}, {in_units(rate)}/s{left}   ", end="")


def wanted(*, silent: bool, asked: bool) -> bool:
    """Whether the bar is drawn: where someone may look at it, or where it was asked for."""
    return not silent and (asked or sys.stderr.isatty())


def in_units(count: float) -> str:
    """Return a number of bytes for people: 1.5 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
