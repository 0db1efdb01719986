"""How wrong the weights are: each arm, each suite and each payload is left out in turn, and predicted from the rest."""

from __future__ import annotations

from ktlslab.estimating.fitting import Evidence, apply
from ktlslab.packages import extra

with extra("lab"):
    import numpy as np
    import pandas as pd

MAX_ERROR = 0.15  # of an estimate that is not refused, in the geometric mean
ARM, SUITE, PAYLOAD = "arm", "suite", "payload"
GROUPS = {ARM: ["record_layer", "io_engine"], SUITE: ["suite"], PAYLOAD: ["payload_bytes"]}
COLUMNS = ("left_out", "name", "cells", "error", "worst", "reason")


def left_out(evidence: Evidence) -> tuple[pd.DataFrame, pd.Series]:
    """Return the errors of each group left out, and the natural logarithm of measured over predicted by cell.

    The frame (`COLUMNS`): `error` is the geometric mean over the group's cells of how far they are off, both ends
    together, `worst` the largest; 0.05 is a twentieth too much or too little. NaN with a `reason` where the rest lacks
    a cost class of the group. The series has the cells of left-out arms.
    """
    rows: list[dict[str, object]] = []
    found: list[pd.Series] = []
    keys = evidence.features.index.to_frame(index=False)
    for kind, names in GROUPS.items():
        of = keys[names].astype(str).agg("+".join, axis=1)
        for name in dict.fromkeys(of):
            if not name:  # plain TCP has no suite
                continue
            out = of == name
            row: dict[str, object] = {"left_out": kind, "name": name, "cells": 0, "error": np.nan, "worst": np.nan}
            rows.append(row | {"reason": ""})
            missing = lacking(evidence, out)
            if missing:
                rows[-1]["reason"] = f"only it has {', '.join(missing)}"
                continue
            off = _off(evidence, out)
            rows[-1] |= {
                "cells": len(off),
                "error": float(np.expm1(off.abs().mean())),
                "worst": float(np.expm1(off.abs().max())),
            }
            if kind == ARM:
                found.append(off)
    return pd.DataFrame(rows, columns=list(COLUMNS)), pd.concat(found) if found else pd.Series(dtype=float)


def lacking(evidence: Evidence, out: pd.Series) -> list[str]:
    """Return the cost classes that only these rows have."""
    return sorted(set(evidence.features.columns) - set(evidence.where(~out).features.columns))


def _off(evidence: Evidence, out: pd.Series) -> pd.Series:
    """Return the logarithm of measured over predicted for each cell that is left out."""
    weights = evidence.where(~out).fit()
    these = evidence.where(out)
    predicted = apply(these.features, weights)
    cells = [name for name in these.features.index.names if name != "end"]
    off = these.ns.groupby(cells).sum() / predicted.groupby(cells).sum()
    return pd.Series(np.log(off.to_numpy()), off.index)


def summary(checks: pd.DataFrame) -> pd.DataFrame:
    """Return for each kind of group the geometric mean over its cells, and the worst: a row per kind."""
    rows = []
    for kind in GROUPS:
        these = checks[(checks["left_out"] == kind) & checks["error"].notna()]
        mean = np.expm1(np.average(np.log1p(these["error"]), weights=these["cells"])) if len(these) else np.nan
        rows.append(
            {"left_out": kind, "cells": int(these["cells"].sum()), "error": mean, "worst": these["worst"].max()}
        )
    return pd.DataFrame(rows).set_index("left_out")
