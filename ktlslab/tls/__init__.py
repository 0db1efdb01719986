"""TLS as knowledge, without sockets: what the bytes mean and how keys come about.

Read in this order:

* `suites`: which cipher suites there are, and which of the kernel's ciphers each one needs;
* `records`: how a stream of bytes falls into records, no key needed;
* `keylog` and `keyschedule`: from the secrets that a TLS library reports to the keys that the kernel takes;
* `alerts`: how a peer says that it is done, or why it gives up;
* `unbuffered`: a TLS connection as a state machine over pyOpenSSL, moving no bytes itself;
* `traffic`: application data through that state machine, at what it costs OpenSSL;
* `protect`: one record sealed and opened by hand, to teach and to check;
* `contexts` and `openssl`: OpenSSL's contexts, made of what one end brings.

The last four need pyOpenSSL and `cryptography`, so they are imported by their own names.

Nothing here opens a socket or knows the rest of ktlslab but its errors. Bad bytes are ValueError.
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
