"""An asynchronous cipher in the place of the usual one, for as long as a check runs.

The tls module takes the driver of gcm(aes) that has the highest priority. On most machines it works at once; with a
crypto accelerator it answers later, and the module goes other ways, where many of its faults were found. Templates of
the kernel's own make such a driver out of another: cryptd does the work in a queue, pcrypt on several CPUs. One is
added, and removed again, by netlink (linux/cryptouser.h, CONFIG_CRYPTO_USER), which asks for CAP_NET_ADMIN. Binding an
AF_ALG socket to the template makes one as well, but with hardly more priority than what it wraps has, and it stays.
"""

from __future__ import annotations

import contextlib
import errno
import re
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from ktlslab.linux.ktls import Direction
from ktlslab.promises.pair import ENOUGH_S, Pair
from ktlslab.promises.verdicts import Absent, Broken, errno_of

NAME = "gcm(aes)"
# cryptd refuses to wrap what may be asynchronous already, as the accelerated drivers before 7.x call themselves.
QUEUED = "cryptd(gcm_base(ctr(aes-generic),ghash-generic))"
_PRIORITY = 1 << 14  # above every driver
_NETLINK_CRYPTO, _NLM_F_REQUEST, _NLM_F_ACK = 21, 1, 4
_NEW, _DELETE, _PRIORITY_VALUE = 0x10, 0x11, 1  # CRYPTO_MSG_NEWALG, CRYPTO_MSG_DELALG, CRYPTOCFGA_PRIORITY_VAL
_AEAD, _ANY_OF_THE_TYPE = 3, 0xF
_HEADER, _ALGORITHM = struct.Struct("=IHHII"), struct.Struct("=64s64s64sIIII")


def drivers(name: str = NAME) -> dict[str, dict[str, str]]:
    """Return the drivers of a cipher by name, the one that is taken first: the fields of /proc/crypto."""
    blocks = [
        dict(re.findall(r"^(\w+)\s*: (.*)$", block, re.MULTILINE))
        for block in Path("/proc/crypto").read_text().split("\n\n")
    ]
    having = [block for block in blocks if block.get("name") == name and block.get("internal") != "yes"]
    return {block["driver"]: block for block in sorted(having, key=lambda block: -int(block["priority"]))}


@contextlib.contextmanager
def answers_later(pair: Pair) -> Iterator[str]:
    """Install the keys of both directions with an asynchronous driver, and yield its name.

    Absent where there is none, or where this process may not add one. The pair's socket is closed at the end, because a
    driver in use cannot be removed.
    """
    driver = _added(pair)
    try:
        held = int(drivers()[driver]["refcnt"])
        for direction in Direction:
            pair.needs(f"TLS_{direction.name}", pair.install(direction), "ENOENT", "EINVAL")
        now = next(iter(drivers().values()))
        if (now["driver"], now["async"], int(now["refcnt"]) - held) != (driver, "yes", 2):
            raise Broken(f"not {driver}, but {now['driver']}, async: {now['async']}, {now['refcnt']} users")
        pair.seen.append(f"by {driver.partition('(')[0]}")
        yield driver
    finally:
        pair.sock.close()
        deadline = time.monotonic() + ENOUGH_S
        while _ask(_DELETE, driver) == errno.EBUSY and time.monotonic() < deadline:
            time.sleep(0.005)  # until the socket is gone


def _added(pair: Pair) -> str:
    """Add the first driver that this kernel can make, and return its name."""
    with Pair(pair.suite, (Direction.TX,)):  # so that the usual driver is there
        usual = next(iter(drivers()))
    for driver in (QUEUED, f"pcrypt({usual})"):
        if (answer := _ask(_NEW, driver)) in (0, errno.EEXIST):  # or a check that was ended left it
            return driver
    raise Absent(f"an asynchronous cipher: {errno.errorcode.get(answer, answer)}")


def _ask(what: int, driver: str) -> int:
    """Have the kernel add or remove a driver; return 0 or an errno."""
    body = _ALGORITHM.pack(b"", driver.encode(), b"", _AEAD, _ANY_OF_THE_TYPE, 0, 0)
    if what == _NEW:
        body += struct.pack("=HHI", 8, _PRIORITY_VALUE, _PRIORITY)
    message = _HEADER.pack(_HEADER.size + len(body), what, _NLM_F_REQUEST | _NLM_F_ACK, 1, 0) + body
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_CRYPTO) as kernel:
            kernel.send(message)
            (answer,) = struct.unpack_from("=i", kernel.recv(4096), _HEADER.size)
    except OSError as error:
        raise Absent(f"crypto_user: {errno_of(error)}") from error
    return -int(answer)
