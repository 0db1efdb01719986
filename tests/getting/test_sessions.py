"""`--ssl-sessions FILE`: what one run got, the next resumes."""

from __future__ import annotations

import json
import stat

import pytest

FILE = b"x" * 100_000
FORM = ["-w", "%{resumed}", "-o"]


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("http", ["--http1.1", "--http2"])
def test_the_next_run_resumes_and_the_one_after_it(nginx, get, tmp_path, version, http):
    url = f"https://localhost:{nginx({'file': FILE}, http2=True)}/file"
    kept, out = tmp_path / "sessions", tmp_path / "out"
    offered = []
    for resumed in (b"False", b"True", b"True"):
        got = get(url, "--ssl-sessions", kept, "--tls", version, http, *FORM, out)
        assert (got.status, got.out, got.err) == (0, resumed, "")
        assert out.read_bytes() == FILE
        assert mode(kept) == 0o600
        offered.append(json.loads(kept.read_text().splitlines()[1])["session"])
    assert version == "1.2" or len(set(offered)) == 3, "a ticket of TLS 1.3 was offered twice"
