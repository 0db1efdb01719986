"""How a table was measured, in sentences computed from the table and the provenance of its runs.

What the provenance does not record is left out, not guessed.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ktlslab.measure.analysis import BLOCK, PLACE, QUANTITIES, noise_floor
from ktlslab.measure.plan import SETTING
from ktlslab.runs.counting import counted, definition
from ktlslab.show.axes import percent
from ktlslab.show.html import plural
from ktlslab.show.names import is_emulated, is_user_mode

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

_CLOCKS = {
    "instructions": (
        "The clock counts the instructions that an emulated CPU executes, all alike; caches and memory do not exist. "
        "The result is a repeatable cost, neither a duration nor a prediction for real hardware."
    ),
    "ns": "The clock is the machine's monotonic one, in nanoseconds; CPU is the process's own, by the scheduler.",
}
_ELSEWHERE = ("plan", "unusual", "left_out", "run_id")  # each has its own place on the page


def runs(frame: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return the provenance of the runs that a frame has rows of; empty for one that is lost."""
    known = frame.attrs.get("provenance", {})
    return {str(run): known.get(run, {}) for run in frame["run_id"].unique()}


def hertz(frame: pd.DataFrame) -> int:
    """Return the kernel's ticks per second: CONFIG_HZ, the lowest of several, 250 where it is not known."""
    told = [run.get("kernel_config", {}).get("CONFIG_HZ", "") for run in runs(frame).values()]
    return min((int(value) for value in told if value.isdigit()), default=250)


def method(frame: pd.DataFrame) -> list[str]:
    """Return how it was measured: plan, blocks, order, warm-up, stop rule, noise floor, clock."""
    said = [*_plans(frame), _blocks(frame), _warm_up(frame), *_floor(frame), _CLOCKS[str(frame["unit"].iloc[0])]]
    said += _counted_by(frame)
    if is_emulated(frame) and frame["unit"].iloc[0] == "ns":
        said.append("The CPU is emulated in software: these seconds are the emulator's, not those of a real CPU.")
    if is_user_mode(frame):
        said.append(
            "The kernel is a user-mode one: its system calls are dear and its ciphers are plain C, so these seconds "
            "are not those of a kernel on a CPU of its own."
        )
    said += _arms(frame)
    said.append(
        "Every sample carries its proof of path (the kernel's counters and sequence numbers) and of its bytes (a "
        "checksum at both ends); a sample without either is an error, not a row."
    )
    return said


def _counted_by(frame: pd.DataFrame) -> Iterator[str]:
    """Yield which CPU counted, and what a byte costs that the kernel or libc copies on it."""
    for name, described in sorted({(run.get("cpu"), bool(definition(run))) for run in counted(frame).values()}):
        if name and described:
            yield (
                f"The CPU is {name}: kernel and libc copy and clear memory by words and vectors, a quarter of an "
                "instruction per byte or less."
            )
        elif name:
            yield f"The CPU is {name}. Its features are not recorded: a copied byte may count as an instruction."


def _arms(frame: pd.DataFrame) -> Iterator[str]:
    """Yield what the names of a table's arms do not say."""
    if len(frame[(frame["record_layer"] == "userspace") & (frame["io_engine"] == "uring")]):
        yield (
            "userspace+uring goes through memory BIOs, because OpenSSL cannot use io_uring: every byte is copied twice "
            "more in each direction. kernel+uring saves these copies as well. userspace+syscall is the classic client."
        )
    openssl = frame[frame["record_layer"] == "openssl-ktls"]
    if len(openssl) and not openssl["kernel_rx_records"].any():
        yield (
            "In openssl-ktls this OpenSSL gave the kernel only the sending side: in a download the kernel makes the "
            "records of the requests, and OpenSSL opens all records that arrive."
        )


def unusual(frame: pd.DataFrame) -> list[str]:
    """Return what the runs noted, each note with the run's name, and what the rows themselves show."""
    said = []
    for run, known in runs(frame).items():
        if not known:
            said.append(f"{run}: its provenance is lost.")
        said += [f"{run}: {note}" for note in known.get("unusual", [])]
        if known and "unusual" not in known:
            said.append(f"{run}: it did not finish, so no notes were taken.")
    if slowed := sorted({str(known.get("plan", {}).get("handicap", "")) for known in runs(frame).values()} - {""}):
        said.append(f"An arm was slowed on purpose: {', '.join(slowed)}.")
    return said


def left_out(frame: pd.DataFrame) -> list[str]:
    """Return the arms of the plan that were not measured, and why."""
    said: dict[str, None] = {}
    for known in runs(frame).values():
        where = f"Linux {known.get('kernel', '?')}"
        said |= {f"{arm} on {where}: {why}": None for arm, why in known.get("left_out", {}).items()}
    return list(said)


def provenance(frame: pd.DataFrame) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Yield each run and what is known of it, as names and values."""
    for run, known in runs(frame).items():
        rows = [(name.replace("_", " "), _value(value)) for name, value in known.items() if name not in _ELSEWHERE]
        if plan := known.get("plan"):
            rows.append(("plan", json.dumps(plan)))
        yield run, [row for row in rows if row[1]] or [("provenance", "lost")]


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{name}: {_value(one)}" for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(_value, value))
    return "" if value is None else str(value)


def _plans(frame: pd.DataFrame) -> list[str]:
    """Describe each plan once, with its seed and its stopping rule."""
    plans: dict[str, dict[str, Any]] = {}
    for known in runs(frame).values():
        if plan := known.get("plan"):
            plans[json.dumps(plan, sort_keys=True)] = plan
    said = []
    for plan in plans.values():
        text = f"Plan {plan.get('name', '?')}, seed {plan.get('seed', '?')}: every arm runs once in each block"
        text += f" of a setting, in an order drawn from the seed. {_stop(plan)}"
        if control := plan.get("control"):
            text += f" {control} runs twice in every block (A/A): the difference between these two is the noise floor."
        said.append(text)
    return said


def _stop(plan: dict[str, Any]) -> str:
    repeats, limit, precision = (plan.get(name, 0) for name in ("repeats", "max_repeats", "precision"))
    text = f"{plural(int(repeats), 'block')} per setting"
    if precision:
        text += (
            f", then more, up to {max(limit, repeats)}, until the ratio of each arm's cost to the first arm's is known"
        )
        text += f" within {precision:.1%} (a setting with {max(limit, repeats)} blocks may not have reached it)"
    if minutes := plan.get("minutes", 0):
        text += f"; no block starts after {minutes:g} minutes"
    return text + "."


def _blocks(frame: pd.DataFrame) -> str:
    each = frame[[*PLACE, *SETTING, *BLOCK]].drop_duplicates().groupby([*PLACE, *SETTING]).size()
    number = str(each.min()) if each.min() == each.max() else f"{each.min()} to {each.max()}"
    return (
        f"{len(frame):,} samples in {plural(len(runs(frame)), 'run')}: {plural(len(each), 'setting')}, {number} blocks "
        f"each; {frame['operations'].min():,} to {frame['operations'].max():,} operations per sample."
    )


def _warm_up(frame: pd.DataFrame) -> str:
    steady = frame["steady"].mean()
    low, high = frame["warm_up"].min(), frame["warm_up"].max()
    return (
        f"Warm-up is judged, not assumed: {low} to {high} timed steps before each sample are not counted; "
        f"{steady:.1%} of the samples began after the steps had become steady."
    )


def _floor(frame: pd.DataFrame) -> list[str]:
    floors = noise_floor(frame).dropna(subset="floor")
    said = []
    for quantity, (name, _) in QUANTITIES.items():
        part = floors[floors["quantity"] == quantity]["floor"]
        if len(part):
            said.append(f"{name} {percent(part.median())} (at most {percent(part.max())})")
    return [f"Noise floor, median over the settings: {', '.join(said)}."] if said else []
