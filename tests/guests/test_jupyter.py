"""A notebook kernel inside a guest, driven from here."""

from __future__ import annotations

import asyncio
import json

import nbformat
import pytest
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient

from ktlslab.guests import install

CELL = """
import os, socket
listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname())
client.setsockopt(socket.IPPROTO_TCP, 31, b"tls")
print(os.uname().release, os.environ["KTLSLAB_GUEST"])
"""


@pytest.fixture
def manager(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    folder = install("newest", prefix=tmp_path)
    written = json.loads((folder / "kernel.json").read_text())
    assert written["display_name"] == "Python 3 (kTLS guest, newest)"
    assert written["interrupt_mode"] == "message"
    specs = KernelSpecManager(kernel_dirs=[str(folder.parent)])
    return AsyncKernelManager(kernel_name=folder.name, kernel_spec_manager=specs)


def test_a_notebook_runs_in_a_guest(manager, newest, qemus, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    client = NotebookClient(notebook, km=manager, timeout=60)

    async def session():
        async with client.async_setup_kernel(cleanup_kc=False):
            first = await client.async_execute_cell(notebook.cells[0], 0)
            assert first.outputs[0].text == f"{newest.release} 1\n"
            assert len(qemus(str(tmp_path))) == 1
            await interrupted(client.kc, manager)
            before = manager.provisioner.pid
            client.kc.stop_channels()
            await manager.restart_kernel()
            assert manager.provisioner.pid != before
            again = manager.client()
            again.start_channels()
            await again.wait_for_ready(timeout=60)
            reply = await again.execute_interactive("assert 'client' not in dir()", timeout=60)
            assert reply["content"]["status"] == "ok"
            again.stop_channels()
            await manager.shutdown_kernel()

    asyncio.run(session())
    assert qemus(str(tmp_path)) == []
    assert list(tmp_path.glob("ktlslab-*")) == []


async def interrupted(client, manager):
    request = client.execute("import time; time.sleep(600)")
    await asyncio.sleep(2)
    await manager.interrupt_kernel()
    while True:
        reply = await client.get_shell_msg(timeout=60)
        if reply["parent_header"].get("msg_id") == request:
            break
    assert reply["content"]["ename"] == "KeyboardInterrupt"
