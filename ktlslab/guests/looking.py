"""The kernel for looking, where no figure is wanted: a user-mode one, which is up at once, if this machine can run it.

Some cannot: a container may forbid ptrace, or have no room for a guest's memory. So there is a trial, which is not
repeated after it succeeded, until the machine restarts.
"""

from __future__ import annotations

import logging

from ktlslab.errors import MachineError
from ktlslab.guests import usermode
from ktlslab.guests.acceleration import once
from ktlslab.guests.guest import run
from ktlslab.guests.kernels import Kernel, fetch

TRIAL_SECONDS = 30.0  # a second or two on an idle machine
_LOG = logging.getLogger(__name__)


def for_looking(*, network: bool = False) -> Kernel:
    """Return the newest user-mode kernel if it can be fetched and boots here, else the newest for an emulated CPU.

    `network`: one that can reach this machine, as a Jupyter kernel must. A warning says why it is the second. Raises
    KernelUnavailableError, StorageError if neither can be fetched.
    """
    try:
        if network:
            usermode.check_network()
        kernel = fetch("uml")
        once(kernel, lambda: _trial(kernel))
    except MachineError as error:
        _LOG.warning("ktlslab: no user-mode kernel, so an emulated one is taken: %s", error)
        return fetch("newest")
    return kernel


def _trial(kernel: Kernel) -> str:
    """Boot it once. GuestError if it does not come up."""
    return f"`true` ended with {run(kernel, ['true'], boot_timeout=TRIAL_SECONDS, timeout=TRIAL_SECONDS).returncode}"
