"""The kernel's kTLS counters: /proc/net/tls_stat of this thread's network namespace.

They show which record layer did the work. Every kTLS user in the network namespace changes them. Source:
Documentation/networking/tls.rst, "Statistics".
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

TLS_STAT = Path("/proc/thread-self/net/tls_stat")  # a thread may have its own network namespace


@dataclass(frozen=True, slots=True)
class Counters:
    """Values by the kernel's names; empty without the tls module. `after - before` is the difference."""

    values: dict[str, int]

    @classmethod
    def read(cls) -> Counters:
        try:
            lines = TLS_STAT.read_text().split("\n")
        except FileNotFoundError:
            return cls({})
        return cls({name: int(value) for name, value in (line.split() for line in lines if line)})

    def __getitem__(self, name: str) -> int:
        """Return a counter's value, 0 if this kernel does not have it."""
        return self.values.get(name, 0)

    def __sub__(self, before: Counters) -> Counters:
        """Return the counters that changed, and by how much."""
        changed = {name: value - before[name] for name, value in self.values.items()}
        return Counters({name: value for name, value in changed.items() if value})

    def _repr_html_(self) -> str:
        from ktlslab._html import card  # noqa: PLC0415 - only in a notebook

        return card("Counters of kTLS", list(self.values.items()) or [("none", "no tls module, or nothing changed")])
