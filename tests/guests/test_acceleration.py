"""KVM where there is none: inside an emulated guest, whose emulated CPU has AMD's virtualisation."""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
from pathlib import Path

import pytest

from ktlslab.guests import acceleration, accelerator, fetch, qemu, run, vmlinux
from ktlslab.guests.cache import cache_dir

NESTED = """
import json, subprocess, sys
subprocess.run(["modprobe", "kvm_amd"], check=True)
from ktlslab import guests
from ktlslab.guests import acceleration
acceleration.TRIAL_SECONDS = 60.0  # this CPU is emulated
answers = {}
for series in sys.argv[1:]:
    # Virtualisation that is emulated itself lets one kernel hang and the next one run: the first that runs is enough.
    if "kvm" not in answers.values() or series == sys.argv[-1]:
        kernel = guests.find(series)
        answers[series] = guests.accelerator(kernel)
        assert guests.accelerator(kernel) == answers[series]
print(json.dumps({series: [a, acceleration._recorded()[acceleration._key(guests.find(series))]]
                  for series, a in answers.items()}))
"""


@pytest.mark.timeout(240)
def test_each_kernel_has_its_own_answer_from_its_own_trial_on_kvm(newest):
    series = ["6.1", "6.12", newest.series]
    for name in series:
        vmlinux.bootable(fetch(name).vmlinuz)  # here: what the guest adds to the cache is gone with it
    env = {"KTLSLAB_CACHE": str(cache_dir())}
    # One CPU: with more of them that take turns, what runs inside may wait for ever for one that has no turn.
    argv = [sys.executable, "-c", NESTED, *series]
    done = run(newest, argv, clock="wall", cpus=1, memory="2G", env=env, timeout=200)
    assert (done.returncode, done.stderr.decode()) == (0, "")
    answers = json.loads(done.stdout)
    assert newest.series in answers
    assert "kvm" in [answer for answer, _ in answers.values()]
    for answer, seen in answers.values():
        assert (answer == "kvm") is (seen == acceleration.AWAITED), answers


@pytest.fixture
def trials(tmp_path, monkeypatch):
    """Let trials run on the emulated CPU, and end in what a kernel's parameter makes them end in, by kernel."""

    def command(kernel, console, _accelerate):
        argv = original(kernel, console, ["-accel", "tcg", "-cpu", qemu.CPU])
        tried.append(kernel.vmlinuz)
        argv[argv.index("-append") + 1] += ends.get(kernel.vmlinuz, "")
        return argv

    tried, ends = [], {}
    original = acceleration.command
    monkeypatch.setattr(acceleration, "command", command)
    monkeypatch.setattr(acceleration, "DEVICE", Path("/dev/null"))
    monkeypatch.setattr(acceleration, "TRIAL_SECONDS", 60.0)
    monkeypatch.setattr(acceleration, "_place", lambda: tmp_path / "accelerator-test.json")
    return tried, ends


def test_only_the_panic_that_is_waited_for_counts_and_only_for_its_kernel(newest, trials, tmp_path):
    tried, ends = trials
    image = tmp_path / "vmlinuz-other"
    image.symlink_to(newest.vmlinuz)
    other = dataclasses.replace(newest, vmlinuz=image)
    ends[image] = " root=1:0"  # a panic as well, and near to the one that is waited for
    assert [accelerator(kernel) for kernel in (newest, other, newest, other)] == ["kvm", "tcg", "kvm", "tcg"]
    assert tried == [newest.vmlinuz, image]
    seen = json.loads((tmp_path / "accelerator-test.json").read_text())
    assert sorted(seen.values())[1].startswith(
        "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(1"
    )


def test_a_kernel_that_ends_without_a_panic_or_never_is_refused(newest, trials, monkeypatch):
    _, ends = trials
    ends[newest.vmlinuz] = " panic=0"  # stays in its panic
    assert acceleration.trial(newest, 4.0) == "it did not end"
    monkeypatch.setattr(acceleration, "command", lambda *_: ["false"])
    assert acceleration.trial(newest, 4.0) == "QEMU ended with 1 and no panic"


def test_a_boot_that_fails_on_kvm_is_made_emulated_and_said_and_remembered(newest, tmp_path, monkeypatch, caplog):
    def arguments(machine):
        line = original(machine)
        used.append((machine.accelerator, machine.clock))
        if machine.accelerator == "kvm":  # it fails with and without a working KVM
            line[line.index("-append") + 1] += " rdinit=/none"
        return line

    used = []
    original = qemu.arguments
    monkeypatch.setattr(qemu, "arguments", arguments)
    monkeypatch.setattr("ktlslab.guests.guest.KVM_BOOT_TIMEOUT", 5.0)
    monkeypatch.setattr(acceleration, "DEVICE", Path("/dev/null"))
    monkeypatch.setattr(acceleration, "_place", lambda: tmp_path / "accelerator-test.json")
    acceleration._record({acceleration._key(newest): acceleration.AWAITED})
    with caplog.at_level(logging.WARNING):
        done = run(newest, ["uname", "-r"])
    assert done.stdout.decode().strip() == newest.release
    assert used == [("kvm", "wall"), ("tcg", "wall")]
    assert f"{newest} does not boot on KVM, so it is emulated" in caplog.text
    assert accelerator(newest) == "tcg"
