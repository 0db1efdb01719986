"""What both ends of a cell need: certificates in every form that a stack wants, and the bodies that it serves."""

from __future__ import annotations

import random
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    pkcs12,
)

SIZES = (0, 1, 16384, 16385, 10 << 20)
MODEST = 1 << 17  # the largest body of a stack that takes seconds for more
PASSWORD = "interop"  # of the PKCS #12 files
_RANDOM = random.Random(13).randbytes(SIZES[-1])  # noqa: S311 - any bytes will do
_DIGITS = _RANDOM.translate(bytes(0x30 + byte % 10 for byte in range(256)))


def body(size: int) -> bytes:
    """Return the body of that many bytes."""
    return _RANDOM[:size]


def digits(size: int) -> bytes:
    """Return a text of that many digits: an interactive program takes other bytes for commands."""
    return _DIGITS[:size]


def lines(size: int) -> list[bytes]:
    """Return lines of 16 KiB, and a last one, that have that many bytes in all."""
    whole = [1 << 14] * (size >> 14) + ([size & 0x3FFF] if size & 0x3FFF else [])
    return [_DIGITS[: length - 1] + b"\n" for length in whole]


@dataclass(frozen=True)
class Material:
    """Files in a folder, open to all: some servers give up root's rights before they read them."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Material:
        made = cls(folder)
        folder.chmod(0o755)
        key_type = trustme.KeyType.ECDSA
        authority = trustme.CA(key_type=key_type)
        authority.cert_pem.write_to_path(made.ca)
        for name, holder in (("server", ("localhost", "127.0.0.1")), ("client", ("client@example.org",))):
            leaf = authority.issue_cert(*holder, key_type=key_type)
            leaf.private_key_and_cert_chain_pem.write_to_path(folder / f"{name}.pem")
            chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
            (folder / f"{name}.crt").write_bytes(chain)
            key = load_pem_private_key(leaf.private_key_pem.bytes(), None)
            # PKCS #8: NSS takes no other form.
            (folder / f"{name}.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
            certificate, *_ = x509.load_pem_x509_certificates(chain)
            trusted = x509.load_pem_x509_certificates(authority.cert_pem.bytes())
            secret = BestAvailableEncryption(PASSWORD.encode())
            packed = pkcs12.serialize_key_and_certificates(name.encode(), key, certificate, trusted, secret)
            (folder / f"{name}.p12").write_bytes(packed)
        for path in folder.iterdir():
            path.chmod(0o644)
        made.www.mkdir()
        for size in (*SIZES, MODEST):
            (made.www / str(size)).write_bytes(body(size))
        return made

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def www(self) -> Path:
        """The folder that is served: each file is named after its size."""
        return self.folder / "www"

    def file(self, name: str) -> Path:
        """Return server or client as .pem (key and chain), .key, .crt (chain) or .p12."""
        return self.folder / name

    @cached_property
    def nss(self) -> str:
        """The name of an NSS database that holds both certificates and trusts their authority."""
        place = self.folder / "nss"
        place.mkdir()
        name = f"sql:{place}"
        for words in (
            ["certutil", "-N", "-d", name, "--empty-password"],
            ["certutil", "-A", "-d", name, "-n", "authority", "-t", "CT,C,C", "-i", str(self.ca)],
            *(
                ["pk12util", "-i", str(self.file(f"{one}.p12")), "-d", name, "-W", PASSWORD]
                for one in ("server", "client")
            ),
        ):
            subprocess.run(words, check=True, capture_output=True)
        return name
