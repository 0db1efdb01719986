"""Run the model for as long as you like: python tests/model [--seconds N] [--collect] [--seed N] LAYER...

Layers are plain, userspace, kernel, kernel-tx and kernel-rx; without any, plain and userspace. The kernel's need a
kernel that has kTLS: `ktlslab guest run newest --clock wall -- python tests/model --seconds 600 kernel`. A failure
prints the shortest sequence that leads to it; --seed, with the seed after the last one printed, leads to it again.
--collect forces the garbage collector in every call; do so under a debug allocator: PYTHONMALLOC=debug
MALLOC_PERTURB_=165 MALLOC_CHECK_=3 python -X dev tests/model --collect.
"""

from __future__ import annotations

import argparse
import faulthandler
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from model.running import run


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--timeout", type=float, default=0.15, help="of the Stream; longer on a slow machine")
    parser.add_argument("--seed", type=int, help="of the first 25 runs; the next ones have the next (default: any)")
    parser.add_argument("--collect", action="store_true")
    parser.add_argument("layers", nargs="*", default=["plain", "userspace"])
    options = parser.parse_args()
    faulthandler.enable()
    done = run(
        options.layers,
        options.seconds,
        timeout=options.timeout,
        collect=options.collect,
        say=True,
        first_seed=options.seed,
    )
    sys.stdout.write(f"{done}\n")


if __name__ == "__main__":
    main()
