"""What the notebook on io_uring says of kTLS, on this kernel."""

from ktlslab.show import rings


def test_a_multishot_receive_types_records_only_where_it_has_room_for_a_type():
    plain, typed = (row[1] for row in rings.typed().rows)
    assert plain.startswith("b'data'; EIO")
    assert typed == "type 23: 4 bytes; type 22: 10 bytes; type 23: 4 bytes"


def test_ktls_refuses_a_send_without_a_copy_and_still_gives_the_buffer_back():
    tcp, ktls = rings.zero_copy().rows
    assert tcp == ("TCP", "4 bytes", "the buffer is free again")
    assert ktls == ("kTLS", "ENOTSUP (Operation not supported)", "the buffer is free again")
