"""Everything that can go wrong, as one tree.

Each error is raised with three things that a reader needs and that its message always carries, in this order: what was
tried, what the kernel or the peer answered, and what to do about it. The branches say who can act: `UsageError` is the
caller's to mend, `MachineError` this machine's (a module, a package, a permission, a full disk), `PeerError` the other
end's. A refusal by the kernel to take over a session is none of these: it is an answer (`ktlslab.stages.Refused`).
"""

from __future__ import annotations

import errno as _errno
import os
from enum import Enum


def errno_name(number: int) -> str:
    """Return errno by name with the C library's words, e.g. ``ENOENT (No such file or directory)``."""
    return f"{_errno.errorcode.get(number, f'errno {number}')} ({os.strerror(number)})"


class KtlsLabError(Exception):
    """The root. `tried`, `answered` and `remedy` are the three parts of the message."""

    def __init__(self, tried: str, *, answered: str = "", remedy: str = "") -> None:
        self.tried = tried
        self.answered = answered
        self.remedy = remedy
        message = f"{tried}: {answered}" if answered else tried
        super().__init__(f"{message}. {remedy}" if remedy else message)

    def _render_traceback_(self) -> list[str]:
        """Return what IPython prints in place of a traceback (its protocol for exceptions)."""
        from ktlslab._traceback import lines  # noqa: PLC0415 - only in a notebook

        return lines(self)


class UsageError(KtlsLabError):
    """An argument that makes no sense, or a call at the wrong time."""


class MachineError(KtlsLabError):
    """This machine lacks something, or refuses it."""


class MissingExtraError(MachineError, ImportError):
    """A library that only an extra of ktlslab brings is not installed; an ImportError as well."""


class RingUnavailableError(MachineError):
    """io_uring is missing, switched off, or blocked by a container's seccomp filter; `errno` is the kernel's answer."""

    def __init__(self, tried: str, *, errno: int = 0, answered: str = "", remedy: str = "") -> None:
        self.errno = errno
        super().__init__(tried, answered=answered or (errno_name(errno) if errno else ""), remedy=remedy)


class RecordLayerUnavailableError(MachineError):
    """The kernel did not take over, and it was a demand that it does.

    `why` is the reason, a `ktlslab.stages.Why`; `refused` the kernel's own answer, a `ktlslab.stages.Refused`, or None
    where it was not asked.
    """

    def __init__(self, tried: str, *, why: Enum, refused: object = None, answered: str = "", remedy: str = "") -> None:
        self.why = why
        self.refused = refused
        super().__init__(tried, answered=answered, remedy=remedy)


class SuiteUnsupportedError(MachineError):
    """The kernel has no type for what was negotiated, so there is nothing to export: use userspace TLS."""


class GuestError(MachineError):
    """A guest could not be started or ended badly; the console's tail is in the message."""


class KernelUnavailableError(MachineError):
    """A guest kernel that was asked for is not available; the message lists those that are."""


class StorageError(MachineError):
    """A table or journal could not be written; what had been measured before is kept."""


class TableError(KtlsLabError):
    """A table that is not one of ours, or does not fit the plan it is to be continued with."""


class PeerError(KtlsLabError):
    """The other end, or the way to it."""


class UnknownHostError(PeerError):
    """The name did not resolve."""


class ConnectError(PeerError):
    """No TCP connection: refused, unreachable, reset."""


class PeerTimeoutError(PeerError):
    """The peer did not answer within the bound that every wait has."""


class HandshakeError(PeerError):
    """The TLS handshake failed for a reason other than the certificate."""


class NotTlsError(HandshakeError):
    """What answered does not speak TLS."""


class CertificateError(HandshakeError):
    """The peer's certificate or name was not accepted."""


class StreamError(PeerError):
    """The session broke after the handshake."""


class TruncatedError(StreamError):
    """The stream ended without close_notify: bytes may be missing (RFC 8446, section 6.1)."""


class AlertError(StreamError):
    """The peer sent a fatal alert; `alert` is its description."""

    def __init__(self, tried: str, *, alert: str, answered: str = "", remedy: str = "") -> None:
        self.alert = alert
        super().__init__(tried, answered=answered, remedy=remedy)


class KeyUpdateError(StreamError):
    """New keys cannot be agreed on: by this kernel, this version of TLS, or this library."""


class StreamClosedError(StreamError):
    """Sending after this end closed the stream, or after the peer was known to be gone."""
