"""The report: self-contained, computed, and with everything that a reviewer asks for."""

from __future__ import annotations

import html
import re
import struct
from html.parser import HTMLParser

import pytest

from ktlslab.cli import main
from ktlslab.errors import StorageError
from ktlslab.measure.analysis import effects
from ktlslab.measure.table import write_table
from ktlslab.show import plots, reporting
from ktlslab.show.background import hertz, method, unusual
from ktlslab.show.compare import summary, verdict_sentence
from ktlslab.show.counted import counts
from ktlslab.show.findings import effect_cells, effect_summary
from ktlslab.show.reporting import question, write_report

EXPECTED = (
    *("sign-map-latency", "sign-map-cpu", "ratio", "latency", "cpu-client", "cpu-peer", "throughput", "cpu-split"),
    "distributions",
)
PLAN = {"name": "made up", "seed": 42, "repeats": 5, "max_repeats": 12, "precision": 0.01, "control": "kernel+uring"}
KNOWN = {
    "kernel": "7.3.4-test",
    "cpu": "QEMU <virtual> CPU",
    "emulated": True,
    "plan": PLAN,
    "kernel_config": {"CONFIG_TLS": "m", "CONFIG_HZ": "1000"},
    "unusual": ["The hypervisor kept 3 % of the CPU time for itself (steal)."],
    "left_out": {"openssl-ktls+syscall": "OpenSSL was built without it."},
}


@pytest.fixture(scope="module")
def table(measured, tmp_path_factory):
    frame = measured.copy()
    frame.attrs["provenance"] = {run: KNOWN | {"run_id": run} for run in ("r1", "r2")}
    path = tmp_path_factory.mktemp("report") / "made.parquet"
    write_table(frame, path)
    return path


@pytest.fixture(scope="module")
def page(table, drawn):
    made = {name: (figure, figure.png()) for name, figure in drawn.items()}
    return reporting.page(plots_frame(table), made, table.name).replace("\N{NO-BREAK SPACE}", " ")


class Outline(HTMLParser):
    """What a screen reader meets: headings in order, pictures with their alternatives."""

    def __init__(self):
        super().__init__()
        self.headings, self.pictures, self.sources = [], [], []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if re.fullmatch(r"h\d", tag):
            self.headings.append(int(tag[1]))
        if tag == "img":
            self.pictures.append(attrs.get("alt", ""))
        self.sources += [value for name, value in attrs.items() if name in {"src", "href", "srcset", "data"}]


def test_it_needs_nothing_but_itself(page):
    outline = Outline()
    outline.feed(page)
    assert all(source.startswith("data:image/png;base64,") for source in outline.sources)
    for outside in ("http:", "https:", "<script", "<link", "@import", "url("):
        assert outside not in page


def test_its_structure_is_that_of_a_document(page):
    outline = Outline()
    outline.feed(page)
    assert outline.headings[0] == 1
    assert outline.headings.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(outline.headings, outline.headings[1:], strict=False))
    assert len(outline.pictures) == 11
    assert all(len(alt) > 30 for alt in outline.pictures)
    assert 'lang="en"' in page
    assert "color-scheme: light dark" in page
    assert "@media print" in page


def test_question_and_answer_are_computed(page, table):
    frame = plots_frame(table)
    assert html.escape(verdict_sentence(frame)) in page
    assert html.escape(question(frame)) in page
    assert question(frame).startswith("What does it cost")
    for said in ("echo and upload of 64 B to 16 KiB", "AES-256-GCM", "syscall and uring", "Linux 6.1.0-test"):
        assert said in question(frame)


def test_every_figure_has_its_caption(page, drawn):
    captions = [html.unescape(text) for text in re.findall(r"<figcaption>(.*?)</figcaption>", page, re.DOTALL)]
    assert captions == [figure.caption for figure in drawn.values()]
    assert all(len(caption) > 40 for caption in captions)


def test_method_provenance_and_what_was_unusual(page):
    for said in (
        "seed 42",
        "until the ratio of each arm&#x27;s cost to the first arm&#x27;s is known within 1.0%",
        "kernel+uring runs twice in every block (A/A)",
        "Noise floor",
        "counts the instructions that an emulated CPU executes",
        "QEMU &lt;virtual&gt; CPU",
        "CONFIG_TLS: m",
        "The hypervisor kept 3 %",
        "OpenSSL was built without it.",
        "kernel+uring over userspace+uring",
    ):
        assert said in page, said
    assert "<virtual>" not in page


def test_what_was_counted_is_told_arm_by_arm_and_what_nobody_counts_is_no_column(measured):
    sent = measured.payload_bytes + 22.0
    frame = measured.assign(client_syscalls=2.0, wire_tx_bytes=sent, wire_rx_bytes=sent, operations=10)
    frame["kernel_tx_records"] = 10 * (frame.record_layer == "kernel")
    frame["kernel_rx_records"] = 2 * frame["kernel_tx_records"]
    frame["client_cycles"] = 1234.4
    shown = counts(frame)
    head, rows = shown.head, shown.rows
    assert "cache misses" not in head
    assert "AES-256-GCM" in shown.caption or "AES-128-GCM" in shown.caption
    told = {row[:3]: dict(zip(head[3:], row[3:], strict=True)) for row in rows}
    kernel = told["echo", "64 B", "kernel + uring"]
    assert kernel == {
        "system calls": "2",
        "records the kernel made": "1",
        "records the kernel opened": "2",
        "bytes on the wire beyond the payload": "44",
        "CPU cycles": "1,234",
    }
    assert told["echo", "64 B", "userspace + uring"]["records the kernel made"] == ""
    assert told["upload", "64 B", "kernel + uring"]["bytes on the wire beyond the payload"] == "108"
    page = reporting.page(frame, {}, "a table")
    assert "records the kernel opened" in page
    assert "cache misses" not in page


@pytest.mark.parametrize(
    ("repeats", "control", "why"), [(1, True, "too few blocks to judge"), (5, False, "no A/A arm to judge by")]
)
def test_a_cell_that_cannot_be_judged_is_no_finding(make_frame, repeats, control, why):
    frame = make_frame(payloads=(64,), repeats=repeats, control=control, noise=0.001)
    found = effects(frame)
    cells = effect_cells(found).rows
    assert {row[-1] for row in cells} == {why}
    assert all("nan" not in word for row in cells for word in row)
    rows = effect_summary(found).rows
    ktls = next(row for row in rows if row[0] == "kTLS" and row[2] == "echo")
    assert re.fullmatch(r"(.*\n)+0/0/0, \d not judged", ktls[3])
    assert "no difference was found in 0 (18 could not be judged); the ratio" in plots.ratio(frame).caption
    assert "in 0 no difference was found; 18 could not be judged" in plots.sign_map(frame).caption
    assert "0 less, 0 more, 0 none, 6 not judged" in repr(summary(frame))


def test_a_lost_provenance_is_said(measured):
    frame = measured.copy()
    frame.attrs["provenance"] = {"r1": {"plan": PLAN}}
    said = unusual(frame)
    assert "r2: its provenance is lost." in said
    assert any(line.startswith("r1: it did not finish") for line in said)
    assert hertz(frame) == 250
    assert any("5 blocks" in line for line in method(frame))


def test_the_command_writes_page_and_pictures(make_frame, tmp_path, capsys):
    table, output, pictures = tmp_path / "t.parquet", tmp_path / "r.html", tmp_path / "png"
    write_table(make_frame(payloads=(64,), workloads=("echo",), layers=("userspace", "kernel")), table)
    assert main(["report", str(table), "-o", str(output), "--png", str(pictures)]) == 0
    assert output.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    said = capsys.readouterr().out.split()
    assert said == [str(output), *(str(pictures / f"{name}.png") for name in EXPECTED)]
    for path in pictures.iterdir():
        data = path.read_bytes()
        width, height = struct.unpack(">II", data[16:24])
        assert data.startswith(b"\x89PNG")
        assert 500 < width < 1500
        assert height > 300
    assert main(["report", str(tmp_path / "none.parquet"), "-o", str(output)]) == 1
    assert "none.parquet" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_an_error_with_a_remedy(table, tmp_path):
    with pytest.raises(StorageError, match="Choose another place"):
        write_report(table, tmp_path / "no" / "such" / "folder.html")


def plots_frame(table):
    from ktlslab.measure.table import read_table

    return read_table(table)
