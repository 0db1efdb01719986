"""A server on tlslite-ng: tlslite_server.py PORT FOLDER FEATURE."""

from __future__ import annotations

import socket
import sys
import threading
from pathlib import Path

from tlslite.api import HandshakeSettings, TLSConnection, X509CertChain, parsePEMKey
from tlslite.constants import KeyUpdateMessageType

from tests.interop.programs.answering import answer_to, head_of, read_request


def settings_for(feature: str) -> HandshakeSettings:
    settings = HandshakeSettings()
    settings.minVersion, settings.maxVersion = (3, 3), (3, 4)
    settings.cipherNames = ["aes256gcm", "aes128gcm", "chacha20-poly1305", "aes128ccm"]
    settings.ticketKeys = [bytearray(range(32))]
    if feature.endswith(" tickets"):
        settings.ticket_count = int(feature.removesuffix(" tickets"))
    if feature == "HelloRetryRequest":
        settings.eccCurves, settings.keyShares, settings.dhGroups = ["secp384r1"], ["secp384r1"], []
    if feature == "early data offered":
        settings.max_early_data = 16384
    return settings


def serve(sock: socket.socket, folder: Path, feature: str) -> None:
    chain = X509CertChain()
    chain.parsePemList((folder / "server.crt").read_text())
    key = parsePEMKey((folder / "server.key").read_text(), private=True)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    tls = TLSConnection(sock)
    with sock:
        tls.handshakeServer(
            certChain=chain,
            privateKey=key,
            settings=settings_for(feature),
            reqCert=feature == "client certificate",
            alpn=[bytearray(b"http/1.1")],  # without it, an offer of any ends in a TypeError
        )
        if feature == "small records":
            tls.recordSize = 512
        asked = read_request(tls.recv)
        if not asked:
            return
        answer = answer_to(*asked, folder / "www")
        if feature == "KeyUpdate by the peer":
            for kind in (KeyUpdateMessageType.update_not_requested, KeyUpdateMessageType.update_requested):
                for _ in tls.send_keyupdate_request(kind):
                    pass
        tls.sendall(head_of(answer) + answer)
        if feature != "no close_notify":
            tls.closeSocket = False
            tls.close()


def main() -> None:
    port, folder, feature = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    with socket.create_server(("127.0.0.1", port)) as listener:
        while True:
            sock = listener.accept()[0]
            threading.Thread(target=serve, args=(sock, folder, feature), daemon=True).start()


if __name__ == "__main__":
    main()
