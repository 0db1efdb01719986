"""The only code that talks to the kernel.

* `ring`: io_uring for one thread, through the C liburing (`native/`);
* `engines`: the two I/O engines, `syscall` and `uring`, behind one interface;
* `ktls`: the socket options and structs of ``linux/tls.h``;
* `probe`: what this kernel accepts, found by trying;
* `counters`: ``/proc/net/tls_stat`` as a snapshot and a difference.

Below this line errors are OSError, as the kernel gives them; the stages above turn them into sentences.
"""
