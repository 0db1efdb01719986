"""Large bodies fetched and sent by `ktlslab get` and by curl, from one nginx, in one run: time, CPU, memory, bytes.

    fetching.py FOLDER RESULTS

FOLDER holds `file` and `small`, which are fetched and sent. What arrives lies in a file system in memory, so that no
disk is measured. A transfer is a line of JSON in RESULTS. A client's CPU is that of
its process (getrusage(2)), in which the kernel's record layer works as well; nginx encrypts in a process of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from ktlslab.certificates import make_certificates

PORT = 8443
CONFIG = """
daemon off; master_process off; pid {room}/pid; error_log stderr; user root;
events {{ worker_connections 64; }}
http {{
  access_log off; client_body_temp_path {room}/put; proxy_temp_path {room}/a; fastcgi_temp_path {room}/b;
  uwsgi_temp_path {room}/c; scgi_temp_path {room}/d; client_max_body_size 0; keepalive_timeout 600;
  server {{
    listen 127.0.0.1:{port} ssl http2; root {folder}; ssl_certificate {chain}; ssl_certificate_key {key};
    location /put {{ root {room}; dav_methods PUT; }}
  }}
}}
"""
FORM = "%{record_layer} %{io_engine} %{http_version}"
LOOK_S = 0.02


@dataclass(frozen=True, kw_only=True)
class Client:
    """A way to fetch. `layer` is what it demands; curl has OpenSSL make its records."""

    name: str
    argv: tuple[str, ...]
    http: str
    layer: str = "userspace"

    def command(self, way: str, url: str, ca: Path, file: Path) -> list[str]:
        version = "--http1.1" if self.http == "1.1" else "--http2"
        where = ["-o", str(file), f"{url}/{file.name}"] if way == "download" else ["-T", str(file), f"{url}/put/sent"]
        return [*self.argv, "-sSf", "--cacert", str(ca), version, *where]


OURS = (sys.executable, "-m", "ktlslab", "get", "-w", FORM, "--record-layer")
CLIENTS = (
    Client(name="ktlslab", argv=(*OURS, "kernel"), http="1.1", layer="kernel"),
    Client(name="ktlslab", argv=(*OURS, "userspace"), http="1.1"),
    Client(name="curl", argv=("curl",), http="1.1"),
    Client(name="ktlslab", argv=(*OURS, "kernel"), http="2", layer="kernel"),
    Client(name="curl", argv=("curl",), http="2"),
)


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """What one transfer took. `peak_kib` is the process's largest resident set (VmHWM); `path` what the client says."""

    client: str
    http: str
    layer: str
    way: str
    size: int
    seconds: float
    cpu: float
    peak_kib: int
    path: str
    equal: bool


@contextlib.contextmanager
def nginx(folder: Path, room: Path) -> Iterator[tuple[str, Path]]:
    """Serve the folder, and take into `put` of the room. Yields the URL and the file of the authority."""
    certificates = make_certificates(room)
    text = CONFIG.format(folder=folder, room=room, port=PORT, chain=certificates.chain, key=certificates.key)
    (room / "nginx.conf").write_text(text)
    (room / "put").mkdir()
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    argv = [program or "nginx", "-p", str(room), "-c", str(room / "nginx.conf")]
    with (room / "log").open("wb") as log, subprocess.Popen(argv, stdout=log, stderr=log) as process:
        try:
            time.sleep(1)
            yield f"https://localhost:{PORT}", certificates.ca
        finally:
            process.terminate()


def measure(client: Client, way: str, source: Path, room: Path, server: tuple[str, Path]) -> Transfer:
    """Let a client fetch or send a file once. Raises RuntimeError if it fails."""
    target = room / source.name if way == "download" else room / "put" / "sent"
    file = target if way == "download" else source
    began = time.perf_counter()
    with subprocess.Popen(client.command(way, *server, file), stdout=subprocess.PIPE) as process:
        peak = 0
        while True:
            done, status, used = os.wait4(process.pid, os.WNOHANG)
            if done:
                break
            with contextlib.suppress(OSError, IndexError):
                said = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
                peak = int(said.split("VmHWM:")[1].split()[0])
            time.sleep(LOOK_S)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        path = process.stdout.read().decode() if process.stdout else ""
    if process.returncode:
        raise RuntimeError(f"{client}, {way}: status {process.returncode}")
    equal = same(source, target)
    target.unlink()
    return Transfer(
        client=client.name,
        http=client.http,
        layer=client.layer,
        way=way,
        size=source.stat().st_size,
        seconds=seconds,
        cpu=used.ru_utime + used.ru_stime,
        peak_kib=peak,
        path=path,
        equal=equal,
    )


def same(one: Path, other: Path) -> bool:
    with one.open("rb") as left, other.open("rb") as right:
        while (data := left.read(1 << 20)) == right.read(1 << 20):
            if not data:
                return True
    return False


def main(folder: Path, results: Path) -> None:
    with (
        results.open("a", encoding="utf-8") as out,
        tempfile.TemporaryDirectory() as name,
        nginx(folder, room := Path(name)) as server,
    ):
        for client in CLIENTS:
            for way in ("download", "upload"):
                for source in (folder / "small", folder / "file"):
                    out.write(json.dumps(asdict(measure(client, way, source, room, server))) + "\n")
                    out.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
