"""Runs cells, and gives a row for each as it ends."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from ktlslab.tls.suites import Suite
from tests.interop import clients, fronts, languages, libraries, openssl, serving, stacks, talking, webservers
from tests.interop.material import Material
from tests.interop.stacks import Asked, Client, LeftOutError, Server, Setup, Stack, free_port, listening
from tests.matrix.running import Endless, limited

SERVERS: tuple[Server, ...] = (
    *openssl.STACKS,
    *webservers.STACKS,
    *fronts.STACKS,
    *libraries.STACKS,
    *languages.STACKS,
)
CLIENTS = clients.STACKS
ALL: tuple[Stack, ...] = (*SERVERS, *CLIENTS)
FEATURE_EVERY = 4  # stacks: how seldom a feature is tried in the chosen part
ROOT = Path(__file__).parents[2]
ARMS = (("kernel", "uring"), ("kernel", "syscall"))
BESIDE = ("userspace", "syscall")  # what everyone has: with the default alone
CELL_S = 120.0  # a cell that takes so long hangs
RIGHT = "right"
LEFT_OUT = "left out"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A cell's outcome: `right`, `left out: why`, or what was wrong. `role` is ours; `seconds` is how long it took."""

    role: str
    stack: str
    library: str
    package: str
    stack_version: str
    suite: str
    tls: str
    feature: str
    record_layer: str
    io_engine: str
    outcome: str
    ended: str = ""
    tickets: int = 0
    records: int = 0
    end_s: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Which cells: all, or by `thin` a part that holds each stack in both versions, each feature and each arm."""

    thin: bool = False
    stack: str = ""
    feature: str = ""

    def stacks(self) -> list[Stack]:
        return [one for one in ALL if self.stack.lower() in f"{_role(one)} {one.name}".lower()]

    def cells(self, stack: Stack) -> Iterator[tuple[str, list[tuple[Suite, tuple[str, str]]]]]:
        """Yield each feature with its suites and arms."""
        place = ALL.index(stack)
        for number, feature in enumerate(stacks.FEATURES):
            if feature not in stack.features or self.feature not in feature:
                continue
            suites = stack.suites_for(feature)
            every = [(suite, arm) for suite in suites for arm in ARMS]
            if feature == stacks.DEFAULT:
                every += [(suite, BESIDE) for suite in suites if suite in stacks.TYPICAL]
            if self.thin and feature == stacks.DEFAULT:
                first = {suite.version: suite for suite in reversed(suites)}.values()
                every = [(suite, ARMS[(at + place) % 2]) for at, suite in enumerate(first)]
            elif self.thin:
                having = [one for one in ALL if feature in one.features]
                taken = having.index(stack) % FEATURE_EVERY == number % min(FEATURE_EVERY, len(having))
                every = every[place % 2 : place % 2 + 1] if taken else []
            if every:
                yield feature, every


def _role(stack: Stack) -> str:
    return "client" if isinstance(stack, Server) else "server"


def run(chosen: Chosen, say: Callable[[Row], object]) -> None:
    """Run the cells, and tell of each."""
    with tempfile.TemporaryDirectory(prefix="ktlslab-interop-") as name:
        material = Material.make(Path(name))
        with backend(material) as port:
            for stack in chosen.stacks():
                _stack(stack, chosen, material, port, say)


@contextlib.contextmanager
def backend(material: Material) -> Iterator[int]:
    """Run the plain server that stands behind some stacks; give its port."""
    port = free_port()
    argv = [sys.executable, "-m", "tests.interop.programs.plain_server", str(port), str(material.www)]
    with subprocess.Popen(argv, cwd=ROOT) as process:
        try:
            while not listening(port):
                time.sleep(0.02)
            yield port
        finally:
            process.terminate()


def _stack(stack: Stack, chosen: Chosen, material: Material, port: int, say: Callable[[Row], object]) -> None:
    known = {"role": _role(stack), "stack": stack.name, "library": stack.library, "package": stack.package}

    def tell(
        feature: str, cell: tuple[Suite, tuple[str, str]] | None, outcome: str, version: str, **seen: object
    ) -> None:
        suite, (layer, engine) = cell or (None, ("", ""))
        told = {"suite": suite.name, "tls": suite.version.label} if suite else {"suite": "", "tls": ""}
        told |= {"feature": feature, "record_layer": layer, "io_engine": engine, "stack_version": version}
        say(Row(**known, **told, outcome=outcome, **seen))

    if why := stack.missing():
        tell("", None, f"{LEFT_OUT}: {why}", "")
        return
    version = stack.says_version()
    for feature, cells in chosen.cells(stack):
        folder = material.folder / "run"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            with contextlib.ExitStack() as undo:
                if isinstance(stack, Server):
                    setup = Setup(feature=feature, material=material, folder=folder, port=free_port(), backend=port)
                    started = undo.enter_context(stack.start(setup))
                for cell in cells:
                    began = time.monotonic()
                    if isinstance(stack, Server):
                        scene = _as_client(stack, setup, started, cell)
                        play = lambda scene=scene: talking.play(scene)  # noqa: E731
                    else:
                        scene, asked = _as_server(stack, feature, material, cell)
                        play = lambda scene=scene, asked=asked: serving.play(scene, asked)  # noqa: E731
                    outcome = _outcome(play)
                    seen = {name: value for name, value in asdict(scene.seen).items() if name != "ended"}
                    seen |= {"ended": ", ".join(sorted(scene.seen.ended)), "seconds": time.monotonic() - began}
                    tell(feature, cell, outcome, version, **seen)
        except LeftOutError as error:
            tell(feature, None, f"{LEFT_OUT}: {error}", version)


def _as_client(
    stack: Server, setup: Setup, started: stacks.Started, cell: tuple[Suite, tuple[str, str]]
) -> talking.Scene:
    suite, (layer, engine) = cell
    return talking.Scene(stack=stack, setup=setup, started=started, suite=suite, layer=layer, engine=engine)


def _as_server(
    stack: Client, feature: str, material: Material, cell: tuple[Suite, tuple[str, str]]
) -> tuple[serving.Scene, Asked]:
    suite, (layer, engine) = cell
    folder = material.folder / "out"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    scene = serving.Scene(stack=stack, feature=feature, material=material, suite=suite, layer=layer, engine=engine)
    return scene, Asked(feature=feature, suite=suite, sizes=stack.sizes, material=material, folder=folder, port=0)


def _outcome(play: Callable[[], object]) -> str:
    try:
        with limited(CELL_S):
            play()
    except (Exception, Endless) as error:  # noqa: BLE001 - it is the outcome
        if os.environ.get("KTLSLAB_TESTS_VERBOSE"):
            import traceback

            traceback.print_exc()
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    return RIGHT
