"""Run the matrix in this process, print it, and end with 1 if an outcome is not the expected one.

    python -X dev -m tests.matrix [--times N] [--only WORDS] [--thin] LAYER...

The crashes it looks for end the process: C uses memory that Python has freed, or the garbage collector releases a
buffer that C uses. So run it under a debug allocator (PYTHONMALLOC=debug, MALLOC_PERTURB_) or AddressSanitizer, with
--times; it collects garbage again and again. Without --times, each place is run once, and the collector is left alone.
"""
# ruff: noqa: T201 - a command prints

from __future__ import annotations

import argparse
import faulthandler
import gc
import re
import sys
import time

from tests.handpeer import HandPeers
from tests.matrix import ROWS, brief_farewells, right, run
from tests.matrix.rows import ALL, LIMIT_S
from tests.matrix.table import Table



def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--times", type=int, default=1, help="run each place so often, and collect garbage meanwhile")
    parser.add_argument("--only", default="", help="only rows whose name matches this pattern")
    parser.add_argument("--thin", action="store_true", help="each variant with each engine in one role only")
    parser.add_argument("--slow", type=float, help="print the rows that take longer than this many seconds")
    parser.add_argument("layers", nargs="*", choices=ALL, metavar="LAYER", help=f"of {', '.join(ALL)}")
    options = parser.parse_args()
    faulthandler.enable()
    table, count, bad = Table(), 0, 0
    with brief_farewells(), HandPeers() as peers:
        for row in ROWS:
            for layer in options.layers or ALL:
                if not re.search(options.only, row.name) or layer not in row.layers:
                    continue
                began = time.monotonic()
                for place in row.places(layer, thin=options.thin):
                    for _ in range(options.times):
                        faulthandler.dump_traceback_later(3 * LIMIT_S, exit=True)
                        outcome = run(row, place, peers)
                        faulthandler.cancel_dump_traceback_later()
                        table.add("here", row.name, layer, place.engine, place.role, outcome)
                        count += 1
                        if not right(row, place, outcome):
                            bad += 1
                            print(f"{row.name} [{place}]: {outcome}, not: {row.outcome_at(place)}", flush=True)
                        if options.times > 1 and count % 8 == 0:
                            gc.collect()
                took = time.monotonic() - began
                if options.slow is not None and took > options.slow:
                    print(f"{took:5.1f} s  {row.name} ({layer})", flush=True)
    gc.collect()
    print(table)
    print(f"{count} runs, {bad} with another outcome than expected")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
