"""What this machine can do, and what to install for the rest: findings, each with a remedy if one is needed."""

from __future__ import annotations

import platform
import shutil
import sys
from dataclasses import asdict, dataclass
from typing import Any

from ktlslab import guests
from ktlslab.errors import GuestError, KtlsLabError, errno_name
from ktlslab.guests import usermode, usernetwork
from ktlslab.guests.needs import Prerequisite
from ktlslab.linux import capabilities, cpu, ktls
from ktlslab.linux.ktls import Direction
from ktlslab.tls.suites import CIPHERS


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of one check. `remedy` is empty if there is nothing to do."""

    name: str
    ok: bool
    says: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"[{'ok' if self.ok else '--'}] {self.says}" + (f"\n     {self.remedy}" if self.remedy else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """All findings, and which suites this kernel accepts: "version cipher" -> direction -> answer."""

    findings: tuple[Finding, ...]
    suites: dict[str, dict[str, bool]]

    @property
    def ready(self) -> bool:
        """Whether kTLS is available: here or in a guest."""
        named = {finding.name: finding.ok for finding in self.findings}
        return named["ktls"] or ((named["guests"] or named["user_mode"]) and named["kernels"])

    def to_json(self) -> dict[str, Any]:
        return {"ready": self.ready, "findings": [asdict(f) for f in self.findings], "suites": self.suites}

    def __str__(self) -> str:
        return "\n".join(str(finding) for finding in self.findings)

    def _repr_html_(self) -> str:
        from ktlslab._html import Html, markup, table  # noqa: PLC0415 - only in a notebook

        here = next(one.ok for one in self.findings if one.name == "ktls")
        ready = "kTLS here" if here else "kTLS in a guest" if self.ready else "no kTLS yet"
        rows = [
            ("✓" if one.ok else "✗", one.name, Html("<br>".join(map(markup, filter(None, (one.says, one.remedy))))))
            for one in self.findings
        ]
        suites = [
            (name, *("✓" if taken else "✗" for taken in answers.values())) for name, answers in self.suites.items()
        ]
        return (
            f'<div><div style="font-weight:bold">What this machine can do: {ready}</div>{table((), rows)}'
            '<details><summary style="cursor:pointer">suites that this kernel takes</summary>'
            f"{table(('', *(one.name for one in Direction)), suites)}</details></div>"
        )


def doctor() -> Diagnosis:
    """Check everything that ktlslab needs. This changes nothing and needs no network."""
    found = capabilities.probe()
    suites: dict[str, dict[str, bool]] = {}
    for version in capabilities.TLS_VERSIONS:
        for cipher in CIPHERS:
            taken = {
                direction.name: bool(found.suites[version, cipher.kernel_type, direction]) for direction in Direction
            }
            suites[f"{'TLS 1.2' if version == 0x0303 else 'TLS 1.3'} {cipher.name}"] = taken
    findings = (_system(), _ktls(found), _io_uring(found), *_guests(), *_user_mode(), _kernels())
    return Diagnosis(findings=findings, suites=suites)


def _system() -> Finding:
    says = f"Linux {platform.release()} on {platform.machine()}, Python {platform.python_version()}"
    if cpu.is_user_mode():
        says += "; a user-mode kernel: one CPU, no tracepoints, no hardware counters, CPU clocks that tick at 10 ms"
    return Finding(name="system", ok=sys.platform == "linux", says=says)


def _ktls(found: capabilities.Probe) -> Finding:
    if found.ktls:
        count = sum(map(bool, found.suites.values()))
        says = f"kTLS works here: {count} of {len(found.suites)} combinations of version, cipher and direction"
        more = {
            "KeyUpdate": capabilities.rekey(),
            "a limit on records": capabilities.max_payload(),
            "keys by io_uring": capabilities.uring_setsockopt(),
        }
        says += "".join(f"; {name}: {'yes' if answer else 'no'}" for name, answer in more.items())
        return Finding(name="ktls", ok=True, says=says)
    if found.ulp:
        remedy = "Use a guest: `ktlslab guest run newest -- COMMAND`."
        return Finding(
            name="ktls",
            ok=False,
            says="this kernel has the tls module, but it takes none of our ciphers",
            remedy=remedy,
        )
    says = f"no kTLS here: setsockopt(TCP_ULP, {ktls.ULP_NAME!r}) answered {errno_name(found.ulp.errno)}"
    remedy = (
        "`modprobe tls` as root loads the module if the kernel has one; "
        "otherwise use a guest: `ktlslab guest run uml -- COMMAND`, `--on newest`."
    )
    return Finding(name="ktls", ok=False, says=says, remedy=remedy)


def _io_uring(found: capabilities.Probe) -> Finding:
    if found.io_uring:
        return Finding(name="io_uring", ok=True, says="io_uring works")
    says = f"io_uring does not work: io_uring_setup(2) answered {errno_name(found.io_uring.errno)}"
    return Finding(name="io_uring", ok=False, says=says, remedy=found.io_uring.reason)


def _guests() -> list[Finding]:
    needs = guests.prerequisites()
    if missing := _missing(needs, "guests"):
        return [Finding(name="guests", ok=False, says="guests cannot be started"), *missing]
    says = f"guests available: {', '.join(need.name for need in needs)} found"
    try:
        kvm = guests.accelerator() == "kvm"
    except KtlsLabError:
        kvm = False
    says += "; KVM works" if kvm else "; no working KVM, so they are emulated in software and count instructions"
    return [Finding(name="guests", ok=True, says=says)]


def _user_mode() -> list[Finding]:
    if missing := _missing(guests.prerequisites(user_mode=True), "user-mode kernels"):
        return [Finding(name="user_mode", ok=False, says="user-mode kernels cannot be started"), *missing]
    says = "user-mode kernels can be started, on this CPU and without QEMU: `ktlslab guest run uml -- COMMAND`"
    started = Finding(name="user_mode", ok=True, says=says)
    try:
        usermode.check_network()
    except GuestError as error:
        says = f"they have no network, and so no Jupyter kernel and no `get --on uml`: {error.answered}"
        return [started, Finding(name=usernetwork.LIBRARY, ok=False, says=says, remedy=error.remedy)]
    return [started]


def _missing(needs: list[Prerequisite], what: str) -> list[Finding]:
    return [
        Finding(name=need.name, ok=False, says=f"{what} need {need.name}, which is missing", remedy=need.remedy)
        for need in needs
        if not need.present
    ]


def _kernels() -> Finding:
    kernels = guests.cached()
    if kernels:
        listed = ", ".join(f"{kernel.series} ({kernel.release})" for kernel in kernels)
        return Finding(name="kernels", ok=True, says=f"cached guest kernels: {listed}")
    can_fetch = shutil.which("apt-get") is not None
    remedy = (
        "`ktlslab guest fetch newest` fetches one"
        if can_fetch
        else "Without apt: `ktlslab guest run /boot/vmlinuz-… -- …`"
    )
    return Finding(name="kernels", ok=False, says="no guest kernel is cached yet", remedy=f"{remedy}.")
