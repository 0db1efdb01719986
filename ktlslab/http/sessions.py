"""TLS sessions in a file, so that the next run resumes them: `--ssl-sessions FILE`, as curl names it.

The file holds secrets: its mode is 0600, and one that others can read is refused. It has a line of JSON for each
server. A session counts for what has checked the server's certificate, so its line says which authorities those were
and which certificate this end showed; one that nobody checked is not kept. A session is offered once (RFC 8446, C.4):
the server then gives a new one. Early data is never sent, as it could be replayed.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import json
import os
import stat
import time
from pathlib import Path
from typing import Any

from ktlslab.errors import UnreadableError, UsageError
from ktlslab.http.saving import cannot_write, opened, write_all
from ktlslab.stages.config import ClientConfig, Resumption

_FIRST_LINE = '{"ktlslab": "TLS sessions", "secret": true}\n'
_MAX_BYTES, _MAX_SESSIONS, _MAX_AGE_S = 1 << 22, 100, 7 * 86400  # the age: RFC 8446, 4.6.1
Origin = tuple[str, int]


class SessionFile:
    """The sessions of one client. `ignored` says which lines of the file could not be used, and why.

    UnreadableError if the file is not one of these, or can be read by others; StorageError if it cannot be written.
    """

    def __init__(self, path: Path, config: ClientConfig) -> None:
        if config.library != "openssl":
            remedy = "Let OpenSSL do the handshake, or leave the file out."
            raise UsageError(f"keeping sessions in {path}", answered="rustls, by rtls, resumes nothing", remedy=remedy)
        self._path, self._config = path, config
        self._trust = _fingerprint(config)
        self._taken: set[Origin] = set()
        self._used: set[str] = set()
        self.ignored: list[str] = []
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o600))
        except OSError as error:
            raise cannot_write(path, error) from error
        self._lines = self._read()

    def take(self, origin: Origin) -> Resumption | None:
        """Return a session to be offered to this server. It is not offered again."""
        line = self._lines.pop((*origin, self._trust), None)
        if line is None:
            return None
        self._taken.add(origin)
        self._used.add(line["session"])
        try:
            return Resumption.restored(base64.b64decode(line["session"], validate=True), origin[0], self._config)
        except (UsageError, binascii.Error) as error:
            self.ignored.append(f"{self._path}: the session with {origin[0]} is of no use: {error}")
            return None

    def keep(self, origin: Origin, session: Resumption | None) -> None:
        """Write down what a connection gave, if anything, and that what it was offered is used up."""
        if not self._config.verify or (session is None and origin not in self._taken):
            return
        others = {key: line for key, line in self._read().items() if line["session"] not in self._used}
        self._lines = {**others, **self._lines}  # another run may have written meanwhile
        key = (*origin, self._trust)
        self._lines.pop(key, None)
        self._taken.discard(origin)
        if session is not None:
            data = base64.b64encode(session.reveal()).decode()
            host, port = origin
            self._lines[key] = {"host": host, "port": port, "trust": self._trust, "time": time.time(), "session": data}
        lines = sorted(self._lines.values(), key=lambda line: line["time"])[-_MAX_SESSIONS:]
        text = "".join([_FIRST_LINE, *(json.dumps(line) + "\n" for line in lines)])
        with opened(self._path, 0o600) as descriptor:
            write_all(descriptor, text.encode(), self._path)

    def _read(self) -> dict[tuple[str, int, str], dict[str, Any]]:
        tried = f"reading TLS sessions from {self._path}"
        try:
            with self._path.open("rb") as file:
                found = os.fstat(file.fileno())
                if not stat.S_ISREG(found.st_mode) or found.st_size > _MAX_BYTES:
                    raise UnreadableError(tried, answered="it is not a file of TLS sessions", remedy="Name another.")
                if found.st_mode & 0o077:
                    answered = f"its mode is {stat.S_IMODE(found.st_mode):04o}, and it holds secrets"
                    remedy = f"Let nobody else read it: chmod 600 {self._path}"
                    raise UnreadableError(tried, answered=answered, remedy=remedy)
                first, *rest = file.read().decode(errors="replace").splitlines(keepends=True) or [_FIRST_LINE]
        except OSError as error:
            raise UnreadableError(tried, answered=error.strerror or str(error), remedy="Name another file.") from error
        if first != _FIRST_LINE:
            answered = "it holds something else, which is not overwritten"
            raise UnreadableError(tried, answered=answered, remedy="Name another file, or a new one.")
        lines = {}
        for number, text in enumerate(rest, 2):
            with contextlib.suppress(ValueError, KeyError, TypeError, OverflowError, RecursionError):
                line = json.loads(text)
                if isinstance(line["session"], str) and time.time() - line["time"] < _MAX_AGE_S:
                    lines[str(line["host"]), int(line["port"]), str(line["trust"])] = line
                continue
            said = f"{self._path}: line {number} is no session, and is left out"
            if said not in self.ignored:
                self.ignored.append(said)
        return lines


def _fingerprint(config: ClientConfig) -> str:
    """Return what stands for the authorities that a client trusts and the certificate that it shows."""
    files = (config.ca, config.certificate, config.key)
    digest = hashlib.sha256()
    for path in files:
        with contextlib.suppress(OSError):  # the handshake says that it cannot be read
            digest.update(hashlib.sha256(path.read_bytes() if path else b"").digest())
    return digest.hexdigest()
