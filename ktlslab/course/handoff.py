"""Notebook 01's exercises: a nonce, a block, a whole record, its true type, the kernel's struct.

made()                                   the session to solve them on
nonce(given, answer)                     the nonce of the server's third record
first_block(given, answer)               the first 16 bytes that this record holds
opens(given, key, write_iv, number)      what opens the server's last record
true_type(given, content_type, padding)  of an opened record that was padded
struct(given, salt, iv, rec_seq)         how the kernel takes over after the tickets
"""

from __future__ import annotations

from ktlslab import _checks
from ktlslab.course.puzzle import CLOSE, DATA, SUITE, TICKETS, Puzzle, made
from ktlslab.course.verdicts import Verdict, mistake, not_bytes, not_number, right, sentence, unanswered, wrong
from ktlslab.tls import gcm
from ktlslab.tls.keyschedule import SEQUENCE_BYTES, WRITE_IV_BYTES, record_nonce, sequence_bytes, split_write_iv
from ktlslab.tls.protect import open_record
from ktlslab.tls.records import HEADER_BYTES, ContentType

__all__ = ["first_block", "made", "nonce", "opens", "struct", "true_type"]

_TAG = SUITE.cipher.tag_bytes


def nonce(given: Puzzle, answer: object) -> Verdict:
    """Check the nonce of the server's third record: its write IV XOR 2 (RFC 8446, 5.3)."""
    ours, theirs = _given(given).server_write_iv, given.client_write_iv
    if verdict := unanswered(answer) or not_bytes(answer, WRITE_IV_BYTES):
        return verdict
    if answer == record_nonce(ours, DATA):
        return right("The write IV XOR the record's number, which is 2: the first record has number 0.")
    number = sequence_bytes(DATA)
    known = {
        ours: "This is the write IV. XOR the record's number into it: no two records may share a nonce.",
        theirs: "This is the client's write IV. The record is the server's.",
        bytes(4) + number: "This is the number alone. XOR it with the write IV.",
        gcm.xor(ours, number + bytes(4)): "The number is at the wrong end: the zeros that pad it go to its left.",
        gcm.xor(ours, bytes(4) + number[::-1]): "The number is in the wrong byte order: the network's is big-endian.",
        gcm.xor(ours, number[::-1] + bytes(4)): "The number is in the wrong byte order, and at the wrong end.",
        ours[:4] + number: "This is TLS 1.2's nonce, salt and explicit part (RFC 5288, 3). TLS 1.3 XORs.",
        (int.from_bytes(ours, "big") + DATA).to_bytes(13, "big")[1:]: "The number was added. It is XORed.",
    }
    known |= {record_nonce(theirs, DATA): "Right number, wrong direction: this is made from the client's write IV."}
    known |= {record_nonce(ours, at): _off(at, DATA, "This is the nonce for") for at in range(1, 9) if at != DATA}
    return mistake(_bytes(answer), known, "These are 12 bytes, but not the server's write IV XOR the number 2.")


def first_block(given: Puzzle, answer: object) -> Verdict:
    """Check the first 16 bytes that the server's third record holds (SP 800-38D, 6.5)."""
    key, record = _given(given).server_key, given.records[DATA]
    if verdict := unanswered(answer) or not_bytes(answer, gcm.BLOCK_BYTES):
        return verdict
    block, per_record = record[HEADER_BYTES : HEADER_BYTES + gcm.BLOCK_BYTES], record_nonce(given.server_write_iv, DATA)
    if answer == gcm.crypt(key, per_record, block):
        return right(f"{bytes(_bytes(answer))!r}: the keystream's first block XOR the ciphertext's.")

    def stream(number: int, per_record: bytes = per_record, key: bytes = key) -> bytes:
        return gcm.aes_block(key, gcm.counter_block(per_record, number))

    known = {
        block: "This is the ciphertext. XOR it with AES of the counter block.",
        stream(2): "This is the keystream. XOR it with the ciphertext.",
        gcm.aes_block(key, block): "AES is not applied to the data here: encrypt the counter block, then XOR.",
        gcm.xor(record[: gcm.BLOCK_BYTES], stream(2)): "Right keystream, but the header's 5 bytes are not encrypted: "
        "the ciphertext begins behind them.",
        gcm.xor(
            block, stream(1)
        ): "Right key, right nonce, wrong block: block 1 masks the tag, data begins at block 2.",
        gcm.xor(block, stream(0)): "Right key, right nonce, wrong block: data begins at block 2, not at block 0.",
        gcm.xor(block, stream(3)): "Right key, right nonce, wrong block: this is the keystream's second block.",
        gcm.xor(block, stream(2, given.server_write_iv)): "Right key, wrong nonce: the write IV without the number.",
        gcm.xor(block, stream(2, key=given.client_key)): "Right counter block, wrong key: this is the client's.",
    }
    known |= {
        gcm.xor(block, stream(2, record_nonce(given.server_write_iv, at))): _off(at, DATA, "Right key, nonce for")
        for at in range(1, 9)
        if at != DATA
    }
    return mistake(_bytes(answer), known, "These are not the first 16 bytes. Do they come from key, nonce and block 2?")


def opens(given: Puzzle, key: object, write_iv: object, number: object) -> Verdict:
    """Check what opens the server's last record, and say of each part whether it is right."""
    cipher = _given(given).suite.cipher
    verdict = (
        unanswered(key, write_iv, number)
        or not_bytes(key, cipher.key_bytes, "The key")
        or not_bytes(write_iv, WRITE_IV_BYTES, "The write IV")
        or not_number(number, "The sequence number")
    )
    if verdict:
        return verdict
    parts = {
        "key": _part(key, given.server_key, given.client_key),
        "write IV": _part(write_iv, given.server_write_iv, given.client_write_iv),
        "sequence number": "" if number == CLOSE else _wrong_number(number),
    }
    if not any(parts.values()):
        kind, plain = open_record(given.suite, given.server_key, given.server_write_iv, CLOSE, given.records[CLOSE])
        return right(
            f"The record opens: an {ContentType(kind).name.lower()} that holds {plain.hex(' ')}, close_notify."
        )
    said = ", ".join(f"{'wrong' if why else 'right'} {name}{why}" for name, why in parts.items())
    return wrong(f"The record does not open: {said}.")


def true_type(given: Puzzle, content_type: object, padding: object) -> Verdict:
    """Check the type of a padded record that was opened, and how many bytes of padding it has (RFC 8446, 5.4)."""
    inner = _given(given).inner
    if verdict := (
        unanswered(content_type, padding) or not_number(content_type, "The type") or not_number(padding, "The padding")
    ):
        return verdict
    unpadded = inner.rstrip(b"\0")
    zeros = len(inner) - len(unpadded)
    if (content_type, padding) == (unpadded[-1], zeros):
        return right(
            f"Type {unpadded[-1]}, a handshake message: the last byte that is not zero. Behind it {zeros} zeros."
        )
    types: dict[object, str] = {
        0: "0 is no type but padding. Go back from the end to the first byte that is not zero",
        23: "23 is what the header says of every protected record. The true type is inside",
        int(f"{unpadded[-1]:x}"): f"0x{unpadded[-1]:x} is hexadecimal: in decimal that is {unpadded[-1]}",
        inner[0]: "this is the first byte. The type stands behind the content",
    }
    paddings: dict[object, str] = {
        inner.count(0): "zeros that stand before the type belong to the content",
        zeros + 1: "the type itself is not padding",
        0: "there is some: the record ends in zeros",
    }
    said = [
        f"{'right' if content_type == unpadded[-1] else 'wrong'} type",
        f"{'right' if padding == zeros else 'wrong'} padding",
    ]
    why = [
        told.get(answer, "")
        for answer, wanted, told in ((content_type, unpadded[-1], types), (padding, zeros, paddings))
        if answer != wanted
    ]
    return wrong(sentence(": ".join(filter(None, [", ".join(said), "; ".join(filter(None, why))]))))


def struct(given: Puzzle, salt: object, iv: object, rec_seq: object) -> Verdict:
    """Check three fields of the struct for TLS_RX, once the library has read both tickets."""
    cipher, write_iv = _given(given).suite.cipher, given.server_write_iv
    verdict = (
        unanswered(salt, iv, rec_seq)
        or not_bytes(salt, cipher.salt_bytes, "The salt")
        or not_bytes(iv, cipher.iv_bytes, "The iv")
        or not_bytes(rec_seq, SEQUENCE_BYTES, "rec_seq")
    )
    if verdict:
        return verdict
    parts, number = split_write_iv(write_iv, cipher), sequence_bytes(TICKETS)
    counted = int.from_bytes(_bytes(rec_seq), "big")
    why = {
        "salt": _field(salt, parts.salt, given.client_write_iv[:4], write_iv[-4:]),
        "iv": _field(iv, parts.iv, given.client_write_iv[4:], write_iv[:8]),
        "rec_seq": ""
        if rec_seq == number
        else " (little-endian)"
        if rec_seq == number[::-1]
        else _wrong_record(counted),
    }
    if not any(why.values()):
        return right(
            "The kernel opens record 2 next. The XOR with the number is its own work: iv is as the write IV is."
        )
    said = ", ".join(f"{'wrong' if told else 'right'} {name}{told}" for name, told in why.items())
    return wrong(f"With this struct the kernel would not open the next record: {said}.")


def _given(given: Puzzle) -> Puzzle:
    return _checks.instance("checking an answer", "given", given, Puzzle, "ktlslab.course.handoff.made")


def _bytes(answer: object) -> bytes:
    return bytes(answer) if isinstance(answer, bytes | bytearray) else b""


def _off(at: int, wanted: int, said: str) -> str:
    counted = ": the first record has number 0" if at == wanted + 1 else ""
    return f"{said} number {at}, not {wanted}{counted}."


def _part(answer: object, ours: bytes, theirs: bytes) -> str:
    """Return nothing for the right part, else what is wrong with it, in brackets."""
    return "" if answer == ours else " (the client's)" if answer == theirs else " (of neither end)"


def _field(answer: object, ours: bytes, theirs: bytes, misplaced: bytes) -> str:
    known = {theirs: " (the client's)", misplaced: " (the write IV's other end: the salt comes first)"}
    return "" if answer == ours else known.get(_bytes(answer), " (not a part of the write IV)")


def _wrong_number(number: object) -> str:
    if number == CLOSE + 1:
        return f" ({number}: the first record has number 0)"
    held = {0: "a ticket", 1: "a ticket", DATA: "the page", DATA + 1: "the padded message"}.get(_number(number))
    return f" ({number} was {held})" if held else f" ({number})"


def _wrong_record(counted: int) -> str:
    known = {0: "0: but the library has opened two records", TICKETS - 1: "1: the next record's number, not the last's"}
    return f" ({known.get(counted, f'{counted}: only the tickets were read')})"


def _number(answer: object) -> int:
    return answer if isinstance(answer, int) else -1
