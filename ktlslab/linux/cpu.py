"""The CPU as the kernel describes it: /proc/cpuinfo, proc_cpuinfo(5)."""

from __future__ import annotations

from pathlib import Path

USER_MODE = "UML"  # what a user-mode kernel calls its CPU


def model() -> str:
    """Return the CPU's model name, "" where the kernel does not tell."""
    try:
        lines = (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
    except OSError:
        return ""
    return next((value.strip() for key, _, value in lines if key.strip() == "model name"), "")


def is_user_mode() -> bool:
    """Whether this kernel is a user-mode one, a program of another machine."""
    return model() == USER_MODE
