"""Run the matrix, print it, and end with 1 if an outcome is not the expected one.

    python -X dev -m tests.matrix [--times N] [--collect] [--only PATTERN] [--rows MODULE] [--thin] LAYER...

Some faults end the process: C uses memory that Python has freed, or the garbage collector releases a buffer that C
uses. To look for those, run it with --times or --collect under a debug allocator (PYTHONMALLOC=debug, MALLOC_PERTURB_)
or AddressSanitizer; each error is kept in a cycle with all frames of its traceback, as a stream keeps its own.
"""
# ruff: noqa: T201 - a command prints

from __future__ import annotations

import argparse
import re
import sys

from tests.matrix import ROWS
from tests.matrix.rows import ALL, Row
from tests.matrix.running import AT_ONCE, Crew
from tests.matrix.table import Table


def chosen(row: Row, options: argparse.Namespace) -> bool:
    return bool(re.search(options.only, row.name)) and row.act.__module__.endswith(options.rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--times", type=int, default=1, help="run each place so often")
    parser.add_argument("--collect", action="store_true", help="collect garbage again and again (with --times: always)")
    parser.add_argument("--brief", type=float, help="the time-out of a stream whose call is to run into it")
    parser.add_argument("--rows", default="", help="only rows of this module: peer_faults, counts, ...")
    parser.add_argument("--only", default="", help="only rows whose name matches this pattern")
    parser.add_argument("--thin", action="store_true", help="not every engine in every role")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help="run so many rows at once")
    parser.add_argument("layers", nargs="*", choices=ALL, metavar="LAYER", help=f"of {', '.join(ALL)}")
    options = parser.parse_args()
    table, count, bad = Table(), 0, 0
    how = {"thin": options.thin, "times": options.times, "collect": options.collect or options.times > 1}
    with Crew(options.at_once, brief=options.brief) as crew:
        started = [
            (row.name, layer, crew.start(row, layer, **how))
            for row in ROWS
            for layer in options.layers or ALL
            if chosen(row, options) and layer in row.layers
        ]
        for name, layer, future in started:
            for one in future.result():
                table.add("here", name, layer, one.engine, one.role, one.outcome)
                count += 1
                if one.wrong:
                    bad += 1
                    print(f"{name} [{one.wrong}]", flush=True)
    print(table)
    print(f"{count} runs, {bad} with another outcome than expected")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
