# SPDX-License-Identifier: Apache-2.0
"""pcapng blocks: judged by their own layout, and by the programs that people open them with."""

import json
import ssl
import struct
import subprocess

import pytest
from frames import CLIENT, SERVER, Stream, udp
from tls_talk import talk

from ecapture.formats.pcapng import (
    TLS_KEY_LOG,
    Block,
    Code,
    LinkType,
    PacketFlag,
    blocks,
    custom,
    decryption_secrets,
    enhanced_packet,
    interface_description,
    interface_statistics,
    options_of,
    process_comment,
    process_of,
    process_option,
    section_header,
)

START = 1_767_323_045_123_456_789
FRAME = udp((CLIENT, 1000), (SERVER, 2000), b"some words")
wireshark = pytest.mark.needs("program:tshark", "program:capinfos")


def tshark(path, *options, fields=()):
    """What tshark says, one list of fields a line."""
    shown = ["-T", "fields", *(word for name in fields for word in ("-e", name))] if fields else []
    done = subprocess.run(
        ["tshark", "-n", "-r", path, *options, *shown], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "damaged" not in done.stderr
    return [line.split("\t") for line in done.stdout.splitlines()]


def test_a_packet_block_is_laid_out_as_the_draft_says():
    block = enhanced_packet(3, START, b"abcde", original_length=9, flags=PacketFlag.OUTBOUND)
    assert block == (
        struct.pack("<II", 6, 56 - 4)
        + struct.pack("<IIIII", 3, START >> 32, START & 0xFFFFFFFF, 5, 9)
        + b"abcde\0\0\0"
        + struct.pack("<HHI", 2, 4, 2)
        + bytes(4)
        + struct.pack("<I", 56 - 4)
    )


def test_without_options_there_is_no_end_of_options():
    assert len(enhanced_packet(0, START, b"abcd")) == 32 + 4
    assert len(decryption_secrets(b"12345")) == 12 + 8 + 8


def test_every_block_ends_as_it_begins_and_is_found_again():
    made = [
        section_header(application="a test"),
        interface_description(LinkType.ETHERNET, name="eth0"),
        *(enhanced_packet(0, START, bytes(length), comment="c" * length) for length in range(9)),
        *(decryption_secrets(bytes(length)) for length in range(5)),
        *(custom(bytes(length)) for length in range(5)),
        interface_statistics(0, START, received=1),
    ]
    found = list(blocks(b"".join(made)))
    assert [length for _at, _kind, length in found] == [len(block) for block in made]
    kinds = [kind for _at, kind, _length in found]
    assert kinds[:3] == [Block.SECTION, Block.INTERFACE, Block.PACKET]
    assert kinds[-2:] == [Block.CUSTOM, Block.STATISTICS]
    assert list(blocks(b"".join(made)[:-1])) == found[:-1], "a block that is cut is not there"


@pytest.mark.parametrize(
    "content",
    [
        bytes(12),
        struct.pack("<III", 6, 8, 8) + bytes(8),
        struct.pack("<III", 6, 14, 0) + bytes(20),
        struct.pack("<III", 6, 12, 16),
    ],
)
def test_what_is_no_block_is_refused(content):
    with pytest.raises(ValueError, match="block"):
        list(blocks(content))


def test_options_are_found_again_and_a_cut_one_is_refused():
    block = enhanced_packet(0, START, b"", flags=2, comment="odd", options=[process_option(7, "a")])
    options = options_of(block, 28, len(block) - 4)
    assert options[:2] == [(Code.COMMENT, b"odd"), (Code.PACKET_FLAGS, b"\2\0\0\0")]
    assert process_of(options) == (7, 0xFFFFFFFF, "a")
    with pytest.raises(ValueError, match="longer"):
        options_of(struct.pack("<HH", 1, 9) + bytes(8), 0, 12)


@pytest.mark.parametrize(
    "option",
    [
        (Code.CUSTOM_BYTES, bytes(32)),
        (Code.CUSTOM_BYTES, b"short"),
        (Code.CUSTOM_TEXT, process_option(1, "a")[1]),
    ],
)
def test_options_of_others_are_not_taken_for_ours(option):
    assert process_of([option]) is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: enhanced_packet(0, -1, b""),
        lambda: enhanced_packet(0, 1 << 64, b""),
        lambda: enhanced_packet(1 << 32, START, b""),
        lambda: enhanced_packet(0, START, b"abc", original_length=2),
        lambda: interface_description(1 << 16),
        lambda: interface_statistics(0, START, received=-1),
    ],
)
def test_what_does_not_fit_is_refused(make):
    with pytest.raises(ValueError, match=r"fit|time|packet of|count"):
        make()


def test_long_texts_are_cut_at_a_character():
    block = enhanced_packet(0, START, b"", comment="é" * 40000)
    ((_code, comment),) = options_of(block, 28, len(block) - 4)
    assert comment.decode() == "é" * 32767


@wireshark
def test_wireshark_reads_every_field(tmp_path):
    path = tmp_path / "some.pcapng"
    path.write_bytes(
        section_header(hardware="x86", system="Linux 6", application="ecapture 1", comment="hi")
        + interface_description(
            LinkType.ETHERNET, name="eth0", snap_length=128, description="one", filter_="udp"
        )
        + interface_description(LinkType.RAW, name="tun0", system="Linux")
        + enhanced_packet(
            0,
            START,
            FRAME[:40],
            original_length=len(FRAME),
            flags=PacketFlag.INBOUND | PacketFlag.UNICAST,
            comment=process_comment(42, "curl"),
            options=[process_option(42, "curl", uid=0)],
        )
        + enhanced_packet(1, START + 1, FRAME[14:], flags=PacketFlag.OUTBOUND)
        + custom(b"ignored by those who do not know it")
        + interface_statistics(
            0, START, start_ns=START, end_ns=START, received=7, dropped=2, accepted=6, delivered=4
        )
    )
    fields = (
        *("frame.time_epoch", "frame.interface_name", "frame.len", "frame.cap_len"),
        *("frame.packet_flags_direction", "frame.comment", "udp.dstport"),
    )
    assert tshark(path, "-Y", "udp", fields=fields) == [
        ["1767323045.123456789", "eth0", "52", "40", "0x00000001", "pid 42 (curl)", "2000"],
        ["1767323045.123456790", "tun0", "38", "38", "0x00000002", "", "2000"],
    ]
    told = subprocess.run(["capinfos", path], capture_output=True, text=True, check=True).stdout
    for line in (
        *("File encapsulation:  Per packet", "Capture hardware:    x86", "Name = eth0"),
        *("Capture oper-sys:    Linux 6", "Capture application: ecapture 1", "Description = one"),
        *("Time precision = nanoseconds (9)", "Capture length = 128", "Capture comment:     hi"),
        *("Number of stat entries = 1", "Number of packets = 1", "Filter string = udp"),
        *("Encapsulation = Raw IP", "Number of interfaces in file: 2"),
    ):
        assert line in told


@wireshark
def test_wireshark_reads_the_counts_of_an_interface(tmp_path):
    path = tmp_path / "some.pcapng"
    path.write_bytes(
        section_header()
        + interface_description(LinkType.ETHERNET)
        + interface_statistics(0, START, received=(1 << 32) + 7, dropped=2)
    )
    shown = subprocess.run(
        ["tshark", "-r", path, "-q", "-z", "io,stat,0"], capture_output=True, text=True, check=False
    )
    assert shown.returncode == 0
    block = path.read_bytes()[-(12 + 12 + 12 + 12 + 4) :]
    options = options_of(block, 8 + 12, len(block) - 4)
    assert options == [(4, ((1 << 32) + 7).to_bytes(8, "little")), (5, bytes([2] + [0] * 7))]


@wireshark
@pytest.mark.needs("program:openssl")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_wireshark_decrypts_with_the_secrets_block_and_not_without(tmp_path, version):
    told, stream = talk(tmp_path, version), Stream()
    frames = stream.handshake()
    for by_server, flight in told.flights:
        frames += stream.say(by_server, flight)
    opening = section_header() + interface_description(LinkType.ETHERNET)
    packets = [enhanced_packet(0, START + n, frame) for n, frame in enumerate(frames)]
    secrets = decryption_secrets(told.keys)
    assert secrets[8:12] == struct.pack("<I", TLS_KEY_LOG)

    def requests(*parts):
        path = tmp_path / "talk.pcapng"
        path.write_bytes(b"".join(parts))
        return tshark(path, "-Y", "http", fields=("http.request.method", "http.response.code"))

    assert requests(opening, secrets, *packets) == [["GET", ""], ["", "200"]]
    assert requests(opening, *packets) == []


@wireshark
def test_packets_of_any_length_are_read(tmp_path):
    path = tmp_path / "many.pcapng"
    sizes = [0, 1, 2, 3, 4, 5, 60, 1514, 65535, 262144]
    path.write_bytes(
        section_header()
        + interface_description(LinkType.ETHERNET)
        + b"".join(enhanced_packet(0, START + n, bytes(n)) for n in sizes)
    )
    lines = subprocess.run(
        ["tshark", "-r", path, "-T", "json", "-e", "frame.len"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert [int(p["_source"]["layers"]["frame.len"][0]) for p in json.loads(lines)] == sizes
