"""Plans: dimensions, and the cells that they span.

An arm is a record layer and an I/O engine. A cell is an arm with one suite in one *setting*: link, workload, payload,
depth, connections, record size. The cells of a plan are the product of its dimensions, without combinations that make
no sense (plain TCP has no suite), and the further products in `also`. In a block of a setting every arm runs once, in
an order drawn from the seed, so that drift affects all arms alike. One arm, the `control`, runs twice in every block:
the difference between these two equal arms gives the noise floor.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import random
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from ktlslab import _checks
from ktlslab._html import card
from ktlslab.errors import UsageError
from ktlslab.measure.dimensions import (
    DIMENSIONS,
    IO_ENGINES,
    KIB,
    MAX_IN_FLIGHT,
    RECORD_LAYERS,
    WORKLOADS,
    dimension,
    dimensions_of,
    one_of,
    shown,
    whole,
)
from ktlslab.tls.records import MAX_PLAINTEXT
from ktlslab.tls.suites import Suite

BLOCKING_ONLY = ("stdlib-ssl", "openssl-ktls")  # OpenSSL holds the socket: a ring cannot use it
CALLS_ONLY = ("sendfile",)  # io_uring has no such operation (two splices through a pipe are not the same)
SERVED = ("plain", "userspace", "kernel")  # the record layers of the workload `serve`
DEEP = ("echo", "upload", "serve")  # workloads in which several operations of a connection can be in flight
# The most bytes and operations in a batch of one-way operations. It fits into a new connection's receive window
# (64 KiB), so the sender need not wait, and scheduling depends only on the work.
BATCH_BYTES = 32 * KIB
BATCH_OPERATIONS = 8
SAMPLE_BYTES = KIB * KIB  # in a sample, roughly: the receiver keeps them for the checksum
MIN_STEPS = 6

# What all arms of a block share, in addition to machine and clock.
SETTING = ("link", "workload", "payload_bytes", "depth", "connections", "record_size", "request_bytes")
Setting = tuple[str, str, int, int, int, int, int]

FORMER_FIELDS = {"directions": "workloads", "most_repeats": "max_repeats"}  # in plans from before version 0.2
_SINGLE: dict[tuple[str, ...], type] = {
    ("name", "control", "handicap"): str,
    ("repeats", "max_repeats", "replicas", "steps", "seed"): int,
    ("precision", "minutes"): float,
}
_ARMS = tuple(f"{layer}+{engine}" for layer in RECORD_LAYERS for engine in IO_ENGINES)


class Arm(NamedTuple):
    """A record layer and an I/O engine."""

    record_layer: str
    io_engine: str

    def __str__(self) -> str:
        return f"{self.record_layer} + {self.io_engine}"

    @property
    def name(self) -> str:
        """The name in plans and effects: kernel+uring."""
        return f"{self.record_layer}+{self.io_engine}"

    @classmethod
    def named(cls, name: str) -> Arm:
        """Return the arm of a name such as kernel+uring."""
        layer, _, engine = name.partition("+")
        return cls(layer, engine)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One combination; its fields are columns of the table. `suite` and `tls_version` are empty for plain TCP.

    In the workload `serve` the payload is the response, `request_bytes` is the size of a request (0 in others), and
    `depth` is how many connections have a request in flight at the same time, of all that are open.

    `replica` distinguishes equal arms of a block: 0, and 1 for the second run of the control.
    """

    record_layer: str
    io_engine: str
    suite: str
    tls_version: str
    payload_bytes: int
    workload: str
    depth: int = 1
    connections: int = 1
    record_size: int = MAX_PLAINTEXT
    link: str = "loopback"
    request_bytes: int = 0
    replica: int = 0

    @property
    def setting(self) -> Setting:
        """What all arms of a block share."""
        shape = self.depth, self.connections, self.record_size, self.request_bytes
        return self.link, self.workload, self.payload_bytes, *shape

    @property
    def session(self) -> tuple[str, str, str, int, str, int]:
        """What the cells of one set of open sessions share, except the number of connections."""
        return self.record_layer, self.io_engine, self.suite, self.record_size, self.link, self.replica

    @property
    def room(self) -> tuple[str, int, int] | None:
        """What the cells share whose open sessions `serve` keeps at the same time; None in other workloads."""
        return (self.link, self.connections, self.record_size) if self.workload == "serve" else None

    @property
    def arm(self) -> Arm:
        return Arm(self.record_layer, self.io_engine)

    @property
    def session_name(self) -> str:
        """`session` in words: the key under which a run leaves arms out."""
        record = f" in records of {self.record_size}" if self.record_size != MAX_PLAINTEXT else ""
        link = f" over {self.link}" if self.link != "loopback" else ""
        return f"{self.record_layer}+{self.io_engine} with {self.suite or 'no TLS'}{record}{link}"

    @property
    def batch(self) -> int:
        """Operations per connection in one timed step: the depth, or several one-way operations; in `serve` one."""
        if self.workload == "serve":
            return 1
        if self.workload == "echo" or self.depth > 1:
            return self.depth
        return max(1, min(BATCH_OPERATIONS, BATCH_BYTES // self.payload_bytes))

    @property
    def bytes_per_operation(self) -> int:
        """The larger of what goes each way."""
        return max(self.payload_bytes, self.request_bytes)

    @property
    def operations_per_step(self) -> int:
        """Operations in one timed step, on all connections."""
        if self.workload == "serve":
            return self.depth
        return self.batch * self.connections


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Dimensions, and how much to measure of each cell.

    `requests`: the sizes of requests in the workload `serve`, which answers each with one of `payloads`; `depths` is
    then how many are in flight on all connections together.

    Each mapping in `also` is a further product, whose dimensions replace those of the plan. `control`: the arm that
    runs twice in every block. `replicas`: above 1, how often every arm runs in a block instead. `repeats`: blocks per
    setting. `precision` (0.01 for 1 %): a setting gets further blocks, up to `max_repeats`, until the 95 % interval of
    each arm's cost over the first arm's is no wider than that on either side. `minutes`: no block begins after that
    time; 0 for no limit. `steps`: timed steps per sample; large payloads get fewer (`SAMPLE_BYTES`). `handicap`
    ("kernel+uring: 0.03") slows an arm on purpose, by a share of its own cost, to test whether the analysis finds it.

    Raises UsageError where a field has the wrong type or an invalid value, or where there is no cell.
    """

    name: str = "unnamed"
    record_layers: tuple[str, ...] = ("plain", "userspace", "kernel")
    io_engines: tuple[str, ...] = IO_ENGINES
    suites: tuple[str, ...] = (
        "TLS_AES_128_GCM_SHA256",
        "TLS_AES_256_GCM_SHA384",
        "TLS_CHACHA20_POLY1305_SHA256",
    )
    payloads: tuple[int, ...] = (64, KIB, 16 * KIB, 256 * KIB)
    workloads: tuple[str, ...] = ("echo", "upload", "download")
    depths: tuple[int, ...] = (1,)
    connections: tuple[int, ...] = (1,)
    record_sizes: tuple[int, ...] = (MAX_PLAINTEXT,)
    requests: tuple[int, ...] = ()
    links: tuple[str, ...] = ("loopback",)
    also: tuple[Mapping[str, Any], ...] = field(default=())
    control: str = "kernel+uring"
    replicas: int = 1
    repeats: int = 5
    max_repeats: int = 0
    precision: float = 0.0
    minutes: float = 0.0
    steps: int = 24
    seed: int = 1
    handicap: str = ""

    def __post_init__(self) -> None:
        """Normalize the fields, and refuse invalid ones before a kernel boots for them."""
        for names, kind in _SINGLE.items():
            for name in names:
                self._set(name, self._single(name, getattr(self, name), kind))
        tried = f"reading plan {self.name!r}"
        for name in DIMENSIONS:
            given = getattr(self, name)
            self._set(name, () if name == "requests" and given in ((), []) else dimension(name, given, tried))
        also = (self.also,) if isinstance(self.also, Mapping) else self.also
        if not isinstance(also, list | tuple) or not all(isinstance(part, Mapping) for part in also):
            self._refuse(f"also is {shown(also)}", "It is a list of further products: [[also]] in TOML.")
        self._set("also", tuple(dimensions_of(part, tried) for part in also))
        if min(self.repeats, self.steps, self.replicas) < 1 or min(self.max_repeats, self.precision, self.minutes) < 0:
            self._refuse("a number is out of range", "repeats, steps and replicas are at least 1, others 0 or more.")
        for arm in (self.control, self.slowed()[0]):
            if arm:
                one_of(arm, _ARMS, "there is no arm", tried)
        self._refuse_what_makes_no_sense()
        if not any(True for product in self._products() for _ in _product(product)):
            self._refuse("it has no cell", "Choose record layers, I/O engines and workloads that go together.")

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _single(self, name: str, value: Any, kind: type) -> Any:
        """Return a field that is not a list. A file may hold a wrong type, such as "64" for 64, which is refused."""
        if kind is str and isinstance(value, Arm):
            return value.name
        number = whole(value)
        if kind is str and isinstance(value, str):
            return value
        if kind is int and number is not None:
            return number
        if kind is float and (number is not None or isinstance(value, float)) and math.isfinite(value):
            return float(value)
        words = {str: "a word", int: "a whole number", float: "a number"}[kind]
        return self._refuse(f"{name} is {shown(value)}", f"Give {words}.")

    def _refuse(self, answered: str, remedy: str) -> NoReturn:
        raise UsageError(f"reading plan {self.name!r}", answered=answered, remedy=remedy)

    def cells(self) -> list[Cell]:
        """Return every cell once, in the order of the dimensions, grouped by setting."""
        found: dict[Setting, dict[Cell, None]] = {}
        for product in self._products():
            for cell in _product(product):
                found.setdefault(cell.setting, {})[cell] = None
        return [cell for cells in found.values() for cell in _with_control(list(cells), self.control, self.replicas)]

    def _products(self) -> list[Plan]:
        """Return each product as a plan, which has been looked at like any other."""
        return [self, *(replace(self, also=(), **part) for part in self.also)]

    def _refuse_what_makes_no_sense(self) -> None:
        """UsageError where `serve` lacks something, or has what it cannot do; and where others have its connections."""
        if "serve" not in self.workloads:
            if max(self.connections) > MAX_IN_FLIGHT:
                answered = f"{max(self.connections)} connections, each with an operation in flight"
                self._refuse(answered, f"Only `serve` has more than {MAX_IN_FLIGHT}, most of them idle.")
            return
        if not self.requests:
            remedy = "Give them beside `payloads`, the sizes of responses: requests = [64]."
            self._refuse("`serve` needs `requests`, the sizes of requests", remedy)
        if others := [layer for layer in self.record_layers if layer not in SERVED]:
            remedy = f"It has {', '.join(SERVED)}. Put other workloads into a product of their own: [[also]]."
            self._refuse(f"`serve` has no record layer {others[0]!r}", remedy)
        if min(self.depths) > max(self.connections):
            remedy = "`depths` is how many connections have a request in flight: no more than `connections`."
            self._refuse(f"`serve` with depth {min(self.depths)} on {max(self.connections)} connections", remedy)

    def settings(self) -> dict[Setting, list[Cell]]:
        """Return the cells of each setting."""
        found: dict[Setting, list[Cell]] = {}
        for cell in self.cells():
            found.setdefault(cell.setting, []).append(cell)
        return found

    def schedule(self) -> Iterator[tuple[int, Cell]]:
        """Yield (repeat, cell) for the plan's `repeats`, block by block."""
        settings = self.settings()
        for repeat in range(self.repeats):
            for setting, cells in settings.items():
                yield from ((repeat, cell) for cell in shuffled(cells, self.seed, setting, repeat))

    def steps_of(self, cell: Cell) -> int:
        """Return how many timed steps a sample of this cell has."""
        return max(MIN_STEPS, min(self.steps, SAMPLE_BYTES // (cell.bytes_per_operation * cell.operations_per_step)))

    def slowed(self) -> tuple[str, float]:
        """Return the arm of `handicap` and its share; ("", 0.0) for none."""
        if not self.handicap:
            return "", 0.0
        arm, _, share = self.handicap.partition(":")
        with contextlib.suppress(ValueError):
            if 0 <= (slower := float(share)) < math.inf:
                return arm.strip(), slower
        return self._refuse(f"a handicap of {self.handicap!r}", 'Write it as "kernel+uring: 0.03".')

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def _repr_html_(self) -> str:
        """Show its dimensions, and of the other fields those that are not as usual, by their names in a file."""
        usual = {one.name: one.default for one in fields(self)}
        rows = [(name, _listed(getattr(self, name))) for name in DIMENSIONS if getattr(self, name)]
        rows += [("also", "; ".join(f"{k} {_listed(v)}" for k, v in part.items())) for part in self.also]
        rows += [
            (name, f"{getattr(self, name)}")
            for name in itertools.chain(*_SINGLE)
            if name in {"repeats", "control"} or (name != "name" and getattr(self, name) != usual[name])
        ]
        return card(f"Plan {self.name}: {len(self.cells())} cells in {len(self.settings())} settings", rows)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Plan:
        data = renamed(data)
        known = [field.name for field in fields(cls)]
        if unknown := [name for name in data if name not in known]:
            remedy = f"{_checks.nearest(unknown[0], known)}Known: {', '.join(sorted(known))}."
            tried = f"reading plan {data.get('name', '')!r}"
            raise UsageError(tried, answered=f"a plan has no field {unknown[0]!r}", remedy=remedy)
        return cls(**data)


def _listed(values: Any) -> str:
    return ", ".join(map(str, values))


def shuffled(cells: list[Cell], seed: int, setting: Setting, repeat: int) -> list[Cell]:
    """Return a setting's cells in the order of a block, which depends only on these arguments."""
    # Without requests, which only `serve` has, the order is that of tables from before `serve`.
    said = setting if setting[-1] else setting[:-1]
    return random.Random(f"{seed} {said} {repeat}").sample(cells, len(cells))  # noqa: S311 - an order, not a secret


def _product(plan: Plan) -> Iterator[Cell]:
    """Yield the cells of this product that make sense."""
    settings = itertools.product(
        plan.links,
        plan.workloads,
        plan.payloads,
        plan.depths,
        plan.connections,
        plan.record_sizes,
        plan.requests or (0,),
    )
    for link, workload, payload, depth, connections, record_size, request in settings:
        if workload == "serve":
            if depth > connections:
                continue
        elif (
            (depth > 1 and workload not in DEEP)
            or depth * connections > MAX_IN_FLIGHT
            or request != (plan.requests or (0,))[0]
        ):
            continue
        for layer, engine in itertools.product(plan.record_layers, plan.io_engines):
            if engine != "syscall" and (layer in BLOCKING_ONLY or workload in CALLS_ONLY):
                continue
            for suite in plan.suites if layer != "plain" else ("",):
                yield Cell(
                    record_layer=layer,
                    io_engine=engine,
                    suite=suite,
                    tls_version=Suite[suite].version.label if suite else "",
                    payload_bytes=payload,
                    workload=workload,
                    depth=depth,
                    connections=connections,
                    record_size=record_size,
                    link=link,
                    request_bytes=request if workload == "serve" else 0,
                )


def _with_control(cells: list[Cell], control: str, replicas: int) -> list[Cell]:
    """Add the equal arms: a second control (with its first suite), or all of `replicas`."""
    if replicas > 1:
        return [replace(cell, replica=number) for cell in cells for number in range(replicas)]
    layer = control.partition("+")[0]
    twice = next((cell for cell in cells if cell.arm.name == control), None)
    twice = twice or next((cell for cell in cells if cell.record_layer == layer), cells[-1])
    return [*cells, replace(twice, replica=1)]


def renamed(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a plan's fields with the names of earlier versions of ktlslab replaced by the present ones."""
    named_now = {FORMER_FIELDS.get(name, name): value for name, value in data.items()}
    if isinstance(also := named_now.get("also"), list | tuple):
        named_now["also"] = [renamed(part) if isinstance(part, Mapping) else part for part in also]
    return named_now


_GCM_256 = ("TLS_AES_256_GCM_SHA384",)
PLANS = {
    plan.name: plan
    for plan in (
        Plan(name="quick", suites=("TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"), steps=8),
        Plan(
            name="standard",
            payloads=(64, KIB, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB),
            also=(
                {"record_layers": ("stdlib-ssl", "openssl-ktls"), "suites": _GCM_256},
                {"suites": _GCM_256, "workloads": ("sendfile",), "payloads": (16 * KIB, 256 * KIB)},
                {"suites": _GCM_256, "workloads": ("echo", "upload"), "payloads": (64,), "depths": (4, 16, 64)},
            ),
            max_repeats=8,
            precision=0.01,
            steps=12,
        ),
        Plan(
            name="full",
            record_layers=RECORD_LAYERS,
            suites=tuple(suite.name for suite in Suite if suite.openssl_name.startswith(("TLS_", "ECDHE-ECDSA"))),
            payloads=tuple(64 * 4**n for n in range(7)),
            workloads=tuple(workload for workload in WORKLOADS if workload != "serve"),
            also=(
                {"workloads": ("echo", "upload"), "payloads": (64, KIB), "depths": (4, 16, 64)},
                {"workloads": ("echo",), "payloads": (64, 16 * KIB), "connections": (8,)},
                {
                    "suites": _GCM_256,
                    "workloads": ("upload",),
                    "payloads": (16 * KIB,),
                    "record_sizes": (KIB, 4 * KIB),
                },
                {
                    "suites": _GCM_256,
                    "workloads": ("echo", "upload"),
                    "payloads": (64, 16 * KIB),
                    "links": ("veth", "veth 1ms", "veth 1ms 0.1%"),
                },
            ),
            repeats=6,
            max_repeats=24,
            precision=0.01,
        ),
        # data/serve.parquet: ktlslab sweep --plan serve --on newest -o data/serve.parquet (a guest of 4.5 GiB).
        Plan(
            name="serve",
            suites=_GCM_256,
            workloads=("serve",),
            requests=(64,),
            payloads=(KIB, 16 * KIB),
            depths=(8,),
            connections=(10, 100, 1000),
            also=(
                {
                    "record_layers": ("userspace", "kernel"),
                    "io_engines": ("uring",),
                    "payloads": (KIB,),
                    "connections": (10_000,),
                },
            ),
            repeats=4,
        ),
    )
}


def named(plan: str | Path | Plan) -> Plan:
    """Return a plan by its name (quick, standard, full, serve) or from a TOML or JSON file of its fields."""
    if isinstance(plan, Plan):
        return plan
    tried = f"reading plan {str(plan)!r}"
    remedy = f"Plans are {', '.join(PLANS)}, or a TOML file with fields such as payloads = [64, 16384]."
    if not isinstance(plan, str | Path):
        raise UsageError(tried, answered=f"it is {type(plan).__name__}, not a name, a file or a Plan", remedy=remedy)
    if str(plan) in PLANS:
        return PLANS[str(plan)]
    path = _checks.path("reading a plan", "plan", plan)
    try:
        text = path.read_text()
        data = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError) as error:
        answered = str(error) if path.exists() else "there is no plan and no file of that name"
        raise UsageError(tried, answered=answered, remedy=_checks.nearest(plan, PLANS) + remedy) from error
    if not isinstance(data, dict):
        raise UsageError(tried, answered="it is not a mapping of fields", remedy=remedy)
    return Plan.from_json({"name": path.stem, **data})
