# SPDX-License-Identifier: Apache-2.0
"""The first packets of QUIC: those of an independent implementation, and changed ones."""

import io
import random

import pytest
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicProtocolVersion

from ecapture.errors import ProtocolError
from ecapture.protocols.quic_initial import Crypto, client_secret, initial, is_early

VERSIONS = pytest.mark.parametrize(
    "version", [QuicProtocolVersion.VERSION_1, QuicProtocolVersion.VERSION_2]
)
WANTED = 38


def connection(version, **options):
    """A client of aioquic that has sent its first flight, and that flight."""
    configuration = QuicConfiguration(
        is_client=True,
        alpn_protocols=["h3"],
        secrets_log_file=io.StringIO(),
        supported_versions=[version],
        original_version=version,
        **options,
    )
    client = QuicConnection(configuration=configuration)
    client.connect(("192.0.2.1", 443), now=0)
    return client, [datagram for datagram, _address in client.datagrams_to_send(now=0)]


def test_the_secret_of_the_example():
    # RFC 9001, appendix A.1
    assert client_secret(1, bytes.fromhex("8394c8f03e515708")).hex() == (
        "c00cf151ca5be075ed0ebfb5c80323c42d6b7db67881289af4008f1f6c357aea"
    )


@VERSIONS
def test_a_hello_is_read(version):
    client, datagrams = connection(version)
    packet = initial(datagrams[0])
    assert packet.version == version
    crypto = Crypto(packet.version, packet.destination_id, wanted=WANTED)
    assert crypto.begun == b""
    crypto.feed(datagrams[0], packet)
    assert crypto.begun[:1] == b"\1"
    assert crypto.begun[6:38] == client.tls.client_random


@VERSIONS
def test_a_hello_that_begins_in_the_second_packet(version):
    client, datagrams = connection(version, server_name="x" * 2000)
    assert len(datagrams) > 1
    packets = [initial(datagram) for datagram in datagrams]
    crypto = Crypto(version, packets[0].destination_id, wanted=WANTED)
    crypto.feed(datagrams[1], packets[1])
    assert crypto.begun == b""
    crypto.feed(datagrams[0], packets[0])
    assert crypto.begun[6:38] == client.tls.client_random


def test_a_packet_of_somebody_else_is_refused():
    _client, [datagram] = connection(QuicProtocolVersion.VERSION_1)
    refused = 0
    for number in range(50):
        crypto = Crypto(1, bytes([number]) * 8, wanted=WANTED)
        try:
            crypto.feed(datagram, initial(datagram))
        except ProtocolError:
            refused += 1
        assert crypto.begun == b""
    assert refused > 40, "of what is decrypted with a wrong key little makes sense"


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        bytes(50),
        b"\x40" + bytes(50),
        b"\xe0\0\0\0\1" + bytes(50),  # of another type
        b"\xc0\0\0\0\2" + bytes(50),  # of another version
        b"\xc0\0\0\0\0" + bytes(50),  # negotiation of the version
    ],
)
def test_what_is_no_initial_packet(datagram):
    assert initial(datagram) is None


@pytest.mark.parametrize(
    "rest",
    [
        b"\x15" + bytes(60),
        b"\x08" + bytes(4),
        b"\0\0\x7f\xff",
        b"\0\0\0\x44\xff" + bytes(50),
        b"\0\0\0\x03" + bytes(50),
    ],
)
def test_what_is_cut_or_contradicts_itself(rest):
    with pytest.raises(ProtocolError):
        initial(b"\xc0\0\0\0\1" + rest)


def test_early_data_is_told_by_its_type():
    assert is_early(b"\xd0\0\0\0\1" + bytes(9))
    assert is_early(b"xx\xef\x6b\x33\x43\xcf", 2)
    for other in (b"", b"\xd0\0\0\0", b"\x50\0\0\0\1", b"\xc0\0\0\0\1", b"\xd0\0\0\0\2"):
        assert not is_early(other)


def test_changed_packets_raise_nothing_else():
    chance = random.Random(1)
    _client, [datagram] = connection(QuicProtocolVersion.VERSION_1)
    for _ in range(300):
        changed = bytearray(datagram)
        for _ in range(chance.randrange(1, 6)):
            changed[chance.randrange(60)] = chance.randrange(256)
        changed = bytes(changed[: chance.choice((len(changed), chance.randrange(len(changed))))])
        try:
            packet = initial(changed)
            if packet is not None:
                Crypto(packet.version, packet.destination_id, wanted=WANTED).feed(changed, packet)
        except ProtocolError:
            pass
