"""The interoperation matrix as a grid: what is right is counted, what is wrong or left out is said."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from ktlslab.errors import TableError, UsageError
from ktlslab.show.interop import INTEROP_COLUMNS, RIGHT, matrix, read_interop, summed, versions

SUITE = "TLS_AES_128_GCM_SHA256"
CELLS = (
    ("client", "nginx", "default", SUITE, RIGHT),
    ("client", "nginx", "default", SUITE, "AlertError: <b>no</b>"),
    ("client", "nginx", "upload", SUITE, RIGHT),
    ("client", "caddy", "default", SUITE, RIGHT),
    ("client", "selfserv", "", "", "left out: selfserv is not there"),
    ("server", "curl", "default", SUITE, RIGHT),
)


@pytest.fixture
def frame():
    rows = []
    for role, stack, feature, suite, outcome in CELLS:
        row = dict.fromkeys(INTEROP_COLUMNS, "") | {"role": role, "stack": stack, "feature": feature, "suite": suite}
        numbers = {"tickets": 2, "records": 9, "end_s": 0.1, "seconds": 1.0}
        rows.append(row | numbers | {"outcome": outcome, "kernel": "7.2.7", "library": "OpenSSL", "run_id": "one"})
    return pd.DataFrame(rows, columns=list(INTEROP_COLUMNS))


def test_cells_are_counted_by_stack_and_feature(frame):
    wide = summed(frame, "client")
    assert wide.to_dict("index") == {
        "nginx": {"default": "1/2", "upload": "1/1"},
        "caddy": {"default": "1/1", "upload": ""},
    }
    assert summed(frame, "server").to_dict("index") == {"curl": {"default": "1/1"}}


def test_the_grid_says_what_was_wrong_and_what_was_left_out_and_why(frame):
    shown = matrix(frame)
    html = shown._repr_html_()
    for said in ("4 of 5 cells right, with 3 stacks on Linux 7.2.7", "1 of 2", "✓ 1", "selfserv is not there"):
        assert said in html
    assert "&lt;b&gt;no&lt;/b&gt;" in html
    assert "<b>no</b>" not in html
    assert "1 cell wrong, 1 left out" in repr(shown)
    assert "4 stacks" in repr(versions(frame))
    with pytest.raises(UsageError):
        matrix(frame.drop(columns="stack"))


def test_a_table_is_read_with_its_provenance_and_another_is_refused(frame, tmp_path):
    path = tmp_path / "interop.parquet"
    frame.to_parquet(path)
    path.with_suffix(".json").write_text(json.dumps({"one": {"commit": "abc"}}))
    read = read_interop(path)
    assert read.attrs["provenance"] == {"one": {"commit": "abc"}}
    assert list(read.columns) == list(INTEROP_COLUMNS)
    frame.drop(columns="stack").to_parquet(path)
    for bad in (path, tmp_path / "none.parquet"):
        with pytest.raises(TableError, match=r"lacks the columns stack|no such file"):
            read_interop(bad)
