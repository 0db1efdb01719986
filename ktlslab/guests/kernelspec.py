"""A Jupyter kernel "Python 3 (kTLS guest, newest)": ipykernel of this environment, inside a guest.

Installing it only writes a kernelspec, a small JSON file, and a setting of Jupyter's server. The kernelspec's metadata
names the provisioner that boots the guest. Its command boots the guest as well, for editors that ignore provisioners.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from ktlslab import _checks
from ktlslab.errors import UsageError
from ktlslab.guests import folders, kernelguest, qemu, usermode, usermodearchive
from ktlslab.guests.cache import storage
from ktlslab.guests.kernels import ALIASES, USER_MODE, find
from ktlslab.guests.looking import for_looking
from ktlslab.packages import extra, require

_TRIED = "writing a kernelspec"

PROVISIONER = "ktlslab-guest"
# Jupyter's server, which answers at once where a kernel takes seconds to start. Without it JupyterLab drops what is
# executed in a notebook whose kernel is starting; with it the cell waits, as `[*]`.
SERVER = {"MultiKernelManager": {"use_pending_kernels": True}}
AUTO = "auto"


def name_of(kernel: str) -> str:
    """Return the kernelspec's name for a guest kernel."""
    return "ktlslab-" + re.sub(r"[^A-Za-z0-9._-]+", "-", kernel).strip("-")


def specification(kernel: str, *, clock: str, memory: str, rw: str, shown: str = "") -> dict[str, Any]:
    """Return the kernelspec's content; `shown` is the name in Jupyter's menu."""
    config = {"kernel": kernel, "clock": clock, "memory": memory, "rw": rw}
    return {
        "argv": kernelguest.command(**config),
        "display_name": shown or f"Python 3 (kTLS guest, {kernel})",
        "language": "python",
        "interrupt_mode": "message",  # a signal would end the guest
        "metadata": {"kernel_provisioner": {"provisioner_name": PROVISIONER, "config": config}},
    }


def install(
    kernel: str | Path = AUTO,
    *,
    rw: str | Path | None = None,
    memory: str = "1G",
    clock: str = "wall",
    prefix: str | Path | None = None,
    user: bool = False,
) -> Path:
    """Write the kernelspec for a guest kernel and return its folder. The kernel is fetched if it is not cached.

    `kernel`: by default a user-mode one, if this machine can run it and instructions are not to be counted.
    `rw` is the only folder whose writes are kept; None means the folder where JupyterLab is started. `memory` is the
    guest's: "512M", "2G", etc. The kernelspec goes into `prefix`, the user's own Jupyter folder, or (by default) the
    running environment, where only the Jupyter of that environment sees it; beside it goes a setting of Jupyter's
    server, not to wait while a kernel starts.
    Raises UsageError, KernelUnavailableError, StorageError.
    """
    require("lab", "ipykernel", "jupyter_client")
    _checks.word(_TRIED, "clock", clock, qemu.CLOCKS)
    qemu.memory_bytes(memory)
    kept = str(folders.writable(_TRIED, "rw", rw)) if rw is not None else ""
    if kernel == AUTO:
        kernel = USER_MODE if clock == "wall" and for_looking(network=True).user_mode else "newest"
    found = find(kernel)
    name = str(kernel) if kernel in (*ALIASES, found.series) else str(found.vmlinuz)
    shown = ""
    if found.user_mode:
        usermode.check(clock=clock, network=True)
        shown = f"Linux {found.series.removeprefix(usermodearchive.PREFIX)} with kTLS (user mode)"
    folder = _kernelspecs(prefix, user=user) / name_of(name)
    text = json.dumps(specification(name, clock=clock, memory=memory, rw=kept, shown=shown), indent=1) + "\n"
    server = _server_config(prefix, user=user)
    with storage(f"writing the kernelspec {folder}"):
        for path in (folder, server.parent):
            path.mkdir(parents=True, exist_ok=True)
        (folder / "kernel.json").write_text(text, encoding="utf-8")
        server.write_text(json.dumps(SERVER) + "\n", encoding="utf-8")
    return folder


def installed(*, prefix: str | Path | None = None, user: bool = False) -> dict[str, Path]:
    """Return the guests' kernelspecs in a place (see `install`): guest kernel -> folder."""
    found = {}
    for path in sorted(_kernelspecs(prefix, user=user).glob("*/kernel.json")):
        try:
            provisioner = json.loads(path.read_text(encoding="utf-8"))["metadata"]["kernel_provisioner"]
            if provisioner["provisioner_name"] == PROVISIONER:
                found[str(provisioner["config"]["kernel"])] = path.parent
        except (OSError, ValueError, LookupError, TypeError):
            continue  # another kernel's
    return found


def remove(kernel: str | Path | None = None, *, prefix: str | Path | None = None, user: bool = False) -> list[Path]:
    """Remove the kernelspec of a guest kernel, or all of them, from a place (see `install`).

    Returns the removed folders. Raises UsageError, which lists the installed ones, if there is nothing to remove.
    """
    have = installed(prefix=prefix, user=user)
    wanted = list(have) if kernel is None else [str(kernel)]
    missing = [name for name in wanted if name not in have]
    if missing or not wanted:
        place = _kernelspecs(prefix, user=user)
        tried = f"removing {'the kernelspec of ' + missing[0] if missing else 'kernelspecs'} from {place}"
        remedy = "Say --user for the user's own, and see `jupyter kernelspec list`."
        raise UsageError(tried, answered=f"installed there: {', '.join(have) or 'none'}", remedy=remedy)
    for name in wanted:
        with storage(f"removing the kernelspec {have[name]}"):
            shutil.rmtree(have[name])
            if len(wanted) == len(have):
                _server_config(prefix, user=user).unlink(missing_ok=True)
    return [have[name] for name in wanted]


def _server_config(prefix: str | Path | None, *, user: bool) -> Path:
    """Return the file that configures Jupyter's server for the kernelspecs in a place."""
    if user:
        with extra("lab"):
            from jupyter_core.paths import jupyter_config_dir  # noqa: PLC0415 - only this branch needs Jupyter

        folder = Path(jupyter_config_dir())
    else:
        folder = Path(prefix or sys.prefix) / "etc/jupyter"
    return folder / "jupyter_server_config.d" / "ktlslab.json"


def _kernelspecs(prefix: str | Path | None, *, user: bool) -> Path:
    """Return the folder of the kernelspecs in a place."""
    if user:
        with extra("lab"):
            from jupyter_core.paths import jupyter_data_dir  # noqa: PLC0415 - only this branch needs Jupyter

        return Path(jupyter_data_dir()) / "kernels"
    return Path(prefix or sys.prefix) / "share/jupyter/kernels"
