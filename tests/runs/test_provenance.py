"""A run's provenance, read from files as kernels write them."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
import time

import pytest

from ktlslab.runs import provenance, unusual
from ktlslab.runs.job import Job
from ktlslab.runs.provenance import collect, crypto_drivers, driver_of, kernel_config
from ktlslab.runs.unusual import Unusual

RELEASE = "7.3.4-test"
CONFIG = """# Linux/x86 7.3.4 Kernel Configuration
CONFIG_TLS=m
CONFIG_TLS_DEVICE=y
# CONFIG_TLS_TOE is not set
CONFIG_CRYPTO_GCM=m
# CONFIG_CRYPTO_ARIA is not set
CONFIG_HZ=250
CONFIG_NTFS_FS=y
# CONFIG_TLS_ is a comment
"""
READ = {
    "CONFIG_TLS": "m",
    "CONFIG_TLS_DEVICE": "y",
    "CONFIG_TLS_TOE": "n",
    "CONFIG_CRYPTO_GCM": "m",
    "CONFIG_CRYPTO_ARIA": "n",
    "CONFIG_HZ": "250",
}
CRYPTO = """
name         : __gcm(aes)
driver       : cryptd(__generic-gcm-aesni)
priority     : 900
internal     : yes
type         : aead

name         : gcm(aes)
driver       : gcm_base(ctr(aes-generic),ghash-generic)
priority     : 100
internal     : no
type         : aead

name         : gcm(aes)
driver       : generic-gcm-aesni
priority     : 400
internal     : no
type         : aead

name         : rfc7539(chacha20,poly1305)
driver       : rfc7539(chacha20-simd,poly1305-simd)
priority     : 300
type         : aead

name         : sha256
driver       : sha256-ni
priority     : 250
type         : shash
"""
KEPT = {
    *("run_id", "kernel_build", "architecture", "cpu", "cpus", "emulated", "mitigations", "governor", "clock_source"),
    *(
        "crypto_drivers",
        "load",
        "python",
        "client_openssl",
        "peer_openssl",
        "packages",
        "commit",
        "host",
        "plan",
        "started",
    ),
}


@pytest.fixture
def root(tmp_path):
    """root({path: content}) -> a folder with these files."""

    def make(files):
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path

    return make


def test_it_holds_what_readers_rely_on_and_is_json():
    job = Job(run_id="r", machine="here", plan={"name": "p"}, commit="abc", host="h", host_kernel="6.18")
    found = json.loads(json.dumps(collect(job, {"run_id": "r"})))
    assert set(found) >= KEPT | {"kernel_config", "cpu_flags", "hardware_counters", "interrupt_time", "host_kernel"}
    assert (found["host"], found["commit"], found["run_id"]) == ("h", "abc", "r")
    assert (found["emulated"], found["emulated_cpu"]) == (False, "")
    assert found["mitigations"]["spectre_v2"]
    assert found["interrupt_time"]["resolution_ns"] > 0
    assert found["packages"]["ktlslab"]
    assert re.fullmatch(r"\d+\.\d+", found["liburing"])


def test_the_kernels_command_line_is_told_only_where_it_changes_speed(monkeypatch):
    line = "BOOT_IMAGE=/vmlinuz root=/dev/sda1 mitigations=off nosmt secret=1 isolcpus=2-3 quiet"
    read = provenance._read
    monkeypatch.setattr(provenance, "_read", lambda path: line if path == "/proc/cmdline" else read(path))
    found = collect(Job(run_id="r", machine="here", plan={}), {})
    assert found["kernel_command_line"] == "mitigations=off nosmt isolcpus=2-3"


@pytest.mark.parametrize(
    "files",
    [
        {"proc/config.gz": gzip.compress(CONFIG.encode())},
        {f"lib/modules/{RELEASE}/config": CONFIG},
        {f"boot/config-{RELEASE}": CONFIG},
        {
            "proc/self/mountinfo": "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
            f"32 26 0:22 /cache/6.1/lib/modules/{RELEASE} /usr/lib/modules/{RELEASE} rw - overlay overlay rw\n",
            f"cache/6.1/lib/modules/{RELEASE}/modules.dep": "",
            f"cache/6.1/boot/config-{RELEASE}": CONFIG,
        },
    ],
    ids=["built in", "with the modules", "in boot", "beside where a guest's modules come from"],
)
def test_the_kernels_configuration_is_found(root, files):
    assert kernel_config(RELEASE, root(files)) == READ


def test_a_kernel_that_tells_none_has_none(root):
    assert kernel_config(RELEASE, root({"boot/config-other": CONFIG})) == {}


def test_the_driver_is_the_one_of_highest_priority_that_is_not_internal(root):
    drivers = crypto_drivers(root({"proc/crypto": CRYPTO}))
    assert drivers == {
        "gcm(aes)": "generic-gcm-aesni",
        "rfc7539(chacha20,poly1305)": "rfc7539(chacha20-simd,poly1305-simd)",
    }


def test_a_suites_driver_is_looked_up_until_there_is_one(root, monkeypatch):
    monkeypatch.setattr(provenance, "_drivers", {})
    drivers = {}
    monkeypatch.setattr(provenance, "crypto_drivers", lambda: drivers)
    assert driver_of("TLS_AES_256_GCM_SHA384") == ""
    drivers |= crypto_drivers(root({"proc/crypto": CRYPTO}))
    assert driver_of("TLS_AES_256_GCM_SHA384") == "generic-gcm-aesni"
    assert driver_of("TLS_CHACHA20_POLY1305_SHA256") == "rfc7539(chacha20-simd,poly1305-simd)"
    assert driver_of("TLS_AES_128_CCM_SHA256") == ""
    assert driver_of("") == ""


# What was unusual

STEADY = {"steady": True, "client_cpu": 1.0, "peer_cpu": 1.0}


def machine(*, busy=0, steal=0, megahertz=2000, throttled=0, source="tsc", control="cubic", cpu="A CPU"):
    tick = os.sysconf("SC_CLK_TCK")
    return {
        "proc/stat": f"cpu  {1000 + busy * tick:.0f} 0 0 5 5 0 0 {steal * tick:.0f} 0 0\ncpu0 1 2 3\n",
        "proc/cpuinfo": f"model name\t: {cpu}\ncpu MHz\t\t: {megahertz}\n",
        "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": str(throttled),
        "sys/devices/system/clocksource/clocksource0/current_clocksource": source,
        "proc/sys/net/ipv4/tcp_congestion_control": control,
    }


@pytest.fixture
def notes(root, monkeypatch):
    """notes(job, rows, **what changed) -> the notes on a run of ten seconds in which our processes used no CPU."""
    monkeypatch.setattr(unusual, "_cpu_of_ours", lambda: 0)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def tell(job=(), rows=(), **after):
        seen = Unusual(
            **dict(job), root=root(machine(**{name: after[name] for name in ("source", "cpu") if name in after}))
        )
        for row in rows:
            seen.take(row)
        now[0] += 10
        root(machine(**after))
        return seen.notes()

    return tell


def test_a_quiet_machine_gives_no_note(notes):
    assert notes(rows=[STEADY] * 10, busy=0.5, steal=0.1, megahertz=2010) == []


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ({"busy": 15}, "Other processes kept 1.5 of 2 CPUs busy on average."),
        ({"steal": 1}, "The hypervisor kept 5% of the CPU time for itself (steal)."),
        ({"megahertz": 1000}, "The CPUs' frequency went from 2000 to 1000 MHz."),
        ({"throttled": 3}, "The CPUs were throttled 3 times because they were hot."),
        ({"source": "hpet"}, "Time was read from hpet, a slow and coarse clock."),
        ({"control": "bbr"}, "TCP's congestion control was bbr; where it paces, packets wait for a timer."),
        ({"cpu": "QEMU"}, "The CPU was emulated in software: its nanoseconds say nothing about a real one."),
        (
            {"job": {"waited": "waiting for process 7 (/a/lock)"}},
            "Another measurement came first: waiting for process 7.",
        ),
        (
            {"rows": [STEADY | {"steady": False}, *[STEADY] * 9]},
            "1 of 10 samples began before their warm-up was steady.",
        ),
    ],
)
def test_each_thing_that_is_not_as_it_should_be_is_said(notes, what, said):
    assert notes(**what) == [said]


def test_under_the_instruction_clock_only_a_delay_is_worth_a_word(notes, monkeypatch):
    monkeypatch.setenv("KTLSLAB_CLOCK", "instructions")
    assert notes(cpu="QEMU") == []
    (said,) = notes({"links": ["loopback", "veth 1ms"]}, cpu="QEMU")
    assert said == "On a link with a delay, latencies include idle time, counted as instructions."


def test_what_our_own_processes_use_is_known_with_their_children():
    """The CPU is used by a running grandchild and by a child that ended."""
    burn = "import time\nwhile time.process_time() < 0.5: pass\n"
    before = unusual._cpu_of_ours()
    subprocess.run([sys.executable, "-c", burn], check=True, timeout=60)
    ended = unusual._cpu_of_ours()
    hold = burn + "print(flush=True)\ninput()\n"
    outer = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {hold!r}])\n"
    argv = [sys.executable, "-c", outer]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        alive = unusual._cpu_of_ours()
        process.communicate(b"\n", timeout=60)
    half = 0.5 * os.sysconf("SC_CLK_TCK")
    assert half * 0.9 <= ended - before < half * 3
    assert half * 0.9 <= alive - ended < half * 3
