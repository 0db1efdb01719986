"""Real boots. One boot answers many questions, since each takes seconds."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from ktlslab.errors import GuestError, UsageError
from ktlslab.guests import accelerator, available, boot, builds, fetch, prerequisites, qemu, run

# Every kernel, and both clocks. The older emulated ones count here; by the wall clock, tests/in_guests.py boots them.
USER_MODE = ("uml-6.1", "uml-6.12", "uml")
MACHINES = [*itertools.product(("6.1", "6.12", "newest"), ["instructions"]), ("newest", "wall")]
MACHINES += itertools.product(USER_MODE, ["wall"])

ASK = r"""
import json, os, socket, subprocess, sys, tempfile
listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname())
client.setsockopt(socket.IPPROTO_TCP, 31, b"tls")
def write(path):
    with open(path, "w") as file:
        file.write("from the guest")
write("inside")
write("../outside")
for folder in ("/dev/shm", "/tmp"):
    write(tempfile.mktemp(dir=folder))  # a fixed name may be a folder of this machine's
print(json.dumps({
    "release": os.uname().release,
    "argv": sys.argv[1:],
    "cwd": os.getcwd(),
    "ulp": open("/proc/sys/net/ipv4/tcp_available_ulp").read().split(),
    "tcp_diag": subprocess.run(["modprobe", "tcp_diag"]).returncode,
    "cpus": os.cpu_count(),
    "env": dict(os.environ),
    "stdin": sys.stdin.read(),
    "pty": len(os.openpty()),
}))
sys.stdout.write("x" * 300_000)
sys.stderr.write("an error\n")
sys.exit(7)
"""
# Two pairs of processes keep both CPUs in the scheduler, whose code a switch of its statistics patches.
PATCH = r"""
import os
def pair():
    there, here = os.pipe(), os.pipe()
    for first, get, put in ((True, here[0], there[1]), (False, there[0], here[1])):
        child = os.fork()
        if not child:
            if first:
                os.write(put, b"x")
            while True:
                os.write(put, os.read(get, 1))
        yield child
children = [*pair(), *pair()]
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))  # or it would wait for its turn among them
for number in range(400):
    with open("/proc/sys/kernel/sched_schedstats", "w") as switch:
        switch.write(str(number % 2))
for child in children:
    os.kill(child, 9)
print("patched 400 times")
"""
WORDS = ["it's", '$HOME `x` "y"', "a\nb", "*", "", "ü"]


@pytest.mark.parametrize(("series", "clock"), MACHINES)
def test_a_command_sees_this_machine_and_changes_only_its_folder(series, clock, tmp_path):
    kernel = fetch(series)
    rw = tmp_path / "its folder, really"
    rw.mkdir()
    argv = [sys.executable, "-I", "-S", "-c", ASK, *WORDS]
    done = run(kernel, argv, clock=clock, rw=rw, cwd=rw, env={"GIVEN": "a 'b' $c"}, timeout=90)
    assert (done.returncode, done.stderr) == (7, b"an error\n")
    head, _, rest = done.stdout.partition(b"\n")
    said = json.loads(head)
    assert rest == b"x" * 300_000
    assert said["release"] == kernel.release
    assert (said["argv"], said["cwd"], said["stdin"]) == (WORDS, str(rw), "")
    assert "tls" in said["ulp"]
    assert said["tcp_diag"] == 0
    assert said["env"]["GIVEN"] == "a 'b' $c"
    assert (said["env"]["KTLSLAB_GUEST"], said["env"]["KTLSLAB_CLOCK"]) == ("1", clock)
    if clock == "instructions" or kernel.user_mode:
        assert said["cpus"] == 1
    assert (rw / "inside").read_text() == "from the guest"
    assert not (tmp_path / "outside").exists()


def test_output_and_the_shared_folder_are_live(kernel, tmp_path):
    class Live(io.BytesIO):
        def write(self, data):
            seen.append((bytes(data), (tmp_path / "log").exists()))
            return super().write(data)

    seen = []
    script = "echo one; while [ ! -e go ]; do sleep 0.1; done; echo two; kill -9 $$"
    with boot(
        kernel, ["sh", "-c", f"cd {tmp_path}; echo line > log; {script}"], rw=tmp_path, clock="wall", stdout=Live()
    ) as guest:
        deadline = time.monotonic() + 60
        while not seen and time.monotonic() < deadline:
            time.sleep(0.05)
        assert seen == [(b"one\n", True)]
        assert guest.poll() is None
        (tmp_path / "go").touch()
        assert guest.wait(30).returncode == 128 + signal.SIGKILL
        assert [data for data, _ in seen] == [b"one\n", b"two\n"]
        assert guest.poll() == 128 + signal.SIGKILL
        folder = guest._folder
    assert not folder.exists()


def test_an_image_that_does_not_boot_is_an_error_within_its_bound(newest, tmp_path):
    image = bytearray(newest.vmlinuz.read_bytes())
    image[len(image) // 2 : len(image) // 2 + 4096] = bytes(4096)
    (tmp_path / "vmlinuz").write_bytes(image)
    broken = dataclasses.replace(newest, vmlinuz=tmp_path / "vmlinuz")
    with pytest.raises(GuestError, match=r"did not boot within 6 s.*console"):
        run(broken, ["true"], clock="wall", boot_timeout=6)
    (tmp_path / "vmlinuz").write_bytes(b"nothing like a kernel")
    with pytest.raises(GuestError, match="went down before the command"):
        run(broken, ["true"], clock="wall")


def test_a_kernel_may_patch_the_code_that_its_other_cpu_runs(newest):
    done = run(newest, [sys.executable, "-I", "-S", "-c", PATCH], clock="wall", cpus=2, timeout=120)
    assert (done.returncode, done.stdout) == (0, b"patched 400 times\n")


def test_a_kernel_that_panics_before_the_command_is_an_error(newest, monkeypatch):
    def arguments(machine):
        line = original(machine)
        line[line.index("-append") + 1] += " rdinit=/none root=none"  # nothing to start: the kernel says so in a panic
        return line

    original = qemu.arguments
    monkeypatch.setattr(qemu, "arguments", arguments)
    with pytest.raises(GuestError, match=r"(?s)before the command was started.*Kernel panic"):
        run(newest, ["true"], clock="wall")


def test_a_guest_that_goes_down_or_takes_too_long_is_an_error(kernel):
    with pytest.raises(GuestError, match=r"(?s)while the command ran.*Kernel panic"):
        run(kernel, ["sh", "-c", "echo c > /proc/sysrq-trigger; sleep 60"], clock="wall", timeout=60)
    with pytest.raises(GuestError, match=r"`sleep 600`.*still ran after 1 s"):
        run(kernel, ["sleep", "600"], clock="wall", timeout=1)


CALLER = """
import sys, threading, time
from pathlib import Path
from ktlslab.guests import boot, find
guests = []
# from a thread that ends: the guest belongs to the process, not to the thread that started it
thread = threading.Thread(target=lambda: guests.append(boot(find(sys.argv[1]), ["sleep", "1000"], clock="wall")))
thread.start(); thread.join()
print(guests[0].pid, flush=True)
time.sleep(1000)
"""


def test_kill_9_of_the_caller_leaves_no_process_and_no_folder(kernel, tmp_path, processes):
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    caller = subprocess.Popen([sys.executable, "-c", CALLER, kernel.series], stdout=subprocess.PIPE, env=env)
    with caller:
        pid = int(caller.stdout.readline())
        assert pid in processes(str(tmp_path))
        assert len(list(tmp_path.iterdir())) == 1
        caller.kill()
    deadline = time.monotonic() + 15
    while (processes(str(tmp_path)) or list(tmp_path.iterdir())) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes(str(tmp_path)) == []
    assert list(tmp_path.iterdir()) == []


REFUSED = [
    ([], {}, "there is no command"),
    ("true", {}, "list of words"),
    (["true", 5], {}, "list of words"),
    (["a\0b"], {}, "NUL"),
    (["true"], {"clock": "sundial"}, "one of wall, instructions"),
    (["true"], {"clock": "instructions", "cpus": 2}, "takes one"),
    (["true"], {"cpus": 0}, "1 or more"),
    (["true"], {"cpus": "two"}, "1 or more"),
    (["true"], {"rw": "missing"}, "no such folder"),
    (["true"], {"rw": __file__}, "not a folder"),
    (["true"], {"rw": "/"}, "a guest has its own"),
    (["true"], {"rw": "/run"}, "a guest has its own"),
    (["true"], {"rw": ""}, "path of a folder"),
    (["true"], {"cwd": "missing"}, "no such folder"),
    (["true"], {"cwd": 5}, "path of a folder"),
    (["true"], {"memory": "1T"}, "not a size of memory"),
    (["true"], {"memory": "-1G"}, "not a size of memory"),
    (["true"], {"memory": 1024}, "not a size of memory"),
    (["true"], {"memory": "255M"}, "less than the 256M"),
    (["true"], {"memory": "9999G"}, "of this machine"),
    (["true"], {"env": ["A"]}, "mapping"),
    (["true"], {"env": {"A": 1}}, "mapping"),
    (["true"], {"env": {"A B": "1"}}, "letters, digits"),
    (["true"], {"outbound": "no"}, "`outbound` is of type str"),
    (["true"], {"timeout": -1}, "seconds"),
    (["true"], {"timeout": "soon"}, "seconds"),
    (["true"], {"boot_timeout": float("nan")}, "seconds"),
]


@pytest.mark.parametrize(("argv", "options", "says"), REFUSED)
def test_what_cannot_be_meant_is_refused_before_anything_starts(argv, options, says, newest):
    with pytest.raises(UsageError, match=says):
        run(newest, argv, **{"clock": "wall", **options})
    assert not list(Path(tempfile.gettempdir()).glob(f"ktlslab-guest-{os.getpid()}*"))


@pytest.mark.parametrize("forwards", [1.5, "8888", [0], [1 << 16], [None]])
def test_a_port_that_is_none_is_refused(forwards, newest):
    with pytest.raises(UsageError, match=r"`forwards` is .*1 to 65535"):
        boot(newest, ["true"], forwards=forwards)


def test_a_folder_that_one_may_not_write_to_is_refused(tmp_path):
    flags = "-m" if os.geteuid() == 0 else "-rm"
    script = (
        'mount --bind "$1" "$1"; mount -o remount,bind,ro "$1"; exec "$2" -m ktlslab guest run newest --rw "$1" -- true'
    )
    argv = ["unshare", flags, "--", "sh", "-c", script, "sh", str(tmp_path), sys.executable]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"starting a guest with rw={tmp_path}: you may not write to this folder" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_smallest_memory_boots_and_a_series_will_do_for_its_kernel(newest):
    done = run(newest.series, ["sh", "-c", "echo $PATH"], clock="wall", memory="256M")
    assert done.returncode == 0
    assert str(Path(sys.prefix) / "bin") in done.stdout.decode().strip().split(":")


def test_this_machine_is_described():
    assert accelerator() in {"kvm", "tcg"}
    assert all(present for _, present, _ in prerequisites())
    assert {"6.12"} <= {offer.series for offer in available()}
    offers = available()
    assert {"uml-6.1", "uml-6.12"} <= {offer.series for offer in offers}
    newest = [offer for offer in offers if not offer.series.startswith("uml")][-1]
    assert {offer.version: offer.series for offer in builds() if offer.release}[newest.version] == newest.series
