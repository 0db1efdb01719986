"""Which kind of kernel the tests of tests/kernel run on."""

from __future__ import annotations

from pathlib import Path

USER_MODE = "User Mode Linux" in Path("/proc/cpuinfo").read_text(encoding="ascii")  # or on an emulated, far slower CPU
