"""What a row of the matrix is, and how one of its cells is run.

    @row("silence in the middle of recv_exactly_into", "PeerTimeoutError, then delivered", timeout=SHORT_S)
    def _(scene):
        scene.peer.send(b"AAAA")
        ...

A row is one fault. It runs on every record layer, with every I/O engine and in both roles, each time on a new `Scene`:
a Stream, and its peer in the row's hands. What is seen is one outcome, a few words such as an error's type. The row
names the outcome that is expected, and `where` the places where it differs.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ktlslab.tls.records import ContentType
from ktlslab.tls.suites import Version
from tests.handpeer import LAYERS, RUSTLS, HandPeers

ALL = tuple(LAYERS)
TLS = tuple(layer for layer in LAYERS if layer != "plain")
KERNEL = ("kernel", "kernel-tx", "kernel-rx")
KERNEL_SENDS = ("kernel", "kernel-tx")
KERNEL_RECEIVES = ("kernel", "kernel-rx")
ENGINES = ("syscall", "uring")
ROLES = ("client", "server")
SERIES = ".".join(os.uname().release.split(".")[:2])
# The upstream version, which the release of one of Debian's (6.1.0-56-amd64) does not say.
BUILT = re.search(r" Debian ([\d.]+)", os.uname().version) or re.match(r"([\d.]+)", os.uname().release)
VERSION = tuple(map(int, filter(None, BUILT[1].split(".")))) if BUILT else ()
# Seen on 6.1.180, mended in 6.1.187: the kernel sends nothing while signals keep coming, and so a send has no end.
STARVES = "starves" if (6, 1) <= VERSION < (6, 1, 187) else "sends"

SHORT_S = 0.15  # the time-out of a stream whose call is to run into it
PATIENCE_S = 30.0  # of one whose call is not
LINGER_S = 0.1  # `ending.LINGER_S` while the matrix runs
LIMIT_S = 25.0  # of any row
ENDLESS_S = 2.0  # of one that may have no end, where an end within that time is right as well
SMALL = 1 << 15  # for the buffers of sockets that are to be filled

ROWS: list[Row] = []


@dataclass(frozen=True, kw_only=True)
class Row:
    """A fault: its name, what comes of it, and how it is done.

    `act(scene)`, or `act(scene, variant)` for each variant. `where` maps words that must all be true of a place (a
    layer, an engine, a role, a variant's name, a kernel's series, STARVES) to the outcome there; the first that fits
    counts.
    `expected` and those outcomes may name several: "StreamError or TruncatedError". `timeout` is the stream's. If the
    stream `goes_on` after the row as if nothing had been, the next variant uses it too. If the row itself `opens` the
    stream, it is None at first.
    """

    name: str
    expected: str
    act: Callable[..., None]
    where: dict[str, str]
    layers: tuple[str, ...]
    engines: tuple[str, ...]
    each: tuple[Any, ...]
    versions: tuple[Version, ...]
    possible: Callable[[str, Any], bool]
    timeout: float
    goes_on: bool
    opens: bool
    options: dict[str, Any]

    def places(self, layer: str, *, thin: bool = False) -> Iterator[Place]:
        """Yield where the row runs on a layer: with every engine, version, role and variant.

        If `thin`, an engine is run in one role, and a variant of a row that ends the stream with one engine; which ones
        alternates.
        """
        number = ROWS.index(self) + ALL.index(layer)
        versions = self.versions if layer != "plain" else self.versions[:1]
        variants = [variant for variant in self.each if self.possible(layer, variant)]
        for at, (engine, version, role) in enumerate(itertools.product(self.engines, versions, ROLES)):
            if thin and (at + at // 2 + number) % 2:
                continue
            for which, variant in enumerate(variants):
                alone = thin and len(variants) > 1 and not self.goes_on
                if alone and self.engines[(which + number) % len(self.engines)] != engine:
                    continue
                yield Place(layer=layer, engine=engine, role=role, variant=variant, version=version)

    def outcome_at(self, place: Place) -> str:
        layers = {place.layer, place.layer.removesuffix(RUSTLS)}
        facts = {*layers, place.engine, place.role, SERIES, STARVES, place.version.label, named(place.variant)}
        return next((seen for when, seen in self.where.items() if set(when.split()) <= facts), self.expected)


@dataclass(frozen=True, kw_only=True)
class Place:
    layer: str
    engine: str
    role: str
    variant: Any = None
    version: Version = Version.TLS13

    def __str__(self) -> str:
        version = "" if self.version is Version.TLS13 else self.version.label
        return " ".join(filter(None, (self.layer, self.engine, self.role, version, named(self.variant))))


def named(variant: Any) -> str:
    return getattr(variant, "__name__", "" if variant is None else str(variant))


def row(
    name: str,
    expected: str,
    *,
    where: dict[str, str] | None = None,
    layers: tuple[str, ...] = ALL,
    engines: tuple[str, ...] = ENGINES,
    each: tuple[Any, ...] = (None,),
    versions: tuple[Version, ...] = (Version.TLS13,),
    possible: Callable[[str, Any], bool] = lambda _layer, _variant: True,
    timeout: float = PATIENCE_S,
    goes_on: bool = False,
    opens: bool = False,
    **options: Any,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add a row to the matrix. Other options are for `HandPeers.open`."""

    def add(act: Callable[..., None]) -> Callable[..., None]:
        ROWS.append(
            Row(
                name=name,
                expected=expected,
                act=act,
                where=where or {},
                layers=layers,
                engines=engines,
                each=each,
                versions=versions,
                possible=possible,
                timeout=timeout,
                goes_on=goes_on,
                opens=opens,
                options=options,
            )
        )
        return act

    return add


class Interrupt(Exception):  # noqa: N818 - it says what it is
    """What a signal handler raises."""


@dataclass(kw_only=True)
class Scene:
    """One run of a row: `stream` is what is tested, and `peer` (a HandPeer) is its other end.

    What is seen is collected in `words`.
    """

    place: Place
    peers: HandPeers
    stream: Any
    peer: Any
    timeout: float
    words: list[str] = field(default_factory=list)
    owned: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    # What is seen

    def says(self, word: str) -> None:
        self.words.append(word)

    def check(self, true: bool, otherwise: str) -> None:  # noqa: FBT001 - reads as a sentence
        """Say what is wrong, if something is."""
        if not true:
            self.says(otherwise)

    def does(self, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Call, and say which error came of it: nothing if none. Returns the error or the call's result.

        The error stays in a cycle with all frames of its traceback, as a stream keeps its own.
        """
        try:
            return call(*arguments, **options)
        except Exception as error:  # noqa: BLE001 - whichever it is, it is what is seen
            error.itself = error
            self.says(type(error).__name__)
            return error

    def fails(self, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """As `does`, but say so if there is no error."""
        result = self.does(call, *arguments, **options)
        self.check(isinstance(result, BaseException), "no error")
        return result

    def in_time(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """As `fails`, within the stream's time-out. An emulated machine gets some seconds more; so does a time-out that
        was made next to nothing, where the rows are not run to see the time.

        Where OpenSSL writes to the socket itself, it waits several times for the rest of a record; sendfile(2) and
        splice(2) wait twice.
        """
        began = time.monotonic()
        result = self.fails(call, *arguments)
        took = time.monotonic() - began
        slack = 5.0 if self.place.layer in KERNEL or self.timeout < SHORT_S else 0.1
        times = 3.0 if named(self.place.variant) in {"sendfile", "splice_from"} else 1.5
        times = 5.0 if (self.place.layer, self.place.engine) == ("userspace", "syscall") else times
        self.check(took < times * self.timeout + slack, f"late: {took:.1f} s instead of {self.timeout} s")
        return result

    def same(self, got: Any, wanted: bytes) -> None:
        """Say "delivered", or how much of it was."""
        if isinstance(got, BaseException):
            return
        got = bytes(got)
        wrong = "other bytes" if len(got) == len(wanted) else f"{len(got)} of {len(wanted)} bytes"
        self.says("delivered" if got == wanted else wrong)

    # What is done

    def receives(self, data: bytes) -> None:
        """Receive what the peer sent, and say whether it is that."""
        room = self.room(len(data))
        if not isinstance(self.does(self.stream.recv_exactly_into, room), BaseException):
            self.same(room, data)

    def peer_gets(self, data: bytes) -> None:
        """Let the peer receive what the stream sent, and say whether it is that: the next record, with no other."""
        self.same(self.peer.receive_data(len(data), 10), data)

    def goes_on(self) -> None:
        """Say "delivered" if the stream works as before in both directions, which is tried by one record each."""
        if isinstance(self.does(self.stream.send, b"to the peer"), BaseException):
            return
        try:
            got = self.peer.receive(10)
        except (OSError, ValueError) as error:
            got = error
        if got != (ContentType.APPLICATION_DATA, b"to the peer"):
            self.says(f"the peer got {got}")
            return
        self.peer.send(b"to the stream")
        self.receives(b"to the stream")

    def room(self, size: int) -> bytearray | memoryview:
        """Return a buffer; every other one is a view, because a bytearray cannot be part of a cycle."""
        Scene.rooms += 1
        return memoryview(bytearray(size + 10))[10:] if Scene.rooms % 2 else bytearray(size)

    rooms = 0

    def meanwhile(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Start a call in another thread; returns its future."""
        return self.owned.enter_context(ThreadPoolExecutor(1, "matrix")).submit(call, *arguments)

    def pipe(self, *, size: int | None = None, blocking: bool = True) -> tuple[int, int]:
        """Return a pipe's two ends, which are closed with the scene."""
        import fcntl

        ours, theirs = os.pipe()
        for end in (ours, theirs):
            self.owned.callback(_close_quietly, end)
        if size:
            fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, size)
        os.set_blocking(theirs, blocking)
        return ours, theirs

    @contextlib.contextmanager
    def signals(self, *, after: float = 0.05, every: float = 0.0, raises: bool = False) -> Iterator[list[int]]:
        """Signal this thread, and then again and again. Yields the list of signals that came.

        If the handler raises, at the first signal, the thread is waiting in the kernel by then. On a busy machine it is
        maybe just about to wait, and hears of a signal at the next one, as in any call: another comes in a second.
        """
        came, over, thread = [], threading.Event(), threading.get_ident()
        every = every or (1.0 if raises else 0.0)
        waits = _Waits(threading.get_native_id())

        def handler(number: int, _frame: Any) -> None:
            came.append(number)
            if raises and len(came) == 1:
                raise Interrupt("out of a signal handler")

        def ring() -> None:
            wait = after
            while not over.wait(wait):
                if raises and not came and not waits():
                    continue
                signal.pthread_kill(thread, signal.SIGUSR1)
                if not every:
                    return
                wait = every

        before = signal.signal(signal.SIGUSR1, handler)
        ringing = threading.Thread(target=ring, daemon=True)
        ringing.start()
        try:
            yield came
        finally:
            over.set()
            ringing.join()
            signal.signal(signal.SIGUSR1, before)


class _Waits:
    """Whether a thread has waited in the kernel for several looks 10 ms apart."""

    def __init__(self, thread: int) -> None:
        self._file = Path(f"/proc/self/task/{thread}/stat")

    def __call__(self) -> bool:
        looks = []
        for _ in range(8):
            state, *fields = self._file.read_text().rpartition(")")[2].split()
            looks.append((state, fields[10:12]))  # and the CPU time in ticks
            time.sleep(0.01)
        return looks[0][0] == "S" and looks.count(looks[0]) == len(looks)


def _close_quietly(descriptor: int) -> None:
    with contextlib.suppress(OSError):
        os.close(descriptor)
