"""The only code that talks to the kernel.

* `ring`: io_uring for one thread, through the C liburing (`native/`); `setups` opens one, `calls` is what it is given;
* `operations`: what can be put in flight on a ring; `buffers`: receives that stay armed; `features`: what works here;
* `engines`: the two I/O engines, `syscall` and `uring`, behind one interface;
* `ktls`: the socket options and structs of ``linux/tls.h``;
* `capabilities`: what this kernel accepts, found by trying;
* `counters`: ``/proc/net/tls_stat`` as a snapshot and a difference;
* `namespaces` and `tcpinfo`: network namespaces; what TCP reports about a connection;
* `perf` and `interrupts`: what the kernel counts for a process, and the machine's time in interrupts;
* `tracing`: a thread's system calls, and what was submitted to its ring; `seccomp`: forbidding a process some of them.

Below this line errors are OSError, as the kernel gives them (UsageError for wrong arguments); the stages above turn
them into sentences.
"""

from ktlslab._lazy import modules

__getattr__, __dir__ = modules(__name__, __path__)
