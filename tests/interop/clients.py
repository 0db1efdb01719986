"""Client programs: curl, openssl s_client, gnutls-cli, Java, Node.js, Python's ssl and tlslite-ng."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import partial

from ktlslab.tls.suites import Version
from tests.interop import stacks
from tests.interop.languages import JAVA, PROGRAMS, ROOT
from tests.interop.libraries import PRIORITY
from tests.interop.material import MODEST, PASSWORD, body
from tests.interop.stacks import CCM, PATH, USUAL, Asked, Client, FailedError
from tests.interop.talking import parsed

LIMIT_S = 60.0
PAUSE_S = 0.2
BASIC = {stacks.DEFAULT, stacks.RESUMED, stacks.BOTH_UPDATE, stacks.CLIENT_CERTIFICATE, stacks.NO_CERTIFICATE}
BASIC |= {stacks.RETRY, stacks.UPLOAD}


def run(asked: Asked, *argv: object, given: bytes = b"") -> bytes:
    """Run a program and return its output. FailedError with its last words if it fails."""
    done = subprocess.run(
        [str(word) for word in argv],
        input=given,
        capture_output=True,
        check=False,
        cwd=asked.folder if argv[0] != sys.executable else ROOT,
        env={**os.environ, "PATH": PATH, "HOME": str(asked.folder)},
        timeout=LIMIT_S,
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise FailedError(f"{argv[0]} ended with {done.returncode}: {' | '.join(said[:4] + said[4:][-4:])}")
    return done.stdout


def http_request(size: int, *, upload: bool = False) -> bytes:
    first = f"POST /upload HTTP/1.1\r\nContent-Length: {size}" if upload else f"GET /{size} HTTP/1.1"
    return f"{first}\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode() + (body(size) if upload else b"")


def curl(asked: Asked) -> Mapping[int, bytes]:
    """Run curl once for all bodies: it resumes by itself where the server answers with Connection: close."""
    material = asked.material
    tls13 = asked.suite.version is Version.TLS13
    argv: list[object] = ["curl", "--silent", "--show-error", "--http1.1", "--cacert", material.ca]
    argv += ["--tlsv1.3", "--tls13-ciphers"] if tls13 else ["--tlsv1.2", "--tls-max", "1.2", "--ciphers"]
    argv.append(asked.suite.openssl_name)
    if asked.feature == stacks.CLIENT_CERTIFICATE:
        argv += ["--cert", material.file("client.pem")]
    if asked.feature == stacks.UPLOAD:
        got = {}
        for size in asked.sizes:
            words = ["--data-binary", f"@{material.www / str(size)}", asked.url(size)]
            got[size] = run(asked, *argv, *words)
        return got
    for size in asked.sizes:
        argv += [asked.url(size), "--output", asked.folder / str(size)]
    run(asked, *argv)
    return {size: (asked.folder / str(size)).read_bytes() for size in asked.sizes}


def s_client(asked: Asked) -> Mapping[int, bytes]:
    material = asked.material
    tls13 = asked.suite.version is Version.TLS13
    argv: list[object] = ["openssl", "s_client", "-connect", f"127.0.0.1:{asked.port}", "-CAfile", material.ca]
    argv += ["-verify_return_error", "-servername", "localhost"]
    argv += ["-tls1_3", "-ciphersuites"] if tls13 else ["-tls1_2", "-cipher"]
    argv.append(asked.suite.openssl_name)
    if asked.feature == stacks.CLIENT_CERTIFICATE:
        argv += ["-cert", material.file("client.crt"), "-key", material.file("client.key")]
    if asked.feature == stacks.SMALL:
        argv += ["-maxfraglen", "512"]
    if asked.feature == stacks.PEER_UPDATES:
        lines = (b"k\n", b"K\n")
        return {
            size: typed(asked, argv, b"Verify return code", (*lines, http_request(size)), size) for size in asked.sizes
        }
    got = {}
    session = asked.folder / "session"
    for size in asked.sizes:
        words = ["-sess_out", session, *(["-sess_in", session] if session.exists() else [])]
        given = http_request(size, upload=asked.feature == stacks.UPLOAD)
        more = words if asked.feature == stacks.RESUMED else []
        got[size] = parsed(run(asked, *argv, "-quiet", *more, given=given))[1]
    return got


def typed(asked: Asked, argv: list[object], ready: bytes, lines: tuple[bytes, ...], size: int) -> bytes:
    """Run a program that takes commands, type a line at a time once it says `ready`, and return the answer's body."""
    words = [str(word) for word in argv]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=asked.folder
    ) as process:
        pipe, said = process.stdout.fileno(), b""

        def hear() -> bytes:
            return os.read(pipe, 1 << 18) if select.select([pipe], [], [], LIMIT_S)[0] else b""

        try:
            while ready not in said:
                if not (piece := hear()):
                    raise FailedError(f"{words[0]} says {said[-200:]!r}")
                said += piece
            with contextlib.suppress(BrokenPipeError):  # it has ended: what it said tells why
                for line in lines:
                    time.sleep(PAUSE_S)  # or it would read this line and the one before at once
                    process.stdin.write(line)
                    process.stdin.flush()
            while piece := hear():
                said += piece
        finally:
            process.kill()
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
    head, _, rest = said[max(0, said.find(b"HTTP/1.1 200")) :].partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP"):
        raise FailedError(f"{words[0]} got no answer: {said[-200:]!r}")
    return rest[:size]


def gnutls_cli(asked: Asked) -> Mapping[int, bytes]:
    material = asked.material
    names = {
        "TLS_AES_128_GCM_SHA256": "AES-128-GCM",
        "TLS_AES_256_GCM_SHA384": "AES-256-GCM",
        "TLS_CHACHA20_POLY1305_SHA256": "CHACHA20-POLY1305",
        "TLS_AES_128_CCM_SHA256": "AES-128-CCM",
    }
    cipher = names.get(asked.suite.name, asked.suite.cipher.name)
    version = "VERS-TLS1.3" if asked.suite.version is Version.TLS13 else "VERS-TLS1.2"
    priority = f"{PRIORITY}:-VERS-ALL:+{version}:-CIPHER-ALL:+{cipher}"
    argv: list[object] = ["gnutls-cli", "--x509cafile", material.ca, "--port", asked.port, "--priority", priority]
    argv += ["--logfile", asked.folder / "gnutls.log", "localhost"]
    if asked.feature == stacks.CLIENT_CERTIFICATE:
        argv += ["--x509certfile", material.file("client.crt"), "--x509keyfile", material.file("client.key")]
    if asked.feature == stacks.SMALL:
        argv += ["--recordsize", "1024"]
    if asked.feature == stacks.PEER_UPDATES:
        argv.append("--inline-commands")
        lines = (b"^rekey1^\n", b"^rekey^\n")
        return {size: typed(asked, argv, b"", (*lines, http_request(size)), size) for size in asked.sizes}
    uploads = asked.feature == stacks.UPLOAD
    return {size: parsed(run(asked, *argv, given=http_request(size, upload=uploads)))[1] for size in asked.sizes}


def by_program(argv: tuple[object, ...], asked: Asked) -> Mapping[int, bytes]:
    """Run a program of ours: it writes each answer's body into a file of the size's name in the folder."""
    sizes = ",".join(map(str, asked.sizes))
    tls13 = asked.suite.version is Version.TLS13
    name = asked.suite.name if argv[0] == "java" else asked.suite.openssl_name
    words = [asked.port, asked.material.folder, asked.folder, sizes, "1.3" if tls13 else "1.2", name, asked.feature]
    run(asked, *argv, *words, *([PASSWORD] if argv[0] == "java" else []))
    return {size: (asked.folder / str(size)).read_bytes() for size in asked.sizes}


STACKS: tuple[Client, ...] = (
    Client(
        name="curl",
        library="OpenSSL",
        package="curl",
        needs=("curl",),
        version=("curl", "--version"),
        features=frozenset(BASIC),
        run=curl,
    ),
    Client(
        name="openssl s_client",
        library="OpenSSL",
        package="openssl",
        needs=("openssl",),
        version=("openssl", "version"),
        suites=(*USUAL, *CCM),
        features=frozenset({*BASIC, stacks.PEER_UPDATES, stacks.SMALL}),
        run=s_client,
        limits=True,
    ),
    Client(
        name="gnutls-cli",
        library="GnuTLS",
        package="gnutls-bin",
        needs=("gnutls-cli",),
        version=("gnutls-cli", "--version"),
        suites=(*USUAL, *CCM),
        features=frozenset({*BASIC, stacks.PEER_UPDATES, stacks.SMALL} - {stacks.RESUMED}),
        run=gnutls_cli,
        largest=MODEST,  # it writes what it gets byte by byte
        cuts=frozenset(Version),  # where it had not ended its sending before
        limits=True,
    ),
    Client(
        name="Java",
        library="JSSE",
        package="default-jre-headless",
        needs=("java",),
        version=("java", "-version"),
        features=frozenset({*BASIC, stacks.PEER_UPDATES, stacks.SMALL, stacks.NO_NOTIFY}),
        run=partial(by_program, (*JAVA, PROGRAMS / "Client.java")),
        sends=frozenset({stacks.UPLOAD, stacks.PEER_UPDATES}),
        limits=True,
    ),
    Client(
        name="Node.js",
        library="OpenSSL",
        package="nodejs",
        needs=("node",),
        version=("node", "--version"),
        features=frozenset({*BASIC, stacks.NO_NOTIFY}),
        run=partial(by_program, ("node", PROGRAMS / "client.js")),
    ),
    Client(
        name="Python ssl",
        library="OpenSSL",
        package="python3",
        needs=("python:ssl",),
        version=(sys.executable, "-c", "import ssl; print(ssl.OPENSSL_VERSION)"),
        features=frozenset({*BASIC, stacks.NO_NOTIFY}),
        run=partial(by_program, (sys.executable, "-m", "tests.interop.programs.python_client")),
    ),
)
