"""Stage 5, transfer: bytes to and from the peer, whoever makes the records.

* `stream`: `Stream`, what a user holds;
* `sides`: sending and receiving, for each way in which records are made; `receiver` where the kernel opens them;
* `condition`: whether a stream still lives, and what each failure of its is called;
* `watch`: whether TCP still has the connection, and how much each key has protected; `keyupdate`: the keys after those;
* `library`: what the TLS library must hear of what the kernel received;
* `ending`: a close that loses nothing.
"""

from ktlslab.stages.transfer.stream import Stream

__all__ = ["Stream"]
