"""The plugin that QEMU loads: where it is, and whether this QEMU takes plugins."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path

from ktlslab import profiling
from ktlslab.errors import GuestError
from ktlslab.guests import qemu

_TRIED = "profiling"
_FILE = "trace.plugin"
_SECONDS = 30.0


def option(folder: Path) -> str:
    """Return the value of QEMU's -plugin for traces into this folder. GuestError where this QEMU takes no plugins."""
    if not takes_plugins():
        answered = f"{qemu.emulator()} is built without plugins (it has no option -plugin)"
        remedy = "Install a QEMU that is built with --enable-plugins: Debian's and Fedora's are."
        raise GuestError(_TRIED, answered=answered, remedy=remedy)
    return f"{qemu.escaped(_file())},folder={qemu.escaped(folder)}"


def _file() -> Path:
    for folder in profiling.__path__:  # two of them where the package is installed editable
        if (found := Path(folder) / _FILE).exists():
            return found
    remedy = "Install ktlslab again: it is built with the package."
    raise GuestError(_TRIED, answered=f"the plugin for QEMU, {_FILE}, is missing", remedy=remedy)


@functools.cache
def takes_plugins() -> bool:
    argv = [qemu.program(), "--help"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=_SECONDS)
    return "\n-plugin " in done.stdout
