"""A notebook kernel inside a guest, driven from here."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from jupyter_client import AsyncKernelManager
from jupyter_client.connect import write_connection_file
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.provisioning import LocalProvisioner
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from nbclient import NotebookClient

from ktlslab.guests import install, kernelspec

CELL = """
import os, shutil, socket
listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname())
client.setsockopt(socket.IPPROTO_TCP, 31, b"tls")
print(os.uname().release, os.environ["KTLSLAB_GUEST"])
print(shutil.which("ktlslab"), get_ipython().Completer.use_jedi)
print(open("kept", "w").write("from the guest"), os.getcwd())
"""


@pytest.fixture
def spec(tmp_path, monkeypatch, kernel):
    """Install the kernelspec; runtime files and guests' scratch folders go where the test can look for what is left."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    folder = install(kernel.series, prefix=tmp_path / "prefix")
    specs = KernelSpecManager(kernel_dirs=[str(folder.parent)])
    return specs.get_kernel_spec(folder.name), specs, folder.name


# What Jupyter's side does is the same for both kinds of kernels: the emulated one has a notebook here, from its start
# over interrupt and restart to its end, and the folder that is really writable in tests/guests/test_guest.py.
user_mode = pytest.mark.parametrize("kernel", ["uml"], indirect=True)


def said(release, folder):
    return f"{release} 1\n{Path(sys.prefix) / 'bin/ktlslab'} False\n14 {folder}\n"


def test_a_notebook_runs_in_a_guest(spec, kernel, left, tmp_path):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    manager = AsyncKernelManager(kernel_name=spec[2], kernel_spec_manager=spec[1])
    client = NotebookClient(notebook, km=manager, timeout=60, resources={"metadata": {"path": str(folder)}})

    async def session():
        async with client.async_setup_kernel(cleanup_kc=False, cwd=str(folder)):
            first = await client.async_execute_cell(notebook.cells[0], 0)
            assert first.outputs[0].text == said(kernel.release, folder)
            assert (folder / "kept").read_text() == "from the guest"
            assert len(list((tmp_path / "scratch").glob("ktlslab-guest-*"))) == 1
            assert {"client", ".close"} <= await completed(client.kc, "client.clo", "cli")
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
    assert left(str(tmp_path / "scratch")) == []
    assert list((tmp_path / "scratch").glob("ktlslab-*")) == []


@user_mode
def test_the_folder_that_jupyter_was_started_in_is_really_writable(spec, tmp_path):
    root = tmp_path / "root"
    (root / "deeper").mkdir(parents=True)
    manager = AsyncMappingKernelManager(root_dir=str(root), kernel_spec_manager=spec[1])

    async def session():
        started = await manager.start_kernel(path="deeper", kernel_name=spec[2])
        client = manager.get_kernel(started).client()
        client.start_channels()
        await client.wait_for_ready(timeout=60)
        reply = await client.execute_interactive("open('../beside', 'w').write('x'); open('here', 'w')", timeout=60)
        assert reply["content"]["status"] == "ok"
        client.stop_channels()
        await manager.shutdown_kernel(started, now=True)

    asyncio.run(session())
    assert (root / "beside").read_text() == "x"
    assert (root / "deeper/here").exists()


@user_mode
def test_an_editor_that_ignores_provisioners_gets_the_guest_all_the_same(spec, kernel, processes, tmp_path):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    plain = spec[0]
    plain.metadata.clear()
    manager = AsyncKernelManager(kernel_name=spec[2], kernel_spec_manager=spec[1])
    manager._kernel_spec = plain

    async def session():
        await manager.start_kernel(cwd=str(folder))
        assert type(manager.provisioner) is LocalProvisioner
        client = manager.client()
        client.start_channels()
        await client.wait_for_ready(timeout=60)
        heard = []
        reply = await client.execute_interactive(
            CELL, timeout=60, output_hook=lambda message: heard.append(message["content"].get("text", ""))
        )
        assert reply["content"]["status"] == "ok"
        assert "".join(heard) == said(kernel.release, folder)
        assert (folder / "kept").read_text() == "from the guest"
        await interrupted(client, manager)
        client.stop_channels()
        await manager.shutdown_kernel(now=True)  # killed, it takes its guest along

    asyncio.run(session())
    deadline = time.monotonic() + 10
    while (
        processes(str(tmp_path / "scratch")) or list((tmp_path / "scratch").iterdir())
    ) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert processes(str(tmp_path / "scratch")) == []
    assert list((tmp_path / "scratch").iterdir()) == []


def test_what_keeps_a_plain_process_from_being_a_guest_is_one_sentence(tmp_path):
    connection = tmp_path / "connection.json"
    write_connection_file(str(connection))
    argv = kernelspec.specification("newest", clock="wall", memory="8M", rw=str(tmp_path))["argv"]
    argv[argv.index("{connection_file}")] = str(connection)
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("ktlslab: starting a guest: 8M of memory is less than")
    assert done.stderr.count("\n") == 1


async def completed(client, *texts):
    found = set()
    for text in texts:
        reply = await client.complete(text, reply=True, timeout=60)
        found |= set(reply["content"]["matches"])
    return found


async def interrupted(client, manager):
    request = client.execute("import time; time.sleep(600)")
    await asyncio.sleep(2)
    await manager.interrupt_kernel()
    while True:
        reply = await client.get_shell_msg(timeout=60)
        if reply["parent_header"].get("msg_id") == request:
            break
    assert reply["content"]["ename"] == "KeyboardInterrupt"
