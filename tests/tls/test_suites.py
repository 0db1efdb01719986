"""The table of suites agrees with OpenSSL's own table and the kernel's header."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ktlslab.errors import UsageError
from ktlslab.tls.suites import (
    AES_128_CCM,
    AES_128_GCM,
    CHACHA20_POLY1305,
    CIPHERS,
    RARE_CIPHERS,
    Cipher,
    Suite,
    Version,
)

HEADER = Path("/usr/include/linux/tls.h")
OPENSSL = shutil.which("openssl") or "openssl"

# What `openssl ciphers -V` calls the ciphers; CCM with a short tag is "AESCCM8" there.
OPENSSL_ENCRYPTION = {
    "AESGCM(128)": "AES-128-GCM",
    "AESGCM(256)": "AES-256-GCM",
    "AESCCM(128)": "AES-128-CCM",
    "CHACHA20/POLY1305(256)": "CHACHA20-POLY1305",
    "ARIAGCM(128)": "ARIA-128-GCM",
    "ARIAGCM(256)": "ARIA-256-GCM",
}
# OpenSSL has SM4 in TLS 1.3 from 4.0 on, and the command lines of distributions are older: tests/stages negotiates it.
KNOWN = [suite for suite in Suite if not suite.name.startswith("TLS_SM4")]


@pytest.fixture(scope="module")
def openssl_table() -> dict[int, tuple[str, str, str]]:
    """Return IANA number -> (OpenSSL's name, version, encryption) of each suite the installed OpenSSL knows.

    TLS 1.3's CCM suites are off by default and must be asked for.
    """
    tls13 = ":".join(suite.openssl_name for suite in KNOWN if suite.version is Version.TLS13)
    command = [OPENSSL, "ciphers", "-V", "-ciphersuites", f"{tls13}:TLS_AES_128_CCM_8_SHA256", "ALL:COMPLEMENTOFALL"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    table = {}
    for line in done.stdout.splitlines():
        number, _, name, version, *rest = line.split()
        high, low = number.split(",")
        encryption = next(word.removeprefix("Enc=") for word in rest if word.startswith("Enc="))
        table[int(high, 16) << 8 | int(low, 16)] = (name, version, encryption)
    return table


@pytest.mark.parametrize("suite", KNOWN)
def test_openssl_agrees_on_number_name_version_and_cipher(suite, openssl_table):
    name, version, encryption = openssl_table[suite.iana_id]
    assert name == suite.openssl_name
    assert Version.of(version) is suite.version
    assert OPENSSL_ENCRYPTION[encryption] == suite.cipher.name


@pytest.mark.parametrize("suite", KNOWN)
def test_openssl_agrees_on_the_iana_name(suite):
    command = [OPENSSL, "ciphers", "-convert", suite.name]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.split()[-1] == suite.openssl_name


def test_what_openssl_has_beyond_the_table_is_none(openssl_table):
    known = {suite.iana_id for suite in Suite}
    others = {number: row for number, row in openssl_table.items() if number not in known}
    assert any("CCM8" in name for name, _, _ in others.values())
    assert any(encryption.startswith("AES(") for _, _, encryption in others.values())
    for number, (name, _, _) in others.items():
        assert Suite.from_id(number) is None
        assert Suite.from_openssl(name) is None


def test_every_certificate_suite_of_the_four_ciphers_is_in_the_table(openssl_table):
    # Suites are missing from the table only for a reason: PSK, anonymous and DSS suites authenticate otherwise.
    for number, (name, _, encryption) in openssl_table.items():
        common = OPENSSL_ENCRYPTION.get(encryption) in {cipher.name for cipher in CIPHERS}
        if common and not re.search("PSK|ADH|AECDH|DSS", name):
            assert Suite.from_id(number) is not None, name


@pytest.mark.parametrize("suite", Suite)
def test_a_suite_is_found_by_all_its_names(suite):
    assert Suite.of(suite.name) is suite
    assert Suite.of(suite.openssl_name.lower()) is suite
    assert Suite.from_openssl(suite.openssl_name) is suite
    assert Suite.from_id(suite.iana_id) is suite


def test_no_two_suites_share_a_number_or_a_name():
    assert len({suite.iana_id for suite in Suite}) == len(Suite) == len({suite.openssl_name for suite in Suite})


@pytest.mark.parametrize("cipher", CIPHERS, ids=lambda cipher: cipher.name)
def test_a_ciphers_name_means_its_tls13_suite(cipher):
    suite = Suite.of(cipher.name)
    assert (suite.cipher, suite.version) == (cipher, Version.TLS13)


@pytest.mark.parametrize("name", ["TLS_AES_128_CCM_8_SHA256", "AES128-CCM8", "AES128-SHA", "AES-128", ""])
def test_an_unknown_name_is_an_error_that_lists_what_there_is(name):
    with pytest.raises(UsageError, match=r"AES-128-GCM.*ARIA-256-GCM"):
        Suite.of(name)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("TLS_AES_128_GCM_SHA265", "TLS_AES_128_GCM_SHA256"),
        ("aes128-gcm", "AES-128-GCM"),
        ("CHACHA20", "CHACHA20-POLY1305"),
        ("ECDHE-RSA-AES256-GCM-SHA348", "ECDHE-RSA-AES256-GCM-SHA384"),
    ],
)
def test_a_near_miss_names_the_nearest(name, meant):
    with pytest.raises(UsageError, match=f"Did you mean {meant}"):
        Suite.of(name)


@pytest.mark.parametrize("value", [None, 0x1301, b"AES-128-GCM", ["AES-128-GCM"]])
def test_what_is_no_name_is_a_usage_error_too(value):
    for kind in (Suite, Version):
        with pytest.raises(UsageError):
            kind.of(value)


def test_members_pass_and_a_cipher_of_tls12_alone_means_its_first_suite():
    assert Suite.of(Suite.TLS_AES_128_GCM_SHA256) is Suite.TLS_AES_128_GCM_SHA256
    assert Version.of(Version.TLS12) is Version.TLS12
    assert Suite.of("ARIA-128-GCM") is Suite.TLS_ECDHE_ECDSA_WITH_ARIA_128_GCM_SHA256


@pytest.mark.parametrize("suite", Suite)
def test_the_digest_is_the_one_in_the_name(suite):
    # A name that does not end in a digest (TLS 1.2's CCM suites) means TLS 1.2's default (RFC 6655 3).
    endings = {"SHA384": "sha384", "SM3": "sm3"}
    assert suite.digest == endings.get(suite.name.rpartition("_")[2], "sha256")


@pytest.mark.parametrize("name", ["1.2", "TLS 1.2", "TLSv1.2", "tls1.2", "TLS12"])
def test_a_version_has_many_spellings(name):
    assert Version.of(name) is Version.TLS12
    assert Version.of(name.replace("2", "3")) is Version.TLS13


@pytest.mark.parametrize("name", ["1.1", "TLS", "", "SSLv3", "3", "1.23"])
def test_other_versions_are_errors(name):
    with pytest.raises(UsageError, match=r"TLS 1\.2, TLS 1\.3"):
        Version.of(name)


def test_version_numbers():
    assert (Version.TLS12.wire, Version.TLS13.wire) == (0x0303, 0x0304)


@pytest.mark.parametrize("cipher", CIPHERS + RARE_CIPHERS, ids=lambda cipher: cipher.name)
def test_the_kernels_header_agrees(cipher: Cipher):
    header = HEADER.read_text()
    defines = {name: int(value) for name, value in re.findall(r"#define\s+(TLS_CIPHER_\w+)\s+(\d+)", header)}
    prefix = "TLS_CIPHER_" + cipher.kernel_struct.removeprefix("tls12_crypto_info_").upper()
    assert f"struct {cipher.kernel_struct} {{" in header
    assert defines[prefix] == cipher.kernel_type
    sizes = cipher.key_bytes, cipher.salt_bytes, cipher.iv_bytes, cipher.tag_bytes
    assert sizes == tuple(defines[f"{prefix}_{part}_SIZE"] for part in ("KEY", "SALT", "IV", "TAG"))


def test_nonces_are_twelve_bytes_in_both_versions():
    for cipher in CIPHERS + RARE_CIPHERS:
        assert cipher.salt_bytes + cipher.iv_bytes == 12
        assert cipher.fixed_iv_bytes + cipher.explicit_nonce_bytes == 12


def test_record_limits():
    # RFC 8446 5.5 says 2**24.5, "approximately 24 million"; RFC 9147 appendix B's bound for CCM, with l = 2**10 blocks
    # a record: (2 l q)**2 / 2**128 <= 2**-60.
    assert 23_700_000 < AES_128_GCM.record_limit < 24_000_000
    assert (2 * 2**10 * AES_128_CCM.record_limit) ** 2 * 2**60 == 2**128
    assert CHACHA20_POLY1305.record_limit == 2**64 - 1
