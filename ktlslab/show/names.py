"""Names for people: of a cell, of the place where a frame was measured, of sizes and suites.

Nothing here imports pandas: what only names a table must not wait for it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ktlslab.linux.cpu import USER_MODE
from ktlslab.show.html import joined
from ktlslab.tls.suites import Suite

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd


def cell_name(row: pd.Series) -> str:
    """Name a cell for people, without its workload."""
    extra = "".join(f", {row[name]} {name}" for name in ("depth", "connections") if row[name] > 1)
    return f"{size_name(int(row['payload_bytes']))}, {suite_name(str(row['suite']))}, {row['io_engine']}{extra}"


def place_name(frame: pd.DataFrame) -> str:
    """Say where and by which clock a frame was measured, and whether its seconds are no real kernel's on a real CPU."""
    kernels = f"Linux {joined(list(frame['kernel'].unique()))}"
    unit = str(frame["unit"].iloc[0])
    names = list(frame["machine"].unique())
    guests = [name for name in names if name != "here"]
    machines = [f"guest{'s' * (len(guests) > 1)} {joined(guests)}"] if guests else []
    machines += ["this machine"] * ("here" in names)
    counted = "counted in instructions" if unit == "instructions" else "timed in nanoseconds"
    emulated = ", on an emulated CPU" if unit == "ns" and is_emulated(frame) else ""
    user_mode = ", by a user-mode kernel" if is_user_mode(frame) else ""
    return f"{kernels} ({joined(machines)}), {counted}{emulated}{user_mode}"


def kernel_name(machine: str, release: str) -> str:
    """Name a kernel: Linux 6.12.113 (user mode)."""
    return f"Linux {release or machine}{' (user mode)' if machine.startswith('uml-') else ''}"


def is_emulated(frame: pd.DataFrame) -> bool:
    """Whether any run in the frame had an emulated CPU, as far as its provenance says."""
    runs = frame.attrs.get("provenance", {})
    return any(runs.get(run, {}).get("emulated", False) for run in frame["run_id"].unique())


def is_user_mode(frame: pd.DataFrame) -> bool:
    """Whether any run in the frame was made by a user-mode kernel, as far as its provenance says."""
    runs = frame.attrs.get("provenance", {})
    return any(runs.get(run, {}).get("cpu") == USER_MODE for run in frame["run_id"].unique())


def processor(run: Mapping[str, Any]) -> str:
    """Name the CPU of a run and who emulates it, as far as its provenance says."""
    version = re.match(r"QEMU emulator version (\S+)", run.get("emulator") or "")
    by = f" by QEMU {version[1]}" if version else ""
    return f"{run.get('cpu') or 'CPU not known'}{f', emulated{by}' if run.get('emulated') else ''}"


def order(workload: str) -> tuple[int, str]:
    """Return the key that workloads are sorted by: both ways, out, in, then any others."""
    known = ("echo", "upload", "download", "sendfile", "serve")
    return (known.index(workload) if workload in known else len(known)), workload


def ends_named(text: str, workloads: Iterable[str]) -> str:
    """Return a text about client and peer with the names that they have in these workloads.

    In `serve` alone the measured end, whose columns are the client's, is the server, and its peer is all the clients.
    """
    if set(workloads) != {"serve"}:
        return text
    for end, name in (("client", "server"), ("peer CPU", "clients' CPU"), ("peer", "clients")):
        text = text.replace(end, name)
    return text


def size_name(count: int) -> str:
    """Return 64 B, 16 KiB, 1 MiB."""
    for unit, size in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:g} {unit}"
    return f"{count} B"


def suite_name(name: str) -> str:
    """Return a suite's cipher and version: the part of its name that the record layer sees."""
    suite = Suite.__members__.get(name)
    return f"{suite.cipher.name}, {suite.version.label}" if suite else name or "no TLS"


def suite_names(names: Iterable[str]) -> dict[str, str]:
    """Return a name for each suite that is unique among them."""
    short = {name: suite_name(name) for name in names}
    values = list(short.values())
    return {name: value if values.count(value) == 1 else name for name, value in short.items()}
