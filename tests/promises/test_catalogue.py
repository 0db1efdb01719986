"""The promises: there are enough, and each has a distinct name, a sentence and a source."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import ktlslab
from ktlslab.errors import UsageError
from ktlslab.promises import cipher
from ktlslab.promises.catalogue import MODULES, all_promises, named, select

ROOT = Path(ktlslab.__file__).parents[1]
EVERY = all_promises()
IDS = [promise.name for promise in EVERY]
GROUPS = {promise.group for promise in EVERY}
# The kernel's own test bodies, by group, as tools/testing/selftests/net/tls.c names them.
SELFTESTS = re.findall(
    r"\w+",
    """
base_base non_established bad_cipher keysizes tls_v6ops disconnect shutdown shutdown_unsent shutdown_reuse
getsockopt no_pad rekey_getsockopt prequeue data_steal recseq_wrap
msg_more msg_more_unsent msg_eor sendmsg_single sendmsg_fragmented sendmsg_large sendmsg_multiple
sendmsg_multiple_stress tls_12_tx_max_payload_len tls_12_tx_max_payload_len_open_rec
recv_max recv_small recv_partial recv_nonblock recv_lowat recvmsg_single recvmsg_single_max recvmsg_multiple
single_send_multiple_recv multiple_send_single_recv single_send_multiple_recv_non_align bidir
recv_peek recv_peek_multiple recv_peek_multiple_records recv_peek_large_buf_mult_recs
control_msg control_msg_nomerge data_control_data cmsg_msg_more msg_more_then_cmsg
sendfile send_then_sendfile multi_chunk_sendfile
splice_from_pipe splice_from_pipe2 send_and_splice splice_more splice_onto_full_record splice_short
splice_to_pipe splice_to_pipe_small splice_cmsg_to_pipe splice_dec_cmsg_to_pipe recv_and_splice peek_and_splice
pollin poll_wait poll_wait_split blocking nonblocking poll_partial_rec epoll_partial_rec poll_partial_rec_async timeo
rekey rekey_rx rekey_tx rekey_fail rekey_peek rekey_peek_splice splice_rekey rekey_poll_pending rekey_poll_delay
bad_rec bad_auth bad_auth_splice bad_in_large_read bad_cmsg
zero_len zero_len_peek zero_len_splice recvmsg_nopad_retry_iov
mutliproc_even mutliproc_readers mutliproc_writers mutliproc_sendpage_even mutliproc_sendpage_readers
mutliproc_sendpage_writers oob_pressure recv_efault
""",
)


def test_there_are_enough():
    ring = [promise for promise in EVERY if promise.group.startswith("io_uring")]
    assert len(EVERY) - len(ring) >= 100
    assert len(ring) >= 20


def test_names_are_unique():
    assert len(set(IDS)) == len(IDS)


def test_every_body_of_the_kernels_own_test_has_its_promise():
    told = set(re.findall(r"\w+", " ".join(promise.source for promise in EVERY if "selftest" in promise.source)))
    assert len(SELFTESTS) == 96
    assert [name for name in SELFTESTS if name not in told] == []


@pytest.mark.parametrize("promise", EVERY, ids=IDS)
def test_a_promise_is_said_attributed_and_found(promise):
    assert re.fullmatch(r"\S.{15,}\.", promise.says), "a docstring that is a sentence"
    assert len(promise.source) > 5
    assert promise.suites
    assert named(promise.name) is promise
    lines = (ROOT / promise.file).read_text().split("\n")
    assert lines[promise.line - 1].startswith("@promise("), "file and line lead to the check"
    assert f"def {promise.name}(" in promise.code


def test_promises_are_chosen_by_name_group_cve_or_pattern():
    assert select() == EVERY
    assert [promise.name for promise in select("a peek takes nothing")] == ["a_peek_takes_nothing"]
    assert {promise.group for promise in select(["Splice Out", "splice_in"])} == {"splice out", "splice in"}
    assert {promise.group for promise in select("io_uring*")} == {one for one in GROUPS if "io_uring" in one}
    assert [promise.cve for promise in select("CVE-2025-38616")] == ["CVE-2025-38616"]
    assert select(["peek", "a_peek_takes_nothing"]) == select("peek"), "each once, in the order of all"
    with pytest.raises(UsageError, match=r"none called splice outt. Did you mean splice out\?"):
        select("splice outt")
    with pytest.raises(UsageError, match="none called nonsense"):
        select(["peek", "nonsense*"])


def test_a_check_that_is_dangerous_says_where_the_danger_ended():
    for promise in EVERY:
        assert bool(promise.cve) == bool(promise.mended), promise.name
        assert not promise.cve or re.fullmatch(r"CVE-\d{4}-\d{4,}", promise.cve)
        assert all(re.fullmatch(r"\d+\.\d+(\.\d+)?", version) for version in promise.mended)


def test_no_check_asks_for_the_kernels_version():
    for module in MODULES:
        text = (ROOT / "ktlslab" / "promises" / f"{module}.py").read_text()
        assert not re.search(r"uname|release|platform|/proc/version", text), module


def test_what_runs_in_a_guest_is_light():
    code = (
        "import sys, ktlslab.promises.checker; print(*{'pandas', 'numpy', 'matplotlib', 'pyarrow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == []


def test_each_check_of_an_asynchronous_cipher_runs_within_it():
    group = select("an asynchronous cipher")
    assert len(group) >= 10
    assert all(promise.within is cipher.answers_later and promise.installed == () for promise in group)
    for cve in ("CVE-2026-31533", "CVE-2025-40176"):
        assert [promise.group for promise in select(cve)] == ["an asynchronous cipher"]
