"""Notebook 01 as a person meets it: in JupyterLab, in a browser, executed by someone else and therefore untrusted."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path

import pytest

from ktlslab.show import notebooks

FOLDER = Path(__file__).parents[2] / "notebooks"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1400,3000",
    "--virtual-time-budget=30000",
)
TOKEN = "sesame"


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """Start JupyterLab on a folder that holds notebook 01, executed; give its address."""
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    for name in ("JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    root = tmp_path / "root"
    root.mkdir()
    notebooks.execute(FOLDER / "01-the-handoff.ipynb", root / "01.ipynb")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    argv = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1"]
    argv += [f"--ServerApp.port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}"]
    argv += [f"--ServerApp.root_dir={root}"]
    with (tmp_path / "lab.log").open("wb") as log:
        server = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=dict(os.environ))
    try:
        deadline = time.monotonic() + 60
        while not answers(port):
            assert server.poll() is None, (tmp_path / "lab.log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "lab.log").read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(20)


def answers(port):
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", f"/api?token={TOKEN}")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def test_the_pictures_stand_in_jupyterlab(lab, tmp_path):
    assert BROWSER, "this test needs Chromium, which tests/run installs"
    url = f"{lab}/doc/tree/01.ipynb?token={TOKEN}"
    argv = [BROWSER, *FLAGS, f"--user-data-dir={tmp_path / 'browser'}", "--dump-dom", url]
    page = subprocess.run(argv, capture_output=True, text=True, timeout=90, check=True).stdout
    assert "The handoff: one TLS session" in page
    assert "client → server" in page
    assert "1 connect" in page
    # What JupyterLab takes out of untrusted HTML is not ours: the boxes keep their colours and their order.
    assert re.search(r"background-color: ?rgba\(213, ?94, ?0, ?0\.28\)", page)
    assert "display:flex" in page.replace(": ", ":")
