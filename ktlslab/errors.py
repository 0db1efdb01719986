"""All errors of ktlslab, as one tree.

A message says, in this order, what was tried, what the kernel or the peer answered, and what to do about it. The branch
says where the cause lies: in the call (`UsageError`), in this machine (`MachineError`: a module, a package, a
permission, a full disk), or at the other end (`PeerError`). A kernel that refuses to take over a session is none of
these: the refusal is a result (`ktlslab.stages.Refused`).
"""

from __future__ import annotations

import errno as _errno
import os
from enum import Enum


def errno_name(number: int) -> str:
    """Return the name of an errno with the C library's description, e.g. ``ENOENT (No such file or directory)``."""
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
    """An invalid argument, or a call at the wrong time."""


class UrlError(UsageError):
    """Not a URL, or one whose form is wrong."""


class SchemeError(UrlError):
    """A URL of another scheme than https, also one that a server redirects to."""


class UnreadableError(UsageError):
    """A file that is to be sent cannot be read."""


class MachineError(KtlsLabError):
    """This machine lacks something, or refuses it."""


class MissingExtraError(MachineError, ImportError):
    """A library that an extra of ktlslab installs is missing. This is an ImportError as well."""


class ProxyError(MachineError):
    """A proxy is demanded, by an option or a variable of the environment; ktlslab speaks to servers directly."""


class RingUnavailableError(MachineError):
    """io_uring is missing, switched off, or blocked by a container's seccomp filter; `errno` is the kernel's answer."""

    def __init__(self, tried: str, *, errno: int = 0, answered: str = "", remedy: str = "") -> None:
        self.errno = errno
        super().__init__(tried, answered=answered or (errno_name(errno) if errno else ""), remedy=remedy)


class RecordLayerUnavailableError(MachineError):
    """The kernel did not take over a session that required it.

    `why` is the reason, a `ktlslab.stages.Why`. `refused` is the kernel's answer, a `ktlslab.stages.Refused`, or None
    if the kernel was not asked.
    """

    def __init__(self, tried: str, *, why: Enum, refused: object = None, answered: str = "", remedy: str = "") -> None:
        self.why = why
        self.refused = refused
        super().__init__(tried, answered=answered, remedy=remedy)


class SuiteUnsupportedError(MachineError):
    """The kernel has no cipher type for the negotiated suite, so there is nothing to export: use userspace TLS."""


class GuestError(MachineError):
    """A guest did not start, or failed; the message holds the end of its console."""


class KernelUnavailableError(MachineError):
    """The requested guest kernel is not available; the message lists those that are."""


class StoppedError(KtlsLabError, KeyboardInterrupt):
    """A sweep was interrupted or told to stop. `samples` of `output` are in its journal, in complete blocks.

    This is a KeyboardInterrupt as well. IPython shows it in one line: nothing went wrong.
    """

    def __init__(self, tried: str, *, output: str, samples: int, answered: str = "", remedy: str = "") -> None:
        self.output = output
        self.samples = samples
        super().__init__(tried, answered=answered, remedy=remedy)

    def _render_traceback_(self) -> list[str]:
        return [f"{self.answered[:1].upper()}{self.answered[1:]}. {self.remedy}"]


class StorageError(MachineError):
    """A table or journal could not be written; earlier measurements are kept."""


class TableError(KtlsLabError):
    """The table was not written by ktlslab, or does not match the plan that should continue it."""


class PeerError(KtlsLabError):
    """The other end failed, or the network path to it."""


class UnknownHostError(PeerError):
    """The name did not resolve."""


class ConnectError(PeerError):
    """No TCP connection: refused, unreachable, reset."""


class PeerTimeoutError(PeerError):
    """The peer did not answer in time. Every wait has a bound."""


class HandshakeError(PeerError):
    """The TLS handshake failed for a reason other than the certificate."""


class NotTlsError(HandshakeError):
    """The peer does not speak TLS."""


class CertificateError(HandshakeError):
    """The peer's certificate or name was not accepted."""


class StreamError(PeerError):
    """The session broke after the handshake."""


class HttpError(StreamError):
    """The server's answer is not HTTP, or breaks its rules."""


class Http2Error(HttpError):
    """HTTP/2: the server breaks the rules for frames, floods, or ends the connection because of an error."""


class StreamResetError(Http2Error):
    """HTTP/2: the server reset the stream of this request, or has not begun with it and will not."""


class NoAnswerError(HttpError):
    """The server ended the connection before the first byte of an answer."""


class IncompleteError(HttpError):
    """The body ended before it was whole."""


class RedirectError(HttpError):
    """Too many redirects, or one that cannot be followed."""


class RangeError(HttpError):
    """The server did not send the range of bytes that was asked for."""


class TruncatedError(StreamError):
    """The stream ended without close_notify, so bytes may be missing (RFC 8446, section 6.1)."""


class AlertError(StreamError):
    """The peer sent a fatal alert; `alert` is its description."""

    def __init__(self, tried: str, *, alert: str, answered: str = "", remedy: str = "") -> None:
        self.alert = alert
        super().__init__(tried, answered=answered, remedy=remedy)


class KeyUpdateError(StreamError):
    """The keys cannot be changed by this kernel, this version of TLS, or this library."""


class StreamClosedError(StreamError):
    """The stream was used for sending after this end closed it, or after the peer was known to be gone."""
