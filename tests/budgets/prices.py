"""What Python's own primitives cost, in the clock's unit: a price list for planning hot paths.

Runs in a guest. Nothing here touches a socket.
"""

from __future__ import annotations

import time
import timeit

from ktlslab.linux import _native

LOOPS = 500
SETUP = """
from functools import partial
def function(data): return data
def forward(data): return function(data)
class Bare:
    __slots__ = ("inner", "count")
    def __init__(self): self.inner, self.count = 1, 0
    def method(self, data): return data
    def counted(self, data):
        try:
            return data
        except OSError:
            raise
bare = Bare(); method = bare.method; bound = partial(len, data); closed = False
"""
# Name and statement.
STATEMENTS = {
    "calling a builtin": "len(data)",
    "calling a builtin through functools.partial": "bound()",
    "calling a Python function": "function(data)",
    "... that calls a Python function": "forward(data)",
    "calling a method on an object": "bare.method(data)",
    "... with try and except in it": "bare.counted(data)",
    "calling with * and a tuple": "len(*one)",
    "calling with a keyword": "function(data=data)",
    "an attribute": "bare.inner",
    "two tests of a flag": "if closed or closed: pass",
    "memoryview(b), closed by with": "with memoryview(data) as view: pass",
    "slicing a memoryview": "view[0:32]",
    "cffi: a call with 1 argument": "lib.kl_ring_fd(ring)",
    "cffi: from_buffer(data)": "from_buffer(data)",
    "cffi: from_buffer('char[]', data, True)": "from_buffer('char[]', data, True)",
    "cffi: len() of what it gave": "len(held)",
}


def prices() -> dict[str, float]:
    """Return the price of each, minus that of an empty loop."""
    ffi, lib = _native.ffi, _native.lib
    ring = lib.kl_ring_open(8, 0, ffi.new("int *"))
    data = bytearray(64)
    names = {"data": data, "view": memoryview(data), "one": (data,), "lib": lib, "ring": ring}
    names |= {"from_buffer": ffi.from_buffer, "held": ffi.from_buffer(data)}
    try:
        empty = _time("pass", names)
        return {bought: _time(statement, names) - empty for bought, statement in STATEMENTS.items()}
    finally:
        lib.kl_ring_close(ring)


def _time(statement: str, names: dict[str, object]) -> float:
    timer = timeit.Timer(statement, SETUP, timer=time.perf_counter_ns, globals=dict(names))
    timer.timeit(LOOPS)
    return min(timer.repeat(3, LOOPS)) / LOOPS
