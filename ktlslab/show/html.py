"""The few shapes that all pictures of bytes are made of: a box of named bytes, a row of boxes, a table.

Everything is styled inline with translucent colours and inherits the text's colour, so that it reads in light and dark
alike, and nothing but plain HTML is used: no script, no SVG, no class. JupyterLab strips those from a notebook that it
does not trust, and every notebook that someone else executed is one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from ktlslab._html import INDENT, LINE, Html, card, markup, table

__all__ = [
    "INDENT",
    "LINE",
    "Field",
    "Html",
    "Lines",
    "Picture",
    "card",
    "code",
    "markup",
    "picture",
    "prose",
    "strip",
    "table",
]

# Okabe and Ito's colours, which colour-blind readers can tell apart; the names beside the bytes do not rely on them.
HUES = {
    "header": "rgba(128,128,128,0.22)",
    "hello": "rgba(0,158,115,0.24)",
    "nonce": "rgba(230,159,0,0.34)",
    "cipher": "rgba(86,180,233,0.26)",
    "tag": "rgba(204,121,167,0.36)",
    "key": "rgba(213,94,0,0.28)",
    "salt": "rgba(0,158,115,0.32)",
    "iv": "rgba(230,159,0,0.34)",
    "sequence": "rgba(0,114,178,0.34)",
    "plain": "rgba(0,158,115,0.24)",
    "none": "rgba(128,128,128,0.08)",
}
MONO = "font-family:monospace;font-size:0.88em;line-height:1.45;white-space:pre"
SMALL = "font-size:0.82em;line-height:1.35"
ROW = 16  # bytes per line


@dataclass(frozen=True, slots=True)
class Picture:
    """HTML for a notebook, and what it says as plain text for everyone else."""

    html: str
    text: str

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """A table to look at: a sentence above it, its head and its rows. The columns of `numbers` hold numbers."""

    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    numbers: Sequence[int] = ()
    caption: str = ""

    def _repr_html_(self) -> str:
        return (prose(self.caption) if self.caption else "") + table(self.head, self.rows, numbers=self.numbers)

    def __repr__(self) -> str:
        lines = [self.head, *self.rows]
        return "\n".join([self.caption] * bool(self.caption) + [" | ".join(line).replace("\n", " ") for line in lines])


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A run of bytes with a name. `data` None: there are `size` bytes, and they are not shown."""

    name: str
    data: bytes | None
    size: int
    hue: str
    note: str = ""


def shown(name: str, data: bytes, hue: str, note: str = "") -> Field:
    """Return a field whose bytes may be seen."""
    return Field(name=name, data=data, size=len(data), hue=hue, note=note)


def secret(name: str, data: bytes, hue: str, note: str = "", *, reveal: bool) -> Field:
    """Return a field whose bytes are shown only on request."""
    return Field(name=name, data=data if reveal else None, size=len(data), hue=hue, note=note)


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def joined(names: Sequence[str]) -> str:
    """Return a, b and c."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def hexes(data: bytes) -> str:
    """Return the bytes in hexadecimal, sixteen per line, with a gap after eight."""
    lines = [data[at : at + ROW] for at in range(0, len(data), ROW)]
    return "\n".join(f"{line[:8].hex(' ')}  {line[8:].hex(' ')}".rstrip() for line in lines)


def dots(size: int) -> str:
    """Return what stands for `size` bytes that are not shown."""
    return "\n".join(" ".join(["••"] * min(ROW, size - at)) for at in range(0, size, ROW)) or "none"


def box(field: Field, most: int = 64) -> str:
    """Return one field: its name, its bytes (those beyond `most` folded away), what they mean."""
    if field.data is None:
        body = f'<div style="{MONO};opacity:0.5">{dots(field.size)}</div>'
    else:
        body = f'<div style="{MONO}">{hexes(field.data[:most]) or "none"}</div>'
        if rest := field.data[most:]:
            body += (
                f'<details><summary style="{SMALL};cursor:pointer">{plural(len(rest), "more byte")}</summary>'
                f'<div style="{MONO}">{hexes(rest)}</div></details>'
            )
    unseen = ", not shown" if field.data is None else ""
    size = f'<span style="font-weight:normal;opacity:0.7"> {plural(field.size, "byte")}{unseen}</span>'
    note = f'<div style="{SMALL};opacity:0.8;max-width:28em">{escape(field.note)}</div>' if field.note else ""
    return (
        f'<div style="background-color:{HUES[field.hue]};border:1px solid {LINE};border-radius:4px;'
        'padding:0.3em 0.6em">'
        f'<div style="{SMALL};font-weight:bold;white-space:nowrap">{escape(field.name)}{size}</div>{body}{note}</div>'
    )


def strip(fields: Iterable[Field]) -> str:
    """Return fields side by side, in the order in which their bytes lie."""
    boxes = "".join(box(field) for field in fields)
    return f'<div style="display:flex;flex-wrap:wrap;gap:0.25em;align-items:flex-start;margin:0.3em 0">{boxes}</div>'


def heading(text: str) -> str:
    return f'<div style="font-weight:bold;margin:0.7em 0 0.15em 0">{escape(text)}</div>'


def prose(text: str) -> Html:
    """Return a paragraph."""
    return Html(f'<div style="margin:0.15em 0 0.3em 0;max-width:62em;line-height:1.45">{markup(text)}</div>')


def code(text: str) -> Html:
    return Html(f'<span style="font-family:monospace">{escape(text)}</span>')


def picture(title: str, *parts: str, text: str = "") -> Picture:
    """Put parts under a title."""
    return Picture(f"<div>{heading(title)}{''.join(parts)}</div>", text or title)
