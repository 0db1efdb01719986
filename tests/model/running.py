"""Runs the machine for a time."""

from __future__ import annotations

import contextlib
import gc
import random
import sys
import time

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.errors import Flaky
from hypothesis.stateful import run_state_machine_as_test
from model.contract import LATE, Fault
from model.machine import Machine, start

from ktlslab.stages.transfer import ending

BATCH = 25  # runs between two looks at the clock
STEPS = 20


def run(layers, seconds, *, timeout=0.15, collect=False, say=False, first_seed=None):
    """Run random sequences on these record layers for a time; return how many runs and calls there were.

    Raises the first fault, shrunk; hypothesis prints the sequence. A call that was late once, but not when the same
    sequence ran again, is only counted. Each batch of runs has the seed after that of the batch before it: the same
    `first_seed` means the same sequences, as far as the time allows.
    """
    made = {"layers": tuple(layers), "timeout": timeout}
    if collect:
        made |= {"before_call": staticmethod(_collect_always), "after_call": staticmethod(_collect_as_usual)}
    chosen = settings(
        max_examples=BATCH,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        derandomize=False,
        print_blob=False,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    with start() as peers, short_waits():
        machine = type("Machine", (Machine,), {**made, "peers": peers})
        deadline, busy = time.monotonic() + seconds, 0
        number = random.randrange(1 << 32) if first_seed is None else first_seed  # noqa: S311 - no secret
        while time.monotonic() < deadline:
            Fault.seen.clear()
            try:
                run_state_machine_as_test(seed(number)(machine), settings=chosen)
            except Flaky as error:  # the fault was not seen again
                if not Fault.seen:
                    raise  # the model's own
                if not all(said.startswith(LATE) for said in Fault.seen):
                    raise Fault("\n".join(Fault.seen)) from error
                busy += 1
                if say:
                    sys.stderr.write(f"late once: {Fault.seen[0]}\n")
            if say:
                sys.stderr.write(f"{machine.runs} runs, {machine.calls} calls, seed {number}: no fault\n")
            number += 1
    return f"{machine.runs} runs, {machine.calls} calls, {busy} of them late once because this machine was busy"


@contextlib.contextmanager
def short_waits():
    """Let no close wait long for a peer that goes on."""
    before, ending.LINGER_S = ending.LINGER_S, 0.02
    try:
        yield
    finally:
        ending.LINGER_S = before


def _collect_always():
    gc.set_threshold(1)


def _collect_as_usual():
    gc.set_threshold(700, 10, 10)
    gc.collect()
