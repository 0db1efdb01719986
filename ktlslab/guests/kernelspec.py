"""A Jupyter kernel "Python 3 (kTLS guest, newest)": ipykernel of this environment, inside a guest.

Only a kernelspec is written: a small JSON file whose metadata names the provisioner that boots the guest.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from ktlslab.guests.cache import storage
from ktlslab.packages import extra, require

PROVISIONER = "ktlslab-guest"


def name_of(kernel: str) -> str:
    """Return the kernelspec's name for a guest kernel."""
    return "ktlslab-" + re.sub(r"[^A-Za-z0-9._-]+", "-", kernel).strip("-")


def specification(kernel: str) -> dict[str, Any]:
    """Return the kernelspec's content."""
    return {
        "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": f"Python 3 (kTLS guest, {kernel})",
        "language": "python",
        "interrupt_mode": "message",  # a signal would end the guest
        "metadata": {"kernel_provisioner": {"provisioner_name": PROVISIONER, "config": {"kernel": kernel}}},
    }


def install(kernel: str = "newest", *, prefix: str | Path | None = None, user: bool = False) -> Path:
    """Write the kernelspec for a guest kernel and return its folder.

    It goes under `prefix`, or the user's own Jupyter folder, or (by default) the running environment, where only the
    Jupyter of that environment sees it.
    """
    require("lab", "ipykernel", "jupyter_client")
    if user:
        with extra("lab"):
            from jupyter_core.paths import jupyter_data_dir  # noqa: PLC0415 - only this branch needs Jupyter

        base = Path(jupyter_data_dir())
    else:
        base = Path(prefix or sys.prefix) / "share/jupyter"
    folder = base / "kernels" / name_of(kernel)
    with storage(f"writing the kernelspec {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "kernel.json").write_text(json.dumps(specification(kernel), indent=1) + "\n", encoding="utf-8")
    return folder
