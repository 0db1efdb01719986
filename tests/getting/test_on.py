"""`ktlslab get --on MACHINE`: the same command in a guest, whose kernel makes the records."""

from servers import answer


def test_a_guest_fetches_what_this_machine_serves_into_a_file_of_this_machine(get, serve, tmp_path):
    server = serve(lambda _: answer(b"hello from outside"))
    reached = f"localhost:{server.port}:10.0.2.2"  # QEMU's user network: the machine that runs it
    words = ["--on", "newest", "--record-layer", "kernel", "--resolve", reached, "-w", "%{record_layer}"]
    got = get(*words, server.url(), "-o", tmp_path / "file")
    assert (got.status, got.out) == (0, b"kernel"), got
    assert (tmp_path / "file").read_bytes() == b"hello from outside"


def test_what_a_guest_cannot_have_is_a_sentence(get):
    assert get("--on", "newest", "-O", "https://localhost/x").status == 2
    assert get("--on", "newest", "-T", "-", "https://localhost/x").status == 2
    assert "nonsense" in get("--on", "nonsense", "https://localhost/x").err
