"""The Debian archives that this machine uses, read from its apt sources, which are never changed.

Both formats of apt are read: one-line entries (`*.list`) and deb822 paragraphs (`*.sources`). Only the addresses are
used; the suites are chosen here, and apt checks each against Debian's own keyring. The security archive has a separate
address. If the sources do not name it, it is looked for beside the main archive, where nearly every mirror has it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

# Each may hold a `linux-image-amd64`; suites that no longer exist are skipped.
NAMES = ("bookworm", "trixie")
USER_MODE_SUITES = (*NAMES, "sid")  # each may hold a `user-mode-linux`
SUITES = tuple(f"{name}{kind}" for name in NAMES for kind in ("", "-updates", "-backports"))
SECURITY_SUITES = tuple(f"{name}-security" for name in NAMES)

_NAMED = r"(oldoldstable|oldstable|stable|testing|unstable|sid|bullseye|bookworm|trixie|forky)"
_MAIN = re.compile(_NAMED + r"(-updates|-backports)?")
_SECURITY = re.compile(_NAMED + r"-security")


class AptSource(NamedTuple):
    """One suite of one archive."""

    uri: str
    suite: str


def sources(
    apt: Path = Path("/etc/apt"),
    *,
    suites: tuple[str, ...] = SUITES,
    security_suites: tuple[str, ...] = SECURITY_SUITES,
) -> list[AptSource]:
    """Return the suites to look for kernels in, on the archives that this machine uses, each once.

    $KTLSLAB_MIRROR names a Debian archive that replaces them.
    """
    chosen = os.environ.get("KTLSLAB_MIRROR")
    named = [AptSource(chosen, "stable")] if chosen else configured(apt)
    main = [source.uri for source in named if _MAIN.fullmatch(source.suite)]
    security = [source.uri for source in named if _SECURITY.fullmatch(source.suite)]
    security += [re.sub(r"/debian/?$", "/debian-security", uri) for uri in main if re.search(r"/debian/?$", uri)]
    found = [AptSource(uri.rstrip("/"), suite) for uri in main for suite in suites]
    found += [AptSource(uri.rstrip("/"), suite) for uri in security for suite in security_suites]
    return list(dict.fromkeys(found))


def configured(apt: Path) -> list[AptSource]:
    """Return what the files in apt's folder name, in their order, vendors' suites included."""
    found: list[AptSource] = []
    for path in [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))]:
        if not path.is_file():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        if path.suffix == ".list":
            found += one_line(text)
        elif path.suffix == ".sources":
            found += deb822(text)
    return found


def one_line(text: str) -> list[AptSource]:
    """Return what lines `deb [options] URI suite component...` with the component main name."""
    found = []
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(?:\[[^\]]*\]\s*)?(\S+)\s+(\S+)\s+([^#]*)", line)
        if match and "main" in match[3].split():
            found.append(AptSource(match[1], match[2]))
    return found


def deb822(text: str) -> list[AptSource]:
    """Return what deb822 paragraphs with the component main name."""
    found: list[AptSource] = []
    for fields in paragraphs(text):
        enabled = fields.get("enabled", "yes").lower() not in {"no", "false", "off", "0"}
        binary, main = "deb" in fields.get("types", "").split(), "main" in fields.get("components", "").split()
        if enabled and binary and main:
            suites = fields.get("suites", "").split()
            found += [AptSource(uri, suite) for uri in fields.get("uris", "").split() for suite in suites]
    return found


def paragraphs(text: str) -> list[dict[str, str]]:
    """Split Debian's control format into paragraphs; field names in lower case, comments dropped."""
    result: list[dict[str, str]] = []
    fields: dict[str, str] = {}
    name = ""
    for line in [*text.splitlines(), ""]:
        if line.startswith("#"):
            continue
        if not line.strip():
            if fields:
                result.append(fields)
            fields, name = {}, ""
        elif line[0].isspace():
            fields[name] = f"{fields.get(name, '')}\n{line.strip()}"
        else:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            fields[name] = value.strip()
    return result
