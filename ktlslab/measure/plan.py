"""What is to be measured: a plan of dimensions, and the cells that it spans.

An arm is a record layer and an I/O engine. A cell is an arm at one suite, payload and direction. A plan is the product
of its dimensions, less what makes no sense (plain TCP has no suite), in blocks: within a block every arm runs once, in
an order drawn from the seed, so that whatever drifts meets them all alike.
"""

from __future__ import annotations

import json
import random
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from ktlslab.errors import UsageError
from ktlslab.tls.suites import Suite

RECORD_LAYERS = ("plain", "userspace", "kernel", "kernel-tx", "kernel-rx")
IO_ENGINES = ("syscall", "uring")
DIRECTIONS = ("echo", "upload", "download")
KIB = 1024
# Bytes that one burst of one-way operations moves at most, and operations in it: it fits well into a new connection's
# receive window (64 KiB), so that whoever sends need not wait, and who runs when depends on the work alone.
BURST_BYTES = 32 * KIB
BURST_OPERATIONS = 8
SAMPLE_BYTES = KIB * KIB  # that a sample moves, about: the receiver keeps it until its checksum is taken
FEWEST_STEPS = 4
LARGEST_PAYLOAD = 16 * KIB * KIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One combination; the names are the table's columns. `suite` and `tls_version` are empty for plain TCP."""

    record_layer: str
    io_engine: str
    suite: str
    tls_version: str
    payload_bytes: int
    direction: str
    depth: int = 1
    connections: int = 1

    @property
    def session(self) -> tuple[str, str, str]:
        """What the cells of one open session share."""
        return self.record_layer, self.io_engine, self.suite

    @property
    def burst(self) -> int:
        """How many operations make one timed step: one for an echo, several where they go one way."""
        if self.direction == "echo":
            return 1
        return max(1, min(BURST_OPERATIONS, BURST_BYTES // self.payload_bytes))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The dimensions.

    `steps` is how many timed steps a sample should have; large payloads get fewer (`SAMPLE_BYTES`).
    """

    name: str
    record_layers: tuple[str, ...] = ("plain", "userspace", "kernel")
    io_engines: tuple[str, ...] = IO_ENGINES
    suites: tuple[str, ...] = (
        "TLS_AES_128_GCM_SHA256",
        "TLS_AES_256_GCM_SHA384",
        "TLS_CHACHA20_POLY1305_SHA256",
    )
    payloads: tuple[int, ...] = (64, KIB, 16 * KIB, 256 * KIB)
    directions: tuple[str, ...] = DIRECTIONS
    repeats: int = 3
    steps: int = 24
    seed: int = 1

    def __post_init__(self) -> None:
        """Refuse what cannot be meant, before a kernel is booted for it."""
        for name, known in (
            ("record_layers", RECORD_LAYERS),
            ("io_engines", IO_ENGINES),
            ("directions", DIRECTIONS),
            ("suites", tuple(suite.name for suite in Suite)),
        ):
            values = getattr(self, name)
            wrong = [value for value in values if value not in known]
            if wrong or not values:
                answered = f"{name} has {wrong[0]!r}" if wrong else f"{name} is empty"
                raise UsageError(f"reading plan {self.name!r}", answered=answered, remedy=f"Known: {', '.join(known)}.")
        bad = [size for size in self.payloads if not 1 <= size <= LARGEST_PAYLOAD]
        if bad or not self.payloads or self.repeats < 1 or self.steps < 1:
            remedy = f"Payloads are 1 to {LARGEST_PAYLOAD} bytes; repeats and steps at least 1."
            raise UsageError(f"reading plan {self.name!r}", answered="a number is out of range", remedy=remedy)

    def cells(self) -> list[Cell]:
        """Return every cell once, in the order of the dimensions."""
        cells = []
        for direction in self.directions:
            for payload in self.payloads:
                for layer in self.record_layers:
                    for suite in self.suites if layer != "plain" else ("",):
                        version = Suite[suite].version.label if suite else ""
                        common = Cell(
                            record_layer=layer,
                            io_engine="",
                            suite=suite,
                            tls_version=version,
                            payload_bytes=payload,
                            direction=direction,
                        )
                        cells += [replace(common, io_engine=engine) for engine in self.io_engines]
        return cells

    def schedule(self) -> Iterator[tuple[int, Cell]]:
        """Yield (repeat, cell): block by block, the arms of a block shuffled."""
        draw = random.Random(self.seed)  # noqa: S311 - an order, not a secret
        cells = self.cells()
        for repeat in range(self.repeats):
            for direction in self.directions:
                for payload in self.payloads:
                    block = [c for c in cells if (c.direction, c.payload_bytes) == (direction, payload)]
                    draw.shuffle(block)
                    yield from ((repeat, cell) for cell in block)

    def bursts(self, cell: Cell) -> int:
        """How many timed steps a sample of this cell has: one burst each."""
        return max(FEWEST_STEPS, min(self.steps, SAMPLE_BYTES // (cell.payload_bytes * cell.burst)))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Plan:
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(data) - known):
            remedy = f"Known: {', '.join(sorted(known))}."
            raise UsageError("reading a plan", answered=f"there is no {unknown[0]!r} in one", remedy=remedy)
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in data.items()}
        return cls(**values)


PLANS = {
    plan.name: plan
    for plan in (
        Plan(name="quick"),
        Plan(name="standard", payloads=tuple(64 * 4**n for n in range(7)), repeats=5),
        Plan(
            name="full",
            record_layers=RECORD_LAYERS,
            suites=tuple(suite.name for suite in Suite if suite.openssl_name.startswith(("TLS_", "ECDHE-ECDSA"))),
            payloads=tuple(64 * 4**n for n in range(7)),
            repeats=5,
        ),
    )
}


def named(plan: str | Path | Plan) -> Plan:
    """Return a plan by name (quick, standard, full) or from a TOML or JSON file of a plan's fields."""
    if isinstance(plan, Plan):
        return plan
    if str(plan) in PLANS:
        return PLANS[str(plan)]
    path = Path(plan)
    remedy = f"Plans are {', '.join(PLANS)}, or a TOML file with fields such as payloads = [64, 16384]."
    try:
        text = path.read_text()
        data = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise UsageError(f"reading plan {str(plan)!r}", answered=str(error), remedy=remedy) from error
    return Plan.from_json({"name": path.stem, **data})
