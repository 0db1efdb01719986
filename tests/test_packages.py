"""Each requirement has a package on three distributions; every message takes the name from one table."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ktlslab.guests import prerequisites
from ktlslab.packages import INSTALLERS, how_to_get, table

ROOT = Path(__file__).resolve().parents[1]
SETUP = (ROOT / "tests/setup.sh").read_text()
CMAKE = (ROOT / "ktlslab/linux/native/CMakeLists.txt").read_text()
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"


def test_every_row_names_a_package_for_each_distribution():
    for needed, names in table().items():
        assert list(names) == list(INSTALLERS), needed
        assert all(re.fullmatch(r"[a-z0-9.+-]+", name) for name in names.values()), needed
    assert table()["Python.h"]["apt-get install"] == f"{PYTHON}-dev"


@pytest.mark.parametrize("command", ["apt-get install iproute2", "dnf install iproute-tc", "pacman -S iproute2"])
def test_the_remedy_is_in_the_words_of_this_machines_package_manager(monkeypatch, command):
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}" if name == command.split()[0] else None)
    assert how_to_get("tc") == command


def test_where_the_package_manager_is_unknown_all_three_are_named(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    said = "Debian: apt-get install iproute2; Fedora: dnf install iproute-tc; Arch: pacman -S iproute2"
    assert how_to_get("tc") == said


def test_without_apt_guests_do_not_want_debians_tools(monkeypatch):
    from ktlslab.guests import needs

    found = needs.program
    monkeypatch.setattr(needs, "program", lambda name: None if name in {"apt-get", "dpkg-deb"} else found(name))
    assert all(need.present for need in prerequisites()), "a kernel of one's own can be booted"


def test_whatever_is_looked_for_is_in_the_table():
    named = {*re.findall(r"^ +(?:need|want) (\S+)", SETUP, re.MULTILINE)}
    for words in re.findall(r'need_packages\("[^"]*" ([^)]*)\)', CMAKE):
        named |= set(words.split())
    for path in (ROOT / "ktlslab").rglob("*.py"):
        named |= set(re.findall(r'(?:how_to_get|required)\("([^"]+)"\)', path.read_text()))
    assert {"Python.h", "liburing.h", "busybox", "zstd", "depmod", "cc", "stdio.h"} <= named <= set(table())


def test_no_other_place_names_a_package():
    files = [*(ROOT / "ktlslab").rglob("*.py"), ROOT / "tests/setup.sh"]
    for line in (line for path in files for line in path.read_text().splitlines()):
        said = re.search(r"(apt-get install|dnf install|pacman -S) (?!-)[a-z]\S+", line)
        assert not said or "python3.12" in line, line


def install_packages(tmp_path, *missing, root):
    """Run the part of setup.sh that finds packages as on another distribution, with these things missing."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name in ("awk", "sed", "sort", "paste", "python3", "id"):
        (commands / name).symlink_to(shutil.which(name))
    (commands / root).touch(mode=0o755)
    functions = SETUP[: SETUP.rindex("\ninstall_packages ")]
    script = f"{functions}\nPATH={commands}\ncollect_missing() {{ missing=({' '.join(missing)}); }}\ninstall_packages\n"
    return subprocess.run(
        [shutil.which("bash"), "-c", script], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize(
    ("manager", "says"),
    [
        ("dnf", f"sudo dnf install liburing-devel {PYTHON}-devel"),
        ("pacman", "sudo pacman -S --needed liburing python"),
        ("zypper", f"  liburing-dev {PYTHON}-dev"),
    ],
)
def test_setup_names_what_the_build_needs_where_it_may_not_install_it(tmp_path, manager, says):
    done = install_packages(tmp_path, "Python.h", "liburing.h", root=manager)
    assert done.returncode == 1
    assert says in done.stderr
