"""Where a run's figures come from: all that a reader needs to judge or repeat them."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import os
import platform
import ssl
from pathlib import Path
from typing import Any

_PACKAGES = ("ktlslab", "pyopenssl", "cryptography", "cffi")


def collect(job: dict[str, Any], labels: dict[str, str]) -> dict[str, Any]:
    """Describe this machine and this run, as JSON can hold it."""
    from OpenSSL import SSL  # noqa: PLC0415 - only where something is measured

    uname = os.uname()
    return {
        **labels,
        "kernel_build": uname.version,
        "architecture": uname.machine,
        "cpu": _field("/proc/cpuinfo", "model name"),
        "cpus": os.cpu_count(),
        "emulated": os.environ.get("KTLSLAB_ACCELERATOR", "") == "tcg"
        or "QEMU" in _field("/proc/cpuinfo", "model name"),
        "mitigations": _read("/sys/devices/system/cpu/vulnerabilities/spectre_v2"),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "clock_source": _read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "crypto_drivers": crypto_drivers(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "client_openssl": SSL.SSLeay_version(SSL.SSLEAY_VERSION).decode(),
        "peer_openssl": ssl.OPENSSL_VERSION,
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "commit": job.get("commit", ""),
        "host": job.get("host", {}),
        "plan": job["plan"],
        "started": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    }


def crypto_drivers() -> dict[str, str]:
    """Return the kernel's driver for each AEAD that kTLS uses: of those in /proc/crypto the one of highest priority."""
    best: dict[str, tuple[int, str]] = {}
    for block in _read("/proc/crypto").split("\n\n"):
        entry = dict(line.split(":", 1) for line in block.splitlines() if ":" in line)
        entry = {name.strip(): value.strip() for name, value in entry.items()}
        if entry.get("type") == "aead":
            candidate = int(entry.get("priority", 0)), entry.get("driver", "?")
            best[entry["name"]] = max(best.get(entry["name"], (-1, "")), candidate)
    return {name: driver for name, (_, driver) in sorted(best.items())}


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _field(path: str, name: str) -> str:
    lines = (line.partition(":") for line in _read(path).splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == name), "")
