"""User-mode kernels, booted: what they need, what they give up, and what a small machine does to them.

That they keep the guarantees of all guests is tested with those: see test_guest.py.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ktlslab import sweep
from ktlslab.errors import GuestError, UsageError
from ktlslab.guests import at_hand, boot, fetch, run
from ktlslab.guests.cache import cache_dir
from ktlslab.measure.plan import Plan
from ktlslab.runs import lock
from ktlslab.runs.machines import machine
from ktlslab.show.background import method
from ktlslab.show.names import place_name

ALL_BYTES = """
import sys
everything = bytes(range(256)) * 4096
for _ in range(8):
    sys.stdout.buffer.write(everything)
    sys.stderr.buffer.write(everything[:65536])
"""
ROOT = Path(__file__).parents[2]
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all", "--"]


@pytest.fixture(scope="session")
def uml():
    return fetch("uml")


def ktlslab(*arguments, before=(), python=sys.executable, **variables):
    """Run the command line on this machine."""
    return subprocess.run(
        [*before, python, "-m", "ktlslab", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **variables},
    )


def test_a_kernel_comes_from_the_archive_with_its_c_library_and_is_used_without_it(tmp_path, monkeypatch):
    monkeypatch.setenv("KTLSLAB_CACHE", str(tmp_path))
    kernel = fetch("uml-6.12")
    assert (kernel.series, kernel.user_mode) == ("uml-6.12", True)
    assert kernel.version.startswith("6.12um")
    assert kernel.release == kernel.upstream
    maps = run(kernel, ["true"]).returncode, sorted(path.name for path in kernel.vmlinuz.parents[1].glob("libc/*"))
    assert maps == (0, ["ld.so", "libc.so.6"])
    monkeypatch.setenv("KTLSLAB_MIRROR", "file:///nowhere")
    assert at_hand("uml-6.12") == kernel == fetch("uml-6.12")
    assert at_hand("newest") is at_hand("oldest") is at_hand(kernel.release) is None, (
        "user-mode kernels go by uml alone"
    )
    assert run("uml-6.12", ["uname", "-r"]).stdout.decode().strip() == kernel.release


def opened(folder):
    """Return the start of a command for which the project lies open to all, if only root gets at it where it is.

    `folder` is mounted on in the command's own mount namespace.
    """
    closed = [above for above in ROOT.parents if not above.stat().st_mode & 0o001]
    if not closed:
        return []
    (folder / "project").mkdir()
    script = (
        'mount --bind "$1" "$0" && mount -t tmpfs -o mode=755 none "$2" && mkdir -p "$1" && mount --bind "$0" "$1" && '
        'shift 2 && exec "$@"'
    )
    return ["unshare", "-m", "--", "sh", "-c", script, str(folder / "project"), str(ROOT), str(closed[-1])]


def test_an_ordinary_user_without_a_home_boots_one(uml, tmp_path):
    before = [*opened(tmp_path), *NOBODY] if os.geteuid() == 0 else []
    # This Python may lie where only root gets at it.
    starts = [*before, "sh", "-c", 'exec "$0" -c "import os, sys; os.execv(sys.executable, [sys.executable, \'-V\'])"']
    pythons = (sys.executable, shutil.which("python3", path="/usr/bin") or "")
    python = next(p for p in pythons if not subprocess.run([*starts, p], capture_output=True, check=False).returncode)
    for name in ("cache/user-mode-kernels", "tmp", "rw"):
        (tmp_path / name).mkdir(parents=True)
    shutil.copytree(
        uml.vmlinuz.parents[1], tmp_path / "cache/user-mode-kernels" / uml.series / uml.version, symlinks=True
    )
    tmp_path.chmod(0o755)
    for folder in tmp_path.parents:
        if folder.name.startswith("pytest"):
            folder.chmod(0o755)
    if before:
        subprocess.run(["chown", "-R", "65534:65534", tmp_path], check=True)
    variables = {"KTLSLAB_CACHE": str(tmp_path / "cache"), "TMPDIR": str(tmp_path / "tmp"), "HOME": "/nonexistent"}
    script = f"id -u; modprobe veth && echo loaded; echo kept > {tmp_path}/rw/file; echo lost > {tmp_path}/lost"
    done = ktlslab(
        "guest", "run", "--rw", tmp_path / "rw", "uml", "--", "sh", "-c", script,
        before=before, python=python, **variables,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\nloaded\n", "")
    assert (tmp_path / "rw/file").read_text() == "kept\n"
    assert not (tmp_path / "lost").exists()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_guest_reads_more_files_than_its_caller_may_open(uml):
    """The kernel keeps a descriptor for each file of this machine's that it has cached; a login has 1,024."""
    limited = ["sh", "-c", 'ulimit -S -n 200; exec "$@"', "sh"]
    files = sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py"))[:400]
    assert len(files) == 400
    script = f"cat {' '.join(map(shlex.quote, map(str, files)))} | wc -c"
    done = ktlslab("guest", "run", uml.series, "--", "sh", "-c", script, before=limited)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) == sum(path.stat().st_size for path in files)


def test_both_streams_carry_every_byte(uml):
    done = run(uml, [sys.executable, "-ISc", ALL_BYTES], timeout=60)
    everything = bytes(range(256)) * 4096
    assert (done.returncode, done.stdout == everything * 8, done.stderr == everything[:65536] * 8) == (0, True, True)


def test_the_folder_may_have_any_name_and_a_follower_sees_each_write(uml, tmp_path):
    rw = tmp_path / "a, b=c:d 'e"
    rw.mkdir()
    script = "import time; log = open('log', 'w', 1); log.write('line\\n'); time.sleep(60)"
    with boot(uml, [sys.executable, "-ISc", script], rw=rw, cwd=rw) as guest:
        deadline = time.monotonic() + 30
        while not ((rw / "log").exists() and (rw / "log").read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert (rw / "log").read_text() == "line\n"
        assert guest.poll() is None


def test_several_run_at_once_and_know_nothing_of_each_other(uml, left, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    script = "echo $0 > /tmp/ktlslab-mine; sleep 2; cat /tmp/ktlslab-mine"
    with contextlib.ExitStack() as stack:
        all_of_them = [stack.enter_context(boot(uml, ["sh", "-c", script, str(n)])) for n in range(3)]
        assert [guest.wait(60).stdout for guest in all_of_them] == [b"0\n", b"1\n", b"2\n"]
    assert left(str(tmp_path)) == []
    assert list(tmp_path.iterdir()) == []


def test_its_processes_take_turns_on_one_cpu_and_so_need_not_wake_each_other_on_another(uml):
    allowed = os.sched_getaffinity(0)
    with boot(uml, ["sleep", "60"]) as guest:
        (cpu,) = os.sched_getaffinity(guest.pid)
    assert cpu in allowed
    assert os.sched_getaffinity(0) == allowed


@pytest.mark.parametrize("series", ["uml-6.1", "uml"])
def test_a_kernel_whose_main_process_is_killed_leaves_none_of_the_others(
    series, processes, left, tmp_path, monkeypatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with boot(series, ["sh", "-c", "sleep 100 & sleep 100"]) as guest:
        assert len(processes(str(tmp_path))) > 3
        os.kill(guest.pid, signal.SIGKILL)
        with pytest.raises(GuestError, match="while the command ran"):
            guest.wait(30)
    assert left(str(tmp_path)) == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"clock": "instructions"}, "cannot count instructions.*newest"),
        ({"plugin": "x.so"}, "cannot count instructions"),
        ({"cpus": 2}, "such a kernel has one"),
    ],
)
def test_what_only_an_emulated_cpu_can_do_is_refused(uml, options, says):
    with pytest.raises(UsageError, match=says):
        boot(uml, ["true"], **options)


def test_figures_are_refused_unless_the_wall_clock_is_asked_for(uml):
    with pytest.raises(UsageError, match=r"measuring on uml-.*--on newest.*--clock wall"):
        machine("uml")
    with pytest.raises(UsageError, match="cannot count instructions"):
        machine("uml", "instructions")
    assert (machine("uml", "wall").name, machine("uml", "wall").clock) == (uml.series, "wall")


def test_the_figures_of_a_sweep_say_what_kernel_they_are_of(uml, tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "LOCK", tmp_path / "lock")  # the figures themselves are not looked at
    plan = Plan(
        name="p",
        record_layers=("plain", "kernel"),
        suites=("TLS_AES_128_GCM_SHA256",),
        io_engines=("syscall",),
        workloads=("echo",),
        payloads=(64,),
        repeats=1,
    )
    frame = sweep(plan, "uml", clock="wall", output=tmp_path / "t.parquet", progress=False)
    assert set(frame["machine"]) == {uml.series}
    assert frame["client_cpu"].isna().all(), "its clocks tick too seldom"
    (known,) = frame.attrs["provenance"].values()
    assert (known["emulator"], known["cpu"], known["emulated"]) == ("user-mode kernel", "UML", False)
    assert place_name(frame) == f"Linux {uml.release} (guest {uml.series}), timed in nanoseconds, by a user-mode kernel"
    assert any("user-mode" in sentence for sentence in method(frame))


MOUNTED = 'mount -t tmpfs -o "$1" none /dev/shm && mount -t tmpfs -o "$2" none "$TMPDIR" && shift 2 && exec "$@"'


@pytest.mark.parametrize(
    ("shm", "tmp", "says"),
    [
        ("size=9M", "size=2G", ""),
        ("noexec", "size=2G", ""),
        ("size=9M", "noexec", r"/dev/shm has 9M free of the 1024M needed; .* is mounted noexec\. .*TMPDIR"),
        ("noexec", "size=9M", r"/dev/shm is mounted noexec; .* has \dM free of the 1024M needed"),
        ("size=9M", "size=1k", "ENOSPC.*Free some space"),
    ],
)
def test_memory_is_found_where_there_is_room_or_the_way_out_is_named(uml, tmp_path, shm, tmp, says):
    unshare = ["unshare", "-m" if os.geteuid() == 0 else "-rm", "--", "sh", "-c", MOUNTED, "sh", shm, tmp]
    done = ktlslab("guest", "run", uml.series, "--", "echo", "up", before=unshare, TMPDIR=str(tmp_path))
    assert done.stdout == ("" if says else "up\n"), done.stderr
    assert done.returncode == (1 if says else 0)
    if says:
        assert re.search(says, done.stderr), done.stderr


FETCH = """
import socket, sys
with socket.create_connection(("10.0.2.2", int(sys.argv[1])), timeout=30) as sock:
    sock.sendall(b"from the guest")
    sock.shutdown(socket.SHUT_WR)
    received = sock.makefile("rb").read()
print(len(received), received == bytes(range(256)) * 40000)
"""
SERVE = """
import socket, sys
listener = socket.create_server(("", int(sys.argv[1])))
print("listening", flush=True)
sock, _ = listener.accept()
sock.sendall(sock.recv(100).upper())
try:
    socket.create_connection(("10.0.2.2", int(sys.argv[2])), timeout=10)
except OSError as error:
    sock.sendall(type(error).__name__.encode())
sock.close()
"""


def serving(listener):
    """Answer one connection."""
    sock, _ = listener.accept()
    with sock:
        heard = sock.makefile("rb").read()
        sock.sendall(bytes(range(256)) * 40000)
    return heard


@pytest.mark.parametrize("series", ["uml-6.1", "uml-6.12", "uml"])
def test_with_outbound_it_reaches_this_machine(series):
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor() as pool:
        heard = pool.submit(serving, listener)
        port = str(listener.getsockname()[1])
        done = run(series, [sys.executable, "-ISc", FETCH, port], outbound=True, timeout=60)
        assert (done.stdout, done.stderr) == (b"10240000 True\n", b"")
        assert heard.result(5) == b"from the guest"


def test_a_forwarded_port_leads_into_it_and_nothing_out(uml, left, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as other, socket.create_server(("127.0.0.1", 0)) as held:
        port, said = held.getsockname()[1], io.BytesIO()
        argv = [sys.executable, "-ISc", SERVE, str(port), str(other.getsockname()[1])]
        with pytest.raises(GuestError, match=f"port {port} of this machine's loopback is taken"):
            boot(uml, argv, forwards=[port])
        held.close()
        with boot(uml, argv, forwards=[port], stdout=said) as guest:
            deadline = time.monotonic() + 30
            while not said.getvalue() and time.monotonic() < deadline:
                time.sleep(0.05)
            with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
                sock.sendall(b"in")
                assert sock.makefile("rb").read() == b"INConnectionRefusedError"
            assert guest.wait(30).returncode == 0
    assert left(str(tmp_path)) == []


@pytest.mark.parametrize("series", ["uml-6.1", "uml-6.12", "uml"])
def test_modules_load_as_they_are_wanted(series):
    script = "ip link add one type veth peer name two && ip link set two addrgenmode none && ip link set two up && "
    script += "tc qdisc add dev one root netem delay 1ms && tc qdisc show dev one"
    done = run(series, ["sh", "-c", script])
    assert b"netem" in done.stdout, done.stderr


def test_without_libslirp_it_has_no_network_and_all_the_rest(uml, tmp_path):
    code = "import ctypes; ctypes.CDLL('libslirp.so.0'); print(open('/proc/self/maps').read())"
    maps = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    (library,) = set(re.findall(r"/\S*libslirp\S*", maps))
    script = f'mount --bind /dev/null {library} && exec "$@"'
    without = ["unshare", "-m" if os.geteuid() == 0 else "-rm", "--", "sh", "-c", script, "sh"]
    doctor = ktlslab("doctor", before=without)
    assert re.search(r"user-mode kernels can be started.*\n.*no network.*\n +\S+ \S+ libslirp", doctor.stdout), doctor
    assert ktlslab("guest", "run", uml.series, "--", "echo", "up", before=without).stdout == "up\n"
    asked = ktlslab("get", "--on", uml.series, "https://127.0.0.1:1/", before=without)
    assert (asked.returncode, asked.stderr.count("libslirp") > 0) == (1, True), asked
    auto = ktlslab("kernelspec", "install", "--user", before=without, JUPYTER_DATA_DIR=str(tmp_path))
    assert (auto.returncode, "no user-mode kernel, so" in auto.stderr) == (0, True), auto
    assert [path.name for path in tmp_path.glob("kernels/*")] == ["ktlslab-newest"]


# deny.py NUMBERS COMMAND...: run a command to which these system calls are refused, as in a strict container.
DENY = """
import ctypes, os, struct, sys
steps = [(0x20, 0, 0, 0)]
for number in filter(None, sys.argv[1].split(",")):
    steps += [(0x15, 0, 1, int(number)), (0x06, 0, 0, 0x00050001)]
code = b"".join(struct.pack("HBBI", *step) for step in [*steps, (0x06, 0, 0, 0x7FFF0000)])
buffer = ctypes.create_string_buffer(code, len(code))
program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program) == 0
os.execvp(sys.argv[2], sys.argv[2:])
"""
PTRACE, SECCOMP, PIDFD_OPEN = 101, 317, 434  # on x86-64
SECCOMP_SINCE = (6, 16)  # since when a user-mode kernel can do without ptrace


def denied(*numbers):
    return [sys.executable, "-ISc", DENY, ",".join(map(str, numbers))]


@pytest.mark.parametrize("series", ["uml-6.1", "uml"])
@pytest.mark.parametrize("numbers", [(PTRACE,), (PTRACE, SECCOMP), (PIDFD_OPEN,)])
def test_a_container_that_forbids_what_it_takes_is_one_sentence(series, numbers):
    kernel = fetch(series)
    says = r"Linux 5\.3 or later" if PIDFD_OPEN in numbers else r"forbids ptrace: .*--cap-add SYS_PTRACE.*`newest`"
    if numbers == (PTRACE,) and tuple(map(int, kernel.upstream.split(".")[:2])) >= SECCOMP_SINCE:
        says = ""
    done = ktlslab("guest", "run", kernel.series, "--", "true", before=denied(*numbers))
    assert done.returncode == (1 if says else 0), done.stderr
    assert re.search(says, done.stderr), done.stderr
    assert "Traceback" not in done.stderr


def test_programs_cannot_run_where_the_cache_is(uml, tmp_path):
    script = (
        'mount -t tmpfs none "$0" && mkdir -p "$0/user-mode-kernels/$1" && cp -r "$2" "$0/user-mode-kernels/$1/" && '
    )
    script += 'mount -o remount,noexec "$0" && shift 2 && exec "$@"'
    unshare = ["unshare", "-m" if os.geteuid() == 0 else "-rm", "--", "sh", "-c", script]
    unshare += [str(tmp_path), uml.series, str(uml.vmlinuz.parents[1])]
    done = ktlslab("guest", "run", uml.series, "--", "true", before=unshare, KTLSLAB_CACHE=str(tmp_path))
    assert done.returncode == 1
    assert re.search(r"may not be executed.*KTLSLAB_CACHE", done.stderr), done.stderr


def test_what_only_looks_takes_a_user_mode_kernel_or_says_why_not(uml, newest, tmp_path):
    code = "from ktlslab.guests import for_looking; print(for_looking().series); print(for_looking().series)"
    for numbers, series, warning in (
        ([], uml.series, ""),
        ([PTRACE, SECCOMP], newest.series, "no user-mode kernel, so"),
    ):
        cache = tmp_path / f"cache-{series}"
        cache.mkdir()
        for folder in ("kernels", "user-mode-kernels"):
            (cache / folder).symlink_to(cache_dir(folder))
        argv = [*denied(*numbers), sys.executable, "-c", code]
        env = {**os.environ, "KTLSLAB_CACHE": str(cache), "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=100, env=env)
        assert (done.returncode, done.stdout) == (0, f"{series}\n" * 2), done.stderr
        assert warning in done.stderr


def test_the_cache_is_not_written_to_by_a_boot(uml):
    place = cache_dir("user-mode-kernels")
    before = sorted((path, path.stat().st_mtime_ns) for path in place.rglob("*"))
    assert run(uml, ["true"]).returncode == 0
    assert sorted((path, path.stat().st_mtime_ns) for path in place.rglob("*")) == before
