"""Debian's archive through apt, without privileges and without touching this machine's own apt state.

apt verifies the archive's signature and the hash of every file, and uses this machine's proxy. It gets its own lists,
cache and status folders.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from ktlslab.errors import KernelUnavailableError
from ktlslab.guests.aptsources import SECURITY_SUITES, SUITES, sources
from ktlslab.guests.cache import cache_dir, full_disk, storage
from ktlslab.packages import how_to_get

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
REMEDY = (
    "Check the network and this machine's apt sources (or set $KTLSLAB_MIRROR to a Debian archive); a kernel image "
    "that you already have works without either: `ktlslab guest run /boot/vmlinuz-... -- COMMAND`."
)
_TIMEOUT = 600.0
_FRESH_S = 300.0  # for so long what the archive has said is not asked for again
_NO_SPACE = re.compile(r"no space left|enough free space|disk quota", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Apt:
    """Some suites of the archive. `name` is that of the file that lists them."""

    name: str = "sources"
    suites: tuple[str, ...] = SUITES
    security_suites: tuple[str, ...] = SECURITY_SUITES

    def update(self) -> None:
        """Fetch the package lists, unless they just were. Suites that fail are ignored as long as one works."""
        tried = "asking Debian's archive for its kernels"
        if not shutil.which("apt-get"):
            answered = "this machine has no apt-get"
            raise KernelUnavailableError(tried, answered=answered, remedy=REMEDY)
        if not KEYRING.exists():
            remedy = how_to_get("debian-archive-keyring")
            raise KernelUnavailableError(tried, answered=f"{KEYRING} is missing", remedy=f"{remedy}. {REMEDY}")
        found = sources(suites=self.suites, security_suites=self.security_suites)
        if not found:
            answered = "this machine's apt sources name no Debian archive"
            raise KernelUnavailableError(tried, answered=answered, remedy=REMEDY)
        state = _state()
        lines = [f"deb [arch=amd64 signed-by={KEYRING}] {uri} {suite} main" for uri, suite in found]
        listed, text = state / f"{self.name}.list", "\n".join(lines) + "\n"
        fetched = state / f"{self.name}.fetched"  # from which sources, and when
        if _is_fresh(fetched, text) and list((state / "lists").glob("*Packages*")):
            return
        with storage("writing the private apt sources"):
            fetched.unlink(missing_ok=True)
            listed.write_text(text, encoding="utf-8")
        done = _run(["apt-get", "-q", *self._options(), "update"])
        # Old lists may exist, so check that the archive answered for at least one suite now.
        answered_for = re.search(r"^(Get|Hit):\d+ .* InRelease", done.stdout, re.MULTILINE)
        if not answered_for or not list((state / "lists").glob("*Packages*")):
            raise _failure(tried, done.stderr, state)
        with storage(f"writing {fetched}"):
            fetched.write_text(text, encoding="utf-8")

    def ask(self, program: str, *argv: str, tried: str, cwd: Path | None = None) -> str:
        """Return what one of apt's programs prints."""
        done = _run([program, *self._options(), *argv], cwd=cwd)
        if done.returncode:
            raise _failure(tried, done.stderr, cwd or _state())
        return done.stdout

    def unpack(self, packages: list[str], root: Path, what: str) -> None:
        """Download packages, each NAME or NAME=VERSION, and unpack them into `root`."""
        downloads = root / "downloads"
        with storage(f"unpacking {what}"):
            downloads.mkdir()
        self.ask("apt-get", "-q", "download", *packages, tried=f"downloading {what}", cwd=downloads)
        for package in sorted(downloads.glob("*.deb")):
            argv = ["dpkg-deb", "-x", str(package), str(root)]
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
            if done.returncode:
                raise _failure(f"unpacking {package.name}", done.stderr, root)
            package.unlink()
        shutil.rmtree(downloads)

    def _options(self) -> list[str]:
        state = _state()
        settings = {
            "Dir::Etc::SourceList": state / f"{self.name}.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::Etc::Preferences": "/dev/null",
            "Dir::Etc::PreferencesParts": "/dev/null",
            "Dir::State": state,
            "Dir::State::Lists": state / "lists",
            "Dir::State::status": state / "status",
            "Dir::Cache": state / "cache",
            "Dir::Cache::pkgcache": f"{self.name}-pkgcache.bin",
            "Dir::Cache::srcpkgcache": f"{self.name}-srcpkgcache.bin",
            "APT::Architecture": "amd64",
            "APT::Architectures": "amd64",
            "APT::Get::List-Cleanup": "false",  # the lists are shared by all files of sources
            "APT::Sandbox::User": "root",  # the user _apt cannot use our folder
            "Acquire::Languages": "none",
            "Acquire::Retries": "2",
            "Acquire::http::Timeout": "20",
            "Acquire::https::Timeout": "20",
        }
        return [part for key, value in settings.items() for part in ("-o", f"{key}={value}")]


def is_newer(left: str, right: str) -> bool:
    """Whether version `left` is newer than `right`, by Debian's rules."""
    return subprocess.run(["dpkg", "--compare-versions", left, "gt", right], check=False).returncode == 0


def _is_fresh(fetched: Path, text: str) -> bool:
    """Whether the lists of these sources were fetched just now; those of a folder change whenever its owner likes."""
    try:
        age = time.time() - fetched.stat().st_mtime
        return 0 <= age < _FRESH_S and fetched.read_text(encoding="utf-8") == text and "] file:" not in text
    except OSError:
        return False


def _state() -> Path:
    state = cache_dir("apt")
    with storage(f"making {state}"):
        for folder in ("lists/partial", "cache/archives/partial"):
            (state / folder).mkdir(parents=True, exist_ok=True)
        (state / "status").touch()
    return state


def _run(argv: list[str], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            argv, cwd=cwd, capture_output=True, text=True, errors="replace", check=False, timeout=_TIMEOUT
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KernelUnavailableError(f"running {argv[0]}", answered=str(error), remedy=REMEDY) from error


def _failure(tried: str, stderr: str, where: Path) -> Exception:
    """Distinguish a full disk from an archive that cannot be reached."""
    lines = [line for line in stderr.splitlines() if line.startswith("E:")] or stderr.splitlines() or ["no answer"]
    lines = [line for line in stderr.splitlines() if _NO_SPACE.search(line)] or lines
    answered = "; ".join(line.rstrip(".") for line in lines[-2:])
    if _NO_SPACE.search(stderr) or shutil.disk_usage(where).free < 1 << 20:
        return full_disk(tried, answered)
    return KernelUnavailableError(tried, answered=answered, remedy=REMEDY)
