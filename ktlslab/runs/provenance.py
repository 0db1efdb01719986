"""Where a run's figures come from: what a reader needs to judge or repeat them."""

from __future__ import annotations

import datetime as dt
import gzip
import importlib.metadata
import importlib.util
import os
import platform
import re
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ktlslab.linux import cpu, interrupts
from ktlslab.linux.perf import HardwareCounters
from ktlslab.linux.ring import LIBURING
from ktlslab.runs import clocks
from ktlslab.tls.suites import Suite

if TYPE_CHECKING:
    from ktlslab.runs.job import Job

_PACKAGES = ("ktlslab", "pyopenssl", "cryptography", "cffi")
# The CPU flags that decide which implementation of a cipher runs: x86, then Arm.
_FLAGS = frozenset(
    [
        *("ssse3", "aes", "pclmulqdq", "avx", "avx2", "vaes", "vpclmulqdq", "avx512f", "avx512bw", "avx512vl", "bmi2"),
        *("sha_ni", "asimd", "pmull", "sha2"),
    ]
)
# Kernel parameters that change its speed. The rest of the command line is about the machine, not the run.
_WORDS = re.compile(
    r"(mitigations|nokaslr|norandmaps|noapictimer|nosmt|isolcpus|nohz_full|idle|preempt|tsc|clocksource|threadirqs|transparent_hugepage"
    r"|intel_pstate|amd_pstate|cpufreq\.\S+|processor\.\S+|no\w*pti|pti|spectre_v2|audit|psi|cryptomgr\.\S+)(=.*)?"
)
_OPTION = re.compile(
    r"^(?:# )?(CONFIG_(?:TLS\w*|IO_URING|HZ|PREEMPT(?:_(?:NONE|VOLUNTARY|LAZY|DYNAMIC|RT))?|IRQ_TIME_ACCOUNTING"
    r"|CRYPTO_(?:AES|AES_NI_INTEL|GCM|CCM|CTR|GHASH\w*|CHACHA20\w*|POLY1305\w*|ARIA\w*|SM4\w*|CRYPTD)))"
    r"(?:=(.*)| is not set)$",
    re.MULTILINE,
)
# What a job says about the host of a guest.
_OF_THE_HOST = ("host", "host_kernel", "host_python", "host_cpu", "host_load", "emulator")
_drivers: dict[str, str] = {}


def collect(job: Job, labels: dict[str, str]) -> dict[str, Any]:
    """Describe this machine and this run, as JSON can hold it."""
    from OpenSSL import SSL  # noqa: PLC0415 - only where something is measured

    uname = os.uname()
    return {
        **labels,
        **{name: getattr(job, name) for name in _OF_THE_HOST},
        "kernel_build": uname.version,
        "kernel_config": kernel_config(uname.release),
        "kernel_command_line": " ".join(filter(_WORDS.fullmatch, _read("/proc/cmdline").split())),
        "architecture": uname.machine,
        "cpu": cpu.model(),
        "cpu_flags": sorted(_FLAGS & set(_field("/proc/cpuinfo", "flags").split())),
        "cpus": os.cpu_count(),
        "smt": _read("/sys/devices/system/cpu/smt/control"),
        "memory_kib": int((_field("/proc/meminfo", "MemTotal") or "0").split()[0]),
        "emulated": is_emulated(),
        "emulated_cpu": emulated_cpu(),
        "mitigations": _by_name("/sys/devices/system/cpu/vulnerabilities/*"),
        "governor": _each("/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor"),
        "clock_source": _read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "cpu_clock_resolution_ns": clocks.resolution_ns(),
        "congestion_control": _read("/proc/sys/net/ipv4/tcp_congestion_control"),
        "crypto_drivers": crypto_drivers(),
        "hardware_counters": _hardware_counters(),
        "interrupt_time": _interrupt_time(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "python_build": " ".join((platform.python_compiler(), *platform.python_build())),
        "libc": _libc(),
        "liburing": LIBURING,
        "client_openssl": SSL.SSLeay_version(SSL.SSLEAY_VERSION).decode(),
        "peer_openssl": ssl.OPENSSL_VERSION,
        "packages": {name: importlib.metadata.version(name) for name in (*_PACKAGES, *_more(job.plan))},
        "commit": job.commit,
        "plan": job.plan,
        "started": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    }


def _more(plan: Any) -> tuple[str, ...]:
    """Return the packages that only this plan's arms use."""
    return ("rtls",) if "rustls" in str(plan) and importlib.util.find_spec("rtls") else ()


def is_emulated() -> bool:
    """Whether the CPU is software."""
    return "QEMU" in cpu.model()


def emulated_cpu() -> str:
    """Return the model and features of a guest's emulated CPU, as QEMU's option -cpu; "" on any other CPU."""
    from ktlslab.guests import qemu  # noqa: PLC0415 - the guest runs the code that started it

    return qemu.CPUS.get(cpu.model(), "")


def crypto_drivers(root: Path = Path("/")) -> dict[str, str]:
    """Return the kernel's driver for each AEAD: of those in /proc/crypto the one with the highest priority.

    A driver appears there when it is first needed. Source: Documentation/crypto/architecture.rst.
    """
    best: dict[str, tuple[int, str]] = {}
    for block in _read(root / "proc/crypto").split("\n\n"):
        entry = dict(line.split(":", 1) for line in block.splitlines() if ":" in line)
        entry = {name.strip(): value.strip() for name, value in entry.items()}
        if entry.get("type") == "aead" and entry.get("internal") != "yes":
            candidate = int(entry.get("priority", 0)), entry.get("driver", "?")
            best[entry["name"]] = max(best.get(entry["name"], (-1, "")), candidate)
    return {name: driver for name, (_, driver) in sorted(best.items())}


def driver_of(suite: str) -> str:
    """Return the kernel's driver for a suite (IANA name); "" where there is none, or it was not needed so far."""
    if not suite:
        return ""
    if suite not in _drivers:
        found = crypto_drivers().get(Suite[suite].cipher.kernel_algorithm, "")
        if not found:
            return ""
        _drivers[suite] = found
    return _drivers[suite]


def kernel_config(release: str, root: Path = Path("/")) -> dict[str, str]:
    """Return this kernel's relevant options, name -> value ("n": not set); {} where they are not available."""
    for path in _config_places(release, root):
        try:
            text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        except OSError:
            continue
        return {name: value or "n" for name, value in _OPTION.findall(text.decode(errors="replace"))}
    return {}


def _config_places(release: str, root: Path) -> list[Path]:
    modules = root / "lib/modules" / release
    places = [root / "proc/config.gz", modules / "config", root / "boot" / f"config-{release}"]
    # A guest mounts its modules from the unpacked kernel package, which has a boot/ as well.
    for line in _read(root / "proc/self/mountinfo").splitlines():
        source, target = line.split()[3:5]
        if target.endswith(f"/lib/modules/{release}") and len(Path(source).parents) > 3:
            places.append(root / source.lstrip("/") / "../../../boot" / f"config-{release}")
    return places


def _hardware_counters() -> list[str]:
    """Return the names of the hardware counters that this machine has."""
    with HardwareCounters() as counters:
        return [name for name, value in counters.read().items() if value == value]  # noqa: PLR0124 - not NaN


def _interrupt_time() -> dict[str, Any]:
    source = interrupts.source()
    if source is None:
        return {}
    return {"source": source.path, "resolution_ns": source.resolution_ns, "in_process_clocks": source.in_process_clocks}


def _libc() -> str:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except ValueError:
        return ""


def _by_name(pattern: str) -> dict[str, str]:
    return {path.name: _read(path) for path in sorted(Path("/").glob(pattern.lstrip("/")))}


def _each(pattern: str) -> str:
    """Return the distinct contents of these files."""
    return ", ".join(sorted({_read(path) for path in Path("/").glob(pattern.lstrip("/"))} - {""}))


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _field(path: str, name: str) -> str:
    lines = (line.partition(":") for line in _read(path).splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == name), "")
