"""Every notebook executed once, and a browser to look at its page.

The browser is Chromium without a window, driven by its DevTools protocol.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path

import pytest
from websocket import create_connection

from ktlslab.show import notebooks, tables

FOLDER = Path(__file__).parents[2] / "notebooks"
TOKEN = "sesame"
# Where Jupyter and what it runs keep something.
KEPT = (
    *("JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR", "MPLCONFIGDIR"),
    *("JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR"),
)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


class Browser:
    """One tab. Raises AssertionError where the page or the browser answers with an error."""

    def __init__(self, folder):
        assert CHROMIUM, "this test needs Chromium, which tests/run installs"
        argv = [CHROMIUM, *FLAGS, f"--user-data-dir={folder}", "about:blank"]
        self.process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        port = wait_for(lambda: (folder / "DevToolsActivePort").read_text().split()[0])
        connection = HTTPConnection("127.0.0.1", int(port), timeout=30)
        connection.request("GET", "/json")
        tab = next(tab for tab in json.loads(connection.getresponse().read()) if tab["type"] == "page")
        connection.close()
        self.socket = create_connection(tab["webSocketDebuggerUrl"], timeout=60, suppress_origin=True)
        self.numbers = itertools.count(1)

    def call(self, method, **params):
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while (answer := json.loads(self.socket.recv())).get("id") != number:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def run(self, script):
        """Evaluate an expression in the page, wait for its promise, return its value."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def open(self, url, ready="document.readyState === 'complete'"):
        self.call("Page.navigate", url=url)
        wait_for(lambda: self.run(ready))

    def resize(self, width, height=1000, media=""):
        self.call("Emulation.setEmulatedMedia", media=media)
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def picture(self, path):
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def pdf(self, path):
        data = self.call("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, preferCSSPageSize=True)["data"]
        path.write_bytes(base64.b64decode(data))

    def close(self):
        self.socket.close()
        self.process.terminate()
        self.process.wait(20)


def wait_for(what, seconds=60):
    """Return what a function gives as soon as it is true; OSError and IndexError are not yet."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if found := what():
                return found
        except (OSError, IndexError):
            pass
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """Execute every notebook once, on recorded figures and this machine's kernel, and export it."""
    home = tmp_path_factory.mktemp("pages")
    (home / "root").mkdir()
    (home / "pages").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        for name in KEPT:
            patch.setenv(name, str(home / name))
        table = str(FOLDER.parent / "data/quick.parquet")
        for source in sorted(FOLDER.glob("*.ipynb")):
            target = home / "root" / source.name
            notebooks.execute(source, target, env={tables.VARIABLE: table})
            notebooks.as_html(target)
        print(f"\nscreenshots: {home / 'pages'}")  # noqa: T201 - shown where a test fails, and by -s
        yield home


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("browser"))
    yield browser
    browser.close()


@contextlib.contextmanager
def serve(home, settings, **variables):
    """Run JupyterLab on home/root with everything that it keeps in `home`; give address(page).

    `settings`: those of its plugins, by their short names. `variables`: of its environment.
    """
    for plugin, values in settings.items():
        path = home / "JUPYTERLAB_SETTINGS_DIR" / "@jupyterlab" / f"{plugin}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    argv = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1"]
    argv += [f"--ServerApp.port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}"]
    argv += [f"--ServerApp.root_dir={home / 'root'}", "--LabApp.expose_app_in_browser=True"]
    env = {**os.environ, **{name: str(home / name) for name in KEPT}, **variables}
    with (home / "lab.log").open("wb") as log:
        server = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env)
    try:
        wait_for(lambda: answers(port))
        yield lambda page: f"http://127.0.0.1:{port}{page}?token={TOKEN}"
    finally:
        server.terminate()
        server.wait(20)


def answers(port):
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", f"/api?token={TOKEN}")
        return connection.getresponse().status == 200
    finally:
        connection.close()


@pytest.fixture(scope="session")
def new_browser():
    return Browser


@pytest.fixture(scope="session")
def jupyterlab():
    return serve


@pytest.fixture(scope="session", name="wait_for")
def waiter():
    return wait_for
