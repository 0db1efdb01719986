"""What this machine can do, and what a guest's kernel can: suites side by side, a first session, Jupyter's kernels.

    choices()           the kernels for JupyterLab's menu: what each is good for, and how it gets there
    notebooks(folder)   the notebooks, and the kernel that each asks for
    suites(there)       which suites this kernel takes, beside those of another machine
    session(where)      a first session, both ends in one process, on a machine

`where`, `there`: "here", or a guest's kernel, such as "uml". Its answers come from a command in a guest, which is up in
seconds; `MAY` names one that this machine can be expected to have.
"""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path
from typing import Any

from ktlslab import guests
from ktlslab.errors import GuestError, KtlsLabError
from ktlslab.guests import usermode
from ktlslab.guests.kernelspec import installed
from ktlslab.linux import capabilities, cpu
from ktlslab.linux.ktls import COMMON, Direction
from ktlslab.show.html import Lines
from ktlslab.tls.suites import CIPHERS

HERE, USER_MODE = "here", "uml"
_TIMEOUT_S = 120.0
_ANSWER = "ktlslab-answer "
_ASK = f"import json; from ktlslab.show.machines import {{0}}; print({_ANSWER!r} + json.dumps({{0}}()))"


def choices() -> Lines:
    """Return the Jupyter kernels that one may choose: which exist here, what they are for, how to get them."""
    have = [name for user in (False, True) for name in installed(user=user)]
    own = "with kTLS" if capabilities.probe().ktls else "without kTLS"
    kind = "a user-mode kernel" if cpu.is_user_mode() else "this machine's kernel"
    rows = [
        (
            "Python 3 (ipykernel)",
            f"{kind}, {own}",
            "what was recorded; the rest too, with OpenSSL where there is no kTLS",
            "is there",
        ),
        (
            "Linux … with kTLS (user mode)",
            "an ordinary process",
            "looking: handoff, KeyUpdate, io_uring",
            _way_there(have, "ktlslab kernelspec install", user_mode=True),
        ),
        (
            "Linux … with kTLS",
            "a guest in QEMU",
            "counting, tracepoints, older kernels",
            _way_there(have, "ktlslab kernelspec install --kernel newest", user_mode=False),
        ),
    ]
    return Lines(head=("in JupyterLab's menu", "runs in", "is for", "how it gets there"), rows=rows)


def notebooks(folder: str | Path = ".") -> Lines:
    """Return the notebooks of a folder: number, title, and the Jupyter kernel that each asks for."""
    rows = []
    for path in sorted(Path(folder).glob("[0-9][0-9]-*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        title = "".join(notebook["cells"][0]["source"]).partition("\n")[0].removeprefix("# ")
        wanted = notebook["metadata"].get("ktlslab", {}).get("kernel_tls")
        rows.append((path.name[:2], title, "with kTLS (user mode)" if wanted else "Python 3 (ipykernel)"))
    return Lines(head=("", "notebook", "Jupyter kernel"), rows=rows, caption="" if rows else "No notebooks lie here.")


def suites(there: str = HERE) -> Lines:
    """Return which suites this kernel and another take, each direction by itself. The errors are those of guests."""
    names = [HERE] if there == HERE else [HERE, there]
    answers = [_here() if name == HERE else _asked(name, "taken") for name in names]
    rows = [(suite, *(" and ".join(one["suites"][suite]) or "no" for one in answers)) for suite in answers[0]["suites"]]
    rows += [(feature, *("yes" if one["features"][feature] else "no" for one in answers)) for feature in _FEATURES]
    head = ("", *(f"{name}: Linux {one['release']}" for name, one in zip(names, answers, strict=True)))
    return Lines(
        head=head, rows=rows, caption="What the kernel takes, in which direction: TX is sending, RX receiving."
    )


def session(where: str = HERE) -> Lines:
    """Open a session between two ends in one process, say hello, and return what each stage did."""
    told = spoken() if where == HERE else _asked(where, "spoken")
    caption = f"On Linux {told['release']}. {told['said']}"
    return Lines(head=("stage", "what came of it"), rows=[tuple(row) for row in told["trace"]], caption=caption)


def where_ktls_is() -> str:
    """Return "here" if this kernel has kTLS, and otherwise the user-mode kernel's name."""
    return HERE if capabilities.probe().ktls else USER_MODE


_FEATURES = ("new keys in a session (KeyUpdate)", "io_uring", "keys by io_uring")


def taken() -> dict[str, Any]:
    """Return what this kernel takes: its release, directions by suite, features. Run in a guest by `suites`."""
    found = capabilities.probe().suites
    named = {
        f"{label} {cipher.name}": [way.name for way in Direction if found[version, cipher.kernel_type, way]]
        for version, label in zip(capabilities.TLS_VERSIONS, ("TLS 1.2", "TLS 1.3"), strict=True)
        for cipher in CIPHERS
        if cipher.kernel_type in COMMON
    }
    answers = (capabilities.rekey(), capabilities.io_uring(), capabilities.uring_setsockopt())
    features = dict(zip(_FEATURES, map(bool, answers), strict=True))
    return {"release": platform.release(), "suites": named, "features": features}


_here = taken


def spoken() -> dict[str, Any]:
    """Open a session, say hello, and return what came of it. Run in a guest by `session`."""
    from ktlslab.session import session_pair  # noqa: PLC0415 - OpenSSL, which the rest need not load

    client, server = session_pair()
    with client, server:
        client.stream.send(b"hello")
        heard = server.stream.recv()
        said = f"The server received {heard!r}. The client's record layer: {client.record_layer}+{client.io_engine}"
        said += f"; why not the kernel: {'; '.join(why.value for why in client.why)}." if client.why else "."
        trace = [(entry.stage, entry.outcome) for entry in client.trace]
        counted = [f"{name} +{value}" for name, value in client.counters.values.items() if value]
    if counted:
        trace.append(("/proc/net/tls_stat", ", ".join(counted)))
    return {"release": platform.release(), "said": said, "trace": trace}


def _asked(where: str, function: str) -> dict[str, Any]:
    """Return what a function of this module says on a guest's kernel."""
    done = guests.run(where, [sys.executable, "-c", _ASK.format(function)], timeout=_TIMEOUT_S)
    for line in done.stdout.decode(errors="replace").splitlines():
        if line.startswith(_ANSWER):
            answer: dict[str, Any] = json.loads(line.removeprefix(_ANSWER))
            return answer
    answered = done.stderr.decode(errors="replace").strip().rpartition("\n")[2] or f"exit status {done.returncode}"
    raise GuestError(f"asking the kernel {where}", answered=answered, remedy="`ktlslab doctor` says what is missing.")


def _way_there(have: list[str], command: str, *, user_mode: bool) -> str:
    """Say that a kind of guest's kernel is in Jupyter's menu, how it gets there, or why it cannot."""
    if some := [name for name in have if name.startswith(USER_MODE) == user_mode]:
        return f"is there: {', '.join(some)}"
    if missing := [need.name for need in guests.prerequisites(user_mode=user_mode) if not need.present]:
        return f"{command}, once {', '.join(missing)} is here"
    try:
        if user_mode:
            usermode.check_network()
    except KtlsLabError as error:
        return f"not here: {error.answered}"
    return command
