from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from ktlslab.cli import main
from ktlslab.errors import KernelUnavailableError, UsageError
from ktlslab.guests import at_hand, install, kernelspec, remove


def written(folder):
    spec = json.loads((folder / "kernel.json").read_text())
    return spec, spec["metadata"]["kernel_provisioner"]["config"]


def test_what_install_was_given_is_in_the_specs_metadata_and_in_its_command(tmp_path, newest):
    (tmp_path / "kept").mkdir()
    folder = install("newest", rw=tmp_path / "kept", memory="512M", clock="instructions", prefix=tmp_path)
    spec, config = written(folder)
    assert folder.name == "ktlslab-newest"
    assert spec["display_name"] == "Python 3 (kTLS guest, newest)"
    assert spec["interrupt_mode"] == "message"
    assert config == {"kernel": "newest", "clock": "instructions", "memory": "512M", "rw": str(tmp_path / "kept")}
    assert {f"--{name}={value}" for name, value in config.items()} < set(spec["argv"])
    assert written(install(newest.vmlinuz, prefix=tmp_path))[1]["kernel"] == str(newest.vmlinuz)


def test_by_default_it_is_a_user_mode_kernel_whose_name_says_so(tmp_path):
    spec, config = written(install(prefix=tmp_path))
    assert re.fullmatch(r"Linux \d+\.\d+ with kTLS \(user mode\)", spec["display_name"])
    assert config["kernel"] == "uml"
    assert written(install("uml-6.12", prefix=tmp_path))[0]["display_name"] == "Linux 6.12 with kTLS (user mode)"
    assert written(install(clock="instructions", prefix=tmp_path))[1]["kernel"] == "newest"


def test_jupyters_server_does_not_wait_for_the_kernel_until_all_kernelspecs_are_removed(tmp_path):
    for kernel in ("uml", "newest"):
        install(kernel, prefix=tmp_path)
    server = tmp_path / "etc/jupyter/jupyter_server_config.d/ktlslab.json"
    remove("uml", prefix=tmp_path)
    assert json.loads(server.read_text())["MultiKernelManager"]["use_pending_kernels"]
    remove(prefix=tmp_path)
    assert not server.exists()


@pytest.mark.usefixtures("newest")
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"memory": "1 elephant"}, "not a size of memory"),
        ({"memory": "64M"}, "less than the 256M"),
        ({"memory": "99999G"}, "more than the"),
        ({"memory": None}, "not a size of memory"),
        ({"clock": "sundial"}, "one of wall, instructions"),
        ({"rw": "missing"}, "no such folder"),
        ({"rw": "/proc"}, "a guest has its own"),
        ({"rw": 5}, "path of a folder"),
        ({"kernel": 5}, "'newest'"),
        ({"kernel": "uml", "clock": "instructions"}, "cannot count instructions"),
    ],
)
def test_what_no_guest_can_have_is_refused_at_install(options, says, tmp_path):
    with pytest.raises(UsageError, match=says):
        install(**options, prefix=tmp_path)
    assert not list(tmp_path.rglob("kernel.json"))


@pytest.mark.usefixtures("newest")
def test_a_kernel_that_is_not_available_is_refused_at_install(tmp_path):
    for kernel in ("latest", "5.4", "/no/vmlinuz"):
        with pytest.raises(KernelUnavailableError):
            install(kernel, prefix=tmp_path)
    assert not list(tmp_path.rglob("kernel.json"))


def test_remove_takes_away_guests_kernelspecs_and_no_others(tmp_path, newest):
    other = tmp_path / "share/jupyter/kernels/python3"
    other.mkdir(parents=True)
    (other / "kernel.json").write_text('{"argv": ["python3"], "display_name": "Python 3", "metadata": {}}')
    first, second = (install(kernel, prefix=tmp_path) for kernel in ("newest", newest.series))
    with pytest.raises(UsageError, match=rf"oldest.*{newest.series}, newest"):
        remove("oldest", prefix=tmp_path)
    assert remove("newest", prefix=tmp_path) == [first]
    assert remove(prefix=tmp_path) == [second]
    assert [folder.name for folder in other.parent.iterdir()] == ["python3"]
    with pytest.raises(UsageError, match="none"):
        remove(prefix=tmp_path)


@pytest.mark.usefixtures("newest")
def test_the_command_line_installs_and_removes(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path))
    assert main(["kernelspec", "install", "--user", "--rw", str(tmp_path), "--memory", "2G", "--clock", "wall"]) == 0
    folder = Path(kernelspec.installed(user=True)["uml"])
    assert written(folder)[1] == {"kernel": "uml", "clock": "wall", "memory": "2G", "rw": str(tmp_path)}
    assert f"writes to {tmp_path} are kept" in capsys.readouterr().out
    assert main(["kernelspec", "install", "--user", "--memory", "lots"]) == 2
    assert main(["kernelspec", "install", "--user", "--kernel", "latest"]) == 1
    assert main(["kernelspec", "remove", "--user"]) == 0
    assert not folder.exists()
    assert main(["kernelspec", "remove", "--user"]) == 2
    assert "none" in capsys.readouterr().err


def test_the_command_of_a_spec_is_this_environments_python(newest):
    spec = kernelspec.specification("newest", clock="wall", memory="1G", rw="")
    assert spec["argv"][0] == sys.executable
    assert at_hand("newest") == newest
