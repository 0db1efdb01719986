"""Common problems: something is missing on the machine. Each gives a message and a remedy, and loses no data."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"


def run(argv, **options):
    return subprocess.run(argv, capture_output=True, text=True, timeout=110, check=False, **options)


@pytest.fixture(scope="module")
def build_tools(tmp_path_factory):
    """Install once what pip would install for every build; return the environment that finds it."""
    folder = tmp_path_factory.mktemp("build-tools")
    requires = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    requires += ["cmake", "ninja"]  # which scikit-build-core asks for itself, where a machine's own are too old
    done = run([sys.executable, "-m", "pip", "install", "-q", "--target", str(folder), *requires])
    assert done.returncode == 0, done.stderr
    path = os.pathsep.join([str(folder / "bin"), os.environ["PATH"]])
    return {**os.environ, "PYTHONPATH": str(folder), "PATH": path}


@pytest.mark.parametrize(
    ("change", "packages"),
    [
        (
            {"CMAKE_ARGS": "-DCMAKE_FIND_ROOT_PATH=/nowhere -DCMAKE_FIND_ROOT_PATH_MODE_INCLUDE=ONLY"},
            ("apt-get install liburing-dev", "dnf install liburing-devel", "pacman -S liburing"),
        ),
        (
            {"CMAKE_ARGS": "-DPython_INCLUDE_DIR=/nowhere"},
            (f"apt-get install {PYTHON}-dev", f"dnf install {PYTHON}-devel", "pacman -S python"),
        ),
        ({"CC": "/nowhere/cc"}, ("apt-get install gcc libc6-dev", "dnf install gcc", "pacman -S gcc")),
    ],
    ids=["liburing", "Python's headers", "compiler"],
)
def test_an_install_that_lacks_something_names_the_package_on_three_distributions(
    tmp_path, change, packages, build_tools
):
    env = {**build_tools, **change, "SKBUILD_BUILD_DIR": str(tmp_path / "build")}
    argv = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        str(tmp_path / "site"),
        str(ROOT),
    ]
    done = run(argv, env=env)
    assert done.returncode != 0
    for package in packages:
        assert package in done.stdout + done.stderr


def apart(what, script, *words):
    """Build the command that runs a shell script in a new network (n) or mount (m) namespace."""
    flags = f"-{what}" if os.geteuid() == 0 else f"-r{what}"
    return ["unshare", flags, "--", "sh", "-c", script, "sh", *map(str, words)]


def test_no_network_for_a_kernel_is_said_with_the_way_around_it(tmp_path):
    argv = apart("n", 'exec "$@"', sys.executable, "-m", "ktlslab", "guest", "fetch", "newest")
    done = run(argv, env={**os.environ, "KTLSLAB_CACHE": str(tmp_path)})
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "network" in done.stderr
    assert "guest run" in done.stderr


def test_no_qemu_is_said_with_the_package(tmp_path):
    for name in ("busybox", "depmod", "modprobe"):
        found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
        (tmp_path / name).symlink_to(found)
    env = {**os.environ, "PATH": str(tmp_path)}
    done = run([sys.executable, "-m", "ktlslab", "guest", "run", "newest", "--", "true"], env=env)
    assert done.returncode == 1
    assert "qemu-system-x86_64 is missing" in done.stderr
    assert "qemu-system-x86" in run([sys.executable, "-m", "ktlslab", "doctor"], env=env).stdout


def test_a_full_disk_loses_no_finished_row(tmp_path):
    plan = tmp_path / "plan.toml"
    plan.write_text('record_layers = ["plain"]\npayloads = [64]\ndirections = ["echo"]\nrepeats = 60\nsteps = 4\n')
    script = """
        mount -t tmpfs -o size=32k tmpfs "$1/small" || exit 99
        sweep() { "$2" -m ktlslab sweep --plan "$3" --on here -o "$1/small/t.parquet" $4; }
        sweep "$1" "$2" "$3" && exit 98
        cp -r "$1/small/t.parquet.rows" "$1/before"
        mount -o remount,size=10m "$1/small" || exit 97
        sweep "$1" "$2" "$3" --resume || exit 96
        cp "$1/small/t.parquet" "$1/"
    """
    (tmp_path / "small").mkdir()
    done = run(apart("m", script, tmp_path, sys.executable, plan), env={**os.environ, "TMPDIR": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert "No space left" in done.stderr
    assert "--resume" in done.stderr
    from ktlslab.measure.table import read_table
    from ktlslab.runs.journal import Journal

    before = Journal.read(tmp_path / "before").rows
    frame = read_table(tmp_path / "t.parquet")
    assert 0 < len(before) < 180
    assert len(frame) == 180
    assert not frame.duplicated(["io_engine", "replica", "repeat"]).any()
    whole = len(before) // 3 * 3  # complete blocks: an incomplete one is measured again
    assert frame.latency_p50.tolist()[:whole] == [row["latency_p50"] for row in before][:whole]
