"""Large bodies fetched and sent by `ktlslab get` and by curl, from one nginx, in one run: time, CPU, memory, bytes.

    fetching.py FOLDER MIB RESULTS

FOLDER holds `file`, of MIB mebibytes, and `small`. A transfer is a line of JSON in RESULTS. A client's CPU is that of
its process (getrusage(2)), in which the kernel's record layer works as well; nginx encrypts in a process of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from ktlslab.certificates import make_certificates

PORT = 8443
CONFIG = """
daemon off; master_process off; pid {folder}/pid; error_log stderr; user root;
events {{ worker_connections 64; }}
http {{
  access_log off; client_body_temp_path {folder}/put; proxy_temp_path {folder}/a; fastcgi_temp_path {folder}/b;
  uwsgi_temp_path {folder}/c; scgi_temp_path {folder}/d; client_max_body_size 0; keepalive_timeout 600;
  server {{
    listen 127.0.0.1:{port} ssl http2; root {folder}; ssl_certificate {chain}; ssl_certificate_key {key};
    location /put {{ dav_methods PUT; }}
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
def nginx(folder: Path) -> Iterator[tuple[str, Path]]:
    """Serve the folder, and take into its folder `put`. Yields the URL and the file of the authority."""
    certificates = make_certificates(folder)
    text = CONFIG.format(folder=folder, port=PORT, chain=certificates.chain, key=certificates.key)
    (folder / "nginx.conf").write_text(text)
    (folder / "put").mkdir(exist_ok=True)
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    argv = [program or "nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")]
    with (folder / "log").open("wb") as log, subprocess.Popen(argv, stdout=log, stderr=log) as process:
        try:
            time.sleep(1)
            yield f"https://localhost:{PORT}", certificates.ca
        finally:
            process.terminate()


def measure(client: Client, way: str, folder: Path, name: str, server: tuple[str, Path]) -> Transfer:
    """Let a client fetch or send a file once. Raises RuntimeError if it fails."""
    (folder / "got").mkdir(exist_ok=True)
    source = folder / name
    target = folder / "got" / name if way == "download" else folder / "put" / "sent"
    target.unlink(missing_ok=True)
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
        equal=same(source, target),
    )


def same(one: Path, other: Path) -> bool:
    with one.open("rb") as left, other.open("rb") as right:
        while (data := left.read(1 << 20)) == right.read(1 << 20):
            if not data:
                return True
    return False


def main(folder: Path, results: Path) -> None:
    with results.open("a", encoding="utf-8") as out, nginx(folder) as server:
        for client in CLIENTS:
            for way in ("download", "upload"):
                for name in ("small", "file"):
                    out.write(json.dumps(asdict(measure(client, way, folder, name, server))) + "\n")
                    out.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
