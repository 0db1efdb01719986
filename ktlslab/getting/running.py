"""Each URL in turn: asked for, written where it belongs, tried again where that may help."""

from __future__ import annotations

import argparse
import contextlib
import email.utils
import os
import sys
import time
from pathlib import Path

from ktlslab import _output
from ktlslab.errors import ConnectError, KtlsLabError, PeerTimeoutError, RangeError, StorageError, UsageError
from ktlslab.getting import asking, reporting
from ktlslab.getting.progress import Progress, wanted
from ktlslab.getting.statuses import HTTP_FAILED, status_of
from ktlslab.http import saving
from ktlslab.http.client import Client
from ktlslab.http.response import Response

_PASSING = frozenset({408, 429, 500, 502, 503, 504})
_MAX_PAUSE_S = 600.0


class HttpStatusError(KtlsLabError):
    """With --fail: an answer of 400 or more."""


def run(options: argparse.Namespace) -> int:
    """Get all URLs of the command line. Returns the exit status: that of the last URL that failed, or 0."""
    status = 0
    try:
        with asking.client(options) as client:
            for number, url in enumerate(options.urls):
                status = Transfer(options, client, number, url).run() or status
    except KtlsLabError as error:  # before the first URL or after the last, as each has its own
        return _complain(options, error)
    for problem in client.sessions.ignored if client.sessions and not options.silent else ():
        _output.note(f"ktlslab: {problem}")
    return status


def _complain(options: argparse.Namespace, error: KtlsLabError) -> int:
    status = status_of(error, ca=options.ca, own=(options.cert, options.key))
    if isinstance(error, HttpStatusError):
        status = HTTP_FAILED
    if not options.silent or options.show_error:
        _output.note(f"ktlslab: ({status}) {error}")
    return status


class Transfer:
    """One URL of the command line."""

    def __init__(self, options: argparse.Namespace, client: Client, number: int, url: str) -> None:
        self._options, self._client, self._text = options, client, url
        self._named = options.output[number] if number < len(options.output) else None
        self._answer: Response | None = None
        self._saved = ""
        self._written = False  # something of the body went to standard output, so it cannot be tried again

    def run(self) -> int:
        options, status, error = self._options, 0, None
        for attempt in range(options.retry + 1):
            error = None
            try:
                self._once(last=attempt == options.retry)
            except KtlsLabError as problem:
                error = problem
            except BrokenPipeError:
                error = StorageError("writing to standard output", answered="its reader is gone (EPIPE)")
            finally:
                if self._answer:
                    self._answer.close()
            if attempt == options.retry or not self._worth_another(error):
                break
            self._pause(attempt, error)
        if error:
            status = _complain(options, error)
        self._report(status, str(error or ""))
        return status

    def _once(self, *, last: bool) -> None:
        options = self._options
        self._answer = None
        url = asking.url(options, self._text)
        target = self._target(url.file_name)
        headers = asking.headers(options)
        start = 0
        if target and options.resume and (start := _so_far(target)):
            stamp = email.utils.formatdate(saving.part_of(target).stat().st_mtime, usegmt=True)
            headers = (*headers, ("Range", f"bytes={start}-"), ("If-Range", stamp))
        with contextlib.ExitStack() as files:
            answer = self._answer = self._client.request(
                asking.method(options),
                url,
                headers=headers,
                body=asking.body(options, files),
                redirects=options.max_redirs if options.location else 0,
                stream=True,
            )
        if options.verbose:
            for one in (*answer.history, answer):
                reporting.tell(one)
        if options.fail and not answer.ok:
            raise HttpStatusError(f"{answer.url}: {answer.head.answer}")
        if not last and self._worth_another(None):
            return
        if target:
            self._into_file(answer, target, start)
        else:
            self._to_standard_output(answer)

    def _target(self, file_name: str) -> Path | None:
        """Return the file to write, None for standard output."""
        options, named = self._options, self._named
        if named is None and options.remote_name:
            if not file_name:
                remedy = "Name the file by -o."
                raise UsageError(f"naming the file of {self._text}", answered="it has no name", remedy=remedy)
            named = Path(file_name)
        if named is None or str(named) == "-":
            return None
        self._saved = str(named)
        if options.create_dirs:
            try:
                named.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise saving.cannot_write(named.parent, error) from error
        return Path(named)

    def _into_file(self, answer: Response, target: Path, start: int) -> None:
        options = self._options
        if start and answer.status == 416 and answer.header("content-range") == f"bytes */{start}":
            saving.part_of(target).replace(target)  # all of it had come
            return
        if options.resume and answer.status == 206:
            saving.check_range(answer.exchange, start, answer.header("content-range"))
        elif options.resume and not answer.ok:
            raise RangeError(f"getting {answer.url}", answered=f"{answer.head.answer}")
        else:
            start = 0
        length = answer.head.length
        shown = wanted(silent=options.silent, asked=options.progress_bar)
        progress = Progress(target.name, None if length is None else start + length, start, shown=shown)
        try:
            if options.resume:
                _resume(answer, target, start, progress)
            elif options.include or (options.compressed and answer.header("content-encoding")):
                answer.save_decoded(target, self._heads(answer) if options.include else b"")
            else:
                answer.save(target, moved=progress.moved)
        finally:
            progress.end()

    def _to_standard_output(self, answer: Response) -> None:
        if self._options.include or self._options.head:
            self._written = True
            _output.write(self._heads(answer))
        for piece in answer:
            self._written = True
            _output.write(piece)

    def _heads(self, answer: Response) -> bytes:
        return b"".join(one.head.raw for one in (*answer.history, answer))

    # Again

    def _worth_another(self, error: KtlsLabError | None) -> bool:
        options, answer = self._options, self._answer
        uploads_what_is_gone = options.upload_file == "-" or any(value == "@-" for _, value in options.data or [])
        if self._written or uploads_what_is_gone:
            return False
        if isinstance(error, HttpStatusError) and options.retry_all_errors:
            return True
        if error is None or isinstance(error, HttpStatusError):
            return answer is not None and answer.status in _PASSING
        if isinstance(error, ConnectError):
            return bool(options.retry_connrefused or options.retry_all_errors)
        return isinstance(error, PeerTimeoutError) or bool(options.retry_all_errors)

    def _pause(self, attempt: int, error: KtlsLabError | None) -> None:
        asked = self._answer.header("retry-after") if self._answer else ""
        pause = self._options.retry_delay or 2.0**attempt
        if asked.isascii() and asked.isdigit():
            pause = max(pause, float(asked))
        pause = min(pause, _MAX_PAUSE_S)
        if not self._options.silent:
            said = error or f"{self._text}: {self._answer.status if self._answer else ''}"
            _output.note(f"ktlslab: {said}; trying again in {pause:g} s")
        time.sleep(pause)

    # What is said afterwards

    def _report(self, status: int, error: str) -> None:
        options, answer = self._options, self._answer
        if not (options.json or options.write_out):
            return
        found = reporting.facts(self._text, answer, status=status, error=error, saved=self._saved)
        if options.json:
            (_output.say if self._saved else _output.note)(reporting.as_json(found, answer))
        form = options.write_out or ""
        if form.startswith("@"):
            form = Path(form[1:]).read_text(encoding="utf-8") if form != "@-" else sys.stdin.read()
        for where, piece in reporting.in_words(form, found, answer):
            if where == "stderr":
                _output.note(piece, end="")
            elif piece:
                _output.write(piece.encode())


def _so_far(target: Path) -> int:
    """How many bytes of a file have come already."""
    with contextlib.suppress(OSError):
        return saving.part_of(target).stat().st_size
    return 0


def _resume(answer: Response, target: Path, start: int, progress: Progress) -> None:
    """Go on with FILE.part, whose time says of which file it is (If-Range, RFC 9110 13.1.5)."""
    try:
        saving.resume(answer.exchange, target, start, progress.moved)
    finally:
        answer.close()
        when = email.utils.parsedate_tz(answer.header("last-modified"))
        part = saving.part_of(target)
        with contextlib.suppress(OSError):
            if when:
                os.utime(part, (email.utils.mktime_tz(when),) * 2)
            elif part.exists():
                os.utime(part, (0, 0))  # nothing tells whether it is the same: then it begins anew
