# SPDX-License-Identifier: Apache-2.0
"""A file of packets: interfaces first, secrets before packets, statistics last."""

import msgspec
import pytest

from ecapture.events import ConversationEnd, Interface, InterfaceCounts, Packets, Secret
from ecapture.formats.capture_file import CaptureFileFormat
from ecapture.formats.pcapng import Block, blocks, enhanced_packet

LO = Interface(1, 0, "lo", 1, 262144, "tcp")
TUN = Interface(5, 1, "tun0", 101, 96, space="net:[4026532000]")
SECRET = Secret(2, 9, 9, 0, "curl", (9, 1, 1), "CLIENT_RANDOM", bytes(32), bytes(48))
PACKET = enhanced_packet(0, 3, b"frame")
COUNTS = InterfaceCounts(9, 1, 0, 7, 2, 1, 0)


@pytest.fixture
def format_():
    return CaptureFileFormat(hardware="x86_64", system="Linux 6.18", application="ecapture 1")


def kinds(content):
    return [kind for _at, kind, _length in blocks(content)]


def test_a_file_begins_with_its_section(format_):
    opening = format_.opening()
    assert kinds(opening) == [Block.SECTION]
    assert b"x86_64" in opening
    assert b"Linux 6.18" in opening
    assert b"ecapture 1" in opening


def test_blocks_stand_in_the_order_that_readers_need(format_):
    pieces = format_.encode([Packets(4, PACKET), SECRET, LO, COUNTS])
    assert kinds(b"".join(pieces)) == [
        Block.INTERFACE,
        Block.SECRETS,
        Block.PACKET,
        Block.STATISTICS,
    ]


def test_packets_are_written_as_they_came(format_):
    packets = Packets(4, PACKET + PACKET)
    (piece,) = format_.encode([packets])
    assert piece is packets.blocks


def test_a_later_file_begins_with_the_interfaces_of_those_before(format_):
    first = format_.opening() + b"".join(format_.encode([LO]))
    assert kinds(first) == [Block.SECTION, Block.INTERFACE]
    format_.written()
    second = format_.opening() + b"".join(format_.encode([TUN]))
    assert kinds(second) == [Block.SECTION, Block.INTERFACE, Block.INTERFACE]
    assert second.index(b"lo") < second.index(b"tun0")
    format_.written()
    assert kinds(format_.opening()) == [Block.SECTION, Block.INTERFACE, Block.INTERFACE]


def test_an_interface_tells_its_filter_and_its_namespace(format_):
    (lo,) = format_.encode([LO])
    assert b"\0tcp" in lo
    (tun,) = format_.encode([TUN])[1:]
    assert b"tun0 in the network namespace net:[4026532000]" in tun


def test_statistics_say_what_was_cut(format_):
    (counts,) = format_.encode([COUNTS])
    assert b"1 packets cut to the snap length" in counts


def test_what_has_no_place_in_such_a_file_is_left_out(format_):
    assert format_.encode([ConversationEnd(1, 2, "x", (2, 3, 4), "freed")]) == []
    assert format_.encode([SECRET, SECRET]) != []
    assert format_.encode([SECRET]) == []


def told(at_s, length=48):
    """A secret of its own, told so many seconds after the first."""
    random = at_s.to_bytes(32, "big")
    return Secret(at_s * 10**9, 9, 9, 0, "curl", (9, 1, 1), "CLIENT_RANDOM", random, bytes(length))


def secrets_of(opening):
    """The lines of the secrets block in what a file begins with."""
    found = [(at, length) for at, kind, length in blocks(opening) if kind == Block.SECRETS]
    return b"".join(opening[at + 16 : at + length - 4].strip(b"\0") for at, length in found)


def test_a_later_file_begins_with_the_secrets_of_those_before(format_):
    format_.encode([LO, SECRET])
    assert secrets_of(format_.opening()) == b"", "it comes with the batch itself"
    format_.written()
    opening = format_.opening()
    assert kinds(opening) == [Block.SECTION, Block.INTERFACE, Block.SECRETS]
    assert secrets_of(opening).startswith(b"CLIENT_RANDOM 0000")
    assert format_.encode([SECRET]) == [], "each once in a file"


@pytest.mark.parametrize("per_second, kept", [(1, 385), (100, 1100)])
def test_many_and_old_secrets_are_left_to_the_files_before(format_, per_second, kept):
    """All of the last ten seconds, and few megabytes at most; older ones while they are few."""
    for number in range(3000):
        secret = told(number)
        format_.encode([msgspec.structs.replace(secret, time_ns=number * 10**9 // per_second)])
        format_.written()
    lines = secrets_of(format_.opening()).splitlines()
    assert abs(len(lines) - kept) < 120
    assert lines[-1].split()[1] == told(2999).client_random.hex().encode()
    for number in range(60_000):
        format_.encode([msgspec.structs.replace(told(3000 + number), time_ns=3000 * 10**9)])
        format_.written()
    assert len(format_.opening()) < 5 << 20


def test_a_file_that_is_followed_by_another_ends_with_the_counts_of_its_interfaces(format_):
    format_.encode([LO])
    assert format_.closing([COUNTS]) == b"", "its block is not in the file yet"
    format_.written()
    most = 2**64 - 1
    counts = [msgspec.structs.replace(COUNTS, received=most, cut=most, unreadable=most)]
    counts.append(msgspec.structs.replace(COUNTS, number=1))
    closing = format_.closing(counts)
    assert kinds(closing) == [Block.STATISTICS]
    assert len(closing) == format_.closing_size()
    format_.encode([TUN])
    format_.written()
    assert kinds(format_.closing(counts)) == [Block.STATISTICS] * 2
    assert len(format_.closing(counts)) <= format_.closing_size()
