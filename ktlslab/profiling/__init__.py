"""Profiles: where the instructions of an operation went, exactly, by function and class, for each end.

A guest runs what a sweep runs, and a plugin of QEMU (trace.c) writes down each block of instructions that the emulated
CPU executes in the timed part. A step begins and ends where the client's own code reads the clock, so the profile and
the clock count the same instructions; their difference is in the provenance, by cell.

The frame (`Profile.functions`) has a row per cell, end and function:

    run_id, machine, kernel             where, as in a table
    record_layer ... link               the cell (`ktlslab.measure.plan.Cell` without `replica`)
    end             str     client; peer; machine: the kernel's own threads and its idle loop
    mode            str     user, kernel
    class           str     classes.txt decides; `AEAD` is followed by the cipher's name: AEAD AES-256-GCM
    object          str     the kernel's module, `kernel` for none; the file of user code
    function        str     in a stripped file what it does, and its address: aes@0x1c2d40, code@...; "" if unknown
    instructions    float   per operation
    calls           float   per operation: how often it was entered at its first instruction

A second frame (`Profile.trees`) has the call tree of one operation, of each end the one that stands for all
(`ktlslab.profiling.typical`): per cell and end a row per function and caller, `node`, in the order of the first call,
each before those that it called. `Profile.typical` has the same by function.

    run_id ... link, end, mode, class, object, function     as above
    node, parent, level     int     its number, its caller's (-1: none), how many callers it has
    instructions, total     float   per operation: its own, and with those of all that it called
    calls                   float   per operation, by this caller

The ends are two processes, as in a sweep. In an upload the client is the sender, in a download the peer is. What the
kernel does in an interrupt has the class `interrupts`, whatever the function. On loopback the receiver's half of TCP
runs in a softirq of the sender, and counts for the sender.

    collecting          a plan on machines -> Profile
    plugin, worker      what QEMU loads; the process in the guest
    traces, symbols     what the plugin wrote; what its addresses mean
    counting, trees     instructions and calls by function; the call tree
    typical             the operation that stands for all, whose tree it is
    classes             the class of a function
    frames              Profile, its frames, reading and writing
"""

from ktlslab._lazy import modules

__getattr__, __dir__ = modules(__name__, __path__)
