"""Each reason for falling back (`ktlslab.Why`), made to happen: what is done, what the kernel answered, how it goes on.

    made(server)                on this machine, those that it can make happen
    table_of(found, others)     all of them; the rest as other machines recorded it

`python -m ktlslab.show.fallbacks WHY HOST PORT CA` makes one happen in a process that is forbidden something.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from ktlslab.certificates import make_certificates
from ktlslab.errors import KtlsLabError, errno_name
from ktlslab.linux import ktls, seccomp
from ktlslab.session import Session, accept_session, open_session, session_pair
from ktlslab.show.html import Lines
from ktlslab.show.server import DemoServer, answer_to
from ktlslab.stages import (
    ClientConfig,
    Installed,
    Refused,
    ServerConfig,
    Stream,
    Why,
    connect,
    export,
    handshake,
    install,
    install_linked,
)
from ktlslab.tls.suites import Suite, Version

_REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
_RARE = Suite.TLS_ECDHE_ECDSA_WITH_ARIA_256_GCM_SHA384
# Of two versions, with fields of the same lengths.
_SAME_FIELDS = (Suite.TLS_CHACHA20_POLY1305_SHA256, Suite.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256)
_CBC = "ECDHE-ECDSA-AES128-SHA"
_SMALL = 512  # bytes in a record
_PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """A reason that happened: what was answered, and how the session went on. `kernel`: the release that it was on."""

    why: str
    answered: str
    went_on: str
    kernel: str


Found = tuple[Why | None, str, str]  # the reason that there was, what was answered, how it went on


def made(server: DemoServer) -> list[Fallback]:
    """Make each reason happen that this machine can, in the order of `Why`."""
    found = []
    for why, (_, make) in _MAKING.items():
        try:
            happened, answered, went_on = make(server)
        except KtlsLabError as error:  # this machine lacks what it takes
            happened, answered, went_on = None, str(error), ""
        if happened is why:
            found.append(Fallback(why=why.name, answered=answered, went_on=went_on, kernel=os.uname().release))
    return found


def table_of(found: Iterable[Fallback], others: Iterable[Fallback] = ()) -> Lines:
    """Show every reason. `others` are other machines', for what is not in `found`; the last counts."""
    here = {one.why: one for one in found}
    elsewhere = {one.why: one for one in others}
    rows = []
    for why, (how, _) in _MAKING.items():
        seen = here.get(why.name) or elsewhere.get(why.name)
        where = "here" if why.name in here else f"recorded, Linux {seen.kernel}" if seen else "nowhere"
        rows.append((why.name, how, seen.answered if seen else "", seen.went_on if seen else "", where))
    count = len(here)
    said = f"{count} of {len(_MAKING)} reasons happened in this run, on Linux {os.uname().release}."
    missing = [why.name for why in Why if why.name not in here]
    if missing:
        said += " This machine cannot make the others happen; they are shown as another one recorded them."
    return Lines(head=("Why", "made to happen by", "answered", "the session went on", "where"), rows=rows, caption=said)


def _session(why: tuple[Why, ...], session: Session) -> Found:
    """Fetch a page through a session that fell back, and close it."""
    with session:
        return (
            why[0] if why else None,
            _outcome(session),
            f"{session.record_layer}+{session.io_engine}, {_page(session.stream)}",
        )


def _outcome(session: Session) -> str:
    """Return what export or install answered."""
    said = session.trace[-1].outcome
    refused = re.fullmatch(r"Refused\(\w+ at (.*?)\)", said)
    return refused[1] if refused else said.partition(". ")[0].partition(": ")[2]


def _page(stream: Stream) -> str:
    stream.send(_REQUEST)
    got = b"".join(iter(stream.recv, b""))
    return "the whole page" if got == answer_to(_REQUEST) else f"{len(got)} bytes"


def _opened(server: DemoServer, **config: object) -> Found:
    session = open_session(
        server.host,
        server.port,
        config=ClientConfig(ca=server.ca, **config),  # type: ignore[arg-type]
    )
    return _session(session.why, session)


def _no_module(server: DemoServer) -> Found:
    return _opened(server)


def _rare_cipher(_: DemoServer) -> Found:
    client, other = session_pair(suite=_RARE)
    with client, other:
        client.stream.send(b"on")
        went_on = f"{client.record_layer}+{client.io_engine}, {'both bytes' if other.stream.recv() == b'on' else '?'}"
        return next(iter(client.why), None), _outcome(client), went_on


def _two_versions(server: DemoServer) -> Found:
    with connect(server.host, server.port) as connection:
        shake = handshake(connection, ClientConfig(ca=server.ca, suites=(_SAME_FIELDS[0],)))
        keys = export(shake)
        answer = install(connection, replace(keys, rx=replace(keys.rx, suite=_SAME_FIELDS[1])))
        stream = Stream(connection, shake, answer.directions)
        return _answer(answer, f"{stream.record_layer}+{connection.engine.name}, {_page(stream)}")


def _cbc(_: DemoServer) -> Found:
    with DemoServer(ciphers=_CBC) as other:
        return _opened(other, versions=Version.TLS12)


def _small_records(_: DemoServer) -> Found:
    """Be the server of a client that asks for small records (RFC 6066, 4)."""
    program = shutil.which("openssl")
    if not program:
        return None, "there is no openssl", ""
    with (
        tempfile.TemporaryDirectory(prefix="ktlslab-small-") as folder,
        socket.create_server(("127.0.0.1", 0)) as listener,
        ThreadPoolExecutor(1) as pool,
    ):
        files = make_certificates(Path(folder))
        config = ServerConfig(certificate=files.chain, key=files.key)
        accepting = pool.submit(accept_session, listener, config)
        words = f"s_client -connect 127.0.0.1:{listener.getsockname()[1]} -maxfraglen {_SMALL} -quiet -verify_quiet"
        with (
            subprocess.Popen(
                [program, *words.split()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            ) as client,
            accepting.result(_PATIENCE_S) as session,
        ):
            session.stream.send(bytes(4 * _SMALL))
            session.stream.send_eof()
            got = len(client.stdout.read()) if client.stdout else 0
            went_on = f"{session.record_layer}+{session.io_engine}, {got} of {4 * _SMALL} bytes"
            return next(iter(session.why), None), _outcome(session), went_on


def _shut_down(server: DemoServer) -> Found:
    with connect(server.host, server.port) as connection:
        keys = export(handshake(connection, ClientConfig(ca=server.ca)))
        connection.socket.shutdown(socket.SHUT_WR)
        return _answer(install(connection, keys), "not at all: the connection is over")


def _no_setsockopt(server: DemoServer) -> Found:
    with connect(server.host, server.port, io_engine="uring") as connection:
        shake = handshake(connection, ClientConfig(ca=server.ca))
        answer = install_linked(connection, export(shake))
        stream = Stream(connection, shake, answer.directions)
        return _answer(answer, f"{stream.record_layer}+{connection.engine.name}, {_page(stream)}; install would do")


def _forbidden(why: Why) -> Callable[[DemoServer], Found]:
    """Make a reason happen in another process, since what is forbidden stays so."""

    def make(server: DemoServer) -> Found:
        argv = [sys.executable, "-m", __name__, why.name, server.host, str(server.port), str(server.ca)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=_PATIENCE_S)
        if done.returncode:
            return None, done.stderr.strip().rpartition("\n")[2], ""
        happened, answered, went_on = json.loads(done.stdout)
        return Why[happened] if happened else None, answered, went_on

    return make


def _answer(answer: Installed | Refused, went_on: str) -> Found:
    if isinstance(answer, Installed):
        return None, repr(answer), went_on
    return answer.reason, f"{answer.step}: {errno_name(answer.errno)}", went_on


_MAKING: Mapping[Why, tuple[str, Callable[[DemoServer], Found]]] = {
    Why.NO_TLS_MODULE: ("opening a session on a kernel without the module", _no_module),
    Why.CIPHER_REFUSED: (f"agreeing on {_RARE.openssl_name}, which hardly a kernel is built with", _rare_cipher),
    Why.VERSION_REFUSED: ("giving the kernel TLS 1.3's keys for TX and TLS 1.2's for RX", _two_versions),
    Why.SUITE_UNKNOWN: (f"a server that has only {_CBC}: CBC, no AEAD", _cbc),
    Why.RECORDS_LIMITED: (
        f"serving a client that takes records of {_SMALL} bytes at most (RFC 6066, 4)",
        _small_records,
    ),
    Why.NOT_ESTABLISHED: ("shutting the socket down before the install", _shut_down),
    Why.KERNEL_REFUSED: ("a seccomp filter that refuses setsockopt(SOL_TLS)", _forbidden(Why.KERNEL_REFUSED)),
    Why.NO_RING_SETSOCKOPT: ("asking io_uring to install the keys, on a kernel before 6.7", _no_setsockopt),
    Why.NO_IO_URING: ("a seccomp filter that refuses io_uring_setup, as in a container", _forbidden(Why.NO_IO_URING)),
}


def main(argv: list[str]) -> int:
    """Open a session in this process, which is first forbidden what the reason says."""
    why, host, port, ca = Why[argv[0]], argv[1], int(argv[2]), Path(argv[3])
    if why is Why.NO_IO_URING:
        seccomp.forbid(seccomp.IO_URING_SETUP)
    else:
        seccomp.forbid(seccomp.SETSOCKOPT, ktls.SOL_TLS)
    session = open_session(host, port, config=ClientConfig(ca=ca))
    happened = next((one for one in session.why if one is why), None)
    _, answered, went_on = _session(session.why, session)
    if why is Why.NO_IO_URING:
        answered = "io_uring_setup: " + errno_name(1)
    print(json.dumps([happened.name if happened else None, answered, went_on]))  # noqa: T201 - the answer
    return 0


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main(sys.argv[1:]))
