"""What is said about a transfer: to people (-v), to programs (--json), and in their own words (-w)."""

from __future__ import annotations

import json
import re
from typing import Any

from ktlslab import _output
from ktlslab.http.response import Response
from ktlslab.session import Session

_VARIABLE = re.compile(r"%\{(header_json|json|stdout|stderr|[a-z_]+)\}|%%|\\([ntr\\])")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}


def facts(url: str, answer: Response | None, *, status: int = 0, error: str = "", saved: str = "") -> dict[str, Any]:
    """Return what is known of a transfer, by curl's names of variables, and ours."""
    found: dict[str, Any] = {
        "url": url,
        "exitcode": status,
        "errormsg": error,
        "http_code": 0,
        "num_connects": 0,
        "num_redirects": 0,
        "size_download": 0,
        "size_upload": 0,
        "size_header": 0,
        "time_total": 0.0,
        "filename_effective": saved,
    }
    if answer is None:
        return found
    exchange, session, times = answer.exchange, answer.session, answer.times
    connection = session.stream.connection
    everything = (*answer.history, answer)
    total = times.get("total", exchange.allowance.passed())
    last_redirect = answer.history[-1].times.get("total", 0.0) if answer.history else 0.0
    return (
        found
        | path_of(session)
        | {
            "method": answer.request.method,
            "scheme": "https",
            "url_effective": str(answer.url),
            "http_code": answer.status,
            "response_code": answer.status,
            "http_version": answer.head.http_version,
            "content_type": answer.header("content-type"),
            "redirect_url": str(answer.url.join(answer.header("location"))) if answer.header("location") else "",
            "num_connects": sum(one.new_connection for one in everything),
            "num_redirects": len(answer.history),
            "num_headers": len(answer.headers),
            "size_download": exchange.body_bytes,
            "size_upload": exchange.sent_bytes,
            "size_request": exchange.request_bytes,
            "size_header": exchange.head_bytes,
            "speed_download": round(exchange.body_bytes / total) if total else 0,
            "ssl_verify_result": 0,
            "remote_ip": connection.peer[0],
            "remote_port": connection.peer[1],
            "local_ip": connection.local[0],
            "local_port": connection.local[1],
            "time_redirect": last_redirect,
            "time_connect": times.get("connect", 0.0),
            "time_appconnect": times.get("handshake", 0.0),
            "time_pretransfer": times.get("install", times.get("export", times.get("handshake", 0.0))),
            "time_posttransfer": times.get("sent", 0.0),
            "time_starttransfer": times.get("first byte", 0.0),
            "time_total": total,
        }
    )


def path_of(session: Session) -> dict[str, Any]:
    """Return which way the bytes went, and why."""
    return {
        "tls_version": session.version.label if session.version else "",
        "tls_suite": session.suite_name or "",
        "resumed": session.resumed,
        "record_layer": session.record_layer,
        "io_engine": session.io_engine,
        "library": session.library,
        "why": [why.value for why in session.why],
    }


def as_json(found: dict[str, Any], answer: Response | None) -> str:
    """Return the facts as one line, with the stages, the headers and which way each redirect went."""
    stages = [
        {"stage": step.stage, "ms": round(step.duration_ns / 1e6, 3), "outcome": step.outcome}
        for step in (answer.session.trace if answer else ())
    ]
    redirects = [
        {"url": str(one.url), "http_code": one.status, "http_version": one.head.http_version, **path_of(one.session)}
        for one in (answer.history if answer else ())
    ]
    headers = list(answer.headers) if answer else []
    return json.dumps({**found, "stages": stages, "headers": headers, "redirects": redirects})


def in_words(form: str, found: dict[str, Any], answer: Response | None) -> list[tuple[str, str]]:
    """Return what -w says, as pieces for "stdout" and "stderr". An unknown variable is an empty word, as with curl."""
    pieces: list[tuple[str, str]] = []
    where, at = "stdout", 0
    for match in _VARIABLE.finditer(form):
        pieces.append((where, form[at : match.start()]))
        at = match.end()
        if match[0] == "%%":
            pieces.append((where, "%"))
        elif match[2]:
            pieces.append((where, _ESCAPES[match[2]]))
        elif match[1] in {"stdout", "stderr"}:
            where = match[1]
        elif match[1] == "json":
            pieces.append((where, json.dumps(found)))
        elif match[1] == "header_json":
            pieces.append((where, json.dumps(list(answer.headers) if answer else [])))
        else:
            pieces.append((where, _word(found.get(match[1], ""))))
    return [*pieces, (where, form[at:])]


def _word(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6f}"
    return ", ".join(value) if isinstance(value, list) else str(value)


def tell(answer: Response) -> None:
    """Say on standard error which way an answer came: stages, times, record layer, why; the heads of both."""
    session, exchange = answer.session, answer.exchange
    if answer.new_connection:
        for step in session.trace:
            _output.note(f"{step.stage:>10}  {step.duration_ns / 1e6:8.2f} ms  {step.outcome}")
    else:
        _output.note(f"{'connection':>10}  {'kept':>11}  {session.stream.connection!r}")
    _output.note(f"{'session':>10}  {session!r}{', resumed' if session.resumed else ''}")
    asked = f"{answer.request.method} {answer.request.url.target} HTTP/{exchange.http_version}"
    for line in (asked, *exchange.sent_headers):
        _output.note(f"> {line}")
    _output.note(f"{'answer':>10}  {answer.times['first byte'] * 1e3:8.2f} ms  {answer.head.answer}")
    for name, value in answer.headers:
        _output.note(f"< {name}: {value}")
