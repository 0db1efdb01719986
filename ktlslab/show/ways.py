"""Two ways to fetch, seen from the kernel: the system calls and the ring's operations of each, stage by stage.

traces(server)      both ways, traced in this run (`recording.recorded` has those of other kernels)
listed(trace)       every call on the connection or the ring, with the operations that it submitted
summed(traces)      how many calls and operations each stage took, and who carried which bytes
"""

from __future__ import annotations

import errno
import inspect
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from ktlslab import _checks
from ktlslab.errors import MachineError
from ktlslab.linux import capabilities, tracing
from ktlslab.linux.ring import Ring
from ktlslab.linux.tracing import Call, Submission
from ktlslab.show.html import LINE, MONO, Html, Lines, Picture, code, markup, picture, table

if TYPE_CHECKING:
    from ktlslab.show.server import DemoServer

_ENTRIES = 1024  # more than a fetch has operations
BODY_BYTES = 40_000
TITLES = {"before": "Before: a blocking rustls on a duplicate", "now": "Now: the five stages"}
# Calls that say or ask something about the socket and move nothing: counted, not listed.
_ASKING = ("getsockname", "getpeername", "getsockopt", "ioctl", "setsockopt SO_", "setsockopt TCP_NODELAY")
_TCP = re.compile(r"(\d+)<TCP:[^>]*>")
_SENDS = ("sendto", "sendmsg", "write", "sendfile")
_RECEIVES = ("recvfrom", "recvmsg", "read")
_RING_SENDS, _RING_RECEIVES = ("SEND", "SENDMSG", "WRITE"), ("RECV", "RECVMSG", "READ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A system call on the connection or the ring, and the operations that it submitted."""

    stage: str
    call: Call
    operations: tuple[Submission, ...] = ()

    @property
    def said(self) -> str:
        """The call in short: its name, the option or flag that matters, and the descriptor's number."""
        name, arguments = self.call.name, self.call.arguments
        if name == "fcntl" and "F_DUPFD" in arguments:
            name = "dup, as fcntl(F_DUPFD_CLOEXEC)"
        if name in {"setsockopt", "getsockopt"}:
            return f"{name} {option(arguments)}"
        return name

    @property
    def asks(self) -> bool:
        """Whether it moves and hands over nothing."""
        return any(self.said.startswith(asking) for asking in _ASKING)

    def carried(self, sends: bool) -> tuple[int, int]:  # noqa: FBT001 - or received
        """Return how many bytes of the connection it moved: by the call itself, and by the ring."""
        own, ring = (_SENDS, _RING_SENDS) if sends else (_RECEIVES, _RING_RECEIVES)
        by_call = int(self.call.result) if self.call.name in own and self.call.result.isdigit() else 0
        by_ring = sum(max(0, one.result or 0) for one in self.operations if one.name in ring)
        return by_call, by_ring


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One fetch: its way, which kernel ran it, who made the records, and its steps. `bytes`: of the answer."""

    way: str
    kernel: str
    record_layer: str
    suite: str
    bytes: int
    steps: tuple[Step, ...]

    def __repr__(self) -> str:
        return listed(self).text

    def _repr_html_(self) -> str:
        return listed(self).html

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Trace:
        steps = tuple(
            Step(
                stage=one["stage"],
                call=Call(**one["call"]),
                operations=tuple(Submission(**each) for each in one["operations"]),
            )
            for one in found["steps"]
        )
        return cls(**{**found, "steps": steps})


def source(way: str) -> Picture:
    """Show the source of a way."""
    from ktlslab.measure import ways  # noqa: PLC0415 - needs an extra

    text = inspect.getsource(ways.WAYS[_checks.word("showing a source", "way", way, tuple(ways.WAYS))])
    style = f"{MONO};border-left:0.25em solid {LINE};padding:0.2em 0.8em;margin:0.3em 0;white-space:pre-wrap"
    return Picture(f'<div style="{style}">{escape(text)}</div>', text)


def traced_or(server: DemoServer, others: Sequence[Trace]) -> tuple[list[Trace], str]:
    """Return `traces`, or where this machine cannot trace, `others`; and a sentence that says which."""
    try:
        return traces(server), f"Traced in this run, on Linux {os.uname().release}."
    except MachineError as error:
        return list(others), f"As recorded on Linux {others[0].kernel}. Here it could not be traced: {error}"


def traces(server: DemoServer, body_bytes: int = BODY_BYTES) -> list[Trace]:
    """Fetch from the server both ways, and trace each. MachineError where this machine cannot trace."""
    from ktlslab.measure import ways  # noqa: PLC0415 - needs an extra
    from ktlslab.show.server import answer_to  # noqa: PLC0415

    request = f"GET /{body_bytes} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    asked = ways.Asked(host=server.host, port=server.port, ca=server.ca, request=request, size=len(answer_to(request)))
    capabilities.probe()  # asks now what it would ask in between
    found = []
    for name, way in ways.WAYS.items():
        way(asked)  # imports now what it would import in between
        with Ring(_ENTRIES) as ring:
            stages: list[str] = []
            with tracing.traced() as calls:

                def stage(name: str, calls: tracing.Calls = calls, stages: list[str] = stages) -> None:
                    stages.append(name)
                    calls.mark()

                fetched = way(asked, ring, stage)
            operations = tracing.submissions(ring, _ENTRIES)
        found.append(
            Trace(
                way=name,
                kernel=os.uname().release,
                record_layer=fetched.record_layer,
                suite=fetched.suite,
                bytes=len(fetched.answer),
                steps=_steps(calls, stages, operations),
            )
        )
    return found


def _steps(calls: tracing.Calls, stages: Sequence[str], operations: Sequence[Submission]) -> tuple[Step, ...]:
    """Give each call its stage and the operations that it submitted; leave out calls on anything else."""
    found, taken = [], 0
    for number, call in enumerate(calls.made):
        stage = stages[sum(mark <= number for mark in calls.marks) - 1]
        mine = operations[taken : taken + call.submitted]
        taken += len(mine)
        if mine or "TCP" in call.arguments.partition(", ")[0] or call.name == "socket":
            found.append(Step(stage=stage, call=call, operations=tuple(mine)))
    return tuple(found)


def option(arguments: str) -> str:
    """Return the socket option that a call names: TCP_ULP "tls", TLS_TX."""
    _, level, name, value, *_ = [*arguments.split(", "), "", "", ""]
    name = name.removesuffix("_OLD")
    return f"{name} {value}" if value.startswith('"tls') else name if level else arguments


def listed(trace: Trace) -> Picture:
    """Show every step that moves or hands over something; the others are counted."""
    rows: list[tuple[str | Html, ...]] = []
    lines = []
    for stage in dict.fromkeys(step.stage for step in trace.steps):
        steps = [step for step in trace.steps if step.stage == stage]
        asked = Counter(step.said for step in steps if step.asks)
        first: str | Html = Html(f"<b>{markup(stage)}</b>")
        for said, (count, done) in _runs([step for step in steps if not step.asks]):
            rows.append((first, code(said), str(count), done))
            lines.append(f"{stage}: {said} × {count}: {done}")  # noqa: RUF001
            first = ""
        if asked:
            names = [f"{name} × {count}" if count > 1 else name for name, count in asked.items()]  # noqa: RUF001
            rows.append((first, _faint("other calls"), str(asked.total()), _faint(", ".join(names))))
    title = f"{TITLES[trace.way]} (Linux {trace.kernel}, {trace.record_layer} records)"
    head = ("stage", "system call", "calls", "what it did")
    return picture(title, table(head, rows, numbers=(2,)), text="\n".join([title, *lines]))


def _faint(text: str) -> Html:
    return Html(f'<span style="opacity:0.7">{markup(text)}</span>')


def _runs(steps: Sequence[Step]) -> list[tuple[str, tuple[int, str]]]:
    """Return what was done, in order; equal calls that follow each other are one line."""
    found: list[tuple[str, list[Step]]] = []
    for step in steps:
        if not found or found[-1][0] != step.said:
            found.append((step.said, []))
        found[-1][1].append(step)
    return [(said, (len(same), _done(same))) for said, same in found]


def _done(steps: Sequence[Step]) -> str:
    """Return what calls of one kind did."""
    parts = []
    for step in steps:
        parts += [_completed(one) for one in step.operations]
        if step.call.error:
            parts.append(step.call.error)
        elif step.call.name in (*_SENDS, *_RECEIVES):
            parts.append(f"{int(step.call.result):,} bytes")
    return " · ".join(parts)


def _completed(one: Submission) -> str:
    """Return an operation and its result, if that is a number of bytes or an error."""
    if one.result is None:
        return f"{one.name} (not completed)"
    if one.result < 0:
        return f"{one.name} {errno.errorcode.get(-one.result, one.result)}"
    return f"{one.name} {one.result:,}" if one.name in (*_RING_SENDS, *_RING_RECEIVES) else one.name


def summed(found: Sequence[Trace]) -> Lines:
    """Return how much each stage of each way asked of the kernel, and who carried the bytes."""
    rows = []
    for trace in found:
        stages = list(dict.fromkeys(step.stage for step in trace.steps))
        for stage in [*stages, "in all"]:
            steps = [step for step in trace.steps if stage in {step.stage, "in all"}]
            carried = [step.carried(sends) for step in steps for sends in (True, False)]
            operations = sum(len(step.operations) for step in steps)
            rows.append(
                (
                    f"{trace.way}, Linux {trace.kernel}" if stage == stages[0] else "",
                    stage,
                    *(
                        f"{n:,}"
                        for n in (
                            len(steps),
                            operations,
                            sum(one for one, _ in carried),
                            sum(other for _, other in carried),
                        )
                    ),
                )
            )
    head = ("way", "stage", "system calls", "ring operations", "bytes by system calls", "bytes by io_uring")
    return Lines(head=head, rows=rows, numbers=(2, 3, 4, 5), caption=payload(found))


def payload(found: Sequence[Trace]) -> str:
    """Say who carried the payload: the bytes of the stage transfer."""
    said = []
    for trace in found:
        steps = [step for step in trace.steps if step.stage == "transfer"]
        by_call, by_ring = (
            sum(step.carried(sends)[which] for step in steps for sends in (True, False)) for which in (0, 1)
        )
        kernel = trace.record_layer == "kernel"
        what = "plain bytes which the kernel protects" if kernel else "records that rustls makes"
        carried = f"{by_ring:,}, as {what}" if by_ring else "none"
        where = f"{trace.way.capitalize()}, Linux {trace.kernel}"
        said.append(f"{where}: of {by_call + by_ring:,} bytes of the transfer, io_uring carried {carried}.")
    return "\n".join(said)
