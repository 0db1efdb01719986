"""Effects: what kTLS and io_uring cost and save, with intervals and a noise floor.

An effect is a ratio of two arms, taken within each block of a setting. Both arms ran there within moments, so drift
affects both and cancels. The typical value is the geometric mean over the blocks; the interval is a bootstrap over
them (`ktlslab.measure.bootstrap`).

The interval covers noise that differs from block to block. It does not cover what stays constant for a whole run:
another session has other sockets and buffers. So every block also measures two equal arms (A/A). Their difference
gives the noise floor. A difference is a finding only if its interval excludes 1 *and* it is larger than the floor.
`tests/measure/test_false_alarms.py` counts how often that is wrong; `false_alarms` counts it in a table of equal arms.

Frames need the columns of `ktlslab.measure.table`; only rows with proof of path count (`checked`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from ktlslab import _checks
from ktlslab.errors import UsageError
from ktlslab.measure.bootstrap import student, typical
from ktlslab.measure.plan import SETTING
from ktlslab.packages import extra
from ktlslab.runs.counting import definition

with extra("lab"):
    import numpy as np
    import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

PLACE = ["machine", "kernel", "clock", "unit", "host"]
CELL = [*SETTING, "record_layer", "io_engine", "suite", "tls_version"]
BLOCK = ["run_id", "repeat"]  # a block that a kill cut in two counts as two: the machine has changed since
# What is compared: the table's column, its name in words, and whether less is better.
QUANTITIES = {
    "latency_p50": ("latency", True),
    "client_cpu": ("client CPU", True),
    "peer_cpu": ("peer CPU", True),
    "throughput_bytes_per_unit": ("throughput", False),
}
EFFECT_COLUMNS = [
    *(name for name in PLACE if name != "host"),
    "host",
    *SETTING,
    *("suite", "tls_version", "effect", "of", "over", "at"),
    *("quantity", "ratio", "low", "high", "blocks", "floor", "verdict", "reason"),
]
_KERNELS = {"kernel": "kTLS", "kernel-tx": "kTLS TX", "kernel-rx": "kTLS RX", "openssl-ktls": "OpenSSL's kTLS"}
_LAYERS = ("userspace", *_KERNELS, "stdlib-ssl", "userspace-rustls")
_ENGINES = ("syscall", "uring")
_ROUNDS, _SETTLED = 1000, 1e-9  # iterations of a fit at most; when it has converged, in natural logarithms
_STAYS_BELOW = 0.98  # the floor's quantile, on each side: it keeps false alarms under 5 in 100 with a margin


class Contrast(NamedTuple):
    """A comparison within a setting: which arms are multiplied, which divided by, and what is held equal."""

    effect: str
    of: tuple[str, ...]
    over: tuple[str, ...]
    at: str

    @property
    def names(self) -> dict[str, str]:
        """The effect's names in a table. A ratio of ratios is written a / b over c / d."""
        of, over = self.of, self.over
        if len(of) > 1:
            of, over = (of[0], over[1]), (over[0], of[1])
        return {"effect": self.effect, "of": " / ".join(of), "over": " / ".join(over), "at": self.at}


def checked(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame if it can be drawn or compared. A fleet's hosts count as one where the unit is instructions.

    Raises UsageError: not a table, no rows, mixed units, rows without proof.
    """
    _checks.frame(
        "showing a table", "frame", frame, [*PLACE, "run_id", "record_layer", "record_layer_observed", "payload_ok"]
    )
    if frame.empty:
        raise UsageError("showing a table", answered="it has no rows", remedy="Widen the selection.")
    units = sorted(frame["unit"].unique())
    if len(units) > 1:
        remedy = f"Choose one: frame[frame.unit == {units[0]!r}]."
        raise UsageError("showing a table", answered=f"it mixes the units {' and '.join(units)}", remedy=remedy)
    unproven = frame[(frame["record_layer"] != frame["record_layer_observed"]) | ~frame["payload_ok"]]
    if len(unproven):
        answered = f"{len(unproven)} rows have no proof of what made their records"
        raise UsageError("showing a table", answered=answered, remedy="Leave out the rows without proof.")
    return one_fleet(frame)


def one_fleet(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with the hosts of a fleet under one common name, where the host does not affect the figures.

    An executor may run each setting on another host. Counts of a guest's instructions do not depend on the host, as
    long as all guests have the same CPU. Times do, so they stay separate by host.
    """
    counted = frame["unit"] == "instructions"
    hosts = sorted(frame.loc[counted, "host"].unique())
    if len(hosts) < 2:
        return frame
    known = frame.attrs.get("provenance", {})
    runs = [known.get(run, {}) for run in frame.loc[counted, "run_id"].unique()]
    cpus = {(definition(run), *run.get("cpu_flags", ())) for run in runs}
    return frame if len(cpus) > 1 else frame.assign(host=frame["host"].mask(counted, ", ".join(hosts)))


def logarithms(frame: pd.DataFrame, quantities: Sequence[str]) -> pd.DataFrame:
    """Return the frame with its arms named and its quantities as logarithms; NaN where they are not positive."""
    names = [*PLACE, *CELL, *BLOCK, "replica"]
    figures = set(_checks.frame("comparing", "frame", frame, names).select_dtypes("number").columns)
    if unknown := [name for name in quantities if name not in figures]:
        remedy = (
            f"{_checks.nearest(unknown[0], QUANTITIES)}Known: {', '.join(QUANTITIES)}, and any other column of figures."
        )
        raise UsageError("comparing", answered=f"there is no column of figures {unknown[0]!r}", remedy=remedy)
    frame = checked(frame)
    logs = pd.DataFrame({name: frame[name].array for name in names})  # without attrs, which each step would copy
    logs["arm"] = logs["record_layer"] + "+" + logs["io_engine"]
    for name in quantities:
        values = frame[name].to_numpy(dtype=float)
        logs[name] = np.log(values, out=np.full(len(values), np.nan), where=values > 0)
    return logs


def figures_of(quantities: Any) -> list[str]:
    """Return a list of columns of figures, given as a list or as one name. UsageError: they are not names."""
    return _checks.words("comparing", "quantities", quantities, f"columns of figures, such as {', '.join(QUANTITIES)}")


def _contrasts_of(asked: Any) -> list[Contrast]:
    return _checks.items("comparing", "asked", asked, Contrast, "a list of ktlslab.measure.analysis.Contrast")


def contrasts() -> Iterator[Contrast]:
    """Yield every contrast; those whose arms were not measured have no row in the result."""
    for engine in _ENGINES:
        for layer, effect in _KERNELS.items():
            for over, suffix in (("userspace", ""), ("stdlib-ssl", " over ssl")):
                yield Contrast(effect + suffix, (f"{layer}+{engine}",), (f"{over}+{engine}",), engine)
        yield Contrast("rustls", (f"userspace-rustls+{engine}",), (f"userspace+{engine}",), engine)
        yield Contrast("userspace over ssl", (f"userspace+{engine}",), (f"stdlib-ssl+{engine}",), engine)
        for layer in _LAYERS:
            yield Contrast("TLS tax", (f"{layer}+{engine}",), (f"plain+{engine}",), engine)
    for layer in ("plain", *_LAYERS):
        yield Contrast("io_uring", (f"{layer}+uring",), (f"{layer}+syscall",), layer)
    yield Contrast("interaction", ("kernel+uring", "userspace+syscall"), ("userspace+uring", "kernel+syscall"), "")


def effects(
    frame: pd.DataFrame,
    quantities: Iterable[str] = tuple(QUANTITIES),
    confidence: float = 0.95,
    asked: Iterable[Contrast] | None = None,
) -> pd.DataFrame:
    """Return every effect that the table shows: a row per place, setting, suite, effect and quantity.

    `asked` replaces the default `contrasts()`. The columns of the result:

    `of`, `over`: the arms, such as "kernel+uring" over "userspace+uring"; the interaction is a ratio of two such
    ratios. `at`: what is held equal. `ratio`, `low`, `high`: the effect and its interval (NaN for fewer than 3
    `blocks`). `floor`: a ratio of at least 1; a ratio inside [1 / floor, floor] is noise. `verdict`: "less", "more" or
    "none". `reason`: why the verdict is "none": "blocks", "interval", "floor" or "no A/A arm".
    """
    quantities, asked = figures_of(quantities), list(contrasts()) if asked is None else _contrasts_of(asked)
    _checks.number("taking intervals", "confidence", confidence, 0, _checks.BELOW_ONE, source="a share: 0.95 for 95 %")
    logs = logarithms(frame, quantities)
    answers = [_answers(logs, quantities, asked)]
    equal = _equal(logs, quantities)
    if len(equal):
        answers.append(equal)
    each = pd.concat(answers, ignore_index=True)
    result = _typical(each, [*PLACE, *SETTING, "suite", "tls_version", "effect", "of", "over", "at"], confidence)
    result = judged(result, _floors(equal, _block_noise(logs, quantities)))
    rank = {name: at for at, name in enumerate(dict.fromkeys([*(question.effect for question in asked), "A/A"]))}
    result["_rank"] = result["effect"].map(rank)
    keys = [*PLACE, "_rank", *SETTING, "suite", "of", "over", "quantity"]
    return result.sort_values(keys, kind="stable", ignore_index=True)[EFFECT_COLUMNS]


def intervals(frame: pd.DataFrame, quantity: str, confidence: float = 0.95) -> pd.DataFrame:
    """Return the typical value of each cell and its interval over blocks: place, cell, value, low, high, blocks.

    The interval includes drift that all cells share. To compare two cells use `effects`, where this drift cancels.
    """
    _checks.number("taking intervals", "confidence", confidence, 0, _checks.BELOW_ONE, source="a share: 0.95 for 95 %")
    (quantity,) = figures_of([quantity])
    logs = logarithms(frame, [quantity])
    cells = logs[logs["replica"] == 0].melt([*PLACE, *CELL, *BLOCK], [quantity], var_name="quantity", value_name="log")
    return _typical(cells, [*PLACE, *CELL], confidence).drop(columns="quantity").rename(columns={"ratio": "value"})


def noise_floor(frame: pd.DataFrame, quantities: Iterable[str] = tuple(QUANTITIES)) -> pd.DataFrame:
    """Return the noise floor of each place, setting and quantity, as a ratio: 1.01 says that 1 % is noise.

    Two equal arms differ for two reasons. Noise from block to block averages out as blocks are added; each setting
    gives it from all its arms. A constant difference between two sessions does not average out, and one A/A pair per
    setting says little about it. So the other settings contribute: it is the mean of the squared A/A differences, less
    the blocks' share. The weight is 1 for the setting itself and halves with each step away from it (a factor of four
    in payload, depth or connections; another workload, link or record size). The floor is both parts together, times
    Student's quantile at the effective number of A/A pairs as degrees of freedom: 96 in 100 pairs of equal arms stay
    below it, whatever the constant part is. A single pair gives a high floor, so a plan of one setting should have
    more of them (`Plan.replicas`). NaN where no arm ran twice.
    """
    quantities = figures_of(quantities)
    return floors_of(logarithms(frame, quantities), quantities)


def floors_of(logs: pd.DataFrame, quantities: Sequence[str]) -> pd.DataFrame:
    """Return what `noise_floor` does, from what `logarithms` returned."""
    return _floors(_equal(logs, quantities), _block_noise(logs, quantities))


def judged(result: pd.DataFrame, floors: pd.DataFrame) -> pd.DataFrame:
    """Add floor, verdict and reason to ratios with intervals. An interaction has the noise of two ratios."""
    result = result.merge(floors, on=[*PLACE, *SETTING, "quantity"], how="left")
    result.loc[result["effect"] == "interaction", "floor"] **= math.sqrt(2)
    return decided(result)


def unjudged(found: pd.DataFrame) -> pd.Series:
    """Whether each effect's verdict is "none" because blocks or an A/A arm are missing: that is not a finding."""
    return found["reason"].isin(["blocks", "no A/A arm"])


def tally(found: pd.DataFrame) -> dict[str, int]:
    """Count the verdicts: less, more, none, and unjudged."""
    verdicts = found["verdict"].mask(unjudged(found), "unjudged")
    return {word: int((verdicts == word).sum()) for word in ("less", "more", "none", "unjudged")}


def decided(result: pd.DataFrame) -> pd.DataFrame:
    """Add verdict and reason, from ratio, low, high and floor."""
    inside = (result["low"] <= 1) & (result["high"] >= 1)
    below = result["ratio"].between(1 / result["floor"], result["floor"])
    reasons = [
        (result["low"].isna(), "blocks"),
        (result["floor"].isna(), "no A/A arm"),
        (inside, "interval"),
        (below, "floor"),
    ]
    reason = np.select([when for when, _ in reasons], [name for _, name in reasons], default="")
    verdict = np.where(reason != "", "none", np.where(result["ratio"] < 1, "less", "more"))
    return result.assign(verdict=verdict, reason=reason)


def false_alarms(frame: pd.DataFrame, quantities: Iterable[str] = tuple(QUANTITIES)) -> tuple[int, int]:
    """Return (alarms, comparisons) for a table whose plan had replicas: how often equal arms are said to differ.

    The floor comes from replicas 0 and 1 of one arm, as in any sweep: kernel+uring, or else the first by name. All
    other pairs of equal arms are judged. UsageError: fewer than four replicas.
    """
    quantities = figures_of(quantities)
    logs = logarithms(frame, quantities)
    if logs["replica"].max() < 3:
        remedy = "Sweep a plan with replicas = 4."
        raise UsageError("counting false alarms", answered="no arm has four replicas", remedy=remedy)
    twice = logs[logs["replica"] == 1]
    arm = "kernel+uring" if "kernel+uring" in set(twice["arm"]) else min(twice["arm"])
    suite = min(twice.loc[twice["arm"] == arm, "suite"])
    control = (logs["arm"] == arm) & (logs["suite"] == suite)
    # As in an ordinary sweep, what is known of noise comes from each arm once, and from the control twice.
    ordinary = logs[(logs["replica"] == 0) | (control & (logs["replica"] == 1))]
    floors = floors_of(ordinary, quantities)
    rest = logs[~(control & (logs["replica"] < 2))]
    count = int(rest["replica"].max()) + 1
    pairs = [(one, two) for one in range(count) for two in range(one + 1, count)]
    each = _equal(rest, quantities, pairs)
    result = _typical(each, [*PLACE, *SETTING, "suite", "tls_version", "effect", "of", "over", "at"], 0.95)
    result = judged(result.dropna(subset="low"), floors)
    return int((result["verdict"] != "none").sum()), len(result)


def _answers(logs: pd.DataFrame, quantities: Sequence[str], asked: Iterable[Contrast]) -> pd.DataFrame:
    """Return each contrast's log ratio per block, in long form. Plain TCP is paired with every suite of its setting."""
    logs = logs[logs["replica"] == 0]
    plain = logs["suite"] == ""
    suites = logs.loc[~plain, [*PLACE, *SETTING, "suite", "tls_version"]].drop_duplicates()
    spread = logs[plain].drop(columns=["suite", "tls_version"]).merge(suites, on=[*PLACE, *SETTING])
    keys = [*PLACE, *SETTING, "suite", "tls_version", *BLOCK]
    everywhere = pd.concat([logs, spread])
    # A pivot table that keeps NaN would have a row for every combination of keys, measured or not.
    wide = everywhere.groupby([*keys, "arm"])[list(quantities)].mean().unstack("arm")  # noqa: PD010
    without = wide.index.get_level_values("suite") == ""
    found = []
    for contrast in asked:
        arms = set(contrast.of + contrast.over)
        if not arms <= set(everywhere["arm"]):
            continue
        only_plain = all(arm.startswith("plain") for arm in arms)
        rows = wide[without] if only_plain else wide[~without]
        values = pd.DataFrame(
            {
                name: sum(rows[name, arm] for arm in contrast.of) - sum(rows[name, arm] for arm in contrast.over)
                for name in quantities
            },
            index=rows.index,
        )
        found.append(_long(values.reset_index(), quantities, contrast))
    return pd.concat(found) if found else _nothing()


def _equal(
    logs: pd.DataFrame, quantities: Sequence[str], pairs: Sequence[tuple[int, int]] | None = None
) -> pd.DataFrame:
    """Return the log ratios of equal arms, by default of each arm's replicas 1 over 0, 3 over 2, and so on."""
    most = int(logs["replica"].max())
    pairs = [(at, at + 1) for at in range(0, most, 2)] if pairs is None else pairs
    keys = [*PLACE, *CELL, "arm", *BLOCK]
    by = {number: part.set_index(keys)[list(quantities)] for number, part in logs.groupby("replica")}
    found = []
    for one, two in pairs:
        if one not in by or two not in by:
            continue
        values = (by[two] - by[one]).dropna(how="all").reset_index()
        for arm, part in values.groupby("arm"):
            found.append(_long(part, quantities, Contrast("A/A", (str(arm),), (str(arm),), f"{two} over {one}")))
    return pd.concat(found) if found else _nothing()


def _long(values: pd.DataFrame, quantities: Sequence[str], contrast: Contrast) -> pd.DataFrame:
    keys = [*PLACE, *SETTING, "suite", "tls_version", *BLOCK]
    long = values.melt(keys, list(quantities), var_name="quantity", value_name="log").dropna(subset="log")
    return long.assign(**contrast.names)


def _nothing() -> pd.DataFrame:
    names = [*PLACE, *SETTING, "suite", "tls_version", *BLOCK, "quantity", "effect", "of", "over", "at"]
    return pd.DataFrame(columns=names, dtype=object).assign(log=pd.Series(dtype=float))


def _typical(each: pd.DataFrame, keys: list[str], confidence: float) -> pd.DataFrame:
    """Return ratio, low, high and blocks of each group of logarithms."""
    groups = each.dropna(subset="log").groupby([*keys, "quantity"], sort=False)["log"]
    names, samples = [], []
    for name, group in groups:
        names.append(name)
        samples.append(group.to_numpy(dtype=float))
    found = typical(samples, confidence)
    result = pd.DataFrame(names, columns=[*keys, "quantity"])
    return result.assign(ratio=found.value, low=found.low, high=found.high, blocks=[len(part) for part in samples])


def _block_noise(logs: pd.DataFrame, quantities: Sequence[str]) -> pd.DataFrame:
    """Return each setting's `variance` of a log ratio in one block, pooled over its arms, and its `blocks` per arm.

    It comes from the residuals of the figures without the effects of arm and block, so common drift is not in it.
    """
    keys = [*PLACE, *SETTING, "quantity"]
    long = logs.melt(
        [*PLACE, *SETTING, "arm", "suite", "replica", *BLOCK], list(quantities), var_name="quantity", value_name="log"
    ).dropna(subset="log")
    long["block"] = long.groupby([*keys, *BLOCK]).ngroup()
    long["cell"] = long.groupby([*keys, "arm", "suite", "replica"]).ngroup()
    long["square"] = _rest(*(long[name].to_numpy() for name in ("log", "block", "cell"))) ** 2
    found = long.groupby(keys, as_index=False).agg(
        squares=("square", "sum"), rows=("square", "size"), blocks=("block", "nunique"), cells=("cell", "nunique")
    )
    freedom = (found["rows"] - found["blocks"] - found["cells"] + 1).clip(lower=0)
    variance = 2 * (found["squares"] / freedom.where(freedom > 0)).fillna(0.0)
    return found[keys].assign(variance=variance, blocks=found["rows"] / found["cells"])


def _rest(values: Any, block: Any, cell: Any) -> Any:
    """Return the residuals of values without the effects of their blocks and cells, which are numbered from 0.

    Where every block has every cell, subtracting the means once is the least-squares fit. Where some are missing, it
    is repeated until nothing changes.
    """
    rest = values.astype(float)
    for _ in range(_ROUNDS):
        moved = 0.0
        for group in (block, cell):
            means = np.bincount(group, rest) / np.bincount(group) if len(group) else rest
            rest = rest - means[group]
            moved = float(np.abs(means).max(initial=0.0))
        if moved < _SETTLED:
            break
    return rest


def _floors(equal: pd.DataFrame, noise: pd.DataFrame) -> pd.DataFrame:
    """Return the floor of each place, setting and quantity in `noise`, from the A/A log ratios in `equal`."""
    keys = [*PLACE, *SETTING, "quantity"]
    pairs = equal.groupby([*keys, "suite", "of", "at"], as_index=False).agg(log=("log", "mean"), count=("log", "size"))
    pairs = pairs.merge(noise, on=keys)
    pairs["noise"] = pairs["variance"] / pairs["count"]
    noise = noise.assign(noise=noise["variance"] / noise["blocks"])
    found = []
    for place, here in noise.groupby([*PLACE, "quantity"], sort=False):
        at = (pairs[[*PLACE, "quantity"]] == list(place)).all(axis=1)
        found.append(here[keys].assign(floor=_borrowed(here, pairs[at])))
    return pd.concat(found, ignore_index=True) if found else noise[keys].assign(floor=np.nan)


def _borrowed(here: pd.DataFrame, pairs: pd.DataFrame) -> Any:
    """Return the floor of each setting in `here`, from the A/A pairs of one place and quantity."""
    if pairs.empty:
        return np.nan
    steps = np.zeros((len(here), len(pairs)))
    for name in ("payload_bytes", "depth", "connections"):
        away = np.log(here[name].to_numpy(dtype=float))[:, None] - np.log(pairs[name].to_numpy(dtype=float))
        steps += np.abs(away) / math.log(4)
    for name in ("workload", "link", "record_size", "request_bytes"):
        steps += here[name].to_numpy()[:, None] != pairs[name].to_numpy()
    weight = 0.5**steps
    total = weight.sum(axis=1)
    excess = weight @ (pairs["log"].to_numpy(dtype=float) ** 2 - pairs["noise"].to_numpy(dtype=float)) / total
    freedom = total**2 / (weight**2).sum(axis=1)
    spread = np.sqrt(here["noise"].to_numpy(dtype=float) + excess.clip(min=0))
    return np.exp(
        [student(_STAYS_BELOW, round(float(many), 2)) * each for many, each in zip(freedom, spread, strict=True)]
    )
