"""How large a record may be, where the peer asked for less than 2**14 bytes (RFC 8449)."""
# ruff: noqa: D401 - a promise is a statement

from __future__ import annotations

import os
import socket
import struct
from typing import Any

from ktlslab.linux import ktls
from ktlslab.promises.check import EITHER, TLS12, TLS13, Group, attempt
from ktlslab.promises.pair import Pair, pattern
from ktlslab.promises.readback import option
from ktlslab.tls.suites import Suite

promise = Group("record size limit")
TLS_TX_MAX_PAYLOAD_LEN = 5  # linux/tls.h
CCM_TOO = (*EITHER, Suite.TLS_ECDHE_ECDSA_WITH_AES_128_CCM)


def limited(pair: Pair, size: int) -> Any:
    """Set the limit: "done" or the errno's name. Absent where the kernel has no such option."""
    answer = attempt(pair.sock.setsockopt, ktls.SOL_TLS, TLS_TX_MAX_PAYLOAD_LEN, struct.pack("@H", size)) or "done"
    pair.needs("TLS_TX_MAX_PAYLOAD_LEN", answer, "ENOPROTOOPT")
    return answer


@promise("tls.rst, TLS_TX_MAX_PAYLOAD_LEN; selftest tls_12_tx_max_payload_len", suites=CCM_TOO)
def no_record_is_larger_than_the_limit(pair: Pair) -> None:
    """With a limit of 128 bytes, 1,024 bytes leave in eight records of 128, and the limit reads back."""
    pair.expect("limit of 128", limited(pair, 128), "done")
    pair.expect("reads", option(pair.sock, TLS_TX_MAX_PAYLOAD_LEN, 2), struct.pack("@H", 128))
    pair.expect("send", pair.send(pattern(1024)), 1024)
    records = pair.peer.records(8)
    pair.expect("records", [len(data) for _, data in records], [128] * 8)
    pair.expect("their bytes", b"".join(data for _, data in records), pattern(1024))


@promise("selftest tls_12_tx_max_payload_len_open_rec")
def the_limit_cannot_change_inside_a_record(pair: Pair) -> None:
    """While MSG_MORE holds a record open a new limit is refused by EBUSY, and the old one holds."""
    pair.expect("limit of 512", limited(pair, 512), "done")
    pair.send(pattern(256), socket.MSG_MORE)
    pair.expect("limit of 128 meanwhile", limited(pair, 128), "EBUSY")
    pair.send(pattern(768, 256))
    records = pair.peer.records(2)
    pair.expect("records", [len(data) for _, data in records], [512, 512])
    pair.expect("their bytes", b"".join(data for _, data in records), pattern(1024))


@promise("tls.rst, TLS_TX_MAX_PAYLOAD_LEN: 64 to 16384 bytes", suites=TLS12)
def tls12_limits_run_from_64(pair: Pair) -> None:
    """On TLS 1.2 limits of 64 and 16,384 are taken, 63 and 16,385 refused by EINVAL."""
    for size, wanted in ((63, "EINVAL"), (64, "done"), (16384, "done"), (16385, "EINVAL")):
        pair.expect(f"{size}", limited(pair, size), wanted)


@promise("tls.rst, TLS_TX_MAX_PAYLOAD_LEN: 63 to 16384 bytes", suites=TLS13)
def tls13_limits_run_from_63(pair: Pair) -> None:
    """On TLS 1.3, where the type takes a byte, limits of 63 and 16,384 are taken, 62 and 16,385 refused by EINVAL."""
    for size, wanted in ((62, "EINVAL"), (63, "done"), (16384, "done"), (16385, "EINVAL")):
        pair.expect(f"{size}", limited(pair, size), wanted)


@promise("tls.rst, TLS_TX_MAX_PAYLOAD_LEN: all outgoing records")
def sendfile_keeps_to_the_limit(pair: Pair) -> None:
    """A file of 3,000 bytes leaves in records of at most 1,000."""
    pair.expect("limit of 1000", limited(pair, 1000), "done")
    file = pair.file(pattern(3000))
    pair.expect("sendfile", attempt(os.sendfile, pair.sock.fileno(), file, 0, 3000), 3000)
    records = pair.peer.records(3)
    pair.expect("records", [len(data) for _, data in records], [1000] * 3)
    pair.expect("their bytes", b"".join(data for _, data in records), pattern(3000))
