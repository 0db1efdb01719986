"""Traces written by hand, in the plugin's format; and one small profile from a guest."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import ktlslab
from ktlslab.measure.plan import Plan
from ktlslab.profiling.counting import Program
from ktlslab.profiling.symbols import KernelSymbols
from ktlslab.profiling.traces import Blocks, Trace

KERNEL = 0xFFFFFFFF81000000
MODULE = 0xFFFFFFFFC0000000
SYMBOLS = f"""\
{KERNEL:x} T entry_SYSCALL_64
{KERNEL + 0x100:x} T __pfx_work
{KERNEL + 0x110:x} T work
{KERNEL + 0x200:x} t help
{KERNEL + 0x2F0:x} T irq_entries_start
{KERNEL + 0x300:x} T asm_sysvec_apic_timer_interrupt
{KERNEL + 0x400:x} t tick
{KERNEL + 0x500:x} T schedule
{KERNEL + 0x600:x} t leap.isra.0
{KERNEL + 0x700:x} D data
{MODULE:x} t help	[tls]
"""
CALL, RETURN, RDTSC, SYSCALL, IRET, JUMP, MOVE = (
    bytes.fromhex(code) for code in ("e800000000", "c3", "0f31", "0f05", "48cf", "eb10", "4889c8")
)


@dataclass
class Written:
    """A trace in the making: `block` and `switch` in the order of execution."""

    blocks: dict[tuple[int, bytes, int], int] = field(default_factory=dict)
    words: list[int] = field(default_factory=list)

    def switch(self, task: int) -> Written:
        self.words += [0xFFFFFFFF, task & 0xFFFFFFFF, task >> 32]
        return self

    def block(self, start: int, last: bytes = MOVE, instructions: int = 1) -> Written:
        """Execute a block of so many instructions, all MOVE but the last."""
        self.words.append(self.blocks.setdefault((start, last, instructions), len(self.blocks)))
        return self

    def save(self, folder: Path) -> tuple[Blocks, Trace]:
        with (folder / "blocks").open("wb") as out:
            for start, last, instructions in self.blocks:
                code = MOVE * (instructions - 1) + last
                out.write(struct.pack("=QHHHH", start, instructions, len(code), len(code) - len(last), 0) + code)
        (folder / "trace.0").write_bytes(struct.pack(f"={len(self.words)}I", *self.words))
        blocks = Blocks.read(folder / "blocks")
        return blocks, Trace.read(folder / "trace.0", blocks)


@pytest.fixture
def written(tmp_path):
    """Return a function that makes (trace, program) of a Written."""

    def make(trace: Written) -> tuple[Trace, Program]:
        blocks, read = trace.save(tmp_path)
        return read, Program(blocks, KernelSymbols(SYMBOLS), {})

    return make


@pytest.fixture(scope="session")
def plan() -> Plan:
    return Plan(
        name="profiled",
        record_layers=("kernel", "userspace"),
        io_engines=("syscall",),
        suites=("TLS_AES_256_GCM_SHA384",),
        payloads=(1024,),
        workloads=("upload",),
        steps=8,
    )


@pytest.fixture(scope="session")
def profiled(plan, tmp_path_factory):
    """Return the path of a profile from a guest."""
    path = tmp_path_factory.mktemp("profile") / "p.parquet"
    ktlslab.profile(plan, "newest", output=path, progress=False)
    return path
