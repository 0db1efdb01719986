"""TLS without sockets: what the bytes mean and how keys are derived.

Read in this order:

* `suites`: the cipher suites, and the kernel cipher that each one needs;
* `records`: splitting a stream of bytes into records, without a key;
* `keylog` and `keyschedule`: from the secrets that a TLS library reports to the keys that the kernel takes;
* `alerts`: how a peer says that it has finished, or why it gives up;
* `unbuffered`: a TLS connection as a state machine over pyOpenSSL that moves no bytes itself;
* `traffic`: application data through that state machine, with no more overhead than OpenSSL's own;
* `protect`: one record sealed and opened by hand, for teaching and checking;
* `gcm`: the cipher of such a record, block by block, for teaching;
* `contexts` and `openssl`: OpenSSL's contexts, made from the config of one end.

The last five need pyOpenSSL and `cryptography`, so they must be imported by their own names.

Nothing here opens a socket, or depends on the rest of ktlslab except its errors. Invalid bytes raise ValueError.
"""

from .alerts import Alert, AlertDescription, AlertLevel
from .keylog import KeylogLine
from .keyschedule import (
    KernelIv,
    KeyBlock,
    kernel_iv_tls12,
    key_block,
    next_traffic_secret,
    sequence_bytes,
    sequence_number,
    split_write_iv,
    traffic_key,
)
from .records import ContentType, HandshakeType, Record, RecordHeader, RecordSplitter, describe
from .suites import CIPHERS, Cipher, Suite, Version

__all__ = [
    "CIPHERS",
    "Alert",
    "AlertDescription",
    "AlertLevel",
    "Cipher",
    "ContentType",
    "HandshakeType",
    "KernelIv",
    "KeyBlock",
    "KeylogLine",
    "Record",
    "RecordHeader",
    "RecordSplitter",
    "Suite",
    "Version",
    "describe",
    "kernel_iv_tls12",
    "key_block",
    "next_traffic_secret",
    "sequence_bytes",
    "sequence_number",
    "split_write_iv",
    "traffic_key",
]
