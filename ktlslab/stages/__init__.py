"""The five stages, in the order in which data flows: connect, handshake, export, install, transfer.

Each stage is a public function (the last one a class) from one typed artefact to the next. Artefacts are immutable. The
live handles that they refer to (socket, ring, library) belong to the `Connection`, which is a context manager.
"""

from ktlslab.linux.ktls import Direction
from ktlslab.stages.config import ClientConfig, Psk, Resumption, ServerConfig
from ktlslab.stages.connection import Connection, accept, connect
from ktlslab.stages.handshaking import Handshake, handshake
from ktlslab.stages.installation import Installed, Refused, Why, install, install_linked, kernel_suites
from ktlslab.stages.keys import BOTH, DirectionKeys, Secret, TrafficKeys, export
from ktlslab.stages.transfer import Stream

__all__ = [
    "BOTH",
    "ClientConfig",
    "Connection",
    "Direction",
    "DirectionKeys",
    "Handshake",
    "Installed",
    "Psk",
    "Refused",
    "Resumption",
    "Secret",
    "ServerConfig",
    "Stream",
    "TrafficKeys",
    "Why",
    "accept",
    "connect",
    "export",
    "handshake",
    "install",
    "install_linked",
    "kernel_suites",
]
