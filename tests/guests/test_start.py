"""What a guest's start leaves out: instructions that only make every test and every notebook wait."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from ktlslab.guests import fetch, qemu, run
from ktlslab.guests.kernels import Kernel

UNSIGNED = 1 << 13  # of /proc/sys/kernel/tainted: a module without a signature was loaded
ASK = """
import json
from pathlib import Path
user, nice, system, _, _, irq, softirq, *_ = map(int, Path("/proc/stat").read_text().split()[1:9])
print(json.dumps([(user + nice + system + irq + softirq) / 100, int(Path("/proc/sys/kernel/tainted").read_text())]))
"""


def started(kernel):
    """Return how many thousand million instructions were executed up to Python, and the kernel's taints."""
    done = run(kernel, [sys.executable, "-I", "-S", "-c", ASK], clock="instructions", timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    return json.loads(done.stdout)


@pytest.mark.parametrize("series", ["6.1", "6.12", "newest"])
def test_a_start_takes_few_instructions(series, record_property):
    executed, tainted = started(fetch(series))
    record_property("thousand million instructions", executed)
    assert executed < 0.8  # 1.2 to 1.8, with all that is left out
    assert tainted == UNSIGNED


def test_a_kernel_that_insists_on_signatures_gets_them_and_its_keys(newest, monkeypatch):
    monkeypatch.setattr(Kernel, "takes_unsigned", False)
    executed, tainted = started(newest)
    assert executed < 1.2
    assert tainted == 0


@pytest.mark.parametrize("takes_unsigned", [True, False])
@pytest.mark.parametrize("accelerator", ["kvm", "tcg"])
def test_the_keys_go_with_the_signatures_and_the_search_for_interrupts_with_a_real_cpu(accelerator, takes_unsigned):
    machine = qemu.VirtualMachine(
        kernel=Path("vmlinux"),
        initrd=Path("initrd"),
        console=Path("console.log"),
        ports=(),
        clock="wall",
        accelerator=accelerator,
        cpus=1,
        memory_bytes=1 << 30,
        takes_unsigned=takes_unsigned,
    )
    line = qemu.parameters(machine)
    (unneeded,) = [word.partition("=")[2].split(",") for word in line if word.startswith("initcall_blacklist=")]
    assert (qemu.KEYRING in unneeded) is takes_unsigned
    assert set(qemu.UNNEEDED) <= set(unneeded)
    assert ("acpi=noirq" in line) is (accelerator == "tcg")
