# SPDX-License-Identifier: Apache-2.0
"""Finding handshakes among packets: on every link that is understood, and in what is broken."""

import random
import struct
from ipaddress import IPv6Address

import pytest
from frames import CLIENT, SERVER, Stream, ipv4, udp

from ecapture.formats.pcapng import (
    LinkType,
    enhanced_packet,
    interface_description,
    interface_statistics,
)
from ecapture.pipeline._openings import openings

HELLO = b"\x16\x03\x01\x00\x50\x01\x00\x00\x4c\x03\x03" + bytes(range(70))
ANSWER = b"\x16\x03\x03\x00\x50\x02\x00\x00\x4c\x03\x03" + bytes(range(70))
INITIAL = b"\xc3\0\0\0\1\x08" + bytes(60)
[FRAME] = Stream().say(False, HELLO)
ETHERNET, IP = FRAME[:14], FRAME[14:]
V6_ENDS = IPv6Address("2001:db8::1").packed + IPv6Address("2001:db8::2").packed


def ipv6(content, protocol=6):
    return struct.pack(">IHBB", 6 << 28, len(content), protocol, 64) + V6_ENDS + content


V6 = ETHERNET[:12] + b"\x86\xdd" + ipv6(IP[20:])


def found(frame, link=LinkType.ETHERNET):
    """(kind, payload) of one frame; None."""
    block = enhanced_packet(0, 1, frame)
    shown = openings(block, (link,))
    if not shown:
        return None
    [(at, kind, _source, _destination, payload, end)] = shown
    assert at == 0
    return kind, block[payload:end]


@pytest.mark.parametrize(
    "frame, link",
    [
        (FRAME, LinkType.ETHERNET),
        (ETHERNET[:12] + b"\x81\x00\0\7" + ETHERNET[12:] + IP, LinkType.ETHERNET),
        (ETHERNET[:12] + b"\x88\xa8\0\7\x81\x00\0\7" + ETHERNET[12:] + IP, LinkType.ETHERNET),
        (IP, LinkType.RAW),
        (IP, LinkType.IPV4),
        (bytes(14) + b"\x08\x00" + IP, LinkType.LINUX_SLL),
        (b"\x08\x00" + bytes(18) + IP, LinkType.LINUX_SLL2),
        (V6, LinkType.ETHERNET),
        (V6[14:], LinkType.RAW),
        (V6[14:], LinkType.IPV6),
        (ETHERNET[:12] + b"\x86\xdd" + ipv6(b"\6\0" + bytes(6) + IP[20:], 0), LinkType.ETHERNET),
        (ETHERNET[:12] + b"\x86\xdd" + ipv6(b"\6\0" + bytes(6) + IP[20:], 44), LinkType.ETHERNET),
        (ETHERNET[:12] + b"\x86\xdd" + ipv6(IP, 4), LinkType.ETHERNET),
        (ipv4(CLIENT, SERVER, 4, IP), LinkType.ETHERNET),
        (ipv4(CLIENT, SERVER, 41, V6[14:]), LinkType.ETHERNET),
        (FRAME + b"padding", LinkType.ETHERNET),
        (FRAME[:16] + b"\0\0" + FRAME[18:], LinkType.ETHERNET),  # longer than a header can say
    ],
)
def test_links_and_networks(frame, link):
    assert found(frame, link) == (1, HELLO)


def test_addresses_and_ports():
    [frame] = Stream(40001, 8443).say(True, ANSWER)
    [(_at, kind, source, destination, _payload, _end)] = openings(
        enhanced_packet(0, 1, frame), (1,)
    )
    assert kind == 2
    assert source == bytes([10, 4, 5, 6]) + (8443).to_bytes(2, "big")
    assert destination == bytes([10, 1, 2, 3]) + (40001).to_bytes(2, "big")
    [(_at, _kind, source, destination, _p, _e)] = openings(enhanced_packet(0, 1, V6), (1,))
    assert source == V6_ENDS[:16] + (40000).to_bytes(2, "big")
    assert destination == V6_ENDS[16:] + (443).to_bytes(2, "big")


@pytest.mark.parametrize(
    "first, version, is_found",
    [
        (0xC0, 1, True),
        (0xDF, 1, True),
        (0xE0, 1, False),
        (0xF0, 1, False),
        (0x40, 1, False),
        (0xC0, 0x6B3343CF, False),
        (0xD5, 0x6B3343CF, True),
        (0xE5, 0x6B3343CF, True),
        (0xF5, 0x6B3343CF, False),
        (0xC0, 2, False),
    ],
)
def test_quic(first, version, is_found):
    datagram = bytes([first]) + version.to_bytes(4, "big") + bytes(40)
    shown = found(udp((CLIENT, 5000), (SERVER, 443), datagram))
    assert shown == ((3, datagram) if is_found else None)


@pytest.mark.parametrize(
    "frame, link",
    [
        (FRAME, LinkType.NETLINK),
        (IP, LinkType.ETHERNET),
        (Stream().say(False, b"\x17\x03\x03\x00\x50" + bytes(80))[0], LinkType.ETHERNET),
        (Stream().say(False, b"\x16\x03\x03\x00\x50\x0b\0\0\0\3")[0], LinkType.ETHERNET),
        (FRAME[:20] + b"\0\7" + FRAME[22:], LinkType.ETHERNET),  # not the first fragment
        (ETHERNET[:12] + b"\x08\x06" + IP, LinkType.ETHERNET),
        (b"", LinkType.ETHERNET),
        (b"", LinkType.RAW),
    ],
)
def test_what_is_no_opening(frame, link):
    assert found(frame, link) is None


def test_interfaces_have_their_own_links_and_other_blocks_are_passed_over():
    blocks = [
        interface_description(1),
        enhanced_packet(0, 1, FRAME),
        interface_statistics(0, 1, received=1),
        enhanced_packet(1, 1, IP),
        enhanced_packet(1, 1, FRAME),
        enhanced_packet(2, 1, FRAME),
        enhanced_packet(300, 1, IP),
    ]
    places = [sum(map(len, blocks[:n])) for n in range(len(blocks))]
    links = (LinkType.ETHERNET, LinkType.RAW)
    shown = [at for at, *_rest in openings(b"".join(blocks), links)]
    assert shown == [places[1], places[3]]
    shown = [at for at, *_rest in openings(b"".join(blocks), (*links, *[LinkType.RAW] * 299))]
    assert shown == [places[1], places[3], places[6]]
    assert openings(b"", ()) == []


@pytest.mark.parametrize("number", [2, 255, 256, 1 << 31, (1 << 32) - 1])
def test_a_number_that_no_interface_has(number):
    block = enhanced_packet(number, 1, FRAME)
    assert openings(block, (1, 1)) == openings(block, (1,) * 2 + (101,) * 300) == []


@pytest.mark.parametrize("broken", [b"\6", bytes(12), struct.pack("<III", 6, 400, 0)])
def test_it_ends_where_there_is_no_block(broken):
    block = enhanced_packet(0, 1, FRAME)
    assert len(openings(block + block, (1,))) == 2
    assert len(openings(block + broken + block, (1,))) == 1


@pytest.mark.parametrize("frame", [FRAME, V6, udp((CLIENT, 1), (SERVER, 443), INITIAL)])
def test_cut_and_changed_packets(frame):
    chance, links = random.Random(1), [*LinkType]
    for length in range(len(frame)):
        found(frame[:length])
    for _ in range(3000):
        changed = bytearray(frame)
        for _ in range(chance.randrange(1, 5)):
            changed[chance.randrange(len(changed))] = chance.choice((0, 255, chance.randrange(256)))
        block = enhanced_packet(0, 1, bytes(changed))
        for _at, _kind, _s, _d, payload, end in openings(block, (chance.choice(links),)):
            assert 28 <= payload < end <= 28 + len(changed)
