"""What a stack is: another TLS implementation, as a server or as a client, and what it can be asked for."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ktlslab.tls.suites import Suite, Version
from tests.interop.material import SIZES, Material

PATIENCE_S = 60.0  # a Java machine on a user-mode kernel is slow to start
PATH = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"

# What is varied, beside the suite and the arm.
DEFAULT = "default"
TICKETS = tuple(f"{count} tickets" for count in (0, 2, 4, 8))  # of TLS 1.3
RESUMED = "resumption"
EARLY = "early data offered"
PEER_UPDATES = "KeyUpdate by the peer"
BOTH_UPDATE = "KeyUpdate by us, peer's asked for"
CLIENT_CERTIFICATE = "client certificate"
NO_CERTIFICATE = "no client certificate"  # and the peer wants one
RETRY = "HelloRetryRequest"
SMALL = "small records"
NO_NOTIFY = "no close_notify"
UPLOAD = "upload"
FEATURES = (
    DEFAULT,
    *TICKETS,
    RESUMED,
    EARLY,
    PEER_UPDATES,
    BOTH_UPDATE,
    CLIENT_CERTIFICATE,
    NO_CERTIFICATE,
    RETRY,
    SMALL,
    NO_NOTIFY,
    UPLOAD,
)
ONLY_TLS13 = frozenset([*TICKETS, EARLY, PEER_UPDATES, BOTH_UPDATE, RETRY])

USUAL = (
    Suite.TLS_AES_128_GCM_SHA256,
    Suite.TLS_AES_256_GCM_SHA384,
    Suite.TLS_CHACHA20_POLY1305_SHA256,
    Suite.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    Suite.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    Suite.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
)
CCM = (Suite.TLS_AES_128_CCM_SHA256, Suite.TLS_ECDHE_ECDSA_WITH_AES_128_CCM)
# What other features are tried with.
TYPICAL = (Suite.TLS_AES_128_GCM_SHA256, Suite.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384)
# A group that the peer alone accepts, and that a client sends no share of at first.
RETRY_GROUP = "secp384r1"


class LeftOutError(Exception):
    """A stack is not installed, or does not start."""


class FailedError(Exception):
    """A client program ended with an error, which it says."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What a server is started with. `backend` is the port of a plain HTTP server, for those that stand in front."""

    feature: str
    material: Material
    folder: Path
    port: int
    backend: int

    def when(self, feature: str, *words: str) -> tuple[str, ...]:
        """Return words if this feature is asked for, otherwise none."""
        return words if self.feature == feature else ()

    @property
    def tickets(self) -> int | None:
        """How many tickets are asked for; None: as many as the server sends by itself."""
        return int(self.feature.split()[0]) if self.feature in TICKETS else None

    @property
    def wants_certificate(self) -> bool:
        return self.feature in {CLIENT_CERTIFICATE, NO_CERTIFICATE}

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Another implementation of TLS.

    `needs` are programs, paths, or `python:MODULE`; `package` brings them. `version` is a command whose output holds
    the version. `library` is the TLS library in it. `smallest` and `largest` bound the bodies.
    """

    name: str
    library: str
    package: str
    needs: tuple[str, ...]
    features: frozenset[str]
    version: tuple[str, ...]
    suites: tuple[Suite, ...] = USUAL
    smallest: int = 0
    largest: int = SIZES[-1]

    @property
    def sizes(self) -> tuple[int, ...]:
        return (*(size for size in SIZES if self.smallest <= size < self.largest), self.largest)

    def missing(self) -> str:
        """Return why the stack cannot be used here, or "" if all that it needs is there."""
        for need in self.needs:
            _, python, module = need.partition("python:")
            found = importlib.util.find_spec(module) if python else shutil.which(need, path=PATH) or Path(need).exists()
            if not found:
                return f"{module or need} is not there: the package {self.package} would bring it"
        return ""

    def says_version(self) -> str:
        """Return the line of the version command that holds a number."""
        done = subprocess.run(
            self.version,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PATH": PATH},
            timeout=PATIENCE_S,
        )
        lines = (done.stdout + done.stderr).splitlines()
        return next((line.strip() for line in lines if any(letter.isdigit() for letter in line)), "")

    def suites_for(self, feature: str) -> tuple[Suite, ...]:
        """Return the suites that a feature is tried with: all for the default, otherwise one of each version."""
        if feature == DEFAULT:
            return self.suites
        chosen = [suite for suite in TYPICAL if suite in self.suites]
        return tuple(suite for suite in chosen if feature not in ONLY_TLS13 or suite.version is Version.TLS13)


@dataclass(frozen=True, kw_only=True)
class Server(Stack):
    """A stack that serves the files of `Material.www`, or echoes. `start` is a context manager: Setup -> Started.

    `absolute`: it is asked for files by their whole path. `notifies` says whether it ends by close_notify. `groups` are
    those of our client's hello where HelloRetryRequest is wanted. `refuses` is how it answers a client without a
    certificate: by an alert, a status of HTTP, or a close.
    """

    start: Callable[[Setup], contextlib.AbstractContextManager[Started]]
    groups: tuple[str, ...] = ("x25519", RETRY_GROUP)
    refuses: frozenset[str] = frozenset({"alert"})
    echoes: bool = False
    absolute: bool = False
    notifies: Callable[[str, Version], bool] = lambda feature, _version: feature != NO_NOTIFY


@dataclass(frozen=True, kw_only=True)
class Started:
    """A running server: its process, and how to write to its standard input."""

    process: subprocess.Popen[bytes]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a client program is asked for: to get, or to send, bodies of these sizes, a connection for each."""

    feature: str
    suite: Suite
    sizes: Sequence[int]
    material: Material
    folder: Path
    port: int

    def url(self, size: int) -> str:
        return f"https://localhost:{self.port}/{size}"


@dataclass(frozen=True, kw_only=True)
class Client(Stack):
    """A stack that gets bodies from our server. `run` returns the answers' bodies, by size.

    `sends` are the features in which it sends the bodies. `limits`: where small records are wanted, it asks our server
    for them. In the versions `cuts` it may answer our close_notify by none.
    """

    run: Callable[[Asked], Mapping[int, bytes]]
    sends: frozenset[str] = frozenset({UPLOAD})
    limits: bool = False
    cuts: frozenset[Version] = frozenset()


@contextlib.contextmanager
def process(
    setup: Setup, *argv: object, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Iterator[Started]:
    """Run a server, give it once its port listens, and end it. LeftOutError, with its last words, if it never does."""
    log = setup.folder / "log"
    with log.open("wb") as out:
        words = [str(word) for word in argv]
        words[0] = shutil.which(words[0], path=PATH) or words[0]
        environment = {**os.environ, "PATH": PATH, "HOME": str(setup.folder), **(env or {})}
        running = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=out, stderr=out, cwd=cwd or setup.folder, env=environment
        )
    try:
        until = time.monotonic() + PATIENCE_S
        while not listening(setup.port):
            if running.poll() is not None or time.monotonic() > until:
                raise LeftOutError(f"it does not start ({running.poll()}): {last_words(log)}")
            time.sleep(0.01)
        yield Started(process=running)
    finally:
        running.terminate()
        try:
            running.wait(5)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()
        running.stdin.close()


def last_words(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return " | ".join(lines[-3:]) or "nothing"


def listening(port: int) -> bool:
    """Whether a TCP port listens: without a connection, which a server would take for a client."""
    mark = f":{port:04X} "
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(FileNotFoundError):
            for line in Path(table).read_text().splitlines():
                words = line.split()
                if len(words) > 3 and f"{words[1]} ".endswith(mark) and words[3] == "0A":
                    return True
    return False


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]
