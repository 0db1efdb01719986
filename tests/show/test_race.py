"""The handoff race: the ledger counts as the session does, and only the right number opens a record."""

from __future__ import annotations

import html
import re

import pytest

from ktlslab import ClientConfig, connect, export, handshake
from ktlslab.show import handoff, race
from ktlslab.show.server import demo_server


@pytest.fixture
def server():
    with demo_server() as server:
        yield server


def lines(picture):
    """Return a picture's table as text, line by line."""
    rows = re.findall(r"<tr.*?</tr>", picture._repr_html_())
    return [
        [html.unescape(re.sub(r"<[^>]*>", "", cell)) for cell in re.findall(r"<t[dh].*?</t[dh]>", row)] for row in rows
    ]


def test_the_ledger_follows_what_the_library_reads(server):
    with connect(server.host, server.port) as connection:
        shake = handshake(connection, ClientConfig(ca=server.ca))
        queued = race.both_tickets(connection)
        before = race.ledger(shake, queued)
        assert "begins with record 0" in repr(before)
        assert [line[::3] for line in lines(before)[-3:]] == [["0", "1"], ["1", "2"], ["2", ""]]
        assert lines(before)[-2][1] == "new session ticket"
        connection.socket.recv(len(queued[0].raw))
        shake.machine.feed(queued[0].raw)
        after = race.ledger(shake, handoff.waiting(connection))
        assert "begins with record 1" in repr(after)
        assert [line[2] for line in lines(after)[-3:]] == [
            "read by the library",
            "waits in the socket",
            "not sent yet, or under way",
        ]


def test_only_one_number_opens_a_record(server):
    with connect(server.host, server.port) as connection:
        keys = export(handshake(connection, ClientConfig(ca=server.ca)))
        said = repr(race.tried(keys.rx, race.both_tickets(connection)[1])).splitlines()
    assert said == ["0: does not open", "1: opens: new session ticket", "2: does not open", "3: does not open"]


def test_a_wrong_number_is_a_dead_session(server):
    rows = lines(race.trials(server))[1:]
    assert [row[2].split(":")[0] for row in rows] == [
        *("opens", "opens", "does not open", "does not open", "cannot even begin")
    ]
    assert [row[1] for row in rows] == ["0", "1", "0", "1", "0"]
