"""The kernel's own account of kTLS: /proc/net/tls_stat of this thread's network namespace, before and after.

The counters belong to the network namespace: every kTLS user in it moves them. Nothing else tells so plainly which
record layer did the work. Source: Documentation/networking/tls.rst, "Statistics".
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

TLS_STAT = Path("/proc/thread-self/net/tls_stat")  # a thread may be in a network namespace of its own


@dataclass(frozen=True, slots=True)
class Counters:
    """Values by the kernel's names; a kernel without the tls module has none. `after - before` is a difference."""

    values: dict[str, int]

    @classmethod
    def read(cls) -> Counters:
        try:
            lines = TLS_STAT.read_text().split("\n")
        except FileNotFoundError:
            return cls({})
        return cls({name: int(value) for name, value in (line.split() for line in lines if line)})

    def __getitem__(self, name: str) -> int:
        """Return a counter's value, 0 where this kernel does not count it."""
        return self.values.get(name, 0)

    def __sub__(self, before: Counters) -> Counters:
        """Return what changed, and only that."""
        changed = {name: value - before[name] for name, value in self.values.items()}
        return Counters({name: value for name, value in changed.items() if value})
