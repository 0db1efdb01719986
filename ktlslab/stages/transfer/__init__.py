"""Stage 5, transfer: bytes to and from the peer, in every record layer.

* `stream`: `Stream`, the public class;
* `sides`: sending and receiving, for each record layer; `receiver`: receiving if the kernel decrypts;
* `userspace` and `memory`: both, if OpenSSL makes the records, or rustls;
* `inlet`: what a plain receive cannot handle: control records and the end of the stream;
* `files`: sending from files and pipes; `control`: sending control records, new keys and smaller records;
* `condition`: whether a stream still works, and which error each failure becomes;
* `parting`: the alert of a peer that has closed; `unread`: where OpenSSL cannot read it any more;
* `watch`: whether TCP still has the connection, and how much each key has protected; `keyupdate`: the next keys;
* `library`: what the TLS library must know about what the kernel received;
* `ending`: a close that loses no data.
"""

from ktlslab.stages.transfer.stream import Stream

__all__ = ["Stream"]
