"""The arithmetic of one record, to be read like a sum on paper: bytes under bytes, XOR, and the result under a line."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

from ktlslab import _checks
from ktlslab.errors import UsageError
from ktlslab.show.html import HUES, MONO, Html, Picture, picture, table
from ktlslab.tls.gcm import xor

_HUES = ("cipher", "sequence", "tag")


def xor_of(parts: Mapping[str, bytes], gives: str = "") -> Picture:
    """Show named bytes one under another, and the XOR of all of them in the last line, named `gives`.

    UsageError where they are not of one length.
    """
    tried = "showing a sum"
    named = _checks.instance(tried, "parts", parts, Mapping, "names and bytes")
    values = _checks.items(tried, "parts", list(named.values()), bytes, "names and bytes", least=1)
    if len({len(value) for value in values}) > 1:
        answered = f"the parts have {', '.join(str(len(value)) for value in values)} bytes"
        raise UsageError(tried, answered=answered, remedy="Give them all the same length.")
    total = reduce(xor, values)
    lines = [("", *next(iter(named.items()))), *(("XOR", name, value) for name, value in list(named.items())[1:])]
    rows = [(sign, str(name), _bytes(value, _HUES[at % len(_HUES)])) for at, (sign, name, value) in enumerate(lines)]
    rows.append(("=", Html(f"<b>{_checks.text(tried, 'gives', gives or 'result')}</b>"), _bytes(total, "plain")))
    text = " XOR ".join(f"{value.hex()} ({name})" for _, name, value in lines)
    return picture(f"{gives or 'The sum'}, byte by byte", table((), rows), text=f"{text} = {total.hex()} ({gives})")


def _bytes(value: bytes, hue: str) -> Html:
    return Html(f'<span style="{MONO};background-color:{HUES[hue]}">{value.hex(" ")}</span>')
