"""Pictures of keys: how they follow from the handshake's secrets, and how they lie in the kernel's struct.

Key bytes are dots unless `reveal=True`. Revealing is for a throw-away session such as a lesson's: anyone who sees
the bytes can read and forge what the session carries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ktlslab.errors import SuiteUnsupportedError
from ktlslab.linux import ktls
from ktlslab.show.html import (
    HUES,
    MONO,
    ROW,
    Field,
    Html,
    Picture,
    code,
    dots,
    heading,
    picture,
    prose,
    secret,
    shown,
    strip,
    table,
)
from ktlslab.stages.keys import tls12_secrets
from ktlslab.tls import keylog
from ktlslab.tls.keyschedule import WRITE_IV_BYTES, key_block, traffic_key
from ktlslab.tls.suites import CIPHERS, Suite, Version

if TYPE_CHECKING:
    from ktlslab.linux.ktls import CryptoInfo
    from ktlslab.stages import Handshake

_FIELD_HUES = {"iv": "iv", "key": "key", "salt": "salt", "rec_seq": "sequence"}


def key_derivation(handshake: Handshake, reveal: bool = False) -> Picture:  # noqa: FBT001, FBT002 - said by its name
    """Show how each direction's key and write IV are derived from the handshake's secrets.

    SuiteUnsupportedError where no kernel has the suite.
    """
    suite = handshake.suite
    if suite is None:
        answered = "the kernel has no type for this suite, so there is nothing to derive"
        raise SuiteUnsupportedError(f"showing the keys of {handshake.suite_name}", answered=answered)
    title = f"From secret to key: {suite.name}"
    if suite.version is Version.TLS13:
        return picture(title, *_tls13(handshake, suite, reveal=reveal), text=_told(suite, reveal=reveal))
    return picture(title, *_tls12(handshake, suite, reveal=reveal), text=_told(suite, reveal=reveal))


def struct(crypto_info: CryptoInfo, reveal: bool = False) -> Picture:  # noqa: FBT001, FBT002
    """Show ``struct tls12_crypto_info_*`` as it goes to setsockopt: each field, where it lies and what it is."""
    layout = ktls.layout(crypto_info.cipher_type)
    packed = crypto_info.pack()
    data = bytes(packed)
    packed[:] = bytes(len(packed))
    rows, dump = [], list[Field]()
    for name, offset, size in layout:
        hue = _FIELD_HUES.get(name, "header")
        hidden = name in {"iv", "key", "salt"}
        part = secret(name, data[offset : offset + size], hue, reveal=reveal or not hidden)
        dump.append(part)
        mono = _hex_or_dots(part) or "none"
        rows.append(
            (
                str(offset),
                code(name),
                str(size),
                Html(f'<span style="{MONO};background-color:{HUES[hue]}">{mono}</span>'),
                _meaning(name, crypto_info),
            )
        )
    name = ktls.STRUCTS[crypto_info.cipher_type]
    parts = [
        table(("offset", "field", "bytes", "value", "what it is"), rows, numbers=(0, 2)),
        heading("The same as it lies in memory"),
        _memory(dump),
        heading("Where the write IV went"),
        _write_iv(crypto_info, reveal=reveal),
    ]
    fields = ", ".join(f"{field} at {offset} ({size})" for field, offset, size in layout)
    return picture(f"struct {name}, {len(data)} bytes", *parts, text=f"struct {name}: {fields}")


def _tls13(handshake: Handshake, suite: Suite, *, reveal: bool) -> list[str]:
    cipher = suite.cipher
    parts = [
        prose(
            f"Each direction has a traffic secret. HKDF-Expand-Label with {suite.digest.upper()} (RFC 8446, 7.1 and "
            "7.3) turns it into a key and a write IV; the two differ in label and length:"
        ),
        strip([_label("key", cipher.key_bytes), _label("iv", WRITE_IV_BYTES)]),
    ]
    for direction, label in (
        ("TX, what the client sends", keylog.CLIENT_TRAFFIC_SECRET_0),
        ("RX, what the server sends", keylog.SERVER_TRAFFIC_SECRET_0),
    ):
        origin = handshake.secrets[label].secret
        key, write_iv = traffic_key(origin, suite)
        parts.append(heading(direction))
        parts.append(
            _flow(
                [
                    secret(
                        label.lower().replace("_", " "), origin, "none", "known to both ends, never sent", reveal=reveal
                    )
                ],
                [
                    secret("key", key, "key", f"{cipher.name}'s key", reveal=reveal),
                    secret(
                        "write IV",
                        write_iv,
                        "iv",
                        "XORed with each record's sequence number (RFC 8446, 5.3)",
                        reveal=reveal,
                    ),
                ],
            )
        )
    return parts


def _label(label: str, length: int) -> Field:
    """Return the HkdfLabel that asks for `length` bytes: public, the same in every session."""
    name = b"tls13 " + label.encode()
    info = length.to_bytes(2, "big") + bytes([len(name)]) + name + b"\0"
    note = f'length {length}, then "tls13 {label}" after its own length, then an empty context'
    return shown(f'HkdfLabel "{label}"', info, "header", note)


def _tls12(handshake: Handshake, suite: Suite, *, reveal: bool) -> list[str]:
    master, client, server = tls12_secrets(handshake)
    block = key_block(master, client, server, suite)
    explicit = suite.cipher.explicit_nonce_bytes
    fixed = (
        "the first 4 bytes of each nonce (RFC 5288, 3)" if explicit else "XORed with the sequence number (RFC 7905, 2)"
    )
    return [
        prose(
            f"TLS 1.2 has one master secret. Its PRF with {suite.digest.upper()} (RFC 5246, 5 and 6.3) expands it into "
            "a block of bytes, and both directions' keys are cut from that block, one after another:"
        ),
        _flow(
            [
                secret("master secret", master, "none", "known to both ends, never sent", reveal=reveal),
                shown("label", b"key expansion", "header", '"key expansion"'),
                shown("server random", server, "hello", "from its hello, in the clear"),
                shown("client random", client, "hello", "from its hello, in the clear"),
            ],
            [
                secret("client's key: TX", block.client_key, "key", reveal=reveal),
                secret("server's key: RX", block.server_key, "key", reveal=reveal),
                secret("client's write IV: TX", block.client_iv, "salt", fixed, reveal=reveal),
                secret("server's write IV: RX", block.server_iv, "salt", fixed, reveal=reveal),
            ],
        ),
    ]


def _flow(taken: list[Field], given: list[Field]) -> str:
    """Return what goes in, an arrow, and what comes out."""
    arrow = '<div style="font-size:1.4em;padding:0.4em 0.3em;opacity:0.7">→</div>'
    column = "display:flex;flex-direction:column;gap:0.15em"
    return (
        '<div style="display:flex;flex-wrap:wrap;align-items:center">'
        f'<div style="{column}">{"".join(strip([field]) for field in taken)}</div>{arrow}'
        f'<div style="{column}">{"".join(strip([field]) for field in given)}</div></div>'
    )


def _hex_or_dots(field: Field) -> str:
    if field.data is None:
        return dots(field.size)
    return "\n".join(field.data[at : at + ROW].hex(" ") for at in range(0, field.size, ROW))


def _memory(fields: list[Field]) -> str:
    """Return the struct, sixteen bytes per line, each byte in its field's colour."""
    cells = []
    for field in fields:
        data = ["••"] * field.size if field.data is None else [f"{byte:02x}" for byte in field.data]
        cells += [f'<span style="background-color:{HUES[field.hue]}">{value} </span>' for value in data]
    lines = [
        f'<span style="opacity:0.6">{at:03d}  </span>{"".join(cells[at : at + ROW])}'
        for at in range(0, len(cells), ROW)
    ]
    return f'<div style="{MONO}">' + "\n".join(lines) + "</div>"


def _write_iv(info: CryptoInfo, *, reveal: bool) -> str:
    """Show the write IV as the struct's two fields."""
    salt = secret("salt", info.salt, "salt", reveal=reveal)
    iv = secret("iv", info.iv, "iv", reveal=reveal)
    if not info.salt:
        said = "ChaCha20-Poly1305's write IV is not split: all 12 bytes are iv, and the salt is empty."
    elif info.version == Version.TLS12.wire:
        said = (
            "TLS 1.2: the write IV of the key block has 4 bytes and is the salt (RFC 5288, 3). The iv is the first "
            "explicit nonce, which the kernel counts up and sends with each record; here it starts at the sequence "
            "number."
        )
    else:
        said = (
            "TLS 1.3: the write IV's 12 bytes are split after the fourth; the kernel joins them again and XORs the "
            "sequence number into the last eight (RFC 8446, 5.3)."
        )
    return prose(said) + strip([salt, iv] if info.salt else [iv])


def _meaning(name: str, info: CryptoInfo) -> str:
    cipher = next(cipher for cipher in CIPHERS if cipher.kernel_type == info.cipher_type)
    version = next((v.label for v in Version if v.wire == info.version), "?")
    tls12 = info.version == Version.TLS12.wire
    said = {
        "info.version": f"{info.version:#06x}, {version}, in this machine's byte order",
        "info.cipher_type": f"{info.cipher_type}, {cipher.name} in linux/tls.h",
        "iv": _IV.get((info.version, bool(info.salt)), "the write IV"),
        "key": f"{cipher.name}'s key",
        "salt": ("the write IV" if tls12 else "the write IV's first part") if info.salt else "none for this cipher",
        "rec_seq": f"the next record's number: {int.from_bytes(info.rec_seq, 'big')}, big-endian",
    }
    return said.get(name, "")


# What the field iv holds, by version and by whether there is a salt; without one it is the whole write IV.
_IV = {
    (Version.TLS12.wire, True): "the next record's explicit nonce",
    (Version.TLS13.wire, True): "the write IV's last part",
}


def _told(suite: Suite, *, reveal: bool) -> str:
    seen = "shown in HTML" if reveal else "not shown"
    write_iv = WRITE_IV_BYTES if suite.version is Version.TLS13 else suite.cipher.fixed_iv_bytes
    return f"{suite.name}: {suite.cipher.key_bytes} bytes of key, {write_iv} of write IV per direction, {seen}"
