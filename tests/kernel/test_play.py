"""The play of KeyUpdate with the kernel in the client's part, and what this kernel answers, beside what it should."""

from __future__ import annotations

import pytest

from ktlslab.errors import KeyUpdateError
from ktlslab.linux import capabilities
from ktlslab.linux.ktls import Direction
from ktlslab.show import play


def lines(of):
    return [line.split(" | ")[1:] for line in repr(of).splitlines()[1:]]


def test_this_kernel_answers_as_its_series_does():
    column = 2 if capabilities.rekey() else 3
    for row in play.alone().rows:
        assert row[1] == row[column], row


def test_the_kernel_plays_where_it_takes_new_keys():
    with play.cast() as cast:
        assert cast.client.record_layer == ("kernel" if capabilities.rekey() else "userspace")
        cast.client.send(b"one")
        cast.server_updates(request=True).server_says(b"and you?")
        assert cast.client.recv() == b"and you?"
        cast.client.send(b"two")
        assert lines(cast.server_hears())[2:] == [
            ["client → server", "0", "0", "'one'"],
            ["client → server", "0", "1", "KeyUpdate, update_not_requested"],
            ["client → server", "1", "0", "'two'"],
        ]
        if capabilities.rekey():
            assert cast.client.generations == dict.fromkeys(Direction, 1)


def test_the_client_changes_its_key_or_refuses_unharmed():
    with play.cast(kernel=True) as cast:
        if capabilities.rekey():
            cast.client.update_keys()
        else:
            with pytest.raises(KeyUpdateError, match="EBUSY"):
                cast.client.update_keys()
        cast.client.send(b"on we go")
        assert lines(cast.server_hears())[-1] == [
            "client → server",
            *(["1", "0"] if capabilities.rekey() else ["0", "0"]),
            "'on we go'",
        ]


def test_a_peer_s_new_key_ends_a_session_only_where_the_kernel_cannot_follow():
    with play.cast(kernel=True) as cast:
        cast.server_updates().server_says(b"does this arrive?")
        if capabilities.rekey():
            assert cast.client.recv() == b"does this arrive?"
        else:
            with pytest.raises(KeyUpdateError, match=r"6\.14"):
                cast.client.recv()
