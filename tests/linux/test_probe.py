"""What this kernel is asked, and that its answers agree with one another, whatever they are."""

from __future__ import annotations

import errno

import pytest

from ktlslab.linux import ktls, probe
from ktlslab.linux.ktls import Direction
from ktlslab.linux.probe import Answer, Probe


def test_every_version_cipher_and_direction_is_answered():
    found = probe.probe()
    assert len(found.suites) == 2 * len(ktls.COMMON) * 2
    assert found.ulp == probe.ulp()
    assert all(answer.accepted == (answer.errno == 0) for answer in (found.ulp, *found.suites.values()))


def test_without_the_module_no_suite_is_accepted_and_with_it_aes_gcm_is():
    found = probe.probe()
    if found.ulp:
        assert found.suites[0x0303, 51, Direction.TX]
        assert found.ktls
    else:
        assert found.ulp.errno == errno.ENOENT
        assert set(found.suites.values()) == {found.ulp}
        assert not found.ktls


@pytest.mark.parametrize("ask", [probe.rekey, probe.max_payload])
def test_what_needs_the_module_is_refused_as_the_module_is(ask):
    answer = ask()
    assert answer.accepted == (answer.errno == 0)
    if not probe.ulp():
        assert answer == probe.ulp()


def test_a_ring_sets_socket_options_or_says_that_it_does_not():
    answer = probe.uring_setsockopt()
    assert answer or answer.errno in {errno.EOPNOTSUPP, errno.EINVAL}


def test_a_passing_failure_is_raised_and_asked_again(monkeypatch):
    def fail(_sock):
        raise OSError(errno.ENOMEM, "no memory")

    probe.ulp.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(ktls, "attach", fail)
        with pytest.raises(OSError, match="memory"):
            probe.ulp()
    assert probe.ulp().errno != errno.ENOMEM


def test_asking_again_gives_the_same_answer_without_asking_the_kernel(monkeypatch):
    first = probe.probe()
    monkeypatch.setattr(probe, "connected", None)
    assert probe.probe() == first


def test_io_uring_is_to_be_had_here():
    assert probe.io_uring() is None


def test_an_answer_says_yes_or_names_the_errno():
    assert str(Answer(accepted=True)) == "accepted"
    assert str(Answer(accepted=False, errno=errno.ENOENT)) == "refused, ENOENT (No such file or directory)"


def test_one_direction_alone_is_not_yet_kernel_tls():
    yes, no = Answer(accepted=True), Answer(accepted=False, errno=errno.EINVAL)
    for tx, rx, whole in ((yes, no, False), (no, yes, False), (yes, yes, True)):
        suites = {(0x0304, 51, Direction.TX): tx, (0x0304, 51, Direction.RX): rx}
        assert Probe(ulp=yes, suites=suites, io_uring=None).ktls is whole
