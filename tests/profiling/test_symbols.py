"""Addresses become functions: of the kernel, its modules, and files of user code, stripped ones too."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from ktlslab.profiling.elf import Elf
from ktlslab.profiling.symbols import KernelSymbols, UserCode

from .conftest import KERNEL, MODULE, SYMBOLS

SOURCE = r"""
#include <stddef.h>
__attribute__((noinline, target("aes,sse2"))) static void secret(char *at) {
    asm volatile("aesenc %xmm0, %xmm1\n aesenc %xmm0, %xmm1\n aesenc %xmm0, %xmm1");
    at[0] = 1;
}
__attribute__((noinline)) static int dull(int x) { return x * 3; }
int shown(char *at, int x) { secret(at); return dull(x); }
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Return two shared objects of the same code: with symbols, and stripped."""
    folder = tmp_path_factory.mktemp("elf")
    (folder / "x.c").write_text(SOURCE)
    argv = ["cc", "-O1", "-fno-inline", "-shared", "-fPIC", "-fasynchronous-unwind-tables", "-o", "full.so", "x.c"]
    subprocess.run(argv, cwd=folder, check=True)
    shutil.copy(folder / "full.so", folder / "bare.so")
    subprocess.run(["strip", "bare.so"], cwd=folder, check=True)
    return folder


def test_the_kernels_functions_have_modules_and_plain_names():
    symbols = KernelSymbols(SYMBOLS)
    assert symbols.find(KERNEL + 0x111)[:2] == ("kernel", "work")
    assert symbols.find(MODULE + 5) == ("tls", "help", MODULE)
    assert symbols.find(KERNEL + 0x201) == ("kernel", "help", KERNEL + 0x200)
    assert symbols.find(KERNEL + 0x600)[:2] == ("kernel", "leap")
    assert symbols.find(0x1000).function == ""


def test_of_two_names_for_one_address_the_plainer_is_taken():
    assert KernelSymbols("10 T __memcpy\n10 T memcpy\n10 t _memcpy\n").find(0x10).function == "memcpy"


def test_labels_in_a_modules_assembly_code_belong_to_the_function_before_them():
    labels = """\
ffffffffc0000000 t aesni_gcm_enc\t[aesni_intel]
ffffffffc0000010 t _partial_block_done_16\t[aesni_intel]
ffffffffc0000024 t _esb_loop_121\t[aesni_intel]
ffffffffc0000040 t aes_loop_pre_done86\t[aesni_intel]
ffffffffc0000050 t aesni_gcm_enc_update_avx_gen4\t[aesni_intel]
ffffffffc0000064 t key_256_enc_update\t[aesni_intel]
ffffffffc0000307 t slow.cold\t[other]
ffffffff81000004 t entry_SYSCALL_64_after_hwframe
"""
    symbols = KernelSymbols(labels)
    for at in (0x01, 0x11, 0x25, 0x41):
        assert symbols.find(MODULE + at) == ("aesni_intel", "aesni_gcm_enc", MODULE)
    assert symbols.find(MODULE + 0x65)[:2] == ("aesni_intel", "aesni_gcm_enc_update_avx_gen4")
    assert symbols.find(MODULE + 0x307)[:2] == ("other", "slow")
    assert symbols.find(KERNEL + 5)[:2] == ("kernel", "entry_SYSCALL_64_after_hwframe")


def test_an_allocator_has_the_same_name_in_every_kernel():
    assert KernelSymbols("10 T kmem_cache_alloc_node_noprof\n").find(0x10).function == "kmem_cache_alloc_node"


def test_functions_have_their_names_where_the_file_has_them(shared):
    functions = {name: Elf(shared / "full.so") for name in ("shown", "secret", "dull")}
    for name, elf in functions.items():
        offset = int(symbol(shared / "full.so", name), 16)
        assert elf.find(offset) == (name, 0)
        assert elf.find(offset + 1) == (name, 1)


def test_a_stripped_files_functions_are_named_by_what_they_do(shared):
    elf = Elf(shared / "bare.so")
    at = {name: int(symbol(shared / "full.so", name), 16) for name in ("shown", "secret", "dull")}
    assert elf.find(at["shown"]) == ("shown", 0)
    assert elf.find(at["secret"]) == (f"aes@{at['secret']:#x}", 0)
    assert elf.find(at["dull"] + 1) == (f"code@{at['dull']:#x}", 1)


def symbol(path, name):
    """Return the address of a symbol as nm prints it; in such a small file it is the offset, too."""
    lines = subprocess.run(["nm", path], check=True, capture_output=True, text=True).stdout.splitlines()
    return next(line.split()[0] for line in lines if line.split()[-1] == name)


def test_user_code_is_found_by_its_mapping(shared):
    path = str(shared / "full.so")
    offset = int(symbol(path, "dull"), 16)
    base = 0x7F0000000000
    code = UserCode([[base, base + 0x1000, 0x1000, path], [0x9000, 0xA000, 0, "[vdso]"], [0x5000, 0x6000, 0, ""]])
    assert code.find(base + offset - 0x1000 + 1) == ("full.so", "dull", base + offset - 0x1000)
    assert code.find(0x9001)[:2] == ("[vdso]", "")
    assert code.find(0x5001)[:2] == ("generated code", "")
    assert code.find(0x6000) == ("", "", 0)


@pytest.mark.parametrize("data", [b"", b"#!/bin/sh", b"\x7fELF\x02\x01", b"\x7fELF\x02\x01" + b"\xff" * 200])
def test_a_file_that_is_no_elf_file_has_no_functions(tmp_path, data):
    (tmp_path / "x").write_bytes(data)
    assert Elf(tmp_path / "x").find(0) == ("", 0)
    assert Elf(tmp_path / "missing").find(0) == ("", 0)
