"""A profile of a real operation in a guest: what it must show whatever the kernel, and what is made of it."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

import ktlslab
from ktlslab.cli import main
from ktlslab.errors import GuestError, MachineError, TableError, UsageError
from ktlslab.profiling import plugin, worker
from ktlslab.profiling.collecting import TOLERANCE, check_of
from ktlslab.profiling.comparison import chosen, compared
from ktlslab.show import reporting
from ktlslab.show.icicles import bars, icicle, icicle_plot
from ktlslab.show.profiled import instructions

GCM = "AEAD AES-256-GCM"
EXACT = [GCM, "tls", "copying", "clearing", "system calls", "sockets and skb memory", "security hooks"]


@pytest.fixture(scope="module")
def profile(profiled):
    return ktlslab.read_profile(profiled)


def total(profile, **only):
    rows = profile.functions
    for name, value in only.items():
        rows = rows[rows[name.removesuffix("_")] == value]
    return rows["instructions"].sum()


def test_the_sum_of_all_functions_is_the_clocks_count(profile):
    (run,) = profile.provenance.values()
    assert [check["record_layer"] for check in run["cells"]] == ["kernel", "userspace"]
    for check in run["cells"]:
        counted = total(profile, record_layer=check["record_layer"])
        assert counted == pytest.approx(check["counted"])
        assert counted == pytest.approx(check["clock"], rel=TOLERANCE)
        assert check["other"] < 0.02


def test_the_records_are_made_where_the_arm_says(profile):
    for layer, mode, other in (("kernel", "kernel", "user"), ("userspace", "user", "kernel")):
        only = {"record_layer": layer, "end": "client", "class_": GCM}
        assert total(profile, mode=mode, **only) > 2000
        assert total(profile, mode=other, **only) < 100


def test_each_end_has_its_own_instructions(profile):
    sent = profile.functions[(profile.functions["function"] == "tls_sw_sendmsg")]
    assert set(sent["end"]) == {"client"}
    assert sent["calls"].tolist() == [1.0]
    peer = profile.functions[(profile.functions["end"] == "peer") & (profile.functions["class"] == "OpenSSL")]
    assert set(peer["record_layer"]) == {"kernel", "userspace"}


def test_the_call_tree_leads_from_the_system_call_to_the_cipher(profile):
    def path(bar, name):
        if bar.name == name:
            return [bar.name]
        return next(([bar.name, *below] for child in bar.children if (below := path(child, name))), [])

    paths = [way for root in bars(profile, record_layer="kernel") if (way := path(root, "bpf_exec_tx_verdict"))]
    (way,) = paths
    assert way.index("do_syscall_64") < way.index("__sys_sendto") < way.index("tls_sw_sendmsg")
    for layer in ("kernel", "userspace"):
        tree = sum(bar.total for bar in bars(profile, record_layer=layer))
        assert tree == pytest.approx(total(profile, record_layer=layer, end="client"), rel=0.1)
    assert {bar.name for bar in bars(profile, record_layer="kernel", mode="kernel")} & {
        "entry_SYSCALL_64",
        "entry_SYSCALL_64_after_hwframe",
    }


def test_comparing_says_which_functions_and_classes_made_the_difference(profile):
    found = compared(profile, profile, a_only={"record_layer": "kernel"}, b_only={"record_layer": "userspace"})
    assert found.of == {"record_layer": ("kernel", "userspace")}
    gone = found.changed.set_index("function")["difference"]
    assert gone["tls_sw_sendmsg"] < 0
    assert {"AEAD AES-256-GCM", "tls"} <= set(found.classes["class"].head(12))
    assert "record_layer kernel (A) with userspace (B)" in str(found)
    assert compared(profile, profile).changed.empty


def test_the_text_of_a_comparison_has_the_functions_below_their_class(profile):
    found = compared(profile, profile, a_only={"record_layer": "userspace"}, b_only={"record_layer": "kernel"})
    lines = str(found).splitlines()
    machine = profile.functions["machine"].iloc[0]
    assert lines[0] == f"upload of 1,024 B, syscall, AES-256-GCM, TLS 1.3, Linux {machine}: the client"
    assert lines[1].split() == ["userspace", "kernel", "difference"]
    for name, says in (("OpenSSL", "[_rust.abi3.so]: only in userspace, 1 call"), ("tls", "[tls]: only in kernel, ")):
        at = next(at for at, line in enumerate(lines) if line.endswith(f"  {name}"))
        assert says in lines[at + 1]
    assert "machine" not in {name.rpartition(" ")[2] for name, _ in found.parts()}


def test_compare_takes_profiles_on_the_command_line(profiled, capsys):
    argv = ["compare", str(profiled), str(profiled)]
    assert main(argv) == 0
    assert main([*argv, "--a", "record_layer=kernel", "--b", "record_layer=userspace"]) == 1
    assert "tls_sw_sendmsg [tls]" in capsys.readouterr().out
    assert main([*argv, "--a", "record_layer=none"]) == 2
    assert "There are kernel, userspace" in capsys.readouterr().err
    assert main([*argv, "--quantity", "latency_p50"]) == 2


def test_the_icicle_needs_nothing_but_itself(profile):
    html = icicle(profile, {"record_layer": "kernel"}, {"record_layer": "userspace"})._repr_html_()
    assert not re.search(r"<(script|style|svg|img|link)|https?://|class=", html)
    assert 'title="tls_sw_sendmsg [tls]' in html
    assert "<details" in html
    assert icicle_plot(profile, record_layer="kernel").png().startswith(b"\x89PNG")
    with pytest.raises(UsageError, match="more than one cell: record_layer: kernel, userspace"):
        icicle(profile)


def test_the_bars_say_what_each_arm_executes(profile):
    plot = instructions(profile)
    assert "the client executes" in plot.caption
    assert {GCM, "tls", "TCP/IP"} <= {text.get_text() for text in plot.legends[0].get_texts()}


def test_two_runs_agree_in_the_kernels_part(plan, profile):
    again = ktlslab.profile(plan, "newest", progress=False)
    assert compared(profile, again, tolerance=0.01).changed.empty
    found = compared(profile, again, typical=True).functions
    exact = found[(found["mode"] == "kernel") & found["class"].isin(EXACT)]
    assert set(exact["class"]) == set(EXACT)
    # What depends on no clock, and on no earlier operation. A step is 8 operations: once in many runs a function takes
    # some instructions more in one of them; all functions together, no whole instruction per operation.
    apart = exact[exact["difference"] != 0]
    assert apart["difference"].abs().sum() < 1, apart[["end", "class", "function", "difference"]].to_string()


def test_the_oldest_kernel_has_the_same_classes(plan, profile):
    oldest = ktlslab.profile(plan, "oldest", progress=False)
    (run,) = oldest.provenance.values()
    assert max(check["other"] for check in run["cells"]) < 0.001
    ciphers = oldest.functions[oldest.functions["object"] == "aesni_intel"]
    assert set(ciphers["class"]) == {GCM}
    assert not ciphers["function"].str.fullmatch(r"_\w+\d").any()  # a label
    missing = set(profile.functions["class"]) - set(oldest.functions["class"])
    assert missing <= {"interrupts", "other"}
    found = compared(oldest, profile, a_only={"record_layer": "kernel"}, b_only={"record_layer": "kernel"})
    assert GCM in set(found.changed["class"])


def test_a_report_has_a_section_of_the_profile(profile):
    section = reporting._instructions(profile, reporting._drawn(reporting.instruction_plots(profile)))
    assert "2 cells, counted by a plugin of QEMU" in section
    assert 'title="tls_sw_sendmsg [tls]' in section
    assert "data:image/png;base64," in section


def test_a_profile_that_does_not_agree_with_the_clock_is_refused():
    rows = [{"class": "tls", "instructions": 100.0}]
    row = dict.fromkeys(ktlslab.profiling.frames.CELL) | {"operations": 4, "took": [201, 198]}
    assert check_of(row, rows)["difference"] == pytest.approx(100 / 99.75 - 1)
    with pytest.raises(GuestError, match="counts 100 instructions per operation, and the clock 90"):
        check_of(row | {"took": [180, 180]}, rows)


def test_this_machine_and_kvm_cannot_be_profiled(plan):
    with pytest.raises(UsageError, match=r"KVM.*--on newest"):
        ktlslab.profile(plan, "here")


def test_a_qemu_without_plugins_is_said_so(tmp_path, monkeypatch):
    qemu = tmp_path / "qemu-system-x86_64"
    qemu.write_text("#!/bin/sh\necho QEMU emulator version 9.9\n")
    qemu.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    plugin.takes_plugins.cache_clear()
    try:
        with pytest.raises(GuestError, match=r"built without plugins.*--enable-plugins"):
            plugin.option(tmp_path)
    finally:
        plugin.takes_plugins.cache_clear()


@pytest.mark.parametrize(("text", "says"), [("", "CONFIG_KALLSYMS"), ("0 T a\n0 t b\n", "kptr_restrict")])
def test_a_kernel_that_hides_its_symbols_is_said_so(text, says):
    with pytest.raises(MachineError, match=says):
        worker.checked(text)
    assert worker.checked("0 T a\nffff T b\n") == "0 T a\nffff T b\n"


@pytest.mark.parametrize("text", ["x", "=1", "record_layer"])
def test_a_choice_that_is_none_is_refused(text):
    with pytest.raises(UsageError, match="FIELD=VALUE"):
        chosen(text)


def test_what_is_no_profile_is_refused(tmp_path, profiled):
    with pytest.raises(TableError, match="no such file"):
        ktlslab.read_profile(tmp_path / "x.parquet")
    (tmp_path / "x.parquet").write_bytes(profiled.read_bytes())
    with pytest.raises(TableError):
        ktlslab.read_profile(tmp_path / "x.parquet")


def test_the_command_says_what_cannot_be_done(tmp_path):
    argv = [sys.executable, "-m", "ktlslab", "profile", "--on", "here", "-o", str(tmp_path / "p.parquet")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--on newest" in done.stderr
