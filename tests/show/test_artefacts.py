"""What functions return shows itself in a notebook: in em, in the page's colours, and never as a wall of text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import ktlslab
from ktlslab._html import INDENT, markup, table
from ktlslab.measure.plan import PLANS
from ktlslab.stages.keys import Secret

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture(scope="module")
def shown():
    """Give each artefact's HTML, by the name of its type."""
    with ktlslab.Relay(("127.0.0.1", 9), ktlslab.Fault("flip", record=3, part="tag")) as relay:
        client, server = ktlslab.session_pair(record_layer="userspace")
        with client, server:
            one = {"key": Secret(bytes(client.suite.cipher.key_bytes)), "write_iv": Secret(bytes(12)), "sequence": 0}
            tx, rx = (ktlslab.DirectionKeys(suite=client.suite, **one) for _ in range(2))
            artefacts = [
                *(
                    client,
                    client.stream,
                    client.stream.connection,
                    client.handshake,
                    ktlslab.TrafficKeys(tx=tx, rx=rx),
                    tx,
                ),
                *(ktlslab.Counters({"TlsTxSw": 1}), ktlslab.probe(), ktlslab.doctor(), relay, relay.report()),
                *(PLANS["standard"], ktlslab.read_profile(DATA / "profile.parquet")),
                ktlslab.read_estimate(DATA / "estimate.parquet"),
                ktlslab.compare(*[ktlslab.read_table(DATA / "quick.parquet")] * 2),
            ]
            return {type(one).__name__: one._repr_html_() for one in artefacts}


def test_every_artefact_follows_the_page(shown):
    assert len(shown) == 15
    for name, html in shown.items():
        assert html.startswith("<div"), name
        assert not re.search(r"(font-size|width|padding): ?\d+px", html), name
        assert not re.search(r"(?<!-)color: ?(#|black|white)", html), name
        assert "<pre" not in html, name


def test_what_stands_in_backticks_is_code(shown):
    assert "<code>ktlslab guest run uml -- COMMAND</code>" in shown["Diagnosis"]
    assert not [name for name, html in shown.items() if "`" in html]
    assert markup("a `b`\n<c> `") == "a <code>b</code><br>&lt;c&gt; `"


def test_a_cell_that_begins_further_right_keeps_that_on_every_line():
    assert "padding:0.15em 1em 0.15em 2em" in table((), [(f"{INDENT * 2}a sentence",)])


def test_none_of_them_is_a_wall(shown):
    """What is long is folded: the rest fits on a screen."""
    for name, html in shown.items():
        open_now = re.sub(r"<details>.*?</details>", "", html, flags=re.DOTALL)
        assert open_now.count("<tr") <= 30, name


def test_they_say_what_matters(shown):
    assert "not shown" in shown["DirectionKeys"]
    assert "key" in shown["DirectionKeys"]
    assert "userspace" in shown["Stream"]
    assert "TlsTxSw" in shown["Counters"]
    assert "tls module" in shown["Probe"]
    assert "io_uring" in shown["Probe"]
    assert "What this machine can do: " in shown["Diagnosis"]
    assert "Relay to 127.0.0.1:9" in shown["Relay"]
    assert "fault: part" in shown["Relay"]
    assert "not applied" in shown["Report"]
    assert re.search(r"Plan standard: \d+ cells in \d+ settings", shown["Plan"])
    assert "precision" in shown["Plan"]
    assert "handicap" not in shown["Plan"]
    assert "instructions per operation" in shown["Profile"]
    assert "ESTIMATED, not measured" in shown["Estimate"]


def test_what_is_closed_or_without_a_module_says_so():
    from ktlslab.linux.capabilities import Answer, Probe

    relay = ktlslab.Relay(("127.0.0.1", 9))
    relay.close()
    assert "closed" in relay._repr_html_()
    assert "no tls module" in ktlslab.Counters({})._repr_html_()
    refused = Answer(accepted=False, errno=2)
    assert "ENOENT" in Probe(ulp=refused, suites={}, io_uring=refused)._repr_html_()
