"""What `%load_ext ktlslab` adds to IPython: `%ktls_doctor`, `%ktls_sweep` and `%%ktls_sweep`.

    %%ktls_sweep small --on newest
    suites = TLS_AES_128_GCM_SHA256
    payloads = 64, 16 KiB

The cell is a plan: the fields of `ktlslab.Plan`, in TOML or as above, in place of those of the plan `quick`. The frame
is `small` afterwards, and lies in small.parquet. A cell that was interrupted goes on when it is run again.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ktlslab import _checks
from ktlslab.diagnosis import Diagnosis, doctor
from ktlslab.errors import StoppedError, UsageError
from ktlslab.measure.plan import Plan, named
from ktlslab.measure.sweeping import sweep
from ktlslab.packages import extra
from ktlslab.runs.journal import interrupted
from ktlslab.show.html import plural

with extra("lab"):
    from IPython.core.magic import Magics, line_cell_magic, line_magic, magics_class

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

_OPTIONS = {"--plan": "quick", "--on": "auto", "--clock": "", "--output": ""}
_SWEEPING = "reading %%ktls_sweep's line"
_READING = "reading the cell's plan"
_SIZE = re.compile(r"(\d[\d_]*)\s*(B|KiB|MiB)?")
_BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, None: 1}


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Add the magics to IPython: `%load_ext ktlslab` calls this."""
    shell.register_magics(KtlsMagics)


@magics_class
class KtlsMagics(Magics):
    """The magics. A mistake in a cell is a UsageError, which IPython shows as a card with its remedy."""

    @line_magic
    def ktls_doctor(self, line: str) -> Diagnosis:
        """Show what this machine can do, and what to install for the rest."""
        if line.strip():
            raise UsageError("reading %ktls_doctor's line", answered=f"it has {line!r}", remedy="It takes nothing.")
        return doctor()

    @line_cell_magic
    def ktls_sweep(self, line: str, cell: str = "") -> None:
        """Measure a plan: %%ktls_sweep [NAME] [--plan PLAN] [--on MACHINE[,MACHINE]] [--clock CLOCK] [--output FILE].

        NAME (default: table) is the frame's afterwards; FILE is NAME.parquet by default. The cell has the fields of a
        plan that differ from PLAN's (default: quick).
        """
        name, options = _read_line(line)
        output = Path(options["--output"] or f"{name}.parquet")
        plan = plan_of(cell, named(options["--plan"]))
        again = interrupted(output)
        machines = options["--on"].split(",")
        try:
            frame = sweep(plan, machines, clock=options["--clock"] or None, output=output, resume=again)
        except StoppedError as error:
            error.remedy = "Run the cell again to go on from there." if error.samples else error.remedy
            raise
        assert self.shell is not None, "magics of a shell"  # noqa: S101 - for the type checker
        self.shell.user_ns[name] = frame
        print(f"{name} is a frame of {plural(len(frame), 'sample')}, written to {output}")  # noqa: T201 - the cell's


def plan_of(cell: str, base: Plan) -> Plan:
    """Return a plan whose fields are those of `base`, except those that a cell gives.

    TOML, or lines such as `payloads = 64, 16 KiB` and `workloads = echo`. UsageError names the line that is neither.
    """
    try:
        given = tomllib.loads(cell)
    except tomllib.TOMLDecodeError as error:
        given = {}
        for number, text in enumerate(cell.splitlines(), 1):
            given |= _field(text.strip(), number, str(error))
    return Plan.from_json({**base.to_json(), "name": "cell", **given})


def _field(text: str, number: int, why: str) -> dict[str, Any]:
    """Return the field that a line gives: TOML, or words and sizes separated by commas."""
    if not text or text.startswith("#"):
        return {}
    if not text.startswith("["):  # the rest of the cell would belong to it
        with contextlib.suppress(tomllib.TOMLDecodeError):
            return tomllib.loads(text)
    name, equals, values = (part.strip() for part in text.partition("="))
    words = [_word(word.strip()) for word in values.split("#")[0].split(",") if word.strip()]
    if not equals or not words or not re.fullmatch(r"\w+", name) or re.search(r"[][{}\"']", values):
        remedy = f"Write `payloads = 64, 16 KiB`, or TOML: `payloads = [64, 16384]`. As TOML it fails so: {why}."
        raise UsageError(_READING, answered=f"line {number} is {text!r}", remedy=remedy)
    return {name: words if len(words) > 1 else words[0]}


def _word(word: str) -> int | float | str:
    if size := _SIZE.fullmatch(word):
        return int(size[1]) * _BYTES[size[2]]
    try:
        return float(word)
    except ValueError:
        return word


def _read_line(line: str) -> tuple[str, dict[str, str]]:
    """Return the frame's name and the options."""
    usage = "%%ktls_sweep [NAME] [--plan PLAN] [--on MACHINE] [--clock CLOCK] [--output FILE]"
    options, names = dict(_OPTIONS), []
    try:
        words = iter(shlex.split(line))
    except ValueError as error:
        raise UsageError(_SWEEPING, answered=f"{line!r}: {error}", remedy=f"Write {usage}.") from None
    for word in words:
        option, equals, value = word.partition("=")
        if option not in options:
            names.append(word)
        elif not (value := value if equals else next(words, "")):
            raise UsageError(_SWEEPING, answered=f"{option} has no value", remedy=f"Write {usage}.")
        else:
            options[option] = value
    if wrong := [name for name in names if name.startswith("-")]:
        remedy = f"{_checks.nearest(wrong[0], options)}Write {usage}."
        raise UsageError(_SWEEPING, answered=f"there is no option {wrong[0]}", remedy=remedy)
    if len(names) > 1 or not all(name.isidentifier() for name in names):
        answered = f"{' '.join(names)!r} is not the name of one variable"
        raise UsageError(_SWEEPING, answered=answered, remedy=f"Write {usage}.")
    return (names or ["table"])[0], options
