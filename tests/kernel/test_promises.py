"""Promises on real kTLS: some that every kernel keeps, some that none does, and checks that go wrong themselves."""

from __future__ import annotations

import os
import re
import time

import pytest

from ktlslab.linux import capabilities
from ktlslab.promises import checker, cipher
from ktlslab.promises.catalogue import named, select
from ktlslab.promises.check import ABSENT, BROKEN, EITHER, KEPT, TLS13, Group
from ktlslab.promises.pair import DATA, Pair

KEPT_BY_ALL = (
    "attaching_twice_is_refused",
    "records_that_came_before_the_keys_are_opened",
    "a_large_send_is_full_records_and_a_rest",
    "a_plain_receive_loses_no_control_record",
    "a_control_record_is_not_spliced",
    "a_changed_record_says_ebadmsg_for_good",
    "padding_is_taken_off",
    "a_multishot_recvmsg_types_every_record",
    "a_file_shorter_than_asked_is_sent_and_no_more",
    "a_splice_of_more_than_there_is_sends_what_there_is",
    "a_file_into_a_full_socket_goes_on_later",
    "a_pipe_into_a_full_socket_goes_on_later",
)
KEPT_WITH_AN_ASYNCHRONOUS_CIPHER = (
    "records_sealed_later_leave_in_order",
    "records_opened_later_are_read_in_parts",
    "empty_records_are_opened_later",
    "closing_sends_what_is_still_being_sealed",
)
BROKEN_BY_ALL = (
    "an_end_inside_a_record_is_an_error",
    "sending_after_shutdown_is_an_error",
    "a_file_passes_a_small_send_buffer_without_pauses",
)
BROKEN_WITH_AN_ASYNCHRONOUS_CIPHER = ("good_records_before_a_changed_one_are_opened_later",)


def emulated(names):
    return [pytest.param(name, marks=pytest.mark.emulated) for name in names]


@pytest.mark.parametrize("name", [*KEPT_BY_ALL, *emulated(KEPT_WITH_AN_ASYNCHRONOUS_CIPHER)])
def test_what_every_kernel_keeps(name):
    verdict, seen = checker.judge(named(name))
    assert verdict == KEPT, seen


@pytest.mark.parametrize("name", [*BROKEN_BY_ALL, *emulated(BROKEN_WITH_AN_ASYNCHRONOUS_CIPHER)])
def test_what_no_kernel_keeps(name):
    assert checker.judge(named(name))[0] == BROKEN


@pytest.mark.parametrize("promise", select("io_uring*"), ids=lambda promise: promise.name)
def test_what_a_ring_check_sees_is_the_kernels_answer_and_no_mistake_of_its_own(promise):
    _, seen = checker.outcome(promise, promise.suites[0])
    assert not re.search(r"\b(Type|Attribute|Name|Usage|Index|Key)Error\b", seen), seen


def test_new_keys_are_kept_or_absent_as_a_probe_says():
    verdict, seen = checker.judge(named("receiving_pauses_until_the_new_key_is_set"))
    assert verdict == (KEPT if capabilities.rekey() else ABSENT), seen


def test_a_check_that_waits_for_ever_on_ktls_is_a_verdict():
    group = Group("made up")

    @group("a test", suites=TLS13)
    def waits(pair):
        """Wait for a record that never comes, with no bound."""
        pair.sock.settimeout(None)
        while True:
            pair.recv(64)

    began = time.monotonic()
    assert checker.judge(group.promises[0], within=1) == (BROKEN, "hung: no answer within 1 s")
    assert time.monotonic() - began < 10


def test_a_check_that_raises_on_ktls_is_a_verdict():
    group = Group("made up")

    @group("a test", suites=TLS13)
    def raises(pair):
        """Open a record with the wrong number."""
        pair.send(b"number zero")
        pair.peer.opened = 5
        pair.peer.record()

    verdict, seen = checker.judge(group.promises[0])
    assert verdict == BROKEN
    assert seen.startswith("ValueError: the record does not open")


@pytest.mark.emulated
@pytest.mark.parametrize("suite", EITHER, ids=[suite.version.name for suite in EITHER])
def test_an_asynchronous_cipher_is_used_in_its_context_and_then_gone(suite):
    with Pair(suite, ()) as pair, cipher.answers_later(pair) as driver:
        assert driver.startswith(("cryptd(", "pcrypt("))
        first = next(iter(cipher.drivers().values()))
        assert (first["driver"], first["async"]) == (driver, "yes")
        assert pair.send(b"sealed later") == 12
        assert pair.peer.record() == (DATA, b"sealed later")
    usual = next(iter(cipher.drivers()))
    assert not usual.startswith(("cryptd(", "pcrypt("))
    assert checker.judge(named("a_send_is_a_record"))[0] == KEPT
    assert next(iter(cipher.drivers())) == usual


def test_an_asynchronous_cipher_needs_a_privilege_or_is_absent():
    def unprivileged(pair):
        os.seteuid(65534)
        return cipher.answers_later(pair)

    group = Group("made up", within=unprivileged)

    @group("a test", suites=TLS13, installed=())
    def never(_pair):
        """Use an asynchronous cipher as nobody."""

    assert checker.judge(group.promises[0]) == (ABSENT, "an asynchronous cipher: EPERM")
