"""The verdicts, and how a check says what it saw."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

from ktlslab.tls.records import ContentType

# Not tried: a check that can take this machine's own kernel down.
KEPT, BROKEN, ABSENT, UNTRIED = VERDICTS = ("kept", "broken", "not in this kernel", "not tried")
_SHORT = 24  # bytes; more are counted instead of shown


class Broken(Exception):  # noqa: N818 - a verdict, not an error
    """The kernel broke the promise; the message says what it did."""


class Absent(Exception):  # noqa: N818
    """This kernel lacks the feature; the message holds its answer."""


def attempt(call: Callable[..., Any], *args: Any) -> Any:
    """Return a call's result, or the name of the errno that it failed with."""
    try:
        return call(*args)
    except OSError as error:
        return errno_of(error)


def errno_of(error: OSError) -> str:
    """Return an errno's name. EOPNOTSUPP has a second one, which Python prefers but manual pages do not use."""
    return "EOPNOTSUPP" if error.errno == errno.EOPNOTSUPP else errno.errorcode.get(error.errno or 0, str(error))


def show(value: object) -> str:
    """Format a value briefly: an errno's name, a count, bytes or their number, a record's type and bytes."""
    if isinstance(value, bytes | bytearray):
        return repr(bytes(value)) if len(value) <= _SHORT else f"{len(value)} bytes"
    if isinstance(value, ContentType):
        return value.name.lower()
    if isinstance(value, list | tuple):
        parts = [show(part) for part in value]
        return f"{parts[0]} {parts[1]}" if isinstance(value, tuple) and len(parts) == 2 else f"[{', '.join(parts)}]"
    return str(value)


def difference(got: object, wanted: object) -> str:
    """Say where bytes differ if `show` formats them alike."""
    if not isinstance(got, bytes | bytearray) or not isinstance(wanted, bytes | bytearray) or show(got) != show(wanted):
        return ""
    at = next(at for at, pair in enumerate(zip(got, wanted, strict=True)) if pair[0] != pair[1])
    return f", others from byte {at} on, {bytes(got[at : at + 8])!r}"
