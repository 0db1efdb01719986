"""The notebooks: thin, committed without outputs, true whatever was measured, and they run to their end here."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from ktlslab import guests
from ktlslab.guests import kernels, kernelspec
from ktlslab.linux import capabilities
from ktlslab.promises import all_promises
from ktlslab.show import notebooks
from ktlslab.stages import Why

pytestmark = pytest.mark.timeout(600)  # the first test executes all notebooks
FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MACHINES, HANDOFF, COMPARE, AFTER, PROMISES, KERNELS, REKEY, RING, RACE, INSIDE, TRUST, WAYS = (
    FOLDER / f"{name}.ipynb"
    for name in (
        *(
            "00-what-can-this-machine-do",
            "01-the-handoff",
            "02-sweep-and-compare",
            "03-after-the-handoff",
            "04-what-each-kernel-keeps",
            "05-three-kernels",
        ),
        *("06-keyupdate", "07-io-uring", "08-the-handoff-race", "09-inside-the-kernel"),
        *("10-how-far-can-a-figure-be-trusted", "11-before-and-after"),
    )
)
# A number with a unit that is only ever measured, or a multiple: what no prose may hold.
MEASURED = r"\d\s*(?:%|×|x\b|times\b|percent|ns\b|us\b|µs|ms\b|s\b|seconds|instructions|[kMG]?B/s|GB\b|MB\b)"  # noqa: RUF001


def cells(path, kind):
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


def outputs(path):
    """Return what each cell showed: plain text and HTML by the cell's name."""
    shown = {}
    for cell in cells(path, "code"):
        parts = []
        for output in cell["outputs"]:
            parts.append("".join(output.get("text", "")))
            parts += ["".join(output.get("data", {}).get(kind, "")) for kind in ("text/plain", "text/html")]
        shown[cell["id"]] = "".join(parts)
    return shown


def takes_new_keys(name):
    """Whether a kernel takes a second key on a socket, as Linux does from 6.14 on."""
    return tuple(map(int, guests.fetch(name).series.removeprefix("uml-").split("."))) >= (6, 14)


@pytest.fixture
def quiet(tmp_path, monkeypatch):
    """Keep Jupyter's and IPython's traces out of the user's folders."""
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "matplotlib"))


def test_the_notebooks_are_numbered_and_say_which_kernel_they_want():
    assert [path.name[:3] for path in NOTEBOOKS] == [f"{number:02}-" for number in range(len(NOTEBOOKS))]
    for path in NOTEBOOKS:
        begin = "".join(cells(path, "markdown")[0]["source"])
        said = [line for line in begin.splitlines() if "Jupyter kernel" in line]
        assert said, path.name
        assert "Afterwards you can" in begin
        wants = notebooks.wants_ktls(path)
        assert wants == any("with kTLS" in line for line in said), path.name
        # The one that notebooks/run leaves in JupyterLab's menu.
        asks = json.loads(path.read_text())["metadata"]["kernelspec"]["name"]
        assert asks == (kernelspec.name_of(kernels.USER_MODE) if wants else notebooks.HERE), path.name


def test_the_kernel_that_they_ask_for_stays_in_jupyter_s_menu(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "environment"))
    name, folder = notebooks._kernel_with_ktls("auto", tmp_path / "elsewhere", measured=True)
    if capabilities.probe().ktls:
        assert (name, folder) == (notebooks.HERE, None)
    else:
        assert name == kernelspec.name_of(kernels.USER_MODE)
        assert list(kernelspec.installed()) == [kernels.USER_MODE]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_without_outputs(path):
    for cell in cells(path, "code"):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_thin(path):
    """Logic lives in the package: no function, class or loop over several lines."""
    for cell in cells(path, "code"):
        assert not re.search(r"^(def|class|for|while|try)\b", "".join(cell["source"]), re.MULTILINE)
        assert len(cell["source"]) <= 10


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_prose_holds_no_measured_figure(path):
    for cell in cells(path, "markdown"):
        found = re.search(MEASURED, "".join(cell["source"]))
        assert found is None, found


def test_what_this_machine_can_do_ends_with_a_session_that_a_kernel_makes(home):
    shown = outputs(home / "root" / MACHINES.name)
    assert "What this machine can do" in shown["doctor"]
    assert "TLS 1.3 AES-256-GCM" in shown["suites"]
    assert "The server received b'hello'" in shown["first-here"]
    assert "The client's record layer: kernel+" in shown["first-there"]
    assert "/proc/net/tls_stat | " in shown["first-there"]
    assert "ktlslab kernelspec install" in shown["choices"]


def test_the_handoff_runs_to_its_end_with_and_without_ktls(home):
    shown = outputs(home / "root" / HANDOFF.name)
    assert "the same bytes: True" in shown["same"]
    assert "the same page: True" in shown["session"]
    assert "handshake message 4 of " in shown["ticket"]
    tag = shown["tag"].split("on the wire: ")[1][:47]
    assert tag in shown["tag"].split("byte by byte")[1]
    assert "explicit nonce" in shown["tls12-record"]
    assert "GET / HTTP" in shown["tls12-record"]
    assert "DemoServer" in shown["end"]
    assert "close_notify" in shown["close"]
    if capabilities.probe().ktls:
        assert "TlsTxSw" in shown["counters"]
        assert "Installed" in shown["answer"]
    else:
        assert "The kernel said no" in shown["install"]
        assert "nothing to read back" in shown["read-back"]
        assert "userspace" in shown["where"]
    assert "not shown" in shown["derivation-hidden"]
    assert "not shown" not in shown["derivation-revealed"]
    assert "The handoff" in (home / "root" / f"{HANDOFF.stem}.html").read_text()


@pytest.mark.usefixtures("quiet")
def test_the_handoff_runs_in_a_guest_on_real_ktls(tmp_path):
    spec = guests.install("uml", prefix=tmp_path)
    target = notebooks.execute(HANDOFF, tmp_path / "01.ipynb", kernel=spec.name, specs=spec.parent)
    shown = outputs(target)
    assert "The kernel said yes" in shown["install"]
    assert "<b>+1</b>" in shown["counters"]
    for direction in ("TX", "RX"):
        assert f"{direction}: iv, key, salt, rec_seq as handed over; next record 0" in shown["read-back"]
    assert "kernel records, uring" in shown["where"]
    assert "by the kernel record layer" in shown["same"]
    assert "the same bytes: True" in shown["same"]


def test_what_comes_after_the_handoff_runs_to_its_end_without_ktls_too(home):
    shown = outputs(home / "root" / AFTER.name)
    assert "tx sequence 2" in shown["tx-starts"]
    assert "all 192 bytes and a clean end" in shown["harm"]
    assert "NotTlsError" in shown["harm"]
    assert "applied=True" in shown["relay-use"]
    if not capabilities.probe().ktls:
        assert "KeyUpdateError" in shown["update"]
        assert "Refused(NO_TLS_MODULE" in shown["linked"]


@pytest.mark.usefixtures("quiet")
def test_what_comes_after_the_handoff_runs_in_a_guest_on_real_ktls(tmp_path):
    spec = guests.install("uml", prefix=tmp_path)
    shown = outputs(notebooks.execute(AFTER, tmp_path / "03.ipynb", kernel=spec.name, specs=spec.parent))
    assert "kernel+uring" in shown["pair"]
    assert "type 22: " in shown["pieces"]
    assert "type 23: 23 bytes" in shown["pieces"]
    assert ("accepted" in shown["rekey"]) is takes_new_keys("uml")  # tests/kernel changes keys on the newest kernel
    assert "b'an answer'" in shown["carry-on"]
    assert "Installed" in shown["linked"]
    assert "kernel: StreamError: EBADMSG" in shown["harm"]


def test_the_play_runs_to_its_end_with_openssl_in_the_kernel_s_part(home):
    shown = outputs(home / "root" / REKEY.name)
    assert "server → client | 1 | 0 | 'three'" in shown["act-1"]
    assert "client → server | 0 | 1 | KeyUpdate, update_not_requested" in shown["act-3"]
    assert "client → server | 1 | 0 | 'two'" in shown["act-3"]
    if not capabilities.probe().ktls:
        assert "KeyUpdateError" in shown["act-2"]
        assert "recv | no tls module | EKEYEXPIRED | EBADMSG" in shown["act-4"]
        assert "does this arrive?" in shown["act-5"]


@pytest.mark.usefixtures("quiet")
def test_the_play_runs_in_a_guest_on_real_ktls(tmp_path):
    spec = guests.install("uml", prefix=tmp_path)
    shown = outputs(notebooks.execute(REKEY, tmp_path / "06.ipynb", kernel=spec.name, specs=spec.parent))
    if takes_new_keys("uml"):
        assert "key changes there so far: TX 0, RX 1" in shown["act-1"]
        assert "client → server | 1 | 0 | 'two'" in shown["act-2-after"]
        assert "recv | EKEYEXPIRED | EKEYEXPIRED | EBADMSG" in shown["act-4"]
        assert "does this arrive?" in shown["act-5"]
    else:  # the newest one in this machine's archive is an older one
        assert "The client's record layer: userspace" in shown["act-1"]
        assert "KeyUpdateError" in shown["act-2"]
        assert "does this arrive?" not in shown["act-5"]


def test_rings_run_to_their_end_without_ktls_too(home):
    target = home / "root" / RING.name
    shown = outputs(target)
    assert "18 bytes" in shown["depth-received"]
    assert "2 | send | 4 | 4 bytes\n1 | recv | 4 | 4 bytes" in shown["order"]
    assert "ECANCELED" in shown["linked"]
    assert "ETIME" in shown["limit"]
    assert "b'three' | b'three'" in shown["multishot"]
    assert "TCP | 4 bytes | the buffer is free again" in shown["zero-copy"]
    assert [path.name for path in notebooks.pictures_of(target)] == [f"{RING.stem}-against.png"]
    if not capabilities.probe().ktls:
        assert "this kernel has no tls module" in shown["typed"]


@pytest.mark.usefixtures("quiet")
def test_rings_run_in_a_guest_on_real_ktls(tmp_path):
    spec = guests.install("uml", prefix=tmp_path)
    shown = outputs(notebooks.execute(RING, tmp_path / "07.ipynb", kernel=spec.name, specs=spec.parent))
    assert "recv, multishot | b'data'; EIO" in shown["typed"]
    assert "type 23: 4 bytes; type 22: 10 bytes; type 23: 4 bytes" in shown["typed"]
    assert "the buffer is free again" in shown["zero-copy"].split("kTLS")[1]
    assert "depth 64" in shown["pays"]


def test_the_handoff_race_runs_to_its_end_without_ktls_too(home):
    shown = outputs(home / "root" / RACE.name)
    assert "begins with record 0" in shown["ledger"]
    assert "begins with record 1" in shown["read"]
    assert "1: opens: new session ticket" in shown["tried"]
    assert "UsageError: installing keys: the RX keys are for record 0" in shown["guard"]
    if not capabilities.probe().ktls:
        assert "this kernel has no tls module" in shown["trials"]
        assert "Refused(NO_TLS_MODULE" in shown["again"]


@pytest.mark.usefixtures("quiet")
def test_the_handoff_race_runs_in_a_guest_on_real_ktls(tmp_path):
    spec = guests.install("uml", prefix=tmp_path)
    shown = outputs(notebooks.execute(RACE, tmp_path / "08.ipynb", kernel=spec.name, specs=spec.parent))
    said = [line.split(" | ")[1:] for line in shown["trials"].splitlines() if line.count(" | ") == 3]
    assert [line[0] for line in said] == ["0", "1", "0", "1", "0"]
    for _, by_hand, by_kernel in said[:2]:
        assert by_hand == by_kernel == "opens: new session ticket"
    for _, by_hand, by_kernel in said[2:4]:
        assert by_hand == "does not open"
        assert by_kernel.startswith("EBADMSG")
    assert re.match("EMSGSIZE|EINVAL|EBADMSG|nothing within", said[4][2])
    assert "Installed" in shown["again"]


def test_sweep_and_compare_runs_on_a_table(home):
    target = home / "root" / COMPARE.name
    shown = outputs(target)
    assert "These are recorded figures" in shown["table"]
    assert "in favour of kernel" in shown["summary"]
    drawn = [path.name for path in notebooks.pictures_of(target)]
    names = ["latency", "cpu-client", "cpu-peer", "cpu-split", "profile", "throughput", "sign-map", "ratio"]
    assert drawn == [f"{COMPARE.stem}-{name}.png" for name in [*names, "distributions"]]
    assert target.with_name(drawn[0]).read_bytes().startswith(b"\x89PNG")
    assert "A/A" in shown["effects"]
    assert 'title="tls_sw_recvmsg [tls]' in shown["icicle"]
    assert "SSL_read" in shown["icicle"]
    assert "vfs_read [kernel]: only in userspace" in shown["small-download"]


def test_it_shows_the_map_and_the_source_of_every_check(home):
    target = home / "root" / PROMISES.name
    shown = {cell["id"]: json.dumps(cell["outputs"]) for cell in cells(target, "code")}
    assert [path.name for path in notebooks.pictures_of(target)] == [f"{PROMISES.stem}-overview.png"]
    assert "kept by every kernel" in shown["words"]
    for promise in all_promises():
        assert f"def {promise.name}(" in shown["all"]
    assert "def a_plain_receive_loses_no_control_record" in shown["check"]


def test_three_kernels_are_shown_from_the_recorded_tables(home):
    target = home / "root" / KERNELS.name
    shown = outputs(target)
    assert "These are recorded figures" in shown["table"]
    assert "found from A to B" in shown["compare"]
    drawn = [path.name for path in notebooks.pictures_of(target)]
    assert drawn == [f"{KERNELS.stem}-{name}.png" for name in ("kernels", "sign-map", "depth", "wall-sign-map")]


def test_the_way_of_a_record_is_shown_from_the_recorded_trees(home):
    shown = outputs(home / "root" / INSIDE.name)
    assert "tls_sw_sendmsg | net/tls/tls_sw.c" in shown["send-kernel"]
    assert "_copy_from_iter | lib/iov_iter.c" in shown["send-userspace"]
    assert "tls_strp_check_rcv | net/tls/tls_strp.c" in shown["arrive"]
    assert 'title="SSL_read [' in shown["receive"]
    assert "do_tcp_sendpages" in shown["older"]


def test_how_far_a_figure_can_be_trusted_is_shown_from_the_recorded_tables(home):
    target = home / "root" / TRUST.name
    shown = outputs(target)
    assert "The sign flips in " in shown["two-cpus"]
    assert "without erms and fsrm, run " in shown["refused"]
    assert "all arms but stdlib-ssl lie within" in shown["bindings"]
    assert "ESTIMATED from weights" in shown["weighed"]
    assert "Estimated, not measured" in shown["estimated"]
    assert "A/A: one arm, run twice" in shown["equal"]
    assert "h2o/h2o#3201" in shown["field"]
    assert not any("Warning" in said or "Traceback" in said for said in shown.values())
    drawn = [path.name for path in notebooks.pictures_of(target)]
    assert drawn == [f"{TRUST.stem}-{name}.png" for name in ("two-cpus", "bindings", "estimated", "equal")]


def test_before_and_after_runs_to_its_end_without_ktls_too(home):
    target = home / "root" / WAYS.name
    shown = outputs(target)
    assert "os.dup(" in shown["source-before"]
    assert "Traced in this run" in shown["traces"]
    assert "dup, as fcntl" in shown["traces"]
    assert 'setsockopt TCP_ULP "tls"' in shown["trace-recorded"]
    assert "io_uring carried none" in shown["summed"]
    assert "plain bytes which the kernel protects" in shown["summed"]
    assert "instructions, Linux" in shown["ratios"]
    assert "time by the wall clock" in shown["wall"]
    assert "(A) with kernel (B)" in shown["profile-compared"]
    assert all(why.name in shown["fallbacks"] for why in Why)
    assert "nowhere" not in shown["fallbacks"]
    assert "X25519MLKEM768" in shown["libraries"]
    drawn = [path.name for path in notebooks.pictures_of(target)]
    assert drawn == [f"{WAYS.stem}-{name}.png" for name in ("by-body", "by-stage", "profile")]


@pytest.mark.usefixtures("quiet")
def test_before_and_after_runs_in_a_user_mode_kernel_on_real_ktls(tmp_path):
    spec = guests.install("uml", prefix=tmp_path)
    shown = outputs(notebooks.execute(WAYS, tmp_path / "11.ipynb", kernel=spec.name, specs=spec.parent))
    assert "kernel records" in shown["trace-now"]
    assert "RECV EIO" in shown["trace-now"]
    assert "too coarse for a fetch" in shown["wall"]
    happened = 6 if takes_new_keys("uml") else 7
    assert f"{happened} of 9 reasons happened in this run" in shown["fallbacks"]
    assert "kernel-tx+uring, the whole page" in shown["fallbacks"]
