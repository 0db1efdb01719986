"""The command line of `ktlslab get`."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ktlslab.errors import UsageError
from ktlslab.getting.missing import MISSING, WHY, epilog

_EPILOG = """
Exit status, as curl's: 0 done, 1 not https, 2 usage, 3 malformed URL, 4 not available here (the record layer, io_uring,
a proxy), 6 unknown host, 7 no connection, 8 not HTTP, 16 not HTTP/2 or an end by GOAWAY, 18 incomplete body, 22 the
server answered 400 or more (--fail), 23 cannot write, 26 cannot read, 28 time-out, 33 no such range, 35 TLS, 47 too
many redirects, 52 no answer, 55 sending, 56 receiving, 58 own certificate, 60 the server's certificate, 77 --ca, 92
a request that HTTP/2 reset or refused.
"""


def add(commands: Any, machine: str, run: Callable[[argparse.Namespace], int]) -> None:
    """Add the subcommand."""
    get = commands.add_parser(
        "get",
        help="fetch https URLs through the five stages, with curl's manners",
        epilog=f"{_EPILOG}\n{epilog()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    get.set_defaults(run=run)
    get.add_argument("urls", metavar="URL", nargs="+", help="https://HOST[:PORT]/PATH; https:// may be left out")
    _path(get.add_argument_group("which path"), machine)
    _request(get.add_argument_group("what is asked"))
    _output(get.add_argument_group("where it goes"))
    _saying(get.add_argument_group("what is said"))
    _connection(get.add_argument_group("the connection"))
    _trust(get.add_argument_group("who is trusted"))
    _time(get.add_argument_group("how long"))
    for missing in MISSING:
        get.add_argument(*missing.names, action=_Refused, nargs=0, help=argparse.SUPPRESS)


def _path(group: Any, machine: str) -> None:
    group.add_argument("--on", metavar="MACHINE", default="here", help=f"{machine}; default here")
    layers = "kernel: fail rather than fall back; default auto"
    group.add_argument("--record-layer", choices=["auto", "kernel", "userspace"], default="auto", help=layers)
    group.add_argument("--io-engine", choices=["auto", "uring", "syscall"], default="auto")
    group.add_argument("--library", choices=["openssl", "rustls"], default="openssl", help="what does the handshake")
    group.add_argument("--tls", choices=["1.2", "1.3"], help="use only this version of TLS")
    group.add_argument("--suite", metavar="NAME", help="offer only this cipher suite")


def _request(group: Any) -> None:
    group.add_argument("-X", "--request", metavar="METHOD", help="default GET; POST with -d, PUT with -T, HEAD with -I")
    header = "'Name: value'; 'Name:' leaves one out that is sent by itself; may be repeated"
    group.add_argument("-H", "--header", action="append", default=[], metavar="LINE", help=header)
    group.add_argument("-A", "--user-agent", metavar="NAME")
    group.add_argument("-e", "--referer", metavar="URL")
    group.add_argument("-u", "--user", metavar="USER:PASSWORD", help="basic authentication")
    group.add_argument("-b", "--cookie", metavar="NAME=VALUE")
    data = "send this by POST; @FILE: a file without its line ends, @-: standard input; repeated: joined by &"
    group.add_argument("-d", "--data", action=_Data, dest="data", metavar="DATA", help=data)
    group.add_argument("--data-raw", action=_Data, dest="data", metavar="DATA", help="the same, without files")
    binary = "as -d, a file as it is, by sendfile(2) if the kernel encrypts"
    group.add_argument("--data-binary", action=_Data, dest="data", metavar="DATA", help=binary)
    group.add_argument("-G", "--get", action="store_true", help="put what -d says into the URL's query")
    group.add_argument("-T", "--upload-file", metavar="FILE", help="send a file by PUT; -: standard input")
    group.add_argument("-I", "--head", action="store_true", help="ask for the head only")
    group.add_argument("-r", "--range", metavar="FROM-TO", help="ask for these bytes only")
    group.add_argument("--compressed", action="store_true", help="ask for gzip, and undo it")
    group.add_argument("-L", "--location", action="store_true", help="follow redirects")
    group.add_argument("--max-redirs", type=_count, default=50, metavar="N", help="with -L; default 50")


def _output(group: Any) -> None:
    whole = "write the body into a file, which gets its name once it is whole; once for each URL"
    group.add_argument("-o", "--output", action="append", type=Path, default=[], metavar="FILE", help=whole)
    group.add_argument("-O", "--remote-name", action="store_true", help="the same, named as the URL's last part")
    go_on = "keep what has come in FILE.part if it fails, and go on there"
    group.add_argument("-C", "--continue-at", dest="resume", type=_dash, default=False, metavar="-", help=go_on)
    group.add_argument("--continue", dest="resume", action="store_true", help="the same")
    group.add_argument("--create-dirs", action="store_true", help="make the folders of FILE")
    group.add_argument("-i", "--include", "--show-headers", action="store_true", help="print the head before the body")
    group.add_argument("-f", "--fail", action="store_true", help="print no body and end with 22 for 400 and more")


def _saying(group: Any) -> None:
    group.add_argument("-s", "--silent", action="store_true", help="no progress bar and no errors")
    group.add_argument("-S", "--show-error", action="store_true", help="with -s: errors all the same")
    group.add_argument("-#", "--progress-bar", action="store_true", help="the bar also where nobody may look at it")
    group.add_argument("-v", "--verbose", action="store_true", help="stages, times, suite, record layer, why; heads")
    report = "the same for programs: a JSON object a URL, on standard error; with -o or -O on standard output"
    group.add_argument("--json", action="store_true", help=report)
    words = "print this after each URL, with %%{http_code} and other variables of curl's, %%{record_layer}, %%{why}"
    group.add_argument("-w", "--write-out", metavar="FORMAT", help=words)


def _connection(group: Any) -> None:
    plain = "do not offer HTTP/2: a body is then moved by splice(2) and sendfile(2) if the kernel makes the records"
    group.add_argument("--http1.1", dest="http", action="store_const", const="1.1", default="auto", help=plain)
    both = "offer HTTP/2 and HTTP/1.1, as is the default"
    group.add_argument("--http2", dest="http", action="store_const", const="auto", help=both)
    again = "resume TLS sessions from FILE (mode 0600) and keep new ones there; without early data"
    group.add_argument("--ssl-sessions", metavar="FILE", type=Path, help=again)
    use = "use this address instead of asking DNS; may be repeated"
    group.add_argument(
        "--resolve", action="append", type=_resolve, default=[], metavar="HOST:PORT:ADDRESS[,ADDRESS]", help=use
    )
    group.add_argument(
        "--noproxy", metavar="HOSTS", help="go to these directly, though the environment names a proxy; '*': to all"
    )
    again = "try again after time-outs and answers 408, 429, 500, 502, 503, 504"
    group.add_argument("--retry", type=_count, default=0, metavar="N", help=again)
    group.add_argument(
        "--retry-delay", type=seconds, metavar="SECONDS", help="default: 1, 2, 4, ...; Retry-After counts"
    )
    group.add_argument("--retry-connrefused", action="store_true", help="also where no server listens")
    group.add_argument("--retry-all-errors", action="store_true", help="also after any other error")


def _trust(group: Any) -> None:
    ca = "trust this PEM file instead of the system's authorities"
    group.add_argument("--ca", "--cacert", dest="ca", metavar="FILE", type=Path, help=ca)
    group.add_argument("-E", "--cert", metavar="FILE", type=Path, help="this end's certificate (PEM)")
    group.add_argument("--key", metavar="FILE", type=Path, help="its key (PEM); default: in the same file")
    any_one = "whoever answers is taken for the server"
    group.add_argument("--accept-any-certificate", action="store_true", help=any_one)


def _time(group: Any) -> None:
    opening = "limit for look-up, connection and handshake together; default 10"
    group.add_argument("--connect-timeout", type=seconds, default=10.0, metavar="SECONDS", help=opening)
    whole = "limit for each URL as a whole; default none"
    group.add_argument("-m", "--max-time", "--timeout", dest="max_time", type=seconds, metavar="SECONDS", help=whole)
    slow = "give up if less comes for --speed-time; default 1"
    group.add_argument("-Y", "--speed-limit", type=float, default=1.0, metavar="BYTES/S", help=slow)
    group.add_argument("-y", "--speed-time", type=seconds, default=60.0, metavar="SECONDS", help="default 60")


class _Data(argparse.Action):
    """Keeps the order of -d, --data-raw and --data-binary."""

    def __call__(self, _parser: Any, namespace: argparse.Namespace, values: Any, option: str | None = None) -> None:
        kind = (option or "").removeprefix("--").removeprefix("data-") if option not in {"-d", "--data"} else "text"
        namespace.data = [*(namespace.data or []), (kind, values)]


class _Refused(argparse.Action):
    """Options of curl's that are not followed, which must not pass in silence."""

    def __call__(self, parser: Any, _namespace: argparse.Namespace, _values: Any, option: str | None = None) -> None:
        missing = WHY[str(option)]
        parser.error(f"{option} is not available ({missing.what}): {missing.why}")


def seconds(text: str) -> float:
    """Read a time-out."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a time-out: give seconds above 0")
    return value


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text} is not a number of times")
    return int(text)


def _dash(text: str) -> bool:
    if text != "-":
        raise argparse.ArgumentTypeError(f"{text}: only -, which goes on where FILE.part ends; --range asks for a part")
    return True


def _resolve(text: str) -> tuple[tuple[str, int], tuple[str, ...]]:
    """Read HOST:PORT:ADDRESS[,ADDRESS], where an IPv6 address may be in brackets."""
    from ktlslab.http.urls import Url  # noqa: PLC0415 - only where it is asked for

    host, _, rest = text.rpartition("]:") if text.startswith("[") else text.partition(":")
    port, _, addresses = rest.partition(":")
    try:
        url = Url.of(f"https://{host}:{port}/")
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    found = tuple(address.strip(" []") for address in addresses.split(",") if address.strip(" []"))
    if not found or not port:
        raise argparse.ArgumentTypeError(f"{text} is not HOST:PORT:ADDRESS")
    return url.origin, found
