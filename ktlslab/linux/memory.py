"""How much memory this process and this machine use. Source: proc_pid_smaps(5), proc_meminfo(5)."""

from __future__ import annotations

from pathlib import Path

_SMAPS = Path("/proc/self/smaps_rollup")
_MEMINFO = Path("/proc/meminfo")


def own_bytes() -> int:
    """Return this process's anonymous memory: what it has allocated and written to, without programs and files."""
    return _kib(_SMAPS, "Anonymous") * 1024


def available_bytes() -> int:
    """Return how much memory this machine can still give to programs without swapping."""
    return _kib(_MEMINFO, "MemAvailable") * 1024


def kernel_bytes() -> int:
    """Return how much memory the kernel's own objects take: sockets, their TLS contexts, ciphers' keys."""
    return _kib(_MEMINFO, "Slab") * 1024


def _kib(path: Path, name: str) -> int:
    for line in path.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    return 0
