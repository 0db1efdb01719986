"""The five stages in one line, and where a session stands among them.

`overview` takes any artefacts, in any order, and marks the stages that gave them. A refusal by the
kernel is an answer, not the end: its stage is marked as such and the next stage follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from ktlslab.errors import errno_name
from ktlslab.show.html import LINE, SMALL, Picture, picture, prose
from ktlslab.stages import Connection, Direction, Handshake, Installed, Refused, Stream, TrafficKeys

Artefact = Connection | Handshake | TrafficKeys | Installed | Refused | Stream

_STAGES = (
    ("connect", "a host and a port", "Connection"),
    ("handshake", "a Connection", "Handshake"),
    ("export", "a Handshake", "TrafficKeys"),
    ("install", "Connection, TrafficKeys", "Installed or Refused"),
    ("transfer", "all of these", "Stream"),
)
_DONE, _NO, _NEXT, _LATER = "✓", "✗", "…", ""
_COLOURS = {
    _DONE: "rgba(0,158,115,0.28)",
    _NO: "rgba(230,159,0,0.34)",
    _NEXT: "rgba(86,180,233,0.28)",
    _LATER: "rgba(128,128,128,0.08)",
}


@dataclass(frozen=True, slots=True)
class _Found:
    mark: str
    detail: str
    gave: str = ""


def overview(*artefacts: Artefact) -> Picture:
    """Show the five stages, what each takes and gives, and which of them these artefacts complete."""
    found = {}
    for artefact in artefacts:
        stage, mark, detail = _read(artefact)
        found[stage] = _Found(mark, detail, type(artefact).__name__)
    boxes, lines = [], []
    next_one = True
    for number, (stage, takes, gives) in enumerate(_STAGES, start=1):
        state = found.get(stage)
        if state is None:
            state = _Found(_NEXT if next_one else _LATER, f"takes {takes}")
            next_one = False
        verb = "gave" if state.gave else "gives"
        border = "2px solid" if state.mark == _NEXT else "1px solid"
        boxes.append(
            f'<div style="flex:1 1 10em;min-width:9em;max-width:18em;background-color:{_COLOURS[state.mark]};'
            f'border:{border} {LINE};border-radius:6px;padding:0.4em 0.6em">'
            f'<div style="font-weight:bold">{number} {stage} {state.mark}</div>'
            f'<div style="{SMALL};opacity:0.85;overflow-wrap:break-word">{escape(state.detail)}</div>'
            f'<div style="{SMALL};margin:0.25em 0 0 0">{verb} <b>{state.gave or gives}</b></div></div>'
        )
        lines.append(f"{number} {stage}: {state.mark or '-'} {state.detail}")
    arrow = '<div style="align-self:center;opacity:0.6;padding:0 0.15em">→</div>'
    row = f'<div style="display:flex;flex-wrap:wrap;gap:0.15em;align-items:stretch">{arrow.join(boxes)}</div>'
    return Picture(f"<div>{row}</div>", "\n".join(lines))


def verdict(answer: Installed | Refused) -> Picture:
    """Say in a sentence or two what the kernel's answer means for the session."""
    if isinstance(answer, Installed):
        ways = " and ".join(_WORK[direction] for direction in answer.directions)
        said = f"The kernel took the keys. From here on it {ways}, and OpenSSL does not."
        return picture("The kernel said yes", prose(said), text=said)
    said = f"{answer.reason.value[0].upper()}{answer.reason.value[1:]}: {answer.step} gave {errno_name(answer.errno)}. "
    if answer.directions:
        ways = " and ".join(_WAYS[direction] for direction in answer.directions)
        said += f"It had already taken the keys of what is {ways} and keeps that direction. "
    said += (
        "OpenSSL goes on making records on the same connection, so everything below still happens, in userspace. To "
        "see the kernel do it, run this again in the Jupyter kernel that this command adds: ktlslab kernelspec install"
    )
    return picture("The kernel said no", prose(said), text=said)


_WAYS = {Direction.TX: "sent", Direction.RX: "received"}
_WORK = {Direction.TX: "makes the records of what is sent", Direction.RX: "opens those that are received"}


def _read(artefact: Artefact) -> tuple[str, str, str]:
    """Return an artefact's stage, its mark, and what it says of itself."""
    match artefact:
        case Connection():
            return "connect", _DONE, f"{artefact.target}, by {artefact.engine.name}"
        case Handshake():
            return "handshake", _DONE, f"{artefact.version.label}, {artefact.suite_name}"
        case TrafficKeys():
            numbers = f"next record: TX {artefact.tx.sequence}, RX {artefact.rx.sequence}"
            return "export", _DONE, f"{artefact.suite.cipher.name}, {numbers}"
        case Installed():
            return "install", _DONE, " and ".join(direction.name for direction in artefact.directions)
        case Refused():
            return "install", _NO, f"{artefact.reason.value}; userspace goes on"
        case Stream():
            return "transfer", _DONE, f"{artefact.record_layer} records, {artefact.connection.engine.name}"
