"""A table as one HTML page for a reviewer: question, answer, plots, effects, counts, method, provenance, oddities.

The page needs nothing but itself: pictures are inline, there is no script and no address to fetch. Every sentence about
figures is computed from the table. It reads in light and dark, and prints.
"""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import ktlslab
from ktlslab.errors import StorageError
from ktlslab.measure.table import read_table
from ktlslab.show import plots, selection
from ktlslab.show.analysis import analysed, ready
from ktlslab.show.background import left_out, method, provenance, unusual
from ktlslab.show.classcolours import MEANINGS
from ktlslab.show.compare import verdict_sentence
from ktlslab.show.counted import counts
from ktlslab.show.findings import effect_cells, effect_summary
from ktlslab.show.html import joined, table
from ktlslab.show.icicles import both_ways
from ktlslab.show.names import ends_named, place_name, size_name, suite_names
from ktlslab.show.profiled import differences, instruction_plots

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TypeAlias

    import pandas as pd

    from ktlslab.profiling.frames import Profile
    from ktlslab.show.html import Lines
    from ktlslab.show.style import Plot

    Drawn: TypeAlias = dict[str, tuple[Plot, bytes]]

_CSS = """
:root { color-scheme: light dark; --line: #8886; --soft: #8881; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { line-height: 1.2; } h2 { margin-top: 2.2rem; border-bottom: 1px solid var(--line); } h3 { margin: 1.6rem 0 .3rem; }
.answer { font-size: 1.15rem; border-left: 4px solid #0072B2; padding: .3rem 0 .3rem 1rem; background: var(--soft); }
figure { margin: 1rem 0 2rem; } figcaption { font-size: .92rem; margin-top: .4rem; white-space: pre-line; }
img { max-width: 100%; height: auto; background: white; border: 1px solid var(--line); border-radius: 4px; }
td { overflow-wrap: break-word; font-variant-numeric: tabular-nums; }
summary { cursor: pointer; } li { margin: .2rem 0; }
@media screen and (prefers-color-scheme: dark) { img { filter: invert(.92) hue-rotate(180deg); } }
@page { margin: 12mm; }
@media print {
  body { max-width: none; margin: 0; font-size: 9pt; } main { padding: 0; }
  div { overflow: visible !important; } th, td { white-space: normal !important; padding-right: .6em !important; }
  figure, tr { break-inside: avoid; } img { max-height: 23cm; width: auto; } h2, h3 { break-after: avoid; }
}
"""
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Kernel TLS against userspace TLS: {where}</title>
<style>{css}</style>
</head>
<body>
<main>
<h1>Kernel TLS against userspace TLS</h1>
<p>{where}.</p>
{body}
<p><small>Written by ktlslab {version}.</small></p>
</main>
</body>
</html>
"""
_PROOF = "what changed in the kernel's counters and sequence numbers says who made the records."
_EFFECTS = (
    "Ratios within blocks, as differences in percent: the median over a row's cells and their range, then the number "
    "of cells with less, more and no difference, and of those that could not be judged. A cell counts as less or more "
    "where its 95 % bootstrap interval excludes 1 and the difference is larger than the noise floor."
)
_EVERY = "Every cell of the effect of kernel TLS"
_TITLES = {
    "sign-map-latency": "Sign map of latency",
    "sign-map-cpu": "Sign map of the client's CPU",
    "ratio": "Kernel over userspace TLS, by payload",
    "latency": "Latency",
    "cpu-client": "CPU of the client",
    "cpu-peer": "CPU of the peer",
    "throughput": "Throughput",
    "cpu-split": "Where the CPU went",
    "cpu-split-large": "Where the CPU went, largest payload",
    "instructions": "Instructions by class",
    "instructions-large": "Instructions by class, largest payload",
    "kernels": "Kernels side by side",
    "distributions": "Latency distributions",
    "depth": "Operations in flight",
    "connections": "Connections",
    "record-size": "Record size",
}


def write_report(source: Path, output: Path, pictures: Path | None = None, profiled: Path | None = None) -> list[Path]:
    """Write the report of a table, and with `pictures` every plot as PNG into that folder. Returns what was written.

    `profiled`: a profile of the same plan, which shows where the instructions went.

    TableError where the table cannot be read, UsageError where it cannot be drawn, StorageError where writing fails.
    """
    if not output.parent.is_dir():  # known before half a minute is spent on drawing
        raise _refused(source, f"there is no folder {output.parent}")
    frame = ready(read_table(source))
    profile = _profile(profiled)
    drawn = _drawn(plots.figures(frame, profile))
    more = _drawn(instruction_plots(profile)) if profile else {}
    html = page(frame, drawn, source.name, profile, more)
    try:
        output.write_text(html, encoding="utf-8")
        written = [output]
        if pictures is not None:
            pictures.mkdir(parents=True, exist_ok=True)
            for name, (_, png) in {**drawn, **more}.items():
                written.append(pictures / f"{name}.png")
                written[-1].write_bytes(png)
    except OSError as error:
        raise _refused(source, error.strerror or str(error)) from error
    return written


def _refused(source: Path, answered: str) -> StorageError:
    return StorageError(f"writing the report of {source}", answered=answered, remedy="Choose another place.")


def _profile(path: Path | None) -> Profile | None:
    if path is None:
        return None
    from ktlslab.profiling.frames import read_profile  # noqa: PLC0415 - most reports have none

    return read_profile(path)


def _drawn(figures: Mapping[str, Plot]) -> Drawn:
    return {name: (figure, figure.png()) for name, figure in figures.items()}


def report(frame: pd.DataFrame, name: str = "a table", profile: Profile | None = None) -> str:
    """Return the report of a frame, and of a profile of the same plan, as HTML."""
    frame = ready(frame)
    more = _drawn(instruction_plots(profile)) if profile else {}
    return page(frame, _drawn(plots.figures(frame, profile)), name, profile, more)


def page(
    frame: pd.DataFrame, drawn: Drawn, name: str, profile: Profile | None = None, more: Drawn | None = None
) -> str:
    """Return the page of a frame and its plots, of which PNGs are made already; `more` are those of the profile."""
    frame = ready(frame)
    found, where = analysed(frame), escape(place_name(frame))
    works = frame["workload"].unique()
    origin = f"{len(frame):,} samples in {escape(name)}, each with its proof of path: {_PROOF}"
    sections = {
        "The question": f"<p>{escape(question(frame))}</p>",
        "The answer": f'<p class="answer">{escape(verdict_sentence(frame))}</p>',
        "The plots": "\n".join(_figure(ends_named(_TITLES.get(key, key), works), *both) for key, both in drawn.items()),
        **({"Where the instructions went": _instructions(profile, more or {})} if profile else {}),
        "The effects": f"<p>{_EFFECTS}</p>\n{_effects(found)}",
        "The counts": _shown(counts(frame)),
        "The method": _list(method(frame)),
        "What was unusual": _list(unusual(frame)) or "<p>Nothing that the runs noted.</p>",
        "Arms left out": _list(left_out(frame)) or "<p>None that the runs noted.</p>",
        "Where the figures are from": f"<p>{origin}</p>"
        + "".join(f"<h3>Run {escape(run)}</h3>{table((), rows)}" for run, rows in provenance(frame)),
    }
    body = "\n".join(f"<section>\n<h2>{title}</h2>\n{html}\n</section>" for title, html in sections.items())
    body = body.replace(" %", "\N{NO-BREAK SPACE}%")  # a number and its sign stay on one line
    return _PAGE.format(where=where, css=_CSS, body=body, version=escape(ktlslab.__version__))


def _instructions(profile: Profile, drawn: Drawn) -> str:
    """Return the section of a profile: plots, the way of one operation, and what the clock says of the counts."""
    checks = [check for run in profile.provenance.values() for check in run["cells"]]
    worst = max(abs(check["difference"]) for check in checks)
    other = max(check["other"] for check in checks)
    said = (
        f"{len(checks)} cells, counted by a plugin of QEMU in what the clock times. In each, the sum differs from the "
        f"clock's count by {worst:.2%} at most, and at most {other:.2%} of it fell to no class."
    )
    parts = [f"<p>{escape(said)}</p>", *(_figure(_TITLES.get(key, key), *both) for key, both in drawn.items())]
    parts.append(f"<details><summary>What the classes are</summary>{table((), MEANINGS.items())}</details>")
    if way := both_ways(profile):
        parts.append(way.html)
    parts += [f"<h3>{title}</h3>{html}" for title, html in differences(profile).items()]
    return "\n".join(parts)


def _effects(found: pd.DataFrame) -> str:
    """Return the newest kernel's effects, and folded away the other kernels' and every cell of kernel TLS."""
    *older, newest = selection.places(found)
    parts = [_shown(effect_summary(selection.at_place(found, newest)))]
    for place in older[::-1]:
        rows = _shown(effect_summary(selection.at_place(found, place)))
        name = escape(selection.place_name(place, [*older, newest]))
        parts.append(f"<details><summary>The same on {name}</summary>{rows}</details>")
    every = _shown(effect_cells(found))
    parts.append(f"<details><summary>{_EVERY}</summary>{every}</details>")
    return "\n".join(parts)


def _shown(lines: Lines) -> str:
    return lines._repr_html_()


def question(frame: pd.DataFrame) -> str:
    """Say what the table can answer, from what it spans."""
    names = suite_names(sorted(set(frame["suite"]) - {""})).values()
    suites = [name.replace(", ", " in ") for name in names]  # a list of them has commas of its own
    sizes = selection.payloads(frame)
    spans = size_name(sizes[0]) if len(sizes) == 1 else f"{size_name(sizes[0])} to {size_name(sizes[-1])}"
    kernels = [f"Linux {place[1]}" for place in selection.places(frame)]
    what = f"for {joined(selection.workloads(frame))} of {spans} with {joined(suites)}" if suites else f"of {spans}"
    return (
        f"What does it cost or save when the kernel makes TLS records instead of a library in userspace: {what}, "
        f"moved by {joined(sorted(map(str, frame['io_engine'].unique())))}, on {joined(kernels)}?"
    )


def _figure(title: str, figure: Plot, png: bytes) -> str:
    inline = base64.b64encode(png).decode()
    width, height = figure.pixels
    return (
        f'<h3>{escape(title)}</h3>\n<figure>\n<img src="data:image/png;base64,{inline}" width="{width}" '
        f'height="{height}" alt="{escape(figure.alt)}">\n<figcaption>{escape(figure.caption)}</figcaption>\n</figure>'
    )


def _list(lines: Sequence[str]) -> str:
    return "<ul>\n" + "\n".join(f"<li>{escape(line)}</li>" for line in lines) + "\n</ul>" if lines else ""
