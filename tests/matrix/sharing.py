"""A stream shared by two threads, or by the two processes after a fork."""

from __future__ import annotations

import os
import time
import warnings

from tests.matrix.calls import RECEIVES, SENDS, possible, recv, send, splice_into
from tests.matrix.rows import KERNEL_RECEIVES, SHORT_S, Scene, row

MUCH = bytes(range(250)) * 4000
WAIT_S = 0.1  # until the other thread waits in its call
IN_ONE_THREAD = "UsageError, then delivered"
ONE_AT_A_TIME = {  # sendfile(2) and splice(2) do not use the ring
    "userspace": IN_ONE_THREAD,
    "kernel-rx uring": IN_ONE_THREAD,
    "sendfile": "delivered, then delivered",
    "splice_from": "delivered, then delivered",
    "uring": IN_ONE_THREAD,
}


def _receive(scene, call, data):
    """Receive in another thread; `words` of the result are this scene's only in the end."""
    other = Scene(place=scene.place, peers=scene.peers, stream=scene.stream, peer=scene.peer, timeout=scene.timeout)
    other.owned = scene.owned

    def act():
        other.same(other.does(call, other, len(data)), data)
        return other.words

    future = scene.meanwhile(act)
    time.sleep(WAIT_S)
    return future


@row("a send while another thread receives", "delivered, then delivered", each=SENDS, possible=possible,
     where=ONE_AT_A_TIME, goes_on=True)  # fmt: skip
def _(scene, call):
    receiving = _receive(scene, recv, b"at last")
    if not isinstance(scene.does(call, scene, b"to the peer"), BaseException):
        scene.peer_gets(b"to the peer")
    scene.peer.send(b"at last")
    scene.words += receiving.result()


def by_the_ring(layer, call):
    """Whether the call goes through the ring: splice(2) does not, and would wait beside the other thread."""
    return possible(layer, call) and not (call is splice_into and layer in KERNEL_RECEIVES)


@row("a second receive while another thread receives", IN_ONE_THREAD, each=RECEIVES, possible=by_the_ring,
     engines=("uring",), goes_on=True)  # fmt: skip
def _(scene, call):
    receiving = _receive(scene, recv, b"at last")
    scene.fails(call, scene, 5)
    scene.peer.send(b"at last")
    scene.words += receiving.result()


@row("a million bytes each way at once, in two threads", "delivered, then delivered", engines=("syscall",),
     layers=("plain", "kernel", "kernel-tx", "kernel-rx"))  # fmt: skip
def _(scene):
    theirs = scene.meanwhile(scene.peer.send, MUCH)
    got = scene.meanwhile(scene.peer.receive_data, len(MUCH))
    receiving = _receive(scene, recv, MUCH)
    scene.does(send, scene, MUCH)
    scene.same(got.result(), MUCH)
    theirs.result()
    scene.words += receiving.result()


# Where the close needs the ring, or OpenSSL, for its close_notify while the other thread is in it, it may first have to
# say so: on Linux 6.1 kernel-rx does, and on later ones the other thread may be on its way out by then.
@row("close while another thread receives", "StreamClosedError", each=RECEIVES, possible=possible,
     where={"userspace": "UsageError, then StreamClosedError",
            "uring": "StreamClosedError or UsageError, then StreamClosedError"})  # fmt: skip
def _(scene, call):
    receiving = _receive(scene, call, b"at last")
    scene.does(scene.stream.close)  # OpenSSL can make no close_notify while another thread is in it
    if not scene.stream.connection.closed:
        scene.peer.send(b"at last")
    scene.words += receiving.result()


# Fork: the child refuses, and the parent goes on.


def recv_in_the_child(stream):
    stream.recv(5)


def recv_exactly_into_in_the_child(stream):
    stream.recv_exactly_into(bytearray(5))


def send_in_the_child(stream):
    stream.send(b"of the child")


def send_many_in_the_child(stream):
    stream.send_many([b"of", b"the child"])


def send_eof_in_the_child(stream):
    stream.send_eof()


def close_in_the_child(stream):
    stream.close()


IN_THE_CHILD = (
    recv_in_the_child,
    recv_exactly_into_in_the_child,
    send_in_the_child,
    send_many_in_the_child,
    send_eof_in_the_child,
)


def in_a_child(call, stream):
    """Call it in a forked process and return the name of its error, and whether it names the fork."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():  # of later Pythons: this process has threads, which the child does not need
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        said = "no error"
        try:
            call(stream)
        except BaseException as error:  # noqa: BLE001 - the parent is told
            said = type(error).__name__
            if "fork" not in str(error):
                said += f" ({error})"
        finally:
            os.write(writing, said.encode())
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as said:
        answer = said.read().decode()
    os.waitpid(child, 0)
    return answer or "the child died"


def refused(answer):
    return answer in {"UsageError", "StreamClosedError"}


@row("the child of a fork uses the stream, and the parent goes on", "refused, then delivered", each=IN_THE_CHILD,
     timeout=5)  # fmt: skip
def _(scene, call):
    scene.peer.send(b"first")
    answer = in_a_child(call, scene.stream)
    scene.says("refused" if refused(answer) else answer)
    scene.receives(b"first")
    scene.words.pop() if scene.words[-1] == "delivered" else None
    scene.goes_on()


@row("the child of a fork closes the stream, and the parent goes on", "no error, then delivered")
def _(scene):
    scene.says(in_a_child(close_in_the_child, scene.stream))
    scene.goes_on()


@row("a time-out of the parent after its child used the stream", "PeerTimeoutError", each=IN_THE_CHILD, timeout=SHORT_S)
def _(scene, call):
    in_a_child(call, scene.stream)
    scene.in_time(scene.stream.recv)
