"""What this kernel is asked, and that its answers agree with one another, whatever they are."""

from __future__ import annotations

import errno

import pytest

from ktlslab.errors import RingUnavailableError
from ktlslab.linux import capabilities, ktls
from ktlslab.linux.capabilities import Answer, Probe
from ktlslab.linux.ktls import Direction


def test_every_version_cipher_and_direction_is_answered():
    found = capabilities.probe()
    assert len(found.suites) == 2 * len(ktls.COMMON) * 2
    assert found.ulp == capabilities.ulp()
    assert all(answer.accepted == (answer.errno == 0) for answer in (found.ulp, *found.suites.values()))


def test_without_the_module_no_suite_is_accepted_and_with_it_aes_gcm_is():
    found = capabilities.probe()
    if found.ulp:
        assert found.suites[0x0303, 51, Direction.TX]
        assert found.ktls
    else:
        assert found.ulp.errno == errno.ENOENT
        assert set(found.suites.values()) == {found.ulp}
        assert not found.ktls


@pytest.mark.parametrize("ask", [capabilities.rekey, capabilities.max_payload])
def test_what_needs_the_module_is_refused_as_the_module_is(ask):
    answer = ask()
    assert answer.accepted == (answer.errno == 0)
    if not capabilities.ulp():
        assert answer == capabilities.ulp()


def test_a_ring_sets_socket_options_or_says_that_it_does_not():
    answer = capabilities.uring_setsockopt()
    assert answer or answer.errno in {errno.EOPNOTSUPP, errno.EINVAL}


def test_a_passing_failure_is_raised_and_asked_again(monkeypatch):
    def fail(_sock):
        raise OSError(errno.ENOMEM, "no memory")

    capabilities.ulp.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(ktls, "attach", fail)
        with pytest.raises(OSError, match="memory"):
            capabilities.ulp()
    assert capabilities.ulp().errno != errno.ENOMEM


def test_asking_again_gives_the_same_answer_without_asking_the_kernel(monkeypatch):
    first = capabilities.probe()
    monkeypatch.setattr(capabilities, "connected", None)
    assert capabilities.probe() == first


def test_io_uring_works_here_and_the_answer_is_truthy_as_all_answers_are():
    assert capabilities.io_uring()
    assert isinstance(capabilities.probe().io_uring, Answer)
    assert bool(capabilities.probe().io_uring) is capabilities.probe().io_uring.accepted is True


@pytest.fixture
def asked_anew():
    capabilities.io_uring.cache_clear()
    yield
    capabilities.io_uring.cache_clear()


@pytest.mark.usefixtures("asked_anew")
def test_where_io_uring_is_forbidden_the_answer_is_no_with_errno_and_remedy(monkeypatch):
    def refuse(_entries):
        raise RingUnavailableError("setting up an io_uring", errno=errno.EPERM, remedy="Allow it.")

    monkeypatch.setattr(capabilities, "Ring", refuse)
    answer = capabilities.io_uring()
    assert (bool(answer), answer.errno, answer.reason) == (False, errno.EPERM, "Allow it.")
    assert str(answer) == "refused, EPERM (Operation not permitted): Allow it."


def test_an_answer_says_yes_or_names_the_errno():
    assert str(Answer(accepted=True)) == "accepted"
    assert str(Answer(accepted=False, errno=errno.ENOENT)) == "refused, ENOENT (No such file or directory)"


def test_one_direction_alone_is_not_yet_kernel_tls():
    yes, no = Answer(accepted=True), Answer(accepted=False, errno=errno.EINVAL)
    for tx, rx, whole in ((yes, no, False), (no, yes, False), (yes, yes, True)):
        suites = {(0x0304, 51, Direction.TX): tx, (0x0304, 51, Direction.RX): rx}
        assert Probe(ulp=yes, suites=suites, io_uring=no).ktls is whole
