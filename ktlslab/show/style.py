"""How every plot looks: its page, its colours, its markers, its lines.

Colour and marker say who made the records, the line's style and the marker's filling which I/O engine moved the bytes,
hatching what is no difference. Colour is never the only mark, so that plots survive a black-and-white printer and
colour-blind readers. A page is as wide as a notebook's column, never wider.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from PIL import Image

from ktlslab.measure.plan import Arm
from ktlslab.packages import extra

with extra("lab"):
    from matplotlib.colors import to_rgba_array
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.text import Text

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.6,
    "lines.markersize": 5,
    "hatch.linewidth": 0.6,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
}
WIDTH = 9.6  # inches: a notebook's column, and a page across
DPI = 144
# Okabe and Ito's colours and a marker for each record layer; plain is the floor that the others stand on.
LAYERS = {
    "plain": ("#7f7f7f", "o"),
    "userspace": ("#D55E00", "s"),
    "kernel": ("#0072B2", "^"),
    "kernel-tx": ("#56B4E9", ">"),
    "kernel-rx": ("#009E73", "<"),
    "stdlib-ssl": ("#E69F00", "D"),
    "openssl-ktls": ("#CC79A7", "v"),
    "userspace-rustls": ("#882255", "p"),
}
SERIES = (("#0072B2", "^"), ("#D55E00", "s"), ("#009E73", "o"), ("#CC79A7", "D"), ("#E69F00", "v"), ("#56B4E9", "P"))
ENGINES: dict[str, Any] = {"uring": "-", "syscall": (0, (4, 2))}
FLOOR = "#999999"  # the noise floor's band, light in front of nothing
INK = "#797979"  # the same contrast on white and on JupyterLab's black


def look(arm: Arm) -> dict[str, Any]:
    """Return how an arm's points and lines are drawn."""
    colour, marker = LAYERS[arm.record_layer]
    return {
        "color": colour,
        "marker": marker,
        "markersize": 4.5 if arm.record_layer.startswith("kernel") else 6,  # drawn last: what lies below shows
        "linestyle": ENGINES[arm.io_engine],
        "markerfacecolor": "white" if arm.io_engine == "syscall" else colour,
    }


def key(arm: Arm) -> Line2D:
    """Return an arm's entry in a legend."""
    return Line2D([], [], label=str(arm), **look(arm))


def arms_of(frame: pd.DataFrame) -> list[Arm]:
    """Return a frame's arms, the plain ones first, the kernel's after userspace's."""
    pairs = frame[["record_layer", "io_engine"]].drop_duplicates().itertuples(index=False, name=None)
    return sorted((Arm(*pair) for pair in pairs), key=lambda arm: (list(LAYERS).index(arm.record_layer), arm.io_engine))


def rows_of(frame: pd.DataFrame, arm: Arm) -> pd.DataFrame:
    """Return the rows of an arm."""
    return frame[(frame["record_layer"] == arm.record_layer) & (frame["io_engine"] == arm.io_engine)]


def series(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Return a colour and a marker for each name, in their order."""
    return {name: SERIES[at % len(SERIES)] for at, name in enumerate(names)}


class Plot(Figure):
    """A figure that shows itself in a notebook, sharp on a dense screen, without pyplot's global state.

    `alt` says what kind of picture it is, to those who do not see it; `caption` what its figures say, computed,
    a sentence per line; `heading` what stands above it: what is shown, and where it was measured.
    """

    alt: str = ""
    heading: tuple[str, ...] = ()
    caption: str = ""

    @property
    def pixels(self) -> tuple[int, int]:
        """Return width and height as a browser counts them, 96 per inch."""
        width, height = self.get_size_inches()
        return int(width * 96), int(height * 96)

    def png(self) -> bytes:
        """Return it as PNG, with no more colours than it needs: a third of the size."""
        drawn, data = io.BytesIO(), io.BytesIO()
        self.savefig(drawn, format="png", dpi=DPI)
        image = Image.open(drawn).convert("RGB")  # the method that keeps a colour of which there is little, too
        image = image.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        image.save(data, format="png", optimize=True)
        return data.getvalue()

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """Return it for a notebook's page, whose theme is the reader's: no background, grey where it was black."""
        width, height = self.pixels
        drawn = io.BytesIO()
        with _inked(self):
            self.savefig(drawn, format="png", dpi=DPI, transparent=True)
        return drawn.getvalue(), {"width": width, "height": height}

    def __repr__(self) -> str:
        return f"Plot({self.get_suptitle()})"


@contextmanager
def _inked(figure: Plot) -> Iterator[None]:
    """Draw in INK for a while what is black: text, axes, lines. What is white within a marker is left out."""
    black: list[tuple[Any, Any]] = []
    hollow: list[Line2D] = []
    for artist in figure.findobj():
        if isinstance(artist, Line2D) and artist.get_markerfacecolor() == "white":
            hollow.append(artist)
        if isinstance(artist, Text) and artist.get_alpha() is not None:  # grey already: fainter would not be read
            black.append((artist.set_alpha, artist.get_alpha()))
        for name in ("color", "edgecolor", "markeredgecolor", "markerfacecolor"):
            now = getattr(artist, f"get_{name}", lambda: "white")()
            if len(now) and (to_rgba_array(now)[:, :3] == 0).all():
                black.append((getattr(artist, f"set_{name}"), now))
    for change, now in black:
        change(1 if isinstance(now, float) else INK)
    for line in hollow:
        line.set_markerfacecolor("none")
    try:
        yield
    finally:
        for change, now in black:
            change(now)
        for line in hollow:
            line.set_markerfacecolor("white")


def page(
    rows: int,
    columns: int,
    *,
    row: float = 2.15,
    extra: float = 1.5,
    sharey: Literal["row", "all"] = "row",
    **more: Any,
) -> tuple[Plot, list[list[Axes]]]:
    """Return an empty figure and its panels. `row`: inches a row; `extra`: for title and legend."""
    width = min(WIDTH, max(5.8, 1.0 + 3.1 * columns))
    figure = Plot(figsize=(width, extra + row * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, sharey=sharey, **more).tolist()
