"""One table decides the class of a function; what no line of it matches is `other`."""

from __future__ import annotations

import pytest

from ktlslab.profiling.classes import OTHER, class_of, in_order, name_of, rules
from ktlslab.show.classcolours import COLOURS


@pytest.mark.parametrize(
    ("mode", "where", "function", "name"),
    [
        ("user", "python3.11", "_PyEval_EvalFrameDefault", "interpreter"),
        ("user", "_hot.abi3.so", "", "our C"),
        ("user", "_rust.abi3.so", "SSL_write", "OpenSSL"),
        ("user", "_rust.abi3.so", "_aesni_ctr32_ghash_6x", "AEAD"),
        ("user", "libcrypto.so.3", "aes@0x241c80", "AEAD"),
        ("user", "libcrypto.so.3", "code@0x112900", "OpenSSL"),
        ("user", "_rustls.abi3.so", "code@0x112900", "rustls"),
        ("user", "_rustls.abi3.so", "copy@0x112900", "copying"),
        ("user", "libc.so.6", "copy@0x152a80", "copying"),
        ("user", "libc.so.6", "__send", "libc"),
        ("user", "[vdso]", "", "libc"),
        ("kernel", "kernel", "entry_SYSCALL_64", "system calls"),
        ("kernel", "kernel", "do_syscall_64", "system calls"),
        ("kernel", "kernel", "io_submit_sqes", "io_uring"),
        ("kernel", "tls", "tls_sw_sendmsg", "tls"),
        ("kernel", "aesni_intel", "aes_gcm_enc_update_aesni_avx", "AEAD"),
        ("kernel", "kernel", "rep_movs_alternative", "copying"),
        ("kernel", "kernel", "clear_page_erms", "clearing"),
        ("kernel", "kernel", "tcp_ack", "TCP/IP"),
        ("kernel", "kernel", "process_backlog", "loopback and softirq"),
        ("kernel", "kernel", "__alloc_skb", "sockets and skb memory"),
        ("kernel", "kernel", "get_page_from_freelist", "page allocation"),
        ("kernel", "kernel", "__schedule", "scheduler"),
        ("kernel", "kernel", "selinux_parse_skb", "security hooks"),
        ("kernel", "kernel", "_raw_spin_lock_irqsave", "locks, lists and timers"),
        ("kernel", "kernel", "no_such_thing", OTHER),
        ("user", "", "", OTHER),
    ],
)
def test_a_function_has_the_class_that_a_network_engineer_would_say(mode, where, function, name):
    assert class_of(mode, where, function) == name


def test_the_same_name_in_user_code_and_in_the_kernel_has_two_classes():
    assert class_of("user", "libc.so.6", "memcpy") == class_of("kernel", "kernel", "memcpy") == "copying"
    assert class_of("kernel", "kernel", "SSL_write") == OTHER


def test_the_name_of_aead_says_which():
    assert name_of("AEAD", "TLS_AES_256_GCM_SHA384") == "AEAD AES-256-GCM"
    assert name_of("AEAD", "TLS_CHACHA20_POLY1305_SHA256") == "AEAD CHACHA20-POLY1305"
    assert name_of("AEAD", "") == "AEAD"
    assert name_of("tls", "TLS_AES_256_GCM_SHA384") == "tls"


def test_every_class_has_a_colour_of_its_own():
    assert set(in_order()) | {"interrupts"} == set(COLOURS)
    assert len(set(COLOURS.values())) == len(COLOURS)


def test_each_line_of_the_table_is_well_formed():
    assert {rule.mode for rule in rules()} == {"user", "kernel"}
    assert all(rule.name and rule.objects.pattern and rule.functions.pattern for rule in rules())
