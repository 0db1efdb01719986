"""RFC 8448 section 3, "Simple 1-RTT Handshake": keys and records of a published TLS 1.3 connection.

Secrets, keys and records are the RFC's. They prove each other: records published there open with keys derived here.
"""

from __future__ import annotations

import pytest

from ktlslab.tls.alerts import Alert
from ktlslab.tls.keyschedule import hkdf_expand_label, traffic_key
from ktlslab.tls.protect import open_record, seal
from ktlslab.tls.records import ContentType
from ktlslab.tls.suites import Suite

SUITE = Suite.TLS_AES_128_GCM_SHA256
MASTER_SECRET = "18df06843d13a08bf2a449844c5f8a478001bc4d4c627984d5a41da8d0402919"
HASH_TO_SERVER_FINISHED = "9608102a0f1ccc6db6250b7b7e417b1a000eaada3daae4777a7686c9ff83df13"
# side: traffic secret, key, iv
CLIENT_HANDSHAKE = (
    "b3eddb126e067f35a780b3abf45e2d8f3b1a950738f52e9600746a0e27a55a21",
    "dbfaa693d1762c5b666af5d950258d01",
    "5bd3c71b836e0b76bb73265f",
)
SERVER_HANDSHAKE = (
    "b67b7d690cc16c4e75e54213cb2d37b4e9c912bcded9105d42befd59d391ad38",
    "3fce516009c21727d0f2e4e86ee403bc",
    "5d313eb2671276ee13000b30",
)
CLIENT = (
    "9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5",
    "17422dda596ed5d9acd890e3c63f5051",
    "5b78923dee08579033e523d9",
)
SERVER = (
    "a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643",
    "9f02283b6c9c07efc26bb9f2ac92e356",
    "cf782b88dd83549aadf1e984",
)
FINISHED = "14000020a8ec436d677634ae525ac1fcebe11a039ec17694fac6e98527b642f2edd5ce61"
TICKET = (
    "040000c90000001efad6aac502000000b22c035d829359ee5ff7af4ec900000000262a6494dc486d2c8a34cb33fa90bf"
    "1b0070ad3c498883c9367c09a2be785abc55cd226097a3a982117283f82a03a143efd3ff5dd36d64e861be7fd61d2827"
    "db279cce145077d454a3664d4e6da4d29ee03725a6a4dafcd0fc67d2aea70529513e3da2677fa5906c5b3f7d8f92f228"
    "bda40dda721470f9fbf297b5aea617646fac5c03272e970727c621a79141ef5f7de6505e5bfbc388e93343694093934a"
    "e4d3570008002a000400000400"
)
DATA = bytes(range(50)).hex()

# (side, sequence number, content type, plaintext, record)
RECORDS = [
    (
        CLIENT_HANDSHAKE,
        0,
        ContentType.HANDSHAKE,
        FINISHED,
        (
            "170303003575ec4dc238cce60b298044a71e219c56cc77b0517fe9b93c7a4bfc44d87f38f80338ac98fc46deb384bd1c"
            "aeacab6867d726c40546"
        ),
    ),
    (
        SERVER,
        0,
        ContentType.HANDSHAKE,
        TICKET,
        (
            "17030300de3a6b8f90414a97d6959c3487680de5134a2b240e6cffac116e95d41d6af8f6b580dcf3d11d63c758db289a"
            "015940252f55713e061dc13e078891a38efbcf5753ad8ef170ad3c7353d16d9da773b9ca7f2b9fa1b6c0d4a3d03f75e0"
            "9c30ba1e62972ac46f75f7b981be63439b2999ce13064615139891d5e4c5b406f16e3fc181a77ca475840025db2f0a77"
            "f81b5ab05b94c01346755f69232c86519d86cbeeac87aac347d143f9605d64f650db4d023e70e952ca49fe5137121c74"
            "bc2697687e248746d6df353005f3bce18696129c8153556b3b6c6779b37bf15985684f"
        ),
    ),
    (
        CLIENT,
        0,
        ContentType.APPLICATION_DATA,
        DATA,
        (
            "1703030043a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b9819a8a5b46b395bd54a9a20441e2b"
            "62974e1f5a6292a2977014bd1e3deae63aeebb21694915e4"
        ),
    ),
    (
        SERVER,
        1,
        ContentType.APPLICATION_DATA,
        DATA,
        (
            "17030300432e937e11ef4ac740e538ad36005fc4a46932fc3225d05f82aa1b36e30efaf97d90e6dffc602dcb501a59a8"
            "fcc49c4bf2e5f0a21c0047c2abf332540dd032e167c2955d"
        ),
    ),
    (CLIENT, 1, ContentType.ALERT, "0100", "1703030013c9872760655666b74d7ff1153efd6db6d0b0e3"),
    (SERVER, 2, ContentType.ALERT, "0100", "1703030013b58fd67166ebf599d24720cfbe7efa7a8864a9"),
]


@pytest.mark.parametrize(("side", "label"), [(CLIENT, "c ap traffic"), (SERVER, "s ap traffic")])
def test_application_traffic_secrets_come_from_the_master_secret(side, label):
    context = bytes.fromhex(HASH_TO_SERVER_FINISHED)
    assert hkdf_expand_label(bytes.fromhex(MASTER_SECRET), label, context, 32, "sha256").hex() == side[0]


@pytest.mark.parametrize("side", [CLIENT_HANDSHAKE, SERVER_HANDSHAKE, CLIENT, SERVER])
def test_keys_and_ivs_come_from_the_traffic_secrets(side):
    secret, key, iv = map(bytes.fromhex, side)
    assert traffic_key(secret, SUITE) == (key, iv)


@pytest.mark.parametrize(("side", "sequence", "kind", "plaintext", "record"), RECORDS)
def test_published_records_open_and_are_made_again(side, sequence, kind, plaintext, record):
    key, write_iv = traffic_key(bytes.fromhex(side[0]), SUITE)
    assert open_record(SUITE, key, write_iv, sequence, bytes.fromhex(record)) == (kind, bytes.fromhex(plaintext))
    assert seal(SUITE, key, write_iv, sequence, kind, bytes.fromhex(plaintext)).hex() == record
    with pytest.raises(ValueError, match="does not open"):
        open_record(SUITE, key, write_iv, sequence + 1, bytes.fromhex(record))


def test_the_trace_ends_cleanly():
    key, write_iv = traffic_key(bytes.fromhex(CLIENT[0]), SUITE)
    _, alert = open_record(SUITE, key, write_iv, 1, bytes.fromhex(RECORDS[4][4]))
    assert Alert.parse(alert).is_close_notify
