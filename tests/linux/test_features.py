"""Features are found by trying them; a kernel that refuses one is asked no twice."""

from __future__ import annotations

import errno

import pytest

from ktlslab.errors import RingUnavailableError
from ktlslab.linux import features as module
from ktlslab.linux.features import ring_features

NAMES = {"sqpoll", "defer_taskrun", "buffer_rings", "recv_multishot", "recvmsg_multishot", "send_zc", "setsockopt"}


@pytest.fixture
def forgetful():
    ring_features.cache_clear()
    yield
    ring_features.cache_clear()


def test_every_feature_is_answered_and_every_kernel_since_6_1_has_these():
    found = ring_features()
    assert set(found) == NAMES
    assert all(found[name] for name in NAMES - {"setsockopt"})
    assert ring_features() is found


@pytest.mark.parametrize(
    "refusal", [OSError(errno.EINVAL, "unknown flag"), RingUnavailableError("setting up an io_uring")]
)
@pytest.mark.usefixtures("forgetful")
def test_a_refusal_is_a_no(monkeypatch, refusal):
    def refuse(*_args, **_kwargs):
        raise refusal

    monkeypatch.setattr(module, "Ring", refuse)
    assert {name for name, works in ring_features().items() if works} <= {"setsockopt"}  # which capabilities.py tries


@pytest.mark.usefixtures("forgetful")
def test_a_failure_that_is_no_refusal_is_raised(monkeypatch):
    def fail(*_args, **_kwargs):
        raise OSError(errno.ENOMEM, "no memory")

    monkeypatch.setattr(module, "Ring", fail)
    with pytest.raises(OSError, match="no memory"):
        ring_features()
