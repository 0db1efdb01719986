"""Notebook 01's checks: each knows the right answer, and says of each wrong one what is wrong with it."""

from __future__ import annotations

import re

import pytest

from ktlslab.course import handoff as check
from ktlslab.course.puzzle import made
from ktlslab.course.verdicts import Mark
from ktlslab.errors import UsageError
from ktlslab.tls import gcm
from ktlslab.tls.keyschedule import record_nonce
from ktlslab.tls.protect import open_record

GIVEN = made(b"a seed")
KEY, IV = GIVEN.server_key, GIVEN.server_write_iv
THEIR_KEY, THEIR_IV = GIVEN.client_key, GIVEN.client_write_iv
TWO = (2).to_bytes(8, "big")
BLOCK = GIVEN.records[2][5:21]
ZEROS = len(GIVEN.inner) - len(GIVEN.inner.rstrip(b"\0"))


def decrypted(number=2, nonce=None, key=KEY, block=BLOCK):
    return gcm.xor(
        block, gcm.aes_block(key, gcm.counter_block(record_nonce(IV, 2) if nonce is None else nonce, number))
    )


RIGHT = [
    (check.nonce, (record_nonce(IV, 2),), "which is 2"),
    (check.nonce, (bytearray(record_nonce(IV, 2)),), "which is 2"),
    (check.first_block, (b"HTTP/1.1 200 OK\r",), "HTTP/1.1 200 OK"),
    (check.opens, (KEY, IV, 4), "close_notify"),
    (check.true_type, (22, ZEROS), "a handshake message"),
    (check.struct, (IV[:4], IV[4:], TWO), "opens record 2 next"),
]
WRONG = [
    (check.nonce, (IV,), "This is the write IV"),
    (check.nonce, (THEIR_IV,), "client's write IV. The record is the server's"),
    (check.nonce, (bytes(4) + TWO,), "the number alone"),
    (check.nonce, (gcm.xor(IV, TWO + bytes(4)),), "the wrong end"),
    (check.nonce, (gcm.xor(IV, bytes(4) + TWO[::-1]),), "byte order: the network's is big-endian"),
    (check.nonce, (gcm.xor(IV, TWO[::-1] + bytes(4)),), "byte order, and at the wrong end"),
    (check.nonce, (IV[:4] + TWO,), "TLS 1.2's nonce"),
    (check.nonce, (record_nonce(THEIR_IV, 2),), "Right number, wrong direction"),
    (check.nonce, (record_nonce(IV, 3),), "number 3, not 2: the first record has number 0"),
    (check.nonce, (record_nonce(IV, 1),), r"number 1, not 2\."),
    (check.nonce, (bytes(12),), "not the server's write IV XOR"),
    (check.nonce, (bytes(8),), "has 8 bytes and not 12"),
    (check.nonce, ("00",), "is text"),
    (check.nonce, (2,), "is a number"),
    (check.nonce, (None,), "of type NoneType"),
    (check.first_block, (BLOCK,), "This is the ciphertext"),
    (check.first_block, (decrypted(block=bytes(16)),), "This is the keystream"),
    (check.first_block, (gcm.aes_block(KEY, BLOCK),), "AES is not applied to the data here"),
    (check.first_block, (decrypted(block=GIVEN.records[2][:16]),), "header's 5 bytes are not encrypted"),
    (check.first_block, (decrypted(1),), "block 1 masks the tag"),
    (check.first_block, (decrypted(0),), "not at block 0"),
    (check.first_block, (decrypted(3),), "the keystream's second block"),
    (check.first_block, (decrypted(nonce=IV),), "Right key, wrong nonce: the write IV without the number"),
    (check.first_block, (decrypted(nonce=record_nonce(IV, 3)),), "Right key, nonce for number 3, not 2"),
    (check.first_block, (decrypted(key=THEIR_KEY),), "Right counter block, wrong key: this is the client's"),
    (check.first_block, (bytes(16),), "not the first 16 bytes"),
    (check.first_block, (b"HTTP",), "has 4 bytes and not 16"),
    (check.opens, (KEY, IV, 5), "right key, right write IV, wrong sequence number .*first record has number 0"),
    (check.opens, (KEY, IV, 3), r"right key, right write IV, wrong sequence number \(3 was the padded message\)"),
    (check.opens, (KEY, IV, -1), r"wrong sequence number \(-1\)"),
    (check.opens, (KEY, THEIR_IV, 4), r"right key, wrong write IV \(the client's\), right sequence number"),
    (check.opens, (THEIR_KEY, IV, 4), r"wrong key \(the client's\), right write IV, right sequence number"),
    (
        check.opens,
        (bytes(16), bytes(12), 0),
        r"wrong key \(of neither end\), .*wrong sequence number \(0 was a ticket\)",
    ),
    (check.opens, (IV, KEY, 4), "The key has 12 bytes and not 16"),
    (check.opens, (KEY, IV, b"4"), "The sequence number is bytes; a number is asked for"),
    (check.opens, (KEY, IV, True), "of type bool"),
    (check.true_type, (23, ZEROS), "Wrong type, right padding: 23 is what the header says"),
    (check.true_type, (0, ZEROS), "Wrong type, right padding: 0 is no type but padding"),
    (check.true_type, (16, ZEROS), "0x16 is hexadecimal: in decimal that is 22"),
    (check.true_type, (GIVEN.inner[0], ZEROS), "this is the first byte"),
    (check.true_type, (22, ZEROS + 1), "Right type, wrong padding: the type itself is not padding"),
    (check.true_type, (22, ZEROS + 2), "Right type, wrong padding: zeros that stand before the type"),
    (check.true_type, (21, 1000), r"Wrong type, wrong padding\."),
    (check.true_type, (22, 0), "the record ends in zeros"),
    (check.true_type, ("22", ZEROS), "The type is of type str"),
    (check.struct, (IV[:4], IV[4:], bytes(8)), r"right salt, right iv, wrong rec_seq \(0: but the library"),
    (check.struct, (IV[:4], IV[4:], (1).to_bytes(8, "big")), "the next record's number, not the last's"),
    (check.struct, (IV[:4], IV[4:], (5).to_bytes(8, "big")), "5: only the tickets were read"),
    (check.struct, (IV[:4], IV[4:], TWO[::-1]), r"wrong rec_seq \(little-endian\)"),
    (
        check.struct,
        (IV[-4:], IV[:8], TWO),
        r"wrong salt \(the write IV's other end.*wrong iv \(the write IV's other end",
    ),
    (
        check.struct,
        (THEIR_IV[:4], THEIR_IV[4:], TWO),
        r"wrong salt \(the client's\), wrong iv \(the client's\), right rec",
    ),
    (check.struct, (IV[:4], record_nonce(IV, 2)[4:], TWO), r"wrong iv \(not a part of the write IV\)"),
    (check.struct, (IV, IV, TWO), "The salt has 12 bytes and not 4"),
    (check.struct, (IV[:4], IV[4:], 2), "rec_seq is a number"),
]
ANYTHING = (None, True, -1, 1 << 70, 0.5, "", "x", b"", b"x", [], {}, object(), len)
CHECKS = [(check.nonce, 1), (check.first_block, 1), (check.opens, 3), (check.true_type, 2), (check.struct, 3)]


@pytest.mark.parametrize(("of", "answer", "said"), RIGHT)
def test_a_right_answer_is_called_right(of, answer, said):
    verdict = of(GIVEN, *answer)
    assert verdict.mark is Mark.RIGHT
    assert said in repr(verdict)
    assert "✓ Right." in verdict._repr_html_()


@pytest.mark.parametrize(("of", "answer", "said"), WRONG)
def test_a_wrong_answer_is_told_what_is_wrong_with_it(of, answer, said):
    verdict = of(GIVEN, *answer)
    assert verdict.mark is Mark.WRONG
    assert re.search(said, repr(verdict)), repr(verdict)


@pytest.mark.parametrize(("of", "parts"), CHECKS)
def test_what_is_not_answered_is_not_wrong(of, parts):
    assert of(GIVEN, *[...] * parts).mark is Mark.OPEN
    assert of(GIVEN, *[b"x"] * (parts - 1), ...).mark is Mark.OPEN


@pytest.mark.parametrize(("of", "parts"), CHECKS)
@pytest.mark.parametrize("answer", ANYTHING, ids=repr)
def test_no_answer_raises(of, parts, answer):
    assert of(GIVEN, *[answer] * parts).mark is Mark.WRONG


@pytest.mark.parametrize(("of", "parts"), CHECKS)
def test_a_check_needs_what_was_given(of, parts):
    with pytest.raises(UsageError, match=r"handoff\.made"):
        of(None, *[b"x"] * parts)


def test_a_puzzle_is_new_each_time_and_the_same_for_a_seed():
    assert made().server_key != made().server_key
    assert made(b"a seed") == GIVEN
    kinds = [open_record(GIVEN.suite, KEY, IV, number, record)[0] for number, record in enumerate(GIVEN.records)]
    assert kinds == [22, 22, 23, 22, 21]
    assert "5 records" in repr(GIVEN)
    assert KEY.hex() not in repr(GIVEN)
    assert KEY.hex(" ", 1)[:23] in GIVEN._repr_html_()
