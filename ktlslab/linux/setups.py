"""Setting up an io_uring: which flags this kernel takes, and why it may refuse. Source: io_uring_setup(2)."""

from __future__ import annotations

import errno
from typing import Any

from ktlslab import _checks
from ktlslab.errors import RingUnavailableError
from ktlslab.linux import _native

ffi, lib = _native.ffi, _native.lib

_MAX_ENTRIES = 1 << 15
# Completions without an interrupt to this thread; a kernel that does not know the flag is asked again without it.
_PLAIN: tuple[int, ...] = (lib.IORING_SETUP_COOP_TASKRUN, 0)
# A kernel thread takes what is submitted. It goes to sleep after a second of nothing, the kernel's own default.
_SQPOLL: tuple[int, ...] = (lib.IORING_SETUP_SQPOLL,)
# Completions only when asked for; whether some wait to be asked for shows in a flag.
_DEFERRED: tuple[int, ...] = (
    lib.IORING_SETUP_SINGLE_ISSUER | lib.IORING_SETUP_DEFER_TASKRUN | lib.IORING_SETUP_TASKRUN_FLAG,
)


def open_ring(entries: int, *, sqpoll: bool, defer_taskrun: bool) -> Any:
    """Return the C part's ring. UsageError, or RingUnavailableError, which says why there is none."""
    tried = "setting up an io_uring"
    _checks.whole(tried, "entries", entries, 1, _MAX_ENTRIES)
    _checks.instance(tried, "sqpoll", sqpoll, bool)
    _checks.instance(tried, "defer_taskrun", defer_taskrun, bool)
    error = ffi.new("int *")
    for flags in _setups(sqpoll=sqpoll, defer_taskrun=defer_taskrun):
        ring = lib.kl_ring_open(entries, flags, error)
        if ring or error[0] != -errno.EINVAL:
            break
    if not ring:
        raise _unavailable(-error[0], sqpoll=sqpoll, defer_taskrun=defer_taskrun)
    return ring


def _setups(*, sqpoll: bool, defer_taskrun: bool) -> tuple[int, ...]:
    """Return the flags to try, one after the other where the kernel does not know them."""
    if sqpoll and defer_taskrun:
        return (_SQPOLL[0] | _DEFERRED[0],)
    return _SQPOLL if sqpoll else _DEFERRED if defer_taskrun else _PLAIN


def _unavailable(number: int, *, sqpoll: bool, defer_taskrun: bool) -> RingUnavailableError:
    remedies = {
        errno.ENOSYS: "This kernel has no io_uring (5.1 is the first with it), or a seccomp filter hides it; "
        "in a container allow the io_uring system calls, else use io_engine='syscall'.",
        errno.EPERM: "`sysctl kernel.io_uring_disabled` must be 0 (2 forbids it, 1 leaves it to a group); in a "
        "container the seccomp profile must allow io_uring_setup. Else use io_engine='syscall'.",
        errno.ENOMEM: "The locked memory limit is too small: raise `ulimit -l`.",
        errno.EMFILE: "Too many open files: close some, or raise `ulimit -n`.",
    }
    remedy = remedies.get(number, "Use io_engine='syscall' instead.")
    asked = [name for name, on in (("sqpoll", sqpoll), ("defer_taskrun", defer_taskrun)) if on]
    if asked and number in {errno.EINVAL, errno.EPERM}:
        remedy = f"This kernel may not offer {' with '.join(asked)}: leave it out. {remedy}"
    tried = f"setting up an io_uring{' with ' * bool(asked)}{' and '.join(asked)}"
    return RingUnavailableError(tried, errno=number, remedy=remedy)
