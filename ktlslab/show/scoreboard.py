"""The scoreboard to read and to open: every promise with its verdicts, what was seen, and the check as it is written.

Plain HTML, no script and no network: a line is a promise with a cell per kernel, and a click on it opens what
the kernel did and the source of the check.
"""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING

from ktlslab.promises.catalogue import named
from ktlslab.promises.verdicts import ABSENT, BROKEN, KEPT, UNTRIED, VERDICTS
from ktlslab.show.html import LINE, MONO, SMALL, Html, Picture, markup, picture, plural, prose, table
from ktlslab.show.names import processor
from ktlslab.show.promisegrid import Grid, heatmap, verdicts

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["broken_by_all", "differing", "heatmap", "in_words", "of_user_mode", "origin", "promises"]

_MARKS = {KEPT: "✓", BROKEN: "✗", ABSENT: "–", UNTRIED: "?"}  # noqa: RUF001 - a dash is no minus
_TINT = {KEPT: "rgba(86,180,233,0.22)", BROKEN: "rgba(213,94,0,0.42)", ABSENT: "rgba(128,128,128,0.10)"}
# The cells of all lines share one right edge, however deeply a line is nested.
_CODE = f"{MONO};border:1px solid {LINE};padding:0.4em;margin:0.15em 0 0.6em 0;white-space:pre-wrap"
_LINE = "display:inline-flex;width:96%;align-items:flex-start"
_NAME = "flex:1 1 auto;min-width:0;padding-right:0.5em"
_CELL = "margin-left:0.3em;padding:0.05em 0.5em;box-sizing:border-box;white-space:nowrap"
_CELLS_EM, _WORDS = 38.0, 3  # room for the cells of a line; up to how many have the verdict in words
_WIDE = 7  # up to how many have room between their edges and what they say


def origin(frame: pd.DataFrame) -> Picture:
    """Say where a scoreboard comes from: which kernels, when, with which crypto drivers."""
    known = frame.attrs.get("provenance", {})
    rows = [("promises", str(frame["promise"].nunique())), ("groups", str(frame["group"].nunique()))]
    names = Grid.of(frame).names
    for run_id, rows_of in frame.groupby("run_id", sort=False):
        run = known.get(str(run_id), {})
        kernel = names[str(rows_of["kernel"].iloc[0])]
        named_drivers = run.get("crypto_drivers", {}).items()
        drivers = ", ".join(f"{name}: {driver}" for name, driver in named_drivers if not name.startswith("__"))
        said = f"{run.get('started', 'when is not known')}, {processor(run)}; {drivers}"
        rows.append((kernel, said))
    text = f"{plural(frame['promise'].nunique(), 'promise')} on {plural(frame['kernel'].nunique(), 'kernel')}"
    return picture("Where this is from", table((), rows), text=text)


def in_words(frame: pd.DataFrame) -> Picture:
    """Say in sentences what the table says: how many promises are kept by every kernel, by none, and by some."""
    wide = _wide(frame)
    kept, broken = (wide == KEPT).all(axis=1), (wide == BROKEN).all(axis=1)
    sentences = [
        f"Of {plural(len(wide), 'promise')}, {kept.sum()} are kept by every kernel here and {broken.sum()} by none.",
        f"The kernels differ in {plural(int(_differ(wide).sum()), 'promise')}.",
    ]
    for release, name in Grid.of(frame).names.items():
        found = list(frame["verdict"][frame["kernel"] == release])
        told = [verdict for verdict in VERDICTS if verdict != UNTRIED or verdict in found]
        parts = ", ".join(f"{found.count(verdict)} {verdict}" for verdict in told)
        sentences.append(f"{name}: {parts}.")
    text = "\n".join(sentences)
    return Picture("".join(prose(sentence) for sentence in sentences), text)


def differing(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of promises on which the kernels differ."""
    wide = _wide(frame)
    return _of(frame, list(wide.index[_differ(wide)]))


def broken_by_all(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of promises that no kernel here keeps, though it has the feature."""
    wide = _wide(frame)
    return _of(frame, list(wide.index[(wide == BROKEN).all(axis=1)]))


def of_user_mode(frame: pd.DataFrame) -> Picture:
    """Show where a user-mode kernel and the emulated one of its series that is nearest in age have other verdicts."""
    grid, found = Grid.of(frame), verdicts(frame)
    versions = {release: upstream(frame, release) for _, release in grid.kernels}
    seen = {(str(one.promise), str(one.kernel)): str(one.seen) for one in frame.itertuples()}
    sentences, rows = [], []
    for own in (release for machine, release in grid.kernels if machine.startswith("uml-")):
        others = [
            release
            for machine, release in grid.kernels
            if not machine.startswith("uml-") and versions[release][:2] == versions[own][:2]
        ]
        if not others:
            sentences.append(f"{grid.names[own]}: there is no other kernel of its series here.")
            continue
        other = min(others, key=lambda release: abs(versions[release][2] - versions[own][2]))
        pairs = [(name, found.get((name, own), ""), found.get((name, other), "")) for name in frame["promise"].unique()]
        apart = [(name, *both) for name, *both in pairs if both[0] != both[1]]
        version = ".".join(map(str, versions[other]))
        sentences.append(
            f"{grid.names[own]} and {grid.names[other]}, which is {version}, differ in {plural(len(apart), 'promise')}."
        )
        for name, mine, its in apart:
            told = (f"{verdict}: {seen.get((name, of), '')}" for verdict, of in ((mine, own), (its, other)))
            rows.append((name.replace("_", " "), own, *told))
    shown = table(("promise", "kernel", "in user mode", "emulated"), rows) if rows else Html("")
    text = "\n".join(sentences)
    return picture("User-mode kernels beside emulated ones", *map(prose, sentences), shown, text=text)


def upstream(frame: pd.DataFrame, release: str) -> tuple[int, int, int]:
    """Return a kernel's upstream version; the release of one of Debian's (6.1.0-50-amd64) does not say it."""
    run_id = str(frame.loc[frame["kernel"] == release, "run_id"].iloc[0]) if "run_id" in frame else ""
    built = str(frame.attrs.get("provenance", {}).get(run_id, {}).get("kernel_build", ""))
    numbers = re.findall(r"\d+", built.partition(" Debian ")[2] or release)
    first, second, third = (*map(int, numbers[:3]), 0, 0, 0)[:3]
    return first, second, third


def promises(frame: pd.DataFrame, title: str = "Every promise", *, opened: bool = False) -> Picture:
    """Show the promises of a scoreboard, group by group; a click opens what was seen and the check's source.

    `opened` shows the lines of every group at once.
    """
    if frame.empty:
        return picture(title, prose("There are none."), text=f"{title}: none")
    grid, found = Grid.of(frame), verdicts(frame)
    rows = dict(iter(frame.groupby("promise", sort=False)))
    cell = _cell(len(grid.kernels))
    names_of = "".join(
        f'<span style="{cell};font-weight:bold;white-space:normal;overflow-wrap:anywhere">'
        f'<span style="font-size:0.85em">{name}</span></span>'
        for name in _short(grid.kernels)
    )
    head = f'<span style="{_LINE}"><span style="{_NAME}"></span>{names_of}</span>'
    parts = [f'<div style="padding-left:1em;margin-left:1em;max-width:76em;font-size:0.95em">{head}</div>']
    for group, names in grid.groups.items():
        counts = "".join(_count([found.get((name, release)) for name in names], cell) for _, release in grid.kernels)
        lines = "".join(_promise(rows[name], grid) for name in names)
        title_of = f'<span style="{_NAME};font-weight:bold">{escape(group)}</span>'
        parts.append(_fold(f"{title_of}{counts}", lines, opened=opened, size="0.95em"))
    return picture(
        title, *parts, text=f"{title}: {plural(len(rows), 'promise')} in {plural(len(grid.groups), 'group')}"
    )


def _promise(rows: pd.DataFrame, grid: Grid) -> str:
    """Return a promise as a line that opens on a click."""
    first, by_kernel = rows.iloc[0], rows.drop_duplicates("kernel", keep="last").set_index("kernel")
    cell, in_words = _cell(len(grid.kernels)), len(grid.kernels) <= _WORDS
    cells, seen = "", []
    for _, release in grid.kernels:
        if release not in by_kernel.index:
            cells += f'<span style="{cell}" title="not checked">{"not checked" if in_words else ""}</span>'
            continue
        verdict = str(by_kernel["verdict"][release])
        tint = f"background-color:{_TINT.get(verdict, 'transparent')}"
        said = f"{_MARKS.get(verdict, '?')} {escape(verdict) if in_words else ''}"
        cells += f'<span style="{cell};{tint}" title="{escape(verdict)}">{said}</span>'
        seen.append((grid.names[release], verdict, str(by_kernel["seen"][release])))
    promise = named(str(first["promise"]))
    where = f"{first['file']}, line {first['line']}"
    code = promise.code if promise else "This check is not in the ktlslab at hand."
    cve = str(first.get("cve") or "")
    danger = f" This check can take a kernel down that has {escape(cve)}." if cve else ""
    body = (
        prose(Html(f"{markup(first['says'])} <i>Promised by: {markup(first['source'])}.</i>{danger}"))
        + table(("", "verdict", "seen"), seen)
        + f'<div style="{SMALL};opacity:0.8">{escape(where)}</div>'
        + f'<pre style="{_CODE}">{escape(code)}</pre>'
    )
    title = escape(str(first["promise"]).replace("_", " "))
    return _fold(f'<span style="{_NAME}">{title}</span>{cells}', body)


def _short(kernels: list[tuple[str, str]]) -> list[str]:
    """Return names in HTML, without what Debian adds to a release where many stand side by side and stay different."""
    marks = ["UML " if machine.startswith("uml-") else "" for machine, _ in kernels]
    releases = [release for _, release in kernels]
    short = [re.sub(r"(\+deb\d+)?-amd64$", "", release) for release in releases]
    told = short if len(releases) > _WORDS and len(set(short)) == len(short) else releases
    return [re.sub(r"([+.-])", r"\1<wbr>", f"{mark}{escape(name)}") for mark, name in zip(marks, told, strict=True)]


def _cell(kernels: int) -> str:
    """Return the style of a cell where a line has so many."""
    tight = ";padding:0.05em 0.2em" if kernels > _WIDE else ""
    return f"flex:0 0 {min(12.0, _CELLS_EM / kernels - 0.3):.1f}em;{_CELL}{tight}"


def _count(found: list[str | None], cell: str) -> str:
    # A word joiner: else a line may break after the dash.
    said = " ".join(f"{_MARKS[verdict]}&#8288;{found.count(verdict)}" for verdict in VERDICTS if verdict in found)
    return f'<span style="{cell};font-weight:bold;white-space:normal">{said}</span>'


def _fold(line: str, body: str, *, opened: bool = False, size: str = "1em") -> str:
    return (
        f'<details{" open" if opened else ""} style="margin-left:1em;max-width:76em;font-size:{size}">'
        f'<summary style="cursor:pointer;padding:0.05em 0"><span style="{_LINE}">{line}</span></summary>'
        f"{body}</details>"
    )


def _wide(frame: pd.DataFrame) -> pd.DataFrame:
    """Return verdicts with a row per promise and a column per kernel, in the table's order; NaN: it was not tried."""
    tried = frame[frame["verdict"] != UNTRIED]
    wide = tried.pivot_table(index="promise", columns="kernel", values="verdict", aggfunc="first", sort=False)
    return wide.reindex(index=frame["promise"].unique(), columns=frame["kernel"].unique())


def _differ(wide: pd.DataFrame) -> pd.Series:
    """Say of each promise whether two of the kernels that tried it have different verdicts."""
    return wide.ne(wide.bfill(axis=1).iloc[:, 0], axis=0).where(wide.notna(), other=False).any(axis=1)


def _of(frame: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    return frame[frame["promise"].isin(names)]
