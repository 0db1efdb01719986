"""What a kernel promises about kTLS, and whether it keeps it: the scoreboard.

The promises are the kernel documentation's (Documentation/networking/tls.rst), those that its own tests name
(tools/testing/selftests/net/tls.c), and those that users came to count on. Each is one short function, by subject:

    attach readback handoff sending limit        what goes on before and while the kernel seals
    receiving peek control broken padding        what it gives out of the records that it opens
    files splice_in splice_out processes         bytes that never pass through the program, and many programs at once
    readiness key_update ending                  when to read, new keys, and how it ends
    ring_send ring_receive ring_modes            the same through io_uring

    check        what a promise is, and what a check says
    pair         a socket in the kernel's hands, and its peer in ours
    catalogue    all of them
    checker      checks them on this kernel: what runs in a guest
    collect      boots the guests, collects what they found, makes the table

The names below are resolved when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ktlslab._lazy import lazily

if TYPE_CHECKING:
    from ktlslab.promises.catalogue import all_promises
    from ktlslab.promises.collect import read_scoreboard, scoreboard

_HOMES = {
    "all_promises": "catalogue",  # all of them, in order
    "scoreboard": "collect",  # machines -> DataFrame, a row for each promise
    "read_scoreboard": "collect",  # NAME.parquet -> DataFrame
}

__all__ = ["all_promises", "read_scoreboard", "scoreboard"]

__getattr__, __dir__ = lazily(__name__, _HOMES)
