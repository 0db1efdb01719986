"""Temporary certificates for one run: an authority, and a server certificate for localhost."""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ktlslab import _checks
from ktlslab.errors import StorageError, UsageError, errno_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """PEM files: `ca` for the client; `chain` and `key` for the server."""

    ca: Path
    chain: Path
    key: Path


def make_certificates(folder: str | Path, address: str = "127.0.0.1") -> Certificates:
    """Write an authority and a certificate for localhost and an address (ECDSA P-256, valid for a day).

    Raises UsageError, and StorageError if they cannot be written.
    """
    tried = "making certificates"
    folder = _checks.path(tried, "folder", folder)
    try:
        ip = ipaddress.ip_address(_checks.text(tried, "address", address, "an IP address"))
    except ValueError as error:
        remedy = "Give an IP address: 127.0.0.1."
        raise UsageError(tried, answered=f"`address` is {address!r}", remedy=remedy) from error
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ktlslab throw-away authority")])
    identifier = x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key())
    authority = (
        _builder(authority_name, authority_name, authority_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(_usage(sign_certificates=True), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip)])
    certificate = (
        _builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]), authority_name, key)
        .add_extension(names, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(_usage(sign_certificates=False), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    files = Certificates(ca=folder / "ca.pem", chain=folder / "chain.pem", key=folder / "key.pem")
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        files.ca.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
        files.chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        files.key.touch(0o600)
        files.key.write_bytes(secret)
    except OSError as error:
        remedy = "Give a folder that exists and can be written to."
        raise StorageError(
            f"writing certificates to {folder}", answered=errno_name(error.errno or 0), remedy=remedy
        ) from error
    return files


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
    )


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
