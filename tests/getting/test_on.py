"""`ktlslab get --on MACHINE`: the same command in a guest, whose kernel makes the records."""

import stat

from servers import answer


def test_a_guest_fetches_what_this_machine_serves_into_a_file_of_this_machine(get, serve, tmp_path):
    server = serve(lambda _: answer(b"hello from outside"))
    reached = f"localhost:{server.port}:10.0.2.2"  # the machine that runs the guest
    words = ["--on", "uml", "--record-layer", "kernel", "--resolve", reached, "-w", "%{record_layer}"]
    got = get(*words, server.url(), "-o", tmp_path / "file")
    assert (got.status, got.out) == (0, b"kernel"), got
    assert (tmp_path / "file").read_bytes() == b"hello from outside"


def test_a_guest_speaks_http_2_and_resumes_what_the_last_one_left_in_a_file(get, serve, tmp_path):
    def script(peer):
        while asked := peer.request():
            peer.answer(asked[0], b"hello")

    server = serve(http2=script)
    words = ["--on", "uml", "--record-layer", "kernel", "--resolve", f"localhost:{server.port}:10.0.2.2"]
    form = "%{http_version} %{record_layer} %{library} %{resumed}"
    words += ["-o", tmp_path / "file", "--ssl-sessions", tmp_path / "kept", server.url(), "-w", form]
    for resumed in (b"False", b"True"):
        got = get(*words)
        assert (got.status, got.out) == (0, b"2 kernel openssl " + resumed), got
        assert (tmp_path / "file").read_bytes() == b"hello"
    assert stat.S_IMODE((tmp_path / "kept").stat().st_mode) == 0o600


def test_what_a_guest_cannot_have_is_a_sentence(get, tmp_path):
    elsewhere = ["--ssl-sessions", tmp_path / "a" / "kept", "-o", tmp_path / "b" / "file"]
    assert get("--on", "newest", *elsewhere, "https://localhost/x").status == 2
    assert get("--on", "newest", "-O", "https://localhost/x").status == 2
    assert get("--on", "newest", "-T", "-", "https://localhost/x").status == 2
    assert "nonsense" in get("--on", "nonsense", "https://localhost/x").err
