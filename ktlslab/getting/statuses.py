"""curl's exit statuses (its man page, EXIT CODES) for our errors."""

from __future__ import annotations

from ktlslab import errors
from ktlslab.errors import KtlsLabError

HTTP_FAILED = 22  # with --fail: the server answered 400 or more
WRITE_FAILED = 23
_SENDING, _RECEIVING, _OWN_CERTIFICATE, _CA_FILE = 55, 56, 58, 77
# The first that fits.
_STATUSES: tuple[tuple[type[KtlsLabError], int], ...] = (
    (errors.SchemeError, 1),
    (errors.UrlError, 3),
    (errors.ProxyError, 4),
    (errors.RecordLayerUnavailableError, 4),
    (errors.RingUnavailableError, 4),
    (errors.UnknownHostError, 6),
    (errors.ConnectError, 7),
    (errors.IncompleteError, 18),
    (errors.StorageError, WRITE_FAILED),
    (errors.PeerTimeoutError, 28),
    (errors.RangeError, 33),
    (errors.CertificateError, 60),
    (errors.HandshakeError, 35),
    (errors.RedirectError, 47),
    (errors.NoAnswerError, 52),
    (errors.StreamResetError, 92),
    (errors.Http2Error, 16),
    (errors.HttpError, 8),
    (errors.UnreadableError, 26),
    (errors.UsageError, 2),
)


def status_of(error: KtlsLabError, *, ca: object = None, own: tuple[object, ...] = ()) -> int:
    """Return the exit status for an error; `ca` and `own` are the files of --ca, and of --cert and --key."""
    if ca and error.tried == f"reading {ca}":
        return _CA_FILE
    if error.tried in {f"reading {path}" for path in own if path}:
        return _OWN_CERTIFICATE
    for kind, status in _STATUSES:
        if isinstance(error, kind):
            return status
    if isinstance(error, errors.StreamError):
        sending = error.tried.startswith("sending") and not isinstance(error, errors.AlertError)  # which was received
        return _SENDING if sending else _RECEIVING
    return 1
