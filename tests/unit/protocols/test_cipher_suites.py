# SPDX-License-Identifier: Apache-2.0
"""Names of versions and suites: those of another list, and numbers for the rest."""

import ssl

import pytest

from ecapture.protocols.cipher_suites import cipher_name, version_name


@pytest.mark.parametrize("version", [v for v in ssl.TLSVersion if v > 0])
def test_versions_are_named_as_others_name_them(version):
    others = {"TLSv1": "TLSv1.0"}
    name = version.name.replace("_", ".")
    assert version_name(version.value) == others.get(name, name)


def test_what_is_no_version_has_no_name():
    assert version_name(0) == version_name(0x0305) == version_name(0xFFFF) == ""


def test_suites_have_the_numbers_that_openssl_gives_them():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers("ALL:COMPLEMENTOFALL:@SECLEVEL=0")
    modern = [cipher for cipher in context.get_ciphers() if cipher["protocol"] == "TLSv1.3"]
    assert len(modern) >= 3
    # TLS 1.3's are the only ones that OpenSSL calls by their IANA names
    for cipher in modern:
        assert cipher_name(cipher["id"] & 0xFFFF) == cipher["name"]


def test_suites_that_are_in_use_have_names():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20:RSA+AESGCM")
    for cipher in context.get_ciphers():
        name = cipher_name(cipher["id"] & 0xFFFF)
        assert name.startswith("TLS_"), cipher
        assert ("CHACHA20" in name) == ("CHACHA20" in cipher["name"])
        assert ("256_GCM" in name) == (
            "AES256-GCM" in cipher["name"] or "256_GCM" in cipher["name"]
        )


def test_other_numbers_are_shown_as_such():
    assert cipher_name(0x0A0A) == "0x0A0A"
