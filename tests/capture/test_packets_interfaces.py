# SPDX-License-Identifier: Apache-2.0
"""Interfaces: in other namespaces, with tags, super-packets, without Ethernet, coming and going."""

import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from harness import CAPTURES, wait_until

from ecapture.formats.pcapng import Block, blocks
from ecapture.kernel.feature import feature
from packets import (
    CAPTURES_PACKETS,
    Network,
    in_namespace,
    interfaces,
    programs_at,
    read,
    statistics,
)

pytestmark = [CAPTURES, CAPTURES_PACKETS]
TCX = bool(feature("tcx"))
LEFT, RIGHT = "10.99.0.1", "10.99.0.2"
ETHERNET_ALL = 3  # ETH_P_ALL
BROADCAST = b"\xff" * 6


@pytest.fixture
def network():
    with Network() as made:
        yield made


def udp(address):
    bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    bound.bind((address, 0))
    return bound


def test_packets_of_another_namespace_with_arp_and_directions(capture, network):
    with (
        network.holder(network.left) as pid,
        in_namespace(network.left) as left,
        in_namespace(network.right) as right,
    ):
        capturing = capture("--netns", pid, "-i", "vleft", mode="pcap")
        with left(lambda: udp(LEFT)) as one, right(lambda: udp(RIGHT)) as other:
            one.sendto(b"there", other.getsockname())
            assert other.recv(100) == b"there"
            other.sendto(b"back", one.getsockname())
            assert one.recv(100) == b"back"
        capturing.finish()
    packets = read(capturing.path)
    said = [p for p in packets if p.payload]
    assert [(p.payload, p.source, p.outbound, p.interface) for p in said] == [
        (b"there", LEFT, True, "vleft"),
        (b"back", RIGHT, False, "vleft"),
    ]
    # the other namespace's process is on this machine, too, but not at this end of the packets
    assert [[pid for pid, _comm in p.owners] for p in said] == [[os.getpid()]] * 2
    assert [p.outbound for p in packets if p.protocols == "eth:ethertype:arp"][:2] == [True, False]
    (told,) = statistics(Path(capturing.path)).values()
    assert (told["received"], told["dropped"]) == (len(packets), 0)


def test_a_packet_is_cut_to_the_snap_length_and_says_so(capture, network):
    with network.holder(network.left) as pid, in_namespace(network.left) as left:
        capturing = capture("--netns", pid, "-i", "lo", "--snaplen", 64, mode="pcap")
        with left(lambda: udp("127.0.0.1")) as one:
            one.sendto(bytes(1000), one.getsockname())
            one.sendto(b"x", one.getsockname())
        capturing.finish()
    packets = read(capturing.path)
    assert [(p.captured, p.original) for p in packets] == [(64, 1042), (43, 43)]
    assert interfaces(Path(capturing.path))["lo"]["Capture length"] == "64"


def test_interfaces_that_come_and_go_are_followed(capture, network):
    with network.holder(network.left) as pid, in_namespace(network.left) as left:
        capturing = capture("--netns", pid, mode="pcap")
        network.ip(network.left, "link", "add", "late", "type", "veth", "peer", "name", "latepeer")
        for name in ("late", "latepeer"):
            network.ip(network.left, "link", "set", name, "up")

        def sent():
            frame = BROADCAST + b"\x02\0\0\0\0\1" + b"\x88\xb5" + b"says late"
            raw.send(frame)  # until the capture has noticed the interface
            content = Path(capturing.path).read_bytes() if Path(capturing.path).exists() else b""
            return b"says late" in content

        with left(lambda: raw_socket("late")) as raw:
            wait_until(sent, "a packet of the new interface")
        network.ip(network.left, "link", "del", "late")
        with left(lambda: udp("127.0.0.1")) as one:
            one.sendto(b"afterwards", one.getsockname())
        capturing.finish()
    packets = read(capturing.path)
    assert [p.payload for p in packets].count(b"afterwards") == 1
    seen = {(p.interface, p.outbound) for p in packets if p.frame.endswith(b"says late")}
    assert {("late", True), ("latepeer", False)} >= seen > set()
    assert set(interfaces(Path(capturing.path))) == {"lo", "vleft", "late", "latepeer"}
    assert sum(one["received"] for one in statistics(Path(capturing.path)).values()) == len(packets)


def test_an_interface_that_leaves_a_bridge_stays(capture, network):
    """The bridge tells of its port in the words in which the kernel tells of interfaces."""
    network.ip(network.left, "link", "add", "bridge", "type", "bridge")
    network.ip(network.left, "link", "set", "vleft", "master", "bridge")
    with network.holder(network.left) as pid, in_namespace(network.left) as left:
        capturing = capture("--netns", pid, "-i", "vleft", mode="pcap")
        network.ip(network.left, "link", "set", "vleft", "nomaster")
        network.ip(network.left, "link", "set", "vleft", "master", "bridge")
        network.ip(network.left, "link", "set", "vleft", "nomaster")
        with left(lambda: raw_socket("vleft")) as raw:
            raw.send(BROADCAST + b"\x02\0\0\0\0\1" + b"\x88\xb5" + b"still here")
        path = Path(capturing.path)
        wait_until(lambda: path.exists() and b"still here" in path.read_bytes(), "the packet")
        capturing.finish()
    assert [p.frame[14:] for p in read(path)].count(b"still here") == 1
    kinds = [kind for _at, kind, _length in blocks(path.read_bytes())]
    assert kinds.count(Block.INTERFACE) == 1
    assert not [line for line in capturing.errors.all() if "gone" in line]


def raw_socket(interface):
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHERNET_ALL))
    raw.bind((interface, 0))
    return raw


def test_a_tag_that_the_kernel_has_taken_out_is_put_back(capture, network):
    """The kernel takes tags out of frames that arrive, and keeps them beside (skb_vlan_untag)."""
    tag, rest = struct.pack(">HH", 0x8100, 3 << 13 | 77), b"\x88\xb5" + b"tagged and whole"
    frame = BROADCAST + b"\x02\0\0\0\0\1" + tag + rest
    with network.holder(network.right) as pid, in_namespace(network.left) as left:
        capturing = capture("--netns", pid, "-i", "vright", mode="pcap")
        short = capture("--netns", pid, "-i", "vright", "--snaplen", 18, mode="pcap")
        with left(lambda: raw_socket("vleft")) as raw:
            raw.send(frame)
        capturing.finish()
        short.finish()
    (packet,) = [p for p in read(capturing.path) if "vlan" in p.protocols]
    assert packet.frame == frame
    assert (packet.captured, packet.original) == (len(frame), len(frame))
    (cut,) = [p for p in read(short.path) if "vlan" in p.protocols]
    assert (cut.frame, cut.original) == (frame[:18], len(frame))


def test_super_packets_are_kept_whole(capture, network):
    said = os.urandom(400_000)
    with (
        network.holder(network.left) as pid,
        in_namespace(network.left) as left,
        in_namespace(network.right) as right,
    ):
        capturing = capture("--netns", pid, "-i", "vleft", mode="pcap")
        with (
            right(lambda: socket.create_server((RIGHT, 0))) as server,
            left(lambda: socket.create_connection(server.getsockname())) as client,
        ):
            accepted, _ = server.accept()
            with accepted, ThreadPoolExecutor(1) as thread:
                sending = thread.submit(client.sendall, said)
                got = b""
                while len(got) < len(said):
                    got += accepted.recv(1 << 20)
                sending.result()
            ports = client.getsockname()[1], server.getsockname()[1]
        capturing.finish()
    packets = [p for p in read(capturing.path) if p.source_port == ports[0]]
    assert b"".join(p.payload for p in packets) == said
    assert max(p.original for p in packets) > 1514, "no super-packet was sent"
    assert all(p.captured == p.original for p in packets)


@contextmanager
def tunnel(name):
    """A tun device (Documentation/networking/tuntap.rst) in the calling thread's namespace."""
    with Path("/dev/net/tun").open("r+b", buffering=0) as device:
        request = struct.pack("16sH22x", name.encode(), 0x1001)  # IFF_TUN | IFF_NO_PI
        fcntl.ioctl(device, 0x400454CA, request)  # TUNSETIFF
        yield device


@pytest.mark.skipif(not Path("/dev/net/tun").exists(), reason="needs the device /dev/net/tun")
def test_a_link_without_ethernet_has_its_own_type(capture, network):
    with network.holder(network.left) as pid, in_namespace(network.left) as left:
        stack = tunnel("ectun")
        left(stack.__enter__)
        network.ip(network.left, "addr", "add", "10.77.0.1/24", "dev", "ectun")
        network.ip(network.left, "link", "set", "ectun", "up")
        capturing = capture("--netns", pid, "-i", "ectun", "udp", "port", "7777", mode="pcap")
        with left(lambda: udp("10.77.0.1")) as one:
            one.sendto(b"raw", ("10.77.0.9", 7777))
            one.sendto(b"else", ("10.77.0.9", 7778))
        capturing.finish()
        stack.__exit__(None, None, None)
    (packet,) = read(capturing.path)
    assert packet.protocols == "raw:ip:udp:data"
    assert (packet.payload, packet.destination, packet.outbound) == (b"raw", "10.77.0.9", True)
    assert packet.owners == ((os.getpid(), packet.owners[0][1]),)


def test_what_finds_no_room_is_counted_to_the_packet(capture, network):
    with network.holder(network.left) as pid, in_namespace(network.left) as left:
        capturing = capture("--netns", pid, "-i", "lo", "--mapsize", "64k", mode="pcap")
        capturing.process.send_signal(signal.SIGSTOP)
        with left(lambda: udp("127.0.0.1")) as one:
            for number in range(1000):
                one.sendto(number.to_bytes(2, "big"), one.getsockname())
        capturing.process.send_signal(signal.SIGCONT)
        capturing.finish()
    packets = read(capturing.path)
    (told,) = statistics(Path(capturing.path)).values()
    summary = capturing.summary
    assert told["received"] == 1000
    assert 0 < told["dropped"] == 1000 - len(packets) == summary["packets_dropped"]
    assert summary["lost"] == summary["packets_dropped"]
    assert summary["packets"] == len(packets)
    # what there is, is whole and in order
    numbers = [int.from_bytes(p.payload, "big") for p in packets]
    assert numbers == sorted(set(numbers))


def test_every_file_of_a_rotation_ends_with_the_counts(capture, network, tmp_path):
    """Counts go on from file to file, as the format defines them; the last are those of all."""
    place = tmp_path / "files"
    place.mkdir()
    with network.holder(network.left) as pid, in_namespace(network.left) as left:
        options = ("--netns", pid, "-i", "lo", "-i", "vleft", "--eventrotatesize", 1)
        capturing = capture(*options, mode="pcap", output=place / "packets.pcapng")
        with left(lambda: udp("127.0.0.1")) as one:
            for number in range(400):
                one.sendto(numbered(number) + bytes(8000), one.getsockname())
                if number % 20 == 0:
                    wait_until(
                        lambda last=number: number_in_any(place, last), f"number {number} written"
                    )
        capturing.finish()
    # the one that is being written has the plain name
    files = sorted(place.iterdir(), key=lambda path: (path.name == "packets.pcapng", path.name))
    assert len(files) >= 3
    contents = [path.read_bytes() for path in files]
    assert all(len(content) <= 1 << 20 for content in contents)
    behind, received_before = 0, 0
    for path, content in zip(files, contents, strict=True):
        kinds = [kind for _at, kind, _length in blocks(content)]
        assert kinds[-2:] == [Block.STATISTICS] * 2
        assert kinds.count(Block.STATISTICS) == 2
        behind += kinds.count(Block.PACKET)
        told = statistics(path)
        received = told[0]["received"] + told[1]["received"]
        assert received - told[0]["dropped"] - told[1]["dropped"] >= behind
        assert received >= received_before
        received_before = received
        assert set(interfaces(path)) == {"lo", "vleft"}
    assert received_before == behind + capturing.summary["packets_dropped"]
    assert capturing.summary["packets_dropped"] == 0
    said = [p.payload[:4] for path in files for p in read(path) if p.interface == "lo"]
    assert said == [numbered(number) for number in range(400)]


def number_in_any(place, number):
    """Whether the packet of this number is in some file."""
    with suppress(FileNotFoundError):  # set aside this moment
        return any(numbered(number) in path.read_bytes() for path in place.iterdir())
    return False


def numbered(number):
    """The beginning of a payload that no other has."""
    return b"#" + number.to_bytes(2, "big") + b"#"


def test_many_interfaces_end_at_the_same_moment(capture, network):
    """What was captured is told before the programs are taken out of every interface."""
    names = [f"many{number}" for number in range(20)]
    for name in names:
        network.ip(network.left, "link", "add", name, "type", "veth", "peer", "name", f"{name}p")
    with network.holder(network.left) as pid, in_namespace(network.left) as left:
        capturing = capture("--netns", pid, mode="pcap")
        assert "42 interfaces" in capturing.ready
        if TCX:
            assert [left(lambda name=name: programs_at(name)) for name in names] == [2] * 20
        with left(lambda: udp("127.0.0.1")) as one:
            one.sendto(b"once", one.getsockname())
        capturing.finish()
        assert [left(lambda name=name: programs_at(name)) for name in names] == [0] * 20
    assert [p.payload for p in read(capturing.path) if p.interface == "lo"] == [b"once"]
    assert len(statistics(Path(capturing.path))) == 42
    assert ("42 interfaces: the kernel takes" in capturing.stderr) == TCX


def test_a_killed_capture_leaves_a_file_and_nothing_else(capture, network):
    with network.holder(network.left) as pid, in_namespace(network.left) as left:
        capturing = capture("--netns", pid, "-i", "lo", mode="pcap")
        with left(lambda: udp("127.0.0.1")) as one:
            one.sendto(b"before", one.getsockname())
            wait_until(lambda: b"before" in capturing.path.read_bytes(), "the packet")
            assert left(lambda: programs_at("lo")) == TCX
            capturing.process.kill()
            capturing.process.wait()
            assert left(lambda: programs_at("lo")) == 0
            one.sendto(b"after", one.getsockname())
    assert [p.payload for p in read(capturing.path)] == [b"before"]


def test_our_own_packets_are_not_captured(capture, network):
    received = subprocess.Popen([sys.executable, "-c", RECEIVER], stdout=subprocess.PIPE, text=True)
    port = int(received.stdout.readline())
    capturing = capture("-i", "lo", "--eventaddr", f"tcp://127.0.0.1:{port}", mode="pcap")
    with udp("127.0.0.1") as one:
        one.sendto(b"somebody", one.getsockname())
        capturing.wait_written(300)
    capturing.finish()
    received.communicate()
    packets = read(capturing.path)
    assert [p for p in packets if port in (p.source_port, p.destination_port)] == []
    assert b"somebody" in [p.payload for p in packets]


RECEIVER = """
import socket
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
connection, _ = server.accept()
while connection.recv(65536):
    pass
"""
