"""What a kernel promises about kTLS, and whether it keeps it: the scoreboard.

The promises come from the kernel's documentation (Documentation/networking/tls.rst), from its own tests
(tools/testing/selftests/net/tls.c), and from what users rely on. Each is one short function, in a module by subject:

    attach readback handoff sending limit        setting up, and sending records
    receiving peek control broken padding        receiving records
    files splice_in splice_out full processes    bytes that never pass through the program, and several processes
    readiness key_update ending                  when to read, new keys, and the end of a connection
    ring_send ring_receive ring_modes            the same through io_uring
    asynchronous (with cipher)                   the same through a cipher that answers later

    check        promises, checks and verdicts
    pair         a kTLS socket, and a peer that does TLS in Python
    catalogue    all promises
    checker      checks them on this kernel; it runs in a guest
    journal      what it found so far
    collect      boots the guests, and collects their verdicts
    table        the table of them

The names below are resolved when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ktlslab._lazy import lazily

if TYPE_CHECKING:
    from ktlslab.promises.catalogue import all_promises, select
    from ktlslab.promises.collect import scoreboard
    from ktlslab.promises.table import read_scoreboard

_HOMES = {
    "all_promises": "catalogue",  # all of them, in order
    "select": "catalogue",  # names, groups, CVEs, patterns -> some of them
    "scoreboard": "collect",  # machines -> DataFrame, a row for each promise
    "read_scoreboard": "table",  # NAME.parquet -> DataFrame
}

__all__ = ["all_promises", "read_scoreboard", "scoreboard", "select"]

__getattr__, __dir__ = lazily(__name__, _HOMES)
