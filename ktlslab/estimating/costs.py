"""Which instructions cost alike on a CPU: cost classes, coarser than a profile's, few enough to be fitted.

A profile's classes say what code is for. What it takes depends on what it does: straight vector code of a cipher runs
at several instructions per cycle; moved memory costs by the byte; the kernel's code misses caches and mispredicts
branches, user code less. io_uring's own code is apart: it was found to be dearer than the rest of the kernel. Two
things take time without being many instructions, and count by number: a system call (the CPU's change of mode, with
what guards it) and a change of the task that runs.

Moved memory has one class, in user code and in the kernel, for copying and for clearing, because on the emulated CPU
(`guests.qemu.CPU`, without erms and fsrm) an instruction of all of these moves about as many bytes: an iteration of
`rep movsq` or `rep stosq` 8, the vector loop of libc 11, the kernel's loop that clears small memory 6. So its weight is
that of bytes, whoever moves them. Only the kernel's loop that copies small memory moves 3 to 4; it has less than one in
a hundred of the class's instructions.

A cipher's code has a class for each library: two builds of OpenSSL on one CPU can differ by a factor of two, because
one of them uses its vector AES instructions, and the emulated CPU, which has no AVX-512, hides that.
"""

from __future__ import annotations

import re
from typing import Any

from ktlslab.measure.plan import Cell
from ktlslab.packages import extra
from ktlslab.tls.suites import Suite

with extra("lab"):
    import pandas as pd

KERNEL = "kernel"
USER_CODE = "user code"
KERNEL_CODE = "kernel code"
URING = "io_uring"
MOVING = "copying and clearing"
SYSTEM_CALLS = "system calls"
SWITCHES = "context switches"
COUNTED = (SYSTEM_CALLS, SWITCHES)  # by number; all others by instruction
CIPHERS = "AES-GCM", "AES-CCM", "CHACHA20-POLY1305", "ARIA-GCM", "SM4-GCM", "SM4-CCM"
ENDS = ("client", "peer")
IDENTITY = tuple(name for name in Cell.__slots__ if name != "replica")

# The kernel's functions whose cost is the bytes that they move. The rest of `copying` is code that checks and walks.
_MOVES = re.compile(
    r"_*(rep_(movs|stos)|mem(cpy|set|move)(_orig|_erms)?$|(copy|clear)_(high)?pages?(?!_to|_from)|clear_user|copy_user)"
)
# The kernel's functions in class AEAD that walk over buffers and dispatch, rather than encrypt.
_WALKS = re.compile(
    r"(__)?crypto_|skcipher_|aead_|scatterwalk_|sg_|memcpy_|(irq|kernel)_fpu|__kernel_fpu|simd_|gcm_(enc|dec)rypt_aesni"
)
_ENTRY, _SWITCH = "entry_SYSCALL_64", "__switch_to_asm"


def family(suite: str) -> str:
    """Return the kind of a suite's cipher, without the size of its key: AES-GCM."""
    return re.sub(r"-\d+(?=-[GC]CM)", "", Suite[suite].cipher.name)


def cipher_class(suite: str, library: str) -> str:
    """Return the cost class of a suite's cipher in a library: a file of user code, or `kernel`."""
    return f"{family(suite)} in {library}"


def is_cipher(name: str) -> bool:
    """Whether a cost class is that of a cipher."""
    return name.startswith(CIPHERS)


def in_kernel(name: str) -> bool:
    """Whether a cost class is that of a cipher in the kernel."""
    return name.endswith(f" in {KERNEL}")


def cost_class(mode: str, name: str, where: str, function: str, suite: str) -> str:
    """Return the cost class of a function of a profile; "" for what an operation does not cost."""
    if name == "interrupts":
        return ""
    if mode == "user":
        if name.startswith("AEAD") and suite:
            return cipher_class(suite, where)
        return MOVING if name in {MOVING, "copying", "clearing"} else USER_CODE
    if name.startswith("AEAD") and suite and not _WALKS.match(function):
        return cipher_class(suite, KERNEL)
    if name == URING:
        return URING
    return MOVING if name in {"copying", "clearing"} and _MOVES.match(function) else KERNEL_CODE


def features(functions: pd.DataFrame) -> pd.DataFrame:
    """Return instructions (or numbers: `COUNTED`) per operation: a row per cell and end, a column per cost class.

    `functions` is a profile's frame of one machine. What belongs to neither end, the kernel's own threads, is left out.
    """
    rows = functions[functions["end"].isin(ENDS)]
    named = ["mode", "class", "object", "function", "suite"]
    known = {key: cost_class(*key) for key in rows[named].drop_duplicates().itertuples(index=False, name=None)}
    classes = pd.Series([known[key] for key in rows[named].itertuples(index=False, name=None)], rows.index, name="cost")
    keys = [*IDENTITY, "end"]
    table = rows.assign(cost=classes)[classes != ""].pivot_table(
        "instructions", keys, "cost", aggfunc="sum", fill_value=0.0
    )
    for cost, function in ((SYSTEM_CALLS, _ENTRY), (SWITCHES, _SWITCH)):
        number = rows[(rows["mode"] == KERNEL) & (rows["function"] == function)].groupby(keys)["calls"].sum()
        table[cost] = number.reindex(table.index).fillna(0.0)
    table.columns.name = None
    return table[sorted(table.columns, key=_order)]


def _order(name: Any) -> tuple[int, str]:
    known = (USER_CODE, KERNEL_CODE, URING, MOVING, *COUNTED)
    return (known.index(name) if name in known else len(known)), name
