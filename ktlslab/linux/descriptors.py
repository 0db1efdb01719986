"""How many files a process may have open: one per connection. Source: getrlimit(2)."""

from __future__ import annotations

import resource
from pathlib import Path

from ktlslab.errors import MachineError

_OTHERS = 256  # what a process has open in addition
_MAX = 1 << 20  # fs.nr_open, which is a machine's limit, unless someone changed it
REMEDY = "Raise the hard limit (`ulimit -Hn`), or measure in a guest, where there is no such limit: `--on newest`."


def possible() -> int:
    """Return how many connections a process may have open, once it has raised its limit."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return (_MAX if _privileged() or hard == resource.RLIM_INFINITY else hard) - _OTHERS


def allow(connections: int) -> None:
    """Let this process have so many connections open. MachineError: the hard limit is lower."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHERS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))
        except (ValueError, OSError) as error:
            tried = f"opening {connections} connections"
            raise MachineError(tried, answered=f"a process may open {hard} files", remedy=REMEDY) from error


def _privileged() -> bool:
    """Whether this process may raise its hard limit: it has CAP_SYS_RESOURCE (capabilities(7))."""
    status = Path("/proc/self/status").read_text().splitlines()
    effective = next(line.split()[1] for line in status if line.startswith("CapEff:"))
    return bool(int(effective, 16) & 1 << 24)
