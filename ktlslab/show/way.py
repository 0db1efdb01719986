"""One record's way through a call tree: what happens in which function, and in which file of whose source.

    stations(profile, way, layer)   the functions on the way that have a purpose of their own
    both(profile, way)              the whole tree of the way as icicles, kernel above userspace
    classes(profile)                instructions by class: kernel beside userspace, sent and received
    tree(profile, way, layer)       the tree as a frame

`way` is "send", "receive" or "arrive", `layer` "kernel" or "userspace". "arrive" is what the kernel's record layer does
when a segment comes: before anybody receives, and on loopback in the sender's time. All are of an echo of one record,
from the client's side, by system calls; `machine` is by default the one with the newest kernel.

Files are those of Linux and OpenSSL; a function of an older kernel stands beside that of a newer one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ktlslab.errors import UsageError
from ktlslab.packages import extra
from ktlslab.profiling.classes import AEAD
from ktlslab.show.classcolours import in_order
from ktlslab.show.html import INDENT, Lines
from ktlslab.show.icicles import Bar, bars, both_layers, icicle

with extra("lab"):
    import pandas as pd

if TYPE_CHECKING:
    from ktlslab.profiling.frames import Profile
    from ktlslab.show.html import Picture

LAYERS, WAYS = ("kernel", "userspace"), ("send", "receive", "arrive")
_TRIED = "following a record"
_MIN_SHARE = 0.005  # of the larger total: classes that are smaller in each way are one row
_TLS_SW, _GLUE, _TCP = "net/tls/tls_sw.c", "arch/x86/crypto/aesni-intel_glue.c", "net/ipv4/tcp.c"
_COMMON, _PERL = "openssl ssl/record/methods/tls_common.c", "openssl crypto/modes/asm/aesni-gcm-x86_64.pl"


@dataclass(frozen=True, slots=True)
class Station:
    """What is done, and where: `functions` has names of the newest kernel first, each with its file."""

    what: str
    functions: Mapping[str, str]


def _at(what: str, **functions: str) -> Station:
    return Station(what, {name.replace("AT", "@"): file for name, file in functions.items()})


_OUT = (
    _at("cut into segments", tcp_write_xmit="net/ipv4/tcp_output.c"),
    _at("IP", __ip_queue_xmit="net/ipv4/ip_output.c"),
    _at("to the device", __dev_queue_xmit="net/core/dev.c"),
    _at("loopback: the receiver's half, in a soft interrupt", net_rx_action="net/core/dev.c"),
    _at("the peer's TCP", tcp_v4_rcv="net/ipv4/tcp_ipv4.c"),
    _at("the peer is woken", sock_def_readable="net/core/sock.c"),
)
_STATIONS: dict[tuple[str, str], tuple[Station, ...]] = {
    ("send", "kernel"): (
        _at("the system call", __sys_sendto="net/socket.c"),
        _at("cut into records", tls_sw_sendmsg=_TLS_SW),
        _at("the program's pages looked up, not copied", sk_msg_zerocopy_from_iter="net/core/skmsg.c"),
        _at("one record: header, nonce, tag", bpf_exec_tx_verdict=_TLS_SW),
        _at("AEAD, from the program's pages", gcm_encrypt_aesni_avx=_GLUE, generic_gcmaes_encrypt=_GLUE),
        _at(
            "its loop",
            aes_gcm_enc_update_aesni_avx="arch/x86/crypto/aes-gcm-aesni-x86_64.S",
            aesni_gcm_enc_update_avx_gen4="arch/x86/crypto/aesni-intel_avx-x86_64.S",
        ),
        _at("the record given to TCP", tls_push_sg="net/tls/tls_main.c"),
        _at("its pages put into a packet, not copied", skb_splice_from_iter="net/core/skbuff.c", do_tcp_sendpages=_TCP),
        *_OUT,
    ),
    ("send", "userspace"): (
        _at("the library", SSL_write="openssl ssl/ssl_lib.c"),
        _at("one record: header, padding, type", tls_write_records_default=_COMMON),
        _at("the payload copied into OpenSSL's buffer", copyAT="libc memcpy"),
        _at("AEAD, in that buffer", aesni_gcm_encrypt=_PERL),
        _at("the system call", ksys_write="fs/read_write.c"),
        _at("TCP", tcp_sendmsg_locked=_TCP),
        _at("the record copied into the kernel", _copy_from_iter="lib/iov_iter.c"),
        *_OUT,
    ),
    ("receive", "kernel"): (
        _at("the system call", __sys_recvfrom="net/socket.c"),
        _at("records to bytes", tls_sw_recvmsg=_TLS_SW),
        _at("waits for a whole record", tls_rx_rec_wait=_TLS_SW),
        _at("asleep: another program runs", schedule="kernel/sched/core.c"),
        _at("one record", tls_decrypt_sg=_TLS_SW),
        _at("a packet's worth of memory for the plaintext", alloc_skb_with_frags="net/core/skbuff.c"),
        _at("its pages, found and cleared", get_page_from_freelist="mm/page_alloc.c"),
        _at("AEAD, into those pages", gcm_decrypt_aesni_avx=_GLUE, generic_gcmaes_decrypt=_GLUE),
        _at(
            "its loop",
            aes_gcm_dec_update_aesni_avx="arch/x86/crypto/aes-gcm-aesni-x86_64.S",
            aesni_gcm_dec_update_avx_gen4="arch/x86/crypto/aesni-intel_avx-x86_64.S",
        ),
        _at("the true type, behind the padding", tls_padding_length=_TLS_SW),
        _at("the plaintext copied to the program", skb_copy_datagram_iter="net/core/datagram.c"),
        _at("the pages given back", skb_release_data="net/core/skbuff.c"),
    ),
    ("receive", "userspace"): (
        _at("the library", SSL_read="openssl ssl/ssl_lib.c"),
        _at("one record", tls_get_more_records=_COMMON),
        _at("header, then body", tls_default_read_n=_COMMON),
        _at("a system call for each", ksys_read="fs/read_write.c"),
        _at("TCP", tcp_recvmsg_locked=_TCP),
        _at("asleep: another program runs", schedule="kernel/sched/core.c"),
        _at("the record copied to OpenSSL's buffer", skb_copy_datagram_iter="net/core/datagram.c"),
        _at("AEAD, in that buffer", aesni_gcm_decrypt=_PERL),
        _at("the plaintext copied to the program", copyAT="libc memcpy"),
    ),
    ("arrive", "kernel"): (
        _at("TCP has bytes for a socket with TLS_RX", tls_data_ready=_TLS_SW),
        _at("a record's end looked for", tls_strp_check_rcv="net/tls/tls_strp.c"),
        _at("type, version and length checked", tls_rx_msg_size=_TLS_SW),
        _at("the reader is woken", sock_def_readable="net/core/sock.c"),
    ),
}
# The function at which each way begins.
_BEGIN = {
    ("send", "kernel"): "__send",
    ("send", "userspace"): "SSL_write",
    ("receive", "kernel"): "__recv",
    ("receive", "userspace"): "SSL_read",
    ("arrive", "kernel"): "tls_data_ready",
}


def stations(profile: Profile, way: str, layer: str, *, machine: str | None = None) -> Lines:
    """Return the stations of a way, each with its function, its file, and what it and its callees executed.

    A station inside another one is indented. What a tree does not have is left out.
    """
    (root,) = _roots(profile, way, layer, machine)
    rows: list[tuple[str, ...]] = []
    inside: list[tuple[Bar, ...]] = []
    for station in _STATIONS[way, layer]:
        found = list(_found(root, tuple(station.functions)))
        if not found:
            continue
        _, first = found[0]
        file = next(file for name, file in station.functions.items() if first.name.startswith(name))
        level = sum(any(above is bar for above in found[0][0]) for (bar,) in inside)
        inside.append((first,))
        name = "memcpy" if first.name.startswith("copy@") else first.name
        total, calls = (sum(each) for each in zip(*((bar.total, bar.calls) for _, bar in found), strict=True))
        rows.append((f"{INDENT * level}{station.what}", name, file, f"{calls:,.4g}", f"{total:,.0f}"))
    who = {"send": "sends", "receive": "receives", "arrive": "is reached by"}[way]
    place = _cell(profile, way, machine)["machine"]
    caption = f"A client with {layer} records {who} one record, Linux {place}: {root.total:,.0f} instructions."
    return Lines(
        head=("what happens", "function", "file", "calls", "instructions"), rows=rows, numbers=(3, 4), caption=caption
    )


def both(profile: Profile, way: str) -> Picture:
    """Return a way's icicles: the kernel's record layer above OpenSSL's."""
    more = [{"record_layer": layer, "under": _BEGIN[way, layer]} for layer in LAYERS]
    return icicle(profile, *more, **_cell(profile, way, None))


def classes(profile: Profile, *, machine: str | None = None) -> Lines:
    """Return the instructions of one record by class, for both record layers, sent and received."""
    ways = [(way, layer) for way in WAYS[:2] for layer in LAYERS]
    sums: list[dict[str, float]] = []
    for way, layer in ways:
        some: dict[str, float] = {}
        for _, bar in _walk(_roots(profile, way, layer, machine)[0]):
            some[bar.kind] = some.get(bar.kind, 0) + bar.own
        sums.append(some)
    largest = max(sum(some.values()) for some in sums)
    kinds = in_order(kind for some in sums for kind in some)
    small = [kind for kind in kinds if max(some.get(kind, 0) for some in sums) < _MIN_SHARE * largest]
    rows = [(kind, [some.get(kind, 0) for some in sums]) for kind in kinds if kind not in small]
    if small:
        rows += [("everything else", [sum(some.get(kind, 0) for kind in small) for some in sums])]
    rows += [("in all", [sum(some.values()) for some in sums])]
    head = ("class", *(f"{layer}, {way}" for way, layer in ways))
    return Lines(
        head=head, rows=[(name, *(f"{one:,.0f}" for one in each)) for name, each in rows], numbers=range(1, len(head))
    )


def tree(profile: Profile, way: str, layer: str, *, machine: str | None = None) -> pd.DataFrame:
    """Return a way's tree as a frame, callers before callees: a row per function and caller.

    Columns: function, object, class, caller ("" at the way's begin), level, instructions (its own), total, calls.
    """
    (root,) = _roots(profile, way, layer, machine)
    rows = [
        (bar.name, bar.object, bar.kind, above[-1].name if above else "", len(above), bar.own, bar.total, bar.calls)
        for above, bar in _walk(root)
    ]
    head = ["function", "object", "class", "caller", "level", "instructions", "total", "calls"]
    return pd.DataFrame(rows, columns=head)


def is_aead(kind: str) -> bool:
    """Return whether a class is that of a cipher."""
    return kind.startswith(AEAD)


def _cell(profile: Profile, way: str, machine: str | None) -> dict[str, Any]:
    cell = both_layers(profile)
    if not cell:
        remedy = "Profile a plan that has both record layers by system calls."
        raise UsageError(_TRIED, answered="the profile has no cell with kernel and userspace records", remedy=remedy)
    return {**cell, "end": "peer" if way == "arrive" else "client", **({"machine": machine} if machine else {})}


def _roots(profile: Profile, way: str, layer: str, machine: str | None) -> Sequence[Bar]:
    if (way, layer) not in _STATIONS:
        have = ", ".join(map(" by ".join, _STATIONS))
        raise UsageError(_TRIED, answered=f"there is no {way!r} by {layer!r}", remedy=f"Choose from {have}.")
    cell, begin = _cell(profile, way, machine), _BEGIN[way, layer]
    found = bars(profile, record_layer=layer, under=begin, **cell)
    if len(found) != 1:
        answered = f"{begin} is in the tree {len(found)} times"
        raise UsageError(_TRIED, answered=answered, remedy="Take an echo of one record.")
    return found


def _walk(bar: Bar, above: tuple[Bar, ...] = ()) -> Iterator[tuple[tuple[Bar, ...], Bar]]:
    yield above, bar
    for child in bar.children:
        yield from _walk(child, (*above, bar))


def _found(root: Bar, names: tuple[str, ...]) -> Iterator[tuple[tuple[Bar, ...], Bar]]:
    """Yield each bar with one of these names, and what is above it; none inside another one."""
    for above, bar in _walk(root):
        if _named(bar, names) and not any(_named(one, names) for one in above):
            yield above, bar


def _named(bar: Bar, names: tuple[str, ...]) -> bool:
    """Return whether a bar has one of these names; one that ends in @ stands for a function known by its address."""
    return any(bar.name == name or (name[-1] == "@" and bar.name.startswith(name)) for name in names)
