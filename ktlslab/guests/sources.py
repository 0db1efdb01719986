"""Where this machine gets Debian packages from, read from its own apt sources and never changed.

Both notations that apt knows are read: one line each (`*.list`) and deb822 paragraphs (`*.sources`). Only the archive's
address is taken; the suites are ours, and apt checks each against Debian's own keyring.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

# Each holds a `linux-image-amd64`; a suite that has moved away is skipped, the others still count.
SUITES = ("bookworm", "bookworm-backports", "trixie", "trixie-backports")

_DEBIAN = re.compile(
    r"(oldoldstable|oldstable|stable|testing|unstable|sid|bullseye|bookworm|trixie|forky)(-updates|-backports)?"
)


def mirrors(apt: Path = Path("/etc/apt")) -> list[str]:
    """Return the addresses of Debian archives that this machine uses, each once, in their order."""
    chosen = os.environ.get("KTLSLAB_MIRROR")
    if chosen:
        return [chosen]
    found: list[str] = []
    parts = sorted((apt / "sources.list.d").glob("*"))
    for path in [apt / "sources.list", *parts]:
        if not path.is_file():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        if path.suffix == ".list":
            found += one_line(text)
        elif path.suffix == ".sources":
            found += deb822(text)
    return list(dict.fromkeys(found))


def one_line(text: str) -> list[str]:
    """Return the Debian archives of `deb [options] URI suite component...` lines."""
    found = []
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(?:\[[^\]]*\]\s*)?(\S+)\s+(\S+)\s+([^#]*)", line)
        if match and _is_debian(match[2].split(), match[3].split()):
            found.append(match[1])
    return found


def deb822(text: str) -> list[str]:
    """Return the Debian archives of deb822 paragraphs."""
    found: list[str] = []
    for fields in paragraphs(text):
        enabled = fields.get("enabled", "yes").lower() not in {"no", "false", "off", "0"}
        if enabled and "deb" in fields.get("types", "").split():
            suites, components = fields.get("suites", "").split(), fields.get("components", "").split()
            if _is_debian(suites, components):
                found += fields.get("uris", "").split()
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


def _is_debian(suites: list[str], components: list[str]) -> bool:
    """Tell Debian's main archive from its security archive, from other distributions and from vendors."""
    return "main" in components and any(_DEBIAN.fullmatch(suite) for suite in suites)
