"""No key is used twice, and a Stream believes no claim about the kernel that is not so."""

from __future__ import annotations

import itertools

from ktlslab.linux.ktls import Direction
from ktlslab.stages import Stream, export, install, install_linked
from tests.handpeer import LAYERS
from tests.matrix.rows import KERNEL, TLS, row


def installed(scene, *, linked=False):
    """Shake hands, install, and return (handshake, keys exported before, directions)."""
    finished, scene.peer = scene.peers.shake(scene.place.engine, scene.place.role)
    scene.owned.callback(finished.connection.close)
    keys, spare = export(finished), export(finished)
    directions = LAYERS[scene.place.layer]
    assert (install_linked if linked else install)(finished.connection, keys, directions)
    return finished, spare, directions


def stream_of(scene, finished, directions):
    scene.stream = Stream(finished.connection, finished, directions)


def install_again(scene, finished, spare, directions):
    scene.fails(install, finished.connection, spare, directions)


def install_linked_again(scene, finished, spare, directions):
    scene.fails(install_linked, finished.connection, spare, directions)


def install_one_again(scene, finished, spare, directions):
    scene.fails(install, finished.connection, spare, directions[:1])


def export_again(scene, finished, _spare, _directions):
    scene.fails(export, finished)


AGAIN = (install_again, install_linked_again, install_one_again, export_again)


@row("a second install of a direction", "UsageError, then delivered", layers=KERNEL, each=AGAIN, opens=True)
def _(scene, again):
    given = installed(scene)
    stream_of(scene, given[0], given[2])
    again(scene, *given)
    scene.goes_on()


@row("the same before there is a Stream", "UsageError, then delivered", layers=KERNEL, each=AGAIN, opens=True)
def _(scene, again):
    given = installed(scene)
    again(scene, *given)
    stream_of(scene, given[0], given[2])
    scene.goes_on()


@row("install after the session has gone on in userspace", "UsageError, then delivered", layers=TLS, opens=True)
def _(scene):
    finished, scene.peer = scene.peers.shake(scene.place.engine, scene.place.role)
    keys = export(finished)
    stream_of(scene, finished, ())
    scene.stream.send(b"with the first number")
    scene.peer.receive()
    scene.fails(install, finished.connection, keys)
    scene.goes_on()


def claims(layer):
    return [claim for size in (0, 1, 2) for claim in itertools.combinations(Direction, size) if claim != LAYERS[layer]]


@row("a Stream that claims other directions than were installed", "UsageError", layers=TLS, opens=True)
def _(scene):
    finished, scene.peer = scene.peers.shake(scene.place.engine, scene.place.role)
    scene.owned.callback(finished.connection.close)
    if directions := LAYERS[scene.place.layer]:
        assert install(finished.connection, export(finished), directions)
    for claim in claims(scene.place.layer):
        scene.words.clear()
        error = scene.fails(Stream, finished.connection, finished, claim)
        if type(error).__name__ != "UsageError":
            scene.says(f"for {claim}")
            return


@row("a plain Stream that claims kernel directions", "UsageError", layers=("plain",), opens=True)
def _(scene):
    connection, _ = scene.peers.connected(scene.place.engine, scene.place.role)
    scene.fails(Stream, connection, None, tuple(Direction))


@row("a second Stream on the connection", "UsageError, then delivered")
def _(scene):
    first = scene.stream
    scene.fails(Stream, first.connection, first._handshake, LAYERS[scene.place.layer])
    scene.goes_on()
