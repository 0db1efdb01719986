"""KeyUpdate as a play, with OpenSSL as the client's record layer; tests/kernel has the kernel in its place."""

from __future__ import annotations

import pytest

from ktlslab.errors import KeyUpdateError
from ktlslab.linux import capabilities
from ktlslab.show import play


def lines(of):
    return [line.split(" | ")[1:] for line in repr(of).splitlines()[1:]]


@pytest.fixture
def cast():
    with play.cast(kernel=False) as made:
        yield made


def test_a_server_changes_its_key_and_its_numbers_begin_again(cast):
    cast.server_says(b"one").server_updates().server_says(b"two").server_updates().server_says(b"three")
    assert b"".join(cast.client.recv() for _ in range(3)) == b"onetwothree"
    assert lines(cast) == [
        ["server → client", "0", "2", "'one'"],
        ["server → client", "0", "3", "KeyUpdate, update_not_requested"],
        ["server → client", "1", "0", "'two'"],
        ["server → client", "1", "1", "KeyUpdate, update_not_requested"],
        ["server → client", "2", "0", "'three'"],
    ]
    assert "record layer: userspace" in cast._repr_html_()


def test_a_client_that_is_asked_answers_before_its_next_data(cast):
    cast.client.send(b"one")
    cast.server_updates(request=True).server_says(b"and you?")
    assert cast.client.recv() == b"and you?"
    cast.client.send(b"two")
    assert lines(cast.server_hears())[2:] == [
        ["client → server", "0", "0", "'one'"],
        ["client → server", "0", "1", "KeyUpdate, update_not_requested"],
        ["client → server", "1", "0", "'two'"],
    ]


def test_openssl_cannot_be_asked_for_a_key_update(cast):
    with pytest.raises(KeyUpdateError, match="userspace"):
        cast.client.update_keys()
    cast.client.send(b"unharmed")
    assert lines(cast.server_hears()) == [["client → server", "0", "0", "'unharmed'"]]


def test_without_a_tls_module_the_answers_of_others_are_shown():
    rows = play.alone().rows
    assert rows[3][2:] == ("EKEYEXPIRED", "EBADMSG")
    if not capabilities.ulp():
        assert {row[1] for row in rows} == {"no tls module"}


def test_a_play_that_is_over_is_closed():
    made = play.cast(kernel=False)
    assert not made.closed
    made.close()
    assert made.closed
    assert made.client.connection.socket.fileno() < 0
