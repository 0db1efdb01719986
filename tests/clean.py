"""Install a wheel as a user does and test it: clean.py WHEEL. Needs only Python 3.11 or newer.

Makes an environment with the wheel alone, checks that `lab` commands say what is missing, then adds `lab` and sweeps.
"""
# ruff: noqa: T201 - a command prints

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

PLAN = """
record_layers = ["plain", "userspace"]
payloads = [64]
suites = ["TLS_AES_256_GCM_SHA384"]
workloads = ["echo"]
repeats = 2
max_repeats = 2
steps = 4
"""
# Serves one page with ktlslab's server side, and prints its port and CA.
SERVER = """
import pathlib, socket, sys
import ktlslab
made = ktlslab.make_certificates(pathlib.Path(sys.argv[1]))
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], made.ca, flush=True)
with ktlslab.accept_session(listener, ktlslab.ServerConfig(certificate=made.chain, key=made.key)) as session:
    session.stream.recv()
    session.stream.send(b"HTTP/1.1 200 OK\\r\\nContent-Length: 6\\r\\nConnection: close\\r\\n\\r\\nserved")
"""


class Environment:
    """A new environment in a folder, without the shell's variables for Python and compilers."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=True)
        self.bin = folder / "bin"
        names = {"HOME", "LANG", "PATH", "TMPDIR", *(name for name in os.environ if name.startswith("PIP_"))}
        kept = {name: os.environ[name] for name in names & os.environ.keys()}
        # A build from source must not find a compiler, even where there is one.
        self.env = {**kept, "CC": "/nowhere/cc", "CXX": "/nowhere/cc"}

    def run(self, *argv: object, status: int = 0, says: str = "") -> str:
        """Run a program of the environment, print its output, and check its exit status and a word in the output."""
        command = [str(self.bin / str(argv[0])), *map(str, argv[1:])]
        done = subprocess.run(
            command, cwd=self.bin, env=self.env, capture_output=True, text=True, check=False, timeout=600
        )
        said = (done.stdout + done.stderr).strip()
        print(f"$ {' '.join(map(str, argv))}\n{said}\n" if argv[0] == "ktlslab" else f"$ {argv[0]} ...", flush=True)
        if done.returncode != status or says not in said or "Traceback" in said:
            sys.exit(f"FAILED: exit status {done.returncode}, not {status}; or not {says!r}\n{said}")
        return done.stdout


def serve_and_get(environment: Environment, folder: Path) -> None:
    """Fetch a page with `ktlslab get` from a server in another process of the same environment."""
    argv = [environment.bin / "python", "-c", SERVER, folder]
    with subprocess.Popen(argv, cwd=environment.bin, env=environment.env, stdout=subprocess.PIPE, text=True) as server:
        if server.stdout is None or not (line := server.stdout.readline()):
            sys.exit("FAILED: the server did not start")
        port, ca = line.split(maxsplit=1)
        environment.run("ktlslab", "get", f"https://localhost:{port}/", "--ca", ca.strip(), "-v", says="served")


def main(wheel: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="ktlslab-clean-") as name:
        folder = Path(name)
        environment = Environment(folder / "venv")
        environment.run("python", "-m", "pip", "install", "--quiet", "--only-binary", ":all:", wheel)
        environment.run("ktlslab", "--version")
        ready = environment.run("python", "-c", "import ktlslab; print(ktlslab.doctor().ready)").strip()
        environment.run("ktlslab", "doctor", status=0 if ready == "True" else 1, says="Linux")
        (folder / "certificates").mkdir()
        serve_and_get(environment, folder / "certificates")
        (folder / "plan.toml").write_text(PLAN)
        sweep = ("ktlslab", "sweep", "--plan", folder / "plan.toml", "--on", "here", "-o", folder / "t.parquet")
        environment.run(*sweep, status=1, says="pip install 'ktlslab[lab]'")
        environment.run("python", "-m", "pip", "install", "--quiet", "--only-binary", ":all:", f"{wheel}[lab]")
        environment.run(*sweep, says="samples in")
        environment.run("ktlslab", "report", folder / "t.parquet", "-o", folder / "report.html", says="report.html")
        print(f"{wheel.name}, {wheel.stat().st_size:,} bytes: works without a compiler in {sys.version.split()[0]}")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
