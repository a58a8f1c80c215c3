# SPDX-License-Identifier: Apache-2.0
"""The first words of TLS handshakes, as OpenSSL says them, and cut anywhere."""

import ssl

import pytest

from ecapture.protocols.tls_hello import client_random, offers_early_data, server_hello


def hello(version=None):
    """A ClientHello of this Python's OpenSSL, without the header of its record."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if version is not None:
        context.maximum_version = version
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()[5:]


def answer(suite=b"\x13\x01", random=bytes(32), session=b"s" * 32):
    """A ServerHello, up to its cipher suite."""
    return b"\2\0\0\x76\3\3" + random + bytes([len(session)]) + session + suite


def with_extensions(*kinds):
    """A small ClientHello with empty extensions."""
    extensions = b"".join(kind.to_bytes(2, "big") + bytes(2) for kind in kinds)
    length = len(extensions).to_bytes(2, "big")
    return b"\1\0\1\0\3\3" + bytes(32) + b"\0" + b"\0\2\x13\x01" + b"\1\0" + length + extensions


@pytest.mark.parametrize("version", [None, ssl.TLSVersion.TLSv1_2])
def test_the_random_of_a_client(version):
    said = hello(version)
    assert client_random(said) == said[6:38] != bytes(32)
    assert client_random(said[:38]) == said[6:38]
    assert not offers_early_data(said)
    for end in range(len(said)):
        assert not offers_early_data(said[:end])
        assert (client_random(said[:end]) != b"") == (end >= 38)


def test_early_data_is_announced_before_the_last_extension():
    assert offers_early_data(with_extensions(0, 42, 41))
    assert not offers_early_data(with_extensions(0, 41, 42))
    assert not offers_early_data(with_extensions(*range(100, 140)))
    assert not offers_early_data(with_extensions(*[7] * 1000, 42)), "there is a limit"
    assert not offers_early_data(b"\1" * 60)


def test_what_protects_the_rest_follows_from_the_suite():
    assert server_hello(answer()).tls13
    assert server_hello(answer(session=b"")).tls13
    assert not server_hello(answer(suite=b"\xc0\x2f")).tls13
    assert not server_hello(answer()[:-2]).tls13, "cut before the suite"


def test_what_is_no_hello():
    assert server_hello(answer()[:37]) is None
    assert server_hello(hello()) is None
    assert client_random(answer()) == b""
    assert server_hello(b"\2\0\0\x76\2\3" + bytes(40)) is None
    retry = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
    assert server_hello(answer(random=retry)) is None, "it asks for another ClientHello"
