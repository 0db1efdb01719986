"""Notebook 11's pictures: both ways traced, each reason for falling back made to happen, the two libraries compared."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest

from ktlslab.errors import TableError, UsageError
from ktlslab.linux import capabilities
from ktlslab.measure import fetches
from ktlslab.show import fallbacks, fetched, libraries, recording, ways
from ktlslab.show.html import Lines
from ktlslab.show.libraries import Hello
from ktlslab.show.server import MAX_BODY_BYTES, PAGE, answer_to, demo_server
from ktlslab.show.style import Plot
from ktlslab.stages import Why

DATA = Path(__file__).parents[2] / "data"
RUNS = recording.recorded(DATA / "ways-runs.json")
BYTES = len(answer_to(b"GET /40000 HTTP/1.1"))


@pytest.fixture(scope="module")
def server():
    with demo_server() as server:
        yield server


@pytest.fixture(scope="module")
def traces(server):
    return ways.traces(server)


def carried(trace, stage, which):
    """Return how many bytes system calls (0) or the ring (1) carried in a stage."""
    return sum(step.carried(sends)[which] for step in trace.steps if step.stage == stage for sends in (True, False))


def operations(trace, stage):
    return [one.name for step in trace.steps if step.stage == stage for one in step.operations]


def test_before_io_uring_connects_and_carries_nothing(traces):
    before, _ = traces
    assert before.record_layer == "userspace"
    assert [one.name for step in before.steps for one in step.operations] == ["CONNECT"]
    assert carried(before, "transfer", 0) > BYTES
    assert sum("F_DUPFD" in step.call.arguments for step in before.steps) == 1
    assert list(dict.fromkeys(step.stage for step in before.steps)) == ["connect", "handshake", "transfer", "close"]


def test_now_io_uring_carries_all_of_the_payload(traces):
    _, now = traces
    assert carried(now, "transfer", 0) == 0
    assert carried(now, "transfer", 1) > BYTES
    assert operations(now, "handshake").count("RECV") >= 4
    assert not operations(now, "install")
    stages = ["connect", "handshake", "export", "install", "transfer", "close"]
    assert list(dict.fromkeys(step.stage for step in now.steps)) == stages
    assert now.bytes == BYTES


def test_a_trace_shows_every_call_and_no_byte_of_a_key(traces):
    for trace in [*traces, *(one for run in RUNS for one in run.traces)]:
        shown = ways.listed(trace)
        assert repr(trace) == shown.text
        assert trace._repr_html_() == shown.html
        counted = map(int, re.findall(r"text-align:right[^>]*>(\d+)<", shown.html))
        assert sum(counted) == len(trace.steps)
        for step in trace.steps:
            for text in re.findall(r'(?<!addr\()"((?:\\.|[^"\\])*)"', step.call.arguments):
                assert len(re.findall(r"\\\d{1,3}|\\.|.", text)) <= 4, step.call


def test_the_sums_are_those_of_the_steps(traces):
    lines = ways.summed(traces)
    for trace, row in zip(traces, [row for row in lines.rows if row[1] == "in all"], strict=True):
        assert int(row[2]) == len(trace.steps)
        assert int(row[3]) == sum(len(step.operations) for step in trace.steps)
    before, now = lines.caption.splitlines()
    assert "io_uring carried none" in before
    assert ("which the kernel protects" if capabilities.ulp() else "records that rustls makes") in now


def test_where_nothing_can_be_traced_what_was_recorded_is_shown(server, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    found, said = ways.traced_or(server, RUNS[-1].traces)
    assert found == list(RUNS[-1].traces)
    assert f"As recorded on Linux {RUNS[-1].kernel}" in said
    assert "there is no strace" in said


def test_the_source_of_a_way_is_the_one_that_runs():
    assert "os.dup(" in repr(ways.source("before"))
    assert "install(connection, keys)" in ways.source("now")._repr_html_()
    with pytest.raises(UsageError, match="before, now"):
        ways.source("later")


def test_a_socket_option_is_named():
    assert ways.option('5<TCP:[1]>, SOL_TCP, TCP_ULP, "tls", 3') == 'TCP_ULP "tls"'
    assert ways.option("5<TCP:[1]>, SOL_TCP, TCP_ULP, 0x1234, [4]") == "TCP_ULP"
    assert ways.option('5<TCP:[1]>, SOL_SOCKET, SO_SNDTIMEO_OLD, "\\n\\0"..., 16') == "SO_SNDTIMEO"


def test_each_reason_is_made_to_happen_on_one_of_the_recorded_kernels_at_least():
    assert {one.why for run in RUNS for one in run.fallbacks} == {why.name for why in Why}
    assert [run.machine for run in RUNS] == list(recording.MACHINES)
    assert recording.with_kernel_records(RUNS).machine == "uml"


def test_what_was_recorded_of_a_kernel_s_records_stands_beside_a_run_without_them_only():
    recorded = recording.with_kernel_records(RUNS).traces
    (beside,) = recording.beside(RUNS, recorded[:1])
    assert beside.record_layer == "kernel"
    assert recording.beside(RUNS, recorded) == []


def test_the_reasons_that_this_machine_can_make_happen(server):
    found = {one.why: one for one in fallbacks.made(server)}
    assert {"SUITE_UNKNOWN", "NO_IO_URING"} <= set(found)
    assert found["SUITE_UNKNOWN"].went_on == "userspace+uring, the whole page"
    assert "EPERM" in found["NO_IO_URING"].answered
    if not capabilities.ulp():
        assert set(found) == {"NO_TLS_MODULE", "SUITE_UNKNOWN", "NO_IO_URING"}, "and no other name for the same"
        assert found["NO_IO_URING"].went_on == "userspace+syscall, the whole page"


def test_what_this_machine_cannot_make_happen_is_shown_as_recorded_and_says_so():
    here = [fallbacks.Fallback(why="NO_TLS_MODULE", answered="a", went_on="b", kernel="1")]
    others = [one for run in RUNS for one in run.fallbacks]
    lines = fallbacks.table_of(here, others)
    assert [row[0] for row in lines.rows] == [why.name for why in Why]
    where = {row[0]: row[4] for row in lines.rows}
    assert where["NO_TLS_MODULE"] == "here"
    assert where["CIPHER_REFUSED"] == f"recorded, Linux {RUNS[-1].kernel}"
    assert where["NO_RING_SETSOCKOPT"] == f"recorded, Linux {RUNS[1].kernel}"
    assert "1 of 9 reasons happened" in lines.caption
    assert {row[4] for row in fallbacks.table_of([]).rows} == {"nowhere"}


def test_a_direction_that_the_kernel_took_stays_with_it():
    (refused,) = (one for one in RUNS[-1].fallbacks if one.why == "VERSION_REFUSED")
    assert refused.went_on == "kernel-tx+uring, the whole page"


def test_what_was_recorded_is_read_back_and_other_files_are_refused(tmp_path):
    path = tmp_path / "runs.json"
    path.write_text(json.dumps([asdict(run) for run in RUNS]))
    assert recording.recorded(path) == RUNS
    for text in ("[]x", '{"a": 1}', '[{"machine": 1}]'):
        path.write_text(text)
        with pytest.raises(TableError, match="recording"):
            recording.recorded(path)


def test_the_two_libraries_are_compared_by_what_they_do():
    lines = libraries.compared()
    found = {row[0]: row[1:] for row in lines.rows}
    assert lines.head == ("", "openssl", "rustls")
    sent = found["server: records that it sends, TLS 1.3"]
    assert all(re.match(r"handshake of [\d,]+ bytes, change_cipher_spec, protected of ", one) for one in sent)
    tickets = found["server: session tickets, TLS 1.3"]
    assert tickets[0].startswith("2 in 2 records")
    assert re.match(r"\d+ in 1 record, ", tickets[1])
    assert all("X25519" in one for one in found["client: groups, best first"])
    # Offered TLS 1.3 alone, rustls sends a placeholder, which a hello for both versions has not.
    hellos = found["client: its hello, TLS 1.3 alone"]
    assert ["encrypted_client_hello" in one for one in hellos] == [False, True]
    assert "unknown_ca" in found["client: an authority with another key"][0]
    name = found["client: another name in the certificate"]
    assert "the server: the peer closed the connection" in name[0]
    assert "the server: tls alert bad certificate" in name[1]
    assert all("protocol_version" in one for one in found["client: no version in common"])


def test_a_client_hello_is_parsed():
    body = bytes(2 + 32) + b"\x00" + b"\x00\x04\x13\x01\x13\x02" + b"\x01\x00"
    extensions = b"\x00\x0a\x00\x06\x00\x04\x00\x1d\x00\x17" + b"\x00\x33\x00\x09\x00\x07\x00\x1d\x00\x03abc"
    body += len(extensions).to_bytes(2, "big") + extensions
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    assert Hello.parse(message) == Hello(size=len(message), suites=2, extensions=2, groups=(29, 23), shares=(29,))


def test_the_server_s_page_has_the_length_that_is_asked_for():
    assert answer_to(b"GET / HTTP/1.1").endswith(PAGE)
    assert len(answer_to(b"GET /300 HTTP/1.1").partition(b"\r\n\r\n")[2]) == 300
    assert len(answer_to(b"GET /99999999 HTTP/1.1").partition(b"\r\n\r\n")[2]) == MAX_BODY_BYTES


@pytest.fixture(scope="module")
def frame():
    return fetches.read_fetches(DATA / "fetches.parquet")


def test_the_figures_of_a_fetch_are_medians_and_their_ratio(frame):
    lines = fetched.ratios(frame)
    assert len(lines.rows) == 2 * frame["body_bytes"].nunique()
    first = frame[(frame["body_bytes"] == 64) & (frame["replica"] == 0)].groupby("way")["latency"].median()
    assert lines.rows[0][4] == f"{first['now'] / first['before']:.2f}"
    assert "instructions, Linux " in lines.caption


@pytest.mark.parametrize(("saves", "said"), [(3.0, "from "), (-3.0, "never"), (0.0, "no difference per byte")])
def test_when_the_new_way_has_paid_for_itself(frame, saves, said):
    """Of made-up costs: 1,000,000 once more, and so much less for each byte."""
    made = frame[frame["repeat"] == 0].copy()
    now = made["way"] == "now"
    for quantity in ("latency", "client_cpu"):
        made[quantity] = 4_000_000 + 9.0 * made["body_bytes"]
        made.loc[now, quantity] = 5_000_000 + (9.0 - saves) * made["body_bytes"] + made["replica"]
    lines = fetched.break_even(made)
    assert all(row[5].startswith(said) for row in lines.rows)
    if saves > 0:
        assert lines.rows[0][5].startswith("from 333 kB on")
    assert "block by block" not in lines.rows[0][5]  # there is one block
    less = fetched.ratios_said(made)[0]
    assert ("less at 1 MiB, 4 MiB and more at 64 B" in less) == (saves > 0), less


@pytest.mark.parametrize(
    ("saves", "said"),
    [
        ((1.0, 2.0, 4.0), "from 500 kB on, if the lines go on like that; block by block, 250 kB to 1 MB"),
        ((-1.0, 2.0, 4.0), "from 500 kB on, if the lines go on like that; not in every block"),
        ((0.2, 0.3, 0.4), "no difference per byte: less than two equal ways differ by"),
    ],
)
def test_a_saving_is_judged_block_by_block(frame, saves, said):
    """Of made-up costs: 1,000,000 once more; two equal ways differ by half an instruction per byte in one block."""
    blocks = []
    for number, each in enumerate(saves):
        made = frame[frame["repeat"] == 0].assign(repeat=number)
        now, again = made["way"] == "now", (made["way"] == "now") & (made["replica"] == 1)
        made["latency"] = made["client_cpu"] = 4_000_000 + 9.0 * made["body_bytes"]
        made.loc[now, ["latency", "client_cpu"]] += 1_000_000
        for quantity in ("latency", "client_cpu"):
            made.loc[now, quantity] -= each * made["body_bytes"]
            made.loc[again, quantity] += 0.5 * made["body_bytes"] * (number == 0)
        blocks.append(made)
    rows = fetched.break_even(pd.concat(blocks)).rows
    assert [row[5] for row in rows] == [said, said]


def test_the_plots_of_fetches_say_what_they_show(frame):
    for plot in (fetched.by_body(frame), fetched.by_stage(frame), fetched.by_stage(frame, 16384, "latency")):
        assert isinstance(plot, Plot)
        assert plot.caption
        assert plot._repr_png_()[0].startswith(b"\x89PNG")
    assert "handshake" in fetched.by_stage(frame).caption
    with pytest.raises(UsageError, match="latency, client_cpu"):
        fetched.by_stage(frame, quantity="heat")
    with pytest.raises(UsageError, match="it lacks the columns"):
        fetched.by_body(frame.drop(columns="way"))


def test_a_cpu_clock_that_is_too_coarse_gives_no_figure_and_says_so(frame):
    lines = fetched.ratios(frame.assign(client_cpu=math.nan))
    assert {row[1] for row in lines.rows} == {"latency"}
    assert "too coarse" in lines.caption
    assert len(fetched.ratios_said(frame.assign(client_cpu=math.nan))) == 1
    assert "too coarse" not in fetched.ratios(frame).caption


def test_times_are_called_times(frame):
    timed = frame.assign(unit="ns").drop(columns="kernel")
    assert fetched.ratios(timed).caption == "Of a whole fetch: time by the wall clock, here and now."
    assert isinstance(fetched.ratios(timed), Lines)
