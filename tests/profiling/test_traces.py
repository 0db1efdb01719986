"""What the plugin wrote is read back, and each instruction falls to its function, end and caller."""

from __future__ import annotations

import pytest

from ktlslab.errors import GuestError
from ktlslab.profiling.counting import count
from ktlslab.profiling.traces import Blocks, Trace, steps_of
from ktlslab.profiling.trees import is_call, tree
from ktlslab.profiling.typical import Typical, typical_steps

from .conftest import CALL, IRET, JUMP, KERNEL, MODULE, MOVE, RDTSC, RETURN, SYSCALL, Written

CLIENT, PEER, IDLE = 0xFFFF888000001000, 0xFFFF888000002000, 0xFFFF888000003000


def operation(trace: Written) -> Written:
    """Add a system call of the client, in which work calls help of the kernel, and that jumps to help of tls."""
    trace.block(0x1000, RDTSC).block(0x1010, SYSCALL, 3).block(KERNEL, CALL, 2)
    trace.block(KERNEL + 0x110, CALL, 10)
    trace.block(KERNEL + 0x200, JUMP, 5).block(MODULE, RETURN, 7)
    trace.block(KERNEL + 0x110 + 9 * 3 + 5, RETURN, 4)
    return trace.block(KERNEL + 3 + 5, IRET, 1)


def by_function(counts):
    return {(one.end, one.place.object, one.place.function): (one.instructions, one.calls) for one in counts}


def test_instructions_and_calls_fall_to_functions_told_apart_by_module(written):
    trace, program = written(operation(Written().switch(CLIENT)).block(0x1020, RDTSC, 2))
    steps = steps_of(trace, program.blocks, [34])
    assert steps == [(1, 9)]
    assert by_function(count(trace, program, steps)) == {
        ("client", "", ""): (5, 0),
        ("client", "kernel", "entry_SYSCALL_64"): (3, 1),
        ("client", "kernel", "work"): (14, 1),
        ("client", "kernel", "help"): (5, 1),
        ("client", "tls", "help"): (7, 1),
    }


def test_what_an_interrupt_executes_is_told_apart_and_does_not_end_the_call(written):
    trace = operation(Written().switch(CLIENT))
    trace.block(0x1010, SYSCALL, 3).block(KERNEL, CALL, 2)
    trace.block(KERNEL + 0x300, CALL, 20).block(KERNEL + 0x400, RETURN, 30).block(KERNEL + 0x308, IRET, 1)
    trace.block(KERNEL + 0x110, CALL, 10).block(0x1020, RDTSC, 2)
    trace, program = written(trace)
    counts = count(trace, program, steps_of(trace, program.blocks, [1]))
    interrupts = {one.place.function: one.instructions for one in counts if one.interrupt}
    assert interrupts == {"asm_sysvec_apic_timer_interrupt": 21, "tick": 30}
    assert by_function([one for one in counts if not one.interrupt])["client", "kernel", "work"] == (24, 2)


def test_the_ends_are_the_tasks_that_the_kernel_switches_to(written):
    trace = Written().switch(CLIENT).block(0x1000, RDTSC).block(KERNEL + 0x500, MOVE, 2)
    trace.switch(PEER).block(KERNEL + 0x110, MOVE, 3).block(0x1000, MOVE, 4)
    trace.switch(IDLE).block(KERNEL + 0x110, MOVE, 5).switch(CLIENT).block(0x1020, RDTSC, 6)
    trace, program = written(trace)
    assert trace.task.tolist() == [0, 0, 1, 1, 2, 0]
    assert by_function(count(trace, program, steps_of(trace, program.blocks, [1]))) == {
        ("client", "kernel", "schedule"): (2, 1),
        ("client", "", ""): (6, 0),
        ("peer", "kernel", "work"): (3, 1),
        ("peer", "", ""): (4, 0),
        ("machine", "kernel", "work"): (5, 1),
    }


def test_the_call_tree_has_calls_jumps_and_returns(written):
    trace = operation(operation(Written().switch(CLIENT)).block(0x1020, RDTSC, 2)).block(0x1020, RDTSC, 2)
    trace, program = written(trace)
    steps = steps_of(trace, program.blocks, [1, 1])
    assert typical_steps(trace, program, steps)["client"] == Typical(step=1, alike=2)
    root = tree(trace, program, steps[1])["client"]
    shown = [
        (level, node.place.function, node.place.object, node.instructions, node.calls) for level, node in root.walk()
    ]
    assert shown == [
        (0, "entry_SYSCALL_64", "kernel", 3, 1),
        (1, "work", "kernel", 14, 1),
        (2, "help", "kernel", 5, 1),
        (2, "help", "tls", 7, 1),
    ]
    assert root.total() == 34


def test_the_step_that_stands_for_all_does_in_the_kernel_what_most_do(written):
    trace = Written().switch(CLIENT)
    for work, own in ((3, 1), (3, 9), (5, 2), (3, 2), (3, 5), (4, 2)):
        trace.block(0x1000, RDTSC).block(0x1010, SYSCALL, own).block(KERNEL, CALL, 2)
        if own == 9:
            trace.block(KERNEL + 0x300, CALL, 1).block(KERNEL + 0x308, IRET, 1)
        trace.block(KERNEL + 0x110, RETURN, work).block(KERNEL + 8, IRET, 1).block(0x1020, RDTSC, 2)
    trace, program = written(trace)
    steps = steps_of(trace, program.blocks, [1] * 6)
    # Not the first; of 1, 3 and 4, which are alike, not 1, into which an interrupt fell; then the median in user code.
    assert typical_steps(trace, program, steps)["client"] == Typical(step=3, alike=4)


def test_what_leads_to_an_interrupts_handler_is_the_interrupts(written):
    trace = operation(Written().switch(CLIENT)).block(0x1010, SYSCALL, 3).block(KERNEL, CALL, 2)
    trace.block(KERNEL + 0x2F8, JUMP, 2).block(KERNEL + 0x300, CALL, 5)
    trace.block(KERNEL + 0x308, IRET, 1).block(0x1020, RDTSC, 2)
    trace, program = written(trace)
    counts = count(trace, program, steps_of(trace, program.blocks, [1]))
    interrupts = {one.place.function: one.instructions for one in counts if one.interrupt}
    assert interrupts == {"irq_entries_start": 2, "asm_sysvec_apic_timer_interrupt": 6}


def test_a_step_that_reads_the_clock_itself_is_refused(written):
    trace, program = written(Written().switch(CLIENT).block(0x1000, RDTSC).block(0x1020, RDTSC).block(0x1030, RDTSC))
    with pytest.raises(GuestError, match="3 times, not twice each"):
        steps_of(trace, program.blocks, [1])


@pytest.mark.parametrize(
    ("name", "data"), [("trace.0", b""), ("trace.0", b"\0" * 8), ("trace.0", b"\xff" * 12 + b"\7\0\0\0")]
)
def test_an_incomplete_trace_is_refused(tmp_path, name, data):
    blocks, _ = Written().switch(CLIENT).block(0x1000).save(tmp_path)
    (tmp_path / name).write_bytes(data)
    with pytest.raises(GuestError, match=r"trace\.0"):
        Trace.read(tmp_path / name, blocks)


def test_a_missing_trace_is_refused(tmp_path):
    blocks, _ = Written().switch(CLIENT).block(0x1000).save(tmp_path)
    with pytest.raises(GuestError, match=r"wrote no trace\.9"):
        Trace.read(tmp_path / "trace.9", blocks)


def test_half_a_block_at_the_end_is_not_read_yet(tmp_path):
    Written().switch(CLIENT).block(0x1000).block(0x2000).save(tmp_path)
    data = (tmp_path / "blocks").read_bytes()
    for size in (len(data) - 1, len(data) - 4):
        (tmp_path / "blocks").write_bytes(data[:size])
        assert Blocks.read(tmp_path / "blocks").start.tolist() == [0x1000]


@pytest.mark.parametrize(
    ("code", "calls"),
    [
        *((code, True) for code in ("e800000000", "ffd0", "41ffd3", "ff1425cafebabe", "2effd0")),
        *((code, False) for code in ("ffe0", "41ffe3", "c3", "e900000000", "ff7008", "ff")),
    ],
)
def test_a_call_is_told_from_a_jump(code, calls):
    assert is_call(bytes.fromhex(code)) is calls
