from __future__ import annotations

import dataclasses
import lzma
import subprocess
from pathlib import Path

import pytest

from ktlslab.errors import GuestError, UsageError
from ktlslab.guests import cpio, initramfs, modules
from ktlslab.guests.console import last_words
from ktlslab.guests.streams import MarkedOutput

DEP = """\
kernel/fs/9p/9p.ko.xz: kernel/net/9p/9pnet.ko.xz kernel/fs/netfs/netfs.ko.xz
kernel/net/9p/9pnet.ko.xz: kernel/fs/netfs/netfs.ko.xz
kernel/fs/netfs/netfs.ko.xz:
kernel/arch/x86/crypto/aesni-intel.ko.xz:
"""


def listed(archive):
    done = subprocess.run(["cpio", "-t", "--quiet"], input=archive, capture_output=True, check=True)
    return done.stdout.decode().split()


def test_an_archive_is_what_cpio_reads():
    archive = cpio.pack({"bin/busybox": b"abc", "init": b""}, folders=("dev", "a/b"))
    assert listed(archive) == ["dev", "a", "a/b", "bin", "bin/busybox", "init"]
    assert len(archive) % 512 == 0


def test_modules_come_after_what_they_need_and_built_in_ones_not_at_all():
    index = modules.parse(Path("/r"), DEP, "kernel/drivers/virtio/virtio_pci.ko\n")
    order = [modules.name_of(path) for path in index.order(["virtio_pci", "9p"], ["aesni-intel", "absent"])]
    assert order == ["netfs", "9pnet", "9p", "aesni_intel"]
    with pytest.raises(GuestError, match="overlay"):
        index.order(["overlay"])


def test_compressed_modules_are_unpacked(tmp_path):
    (tmp_path / "a.ko.xz").write_bytes(lzma.compress(b"module"))
    assert modules.content(tmp_path / "a.ko.xz", signed=True) == b"module"


SIGNATURE = b"s" * 262 + bytes([0, 0, 2, 0, 0, 0, 0, 0]) + (262).to_bytes(4, "big") + b"~Module signature appended~\n"


def test_a_module_goes_without_its_signature_and_what_no_guest_reads_unless_its_kernel_insists(tmp_path):
    module, file = b"\x7fELF~.text\0.BTF\0.BTF.base\0.rela_ftrace_eval_map\0_ftrace_events\0", tmp_path / "a.ko"
    less = b"\x7fELF~.text\0-BTF\0.BTF.base\0.rela-ftrace_eval_map\0_ftrace_events\0"
    file.write_bytes(module + SIGNATURE)
    assert modules.content(file, signed=True) == module + SIGNATURE
    assert modules.content(file, signed=False) == less
    file.write_bytes(module)
    assert modules.content(file, signed=False) == less


@pytest.mark.parametrize(
    ("config", "takes"),
    [
        ("CONFIG_MODULE_SIG=y\n# CONFIG_MODULE_SIG_FORCE is not set\nCONFIG_LOCK_DOWN_KERNEL_FORCE_NONE=y\n", True),
        ("CONFIG_MODULE_SIG_FORCE=y\n", False),
        ("CONFIG_X86=y\nCONFIG_LOCK_DOWN_KERNEL_FORCE_INTEGRITY=y\n", False),
        (None, False),
    ],
)
def test_a_kernel_says_by_its_configuration_whether_it_takes_unsigned_modules(config, takes, newest, tmp_path):
    kernel = dataclasses.replace(newest, vmlinuz=tmp_path / "vmlinuz", modules=tmp_path)
    if config is not None:
        (tmp_path / f"config-{newest.release}").write_text(config)
    assert kernel.takes_unsigned is takes


def test_the_start_of_a_real_kernel_holds_its_modules_plain(newest):
    names = listed(initramfs.build(newest, ["tls"]).read_bytes())
    assert {"init", "bin/busybox", "modules/9p.ko", "modules/tls.ko", "modules/order"} <= set(names)
    assert b"~Module signature appended~" not in initramfs.build(newest, ["tls"]).read_bytes()
    assert initramfs.build(newest, ["tls"]) == initramfs.build(newest, ["tls"])


def job(**changes):
    values = {"argv": ("true",), "env": {}, "cwd": Path("/"), "release": "r", "modules": Path("/m"), "mark": "m"}
    return initramfs.GuestJob(**{**values, "rw": None, **changes})


def test_nothing_in_a_command_is_read_by_the_shell():
    words = ("printf", "%s|", "it's", "$HOME `x`", "a\nb", "*", "")
    script = initramfs.command(job(argv=words, env={"A": "$B 'c'"}))
    done = subprocess.run(["busybox", "sh"], input=script, capture_output=True, check=True)
    assert done.stdout.decode() == "".join(f"{word}|" for word in words[2:])


@pytest.mark.parametrize("changes", [{"env": {"A B": "c"}}, {"argv": ("a\0b",)}])
def test_what_cannot_be_passed_is_refused(changes):
    with pytest.raises(UsageError):
        initramfs.command(job(**changes))


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_a_stream_ends_at_its_mark_however_it_is_cut(size):
    stream = MarkedOutput(b"<end>\n")
    data = b"a<e<end><end>\n"
    for at in range(0, len(data), size):
        stream.feed(data[at : at + size])
    assert (stream.complete, stream.captured.getvalue()) == (True, b"a<e<end>")


def test_a_stream_that_never_ended_gives_what_came():
    stream = MarkedOutput(b"<end>\n")
    stream.feed(b"abc<en")
    assert stream.captured.getvalue() == b"abc"
    stream.flush()
    assert stream.captured.getvalue() == b"abc<en"


def test_a_panics_reason_is_kept_and_its_registers_are_not():
    said = "booting\r\nKernel panic - not syncing: no root\r\nCPU: 0\r\nCall Trace:\r\n <TASK>\r\n" + "RAX: 0\r\n" * 500
    assert last_words(said) == "booting\nKernel panic - not syncing: no root\nCPU: 0"
    assert last_words("ktlslab: no root share\n") == "ktlslab: no root share"
