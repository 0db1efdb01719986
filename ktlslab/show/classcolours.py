"""The colours of a profile's classes, the same in every picture: user code warm, the kernel's networking blue."""

from __future__ import annotations

from collections.abc import Iterable

from ktlslab.profiling.classes import AEAD, OTHER

COLOURS = {
    "interpreter": "#E69F00",
    "our C": "#8C564B",
    "OpenSSL": "#D55E00",
    "rustls": "#882255",
    "libc": "#C9A66B",
    AEAD: "#CC79A7",
    "copying": "#009E73",
    "clearing": "#8FD175",
    "tls": "#F0E442",
    "io_uring": "#A6761D",
    "system calls": "#7F7F7F",
    "TCP/IP": "#0072B2",
    "loopback and softirq": "#56B4E9",
    "sockets and skb memory": "#9DB8F2",
    "page allocation": "#66C2A5",
    "scheduler": "#7A5195",
    "locks, lists and timers": "#B8A1CF",
    "security hooks": "#B22222",
    "interrupts": "#404040",
    OTHER: "#D0D0D0",
}
MEANINGS = {
    "interpreter": "Python, and the extension modules that come with it",
    "our C": "the C with which ktlslab calls OpenSSL, system calls and io_uring",
    "OpenSSL": "the TLS library, without its ciphers",
    "rustls": "the other TLS library with what calls it, without its ciphers",
    "libc": "the C library, without copying and clearing",
    AEAD: "the cipher of the records, in a TLS library or in the kernel",
    "copying": "bytes copied, in libc or in the kernel",
    "clearing": "memory set to zero: new pages above all",
    "tls": "the kernel's record layer, without ciphers",
    "io_uring": "submission, completion and polling of io_uring",
    "system calls": "entry and exit, their guards against speculation, and the way through the file layer",
    "TCP/IP": "TCP, IP, netfilter",
    "loopback and softirq": "the network device, and the receiving half of the network stack",
    "sockets and skb memory": "sockets, and the buffers that packets are kept in",
    "page allocation": "pages and small objects allocated and freed; the user's pages pinned",
    "scheduler": "who runs next: waking, switching, accounting",
    "locks, lists and timers": "locks, lists, RCU, timers, clocks",
    "security hooks": "SELinux, AppArmor and the like",
    "interrupts": "timer and devices, and what ran in their interrupts",
    OTHER: "functions that no class names",
}
_RANK = {name: at for at, name in enumerate(COLOURS)}


def colour(name: str) -> str:
    """Return the colour of a class; all ciphers have AEAD's."""
    return COLOURS.get(AEAD if name.startswith(AEAD) else name, COLOURS[OTHER])


def in_order(names: Iterable[str]) -> list[str]:
    """Return classes in the order in which every picture has them."""
    return sorted(set(names), key=lambda name: (_RANK.get(AEAD if name.startswith(AEAD) else name, len(_RANK)), name))
