# SPDX-License-Identifier: Apache-2.0
"""Packets that are anything, names that are anything, interfaces and disks that go away."""

import os
import random
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from dissect import facts
from harness import CAPTURES, DEADLINE, ECAPTURE, Lines, environment, wait_until
from servers import running

from ecapture.formats.pcapng import Block, Code, blocks, options_of, process_of
from ecapture.kernel.feature import feature
from packets import CAPTURES_PACKETS, Network, in_namespace, interfaces, programs_at, read

pytestmark = [CAPTURES, CAPTURES_PACKETS]
TCX = bool(feature("tcx"))
OURS = b"\x02ecap\0"  # a source address that nobody else has
ETHERTYPE = b"\x88\xb5"  # for experiments (IEEE 802)


@pytest.fixture
def network():
    with Network() as made:
        yield made


@pytest.fixture
def left(network):
    """Runs something in the left namespace."""
    with in_namespace(network.left) as call:
        yield call


def frames_of(path):
    """Frames that we sent, by our own reading: what is in them, no dissector has to endure."""
    content = Path(path).read_bytes()
    found = []
    for at, kind, _length in blocks(content):
        if kind == Block.PACKET:
            captured = int.from_bytes(content[at + 20 : at + 24], "little")
            frame = content[at + 28 : at + 28 + captured]
            if frame[6:12] == OURS:
                found.append(frame)
    return found


@contextmanager
def raw_socket(left, interface):
    def made():
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        raw.bind((interface, 0))
        return raw

    with left(made) as raw:
        yield raw


def hostile(chance):
    """The beginning of something that is looked into, with wrong lengths, and cut anywhere."""
    hello = b"\x16\3\1\xff\xff\1\xff\xff\xff\3\3" + bytes(32) + b"\xff" + chance.randbytes(40)
    initial = b"\xc0\0\0\0\1\x08" + chance.randbytes(8) + b"\0\0\x44\x9e" + bytes(1100)
    early = b"\xd0\0\0\0\1\xff" + chance.randbytes(60)
    transport = {
        6: chance.randbytes(12) + bytes([chance.choice((0x50, 0xF0, 0x10)), 0x18]) + bytes(6),
        17: chance.randbytes(4) + b"\xff\xff\0\0",
        chance.randrange(256): chance.randbytes(chance.randrange(9)),
    }
    protocol = chance.choice(list(transport))
    payload = chance.choice((hello, initial, early, chance.randbytes(chance.randrange(60))))
    rest = transport[protocol] + payload
    length = chance.choice((len(rest) + 20, 0, 7, 0xFFFF)).to_bytes(2, "big")
    v4 = bytes([chance.choice((0x45, 0x4F, 0x40))]) + b"\0" + length + bytes(4)
    v4 += b"\x40" + bytes([protocol]) + bytes(2) + chance.randbytes(8)
    v6 = b"\x60\0\0\0" + length + bytes([chance.choice((protocol, 0, 43, 44, 60, 41))])
    v6 += b"\x40" + chance.randbytes(32)
    network = chance.choice((b"\x08\0" + v4, b"\x86\xdd" + v6))
    for _ in range(chance.choice((0, 0, 1, 9))):
        network = chance.choice((b"\x81\0\0\1", b"\x88\xa8\0\2")) + network
    frame = bytes.fromhex("ffffffffffff") + OURS + network + rest
    return frame[: chance.choice((1514, 1514, chance.randrange(14, 200)))]


def test_what_is_in_packets_does_no_harm(capture, network, left):
    """Each comes out as it went in, once and in order, whatever it pretends to be."""
    chance = random.Random(4)
    sent = [hostile(chance) for _ in range(3000)]
    with network.holder(network.left) as pid, raw_socket(left, "vleft") as raw:
        capturing = capture("--netns", pid, "-i", "vleft", mode="pcap")
        for frame in sent:
            raw.send(frame)
        capturing.finish()
    assert frames_of(capturing.path) == sent
    assert capturing.summary["packets_dropped"] == 0
    assert facts(Path(capturing.path))["Number of interfaces in file"] == "1"


NAMED = """
import ctypes, socket, sys
assert ctypes.CDLL(None).prctl(15, bytes.fromhex(sys.argv[1])) == 0  # PR_SET_NAME
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
    one.bind(("127.0.0.1", 0))
    one.sendto(b"named", one.getsockname())
"""


@pytest.mark.parametrize("name", [b"\xff\xfe(\x1b[31m", b"a\n),pid 1 (b", "ü".encode() * 7])
def test_what_processes_call_themselves_does_no_harm(capture, network, name):
    """Comments are UTF-8 of one line; the option for tools has the name as it is."""
    with network.holder(network.left) as pid:
        capturing = capture("--netns", pid, "-i", "lo", mode="pcap")
        words = [*network.inside(network.left), sys.executable, "-c", NAMED, name.hex()]
        subprocess.run(words, check=True)
        capturing.finish()
    content = Path(capturing.path).read_bytes()
    [packet] = [(at, length) for at, kind, length in blocks(content) if kind == Block.PACKET]
    at, length = packet
    captured = int.from_bytes(content[at + 20 : at + 24], "little")
    options = options_of(content, at + 28 + (captured + 3 & ~3), at + length - 4)
    comments = [value.decode() for code, value in options if code == Code.COMMENT]
    assert comments
    assert all(comment.isprintable() for comment in comments)
    assert process_of(options)[2] == name.decode("utf-8", "backslashreplace")
    assert [p.payload for p in read(Path(capturing.path))] == [b"named"]


def test_an_interface_that_was_asked_for_may_vanish_and_come_back(capture, network, left):
    """This is said, other interfaces go on, and the same name is captured again."""
    rest = ["type", "veth", "peer", "name", "gonepeer"]

    def appear():
        network.ip(network.left, "link", "add", "gone", *rest)
        for name in ("gone", "gonepeer"):
            network.ip(network.left, "link", "set", name, "up")

    def send(interface, word):
        with raw_socket(left, interface) as raw:
            raw.send(bytes.fromhex("ffffffffffff") + OURS + ETHERTYPE + word)

    def known():
        return word_in(capturing.path, b"again") or send("gone", b"again")

    appear()
    with network.holder(network.left) as pid:
        options = ("--netns", pid, "-i", "gone", "-i", "vleft")
        capturing = capture(*options, mode="pcap")
        send("gone", b"before")
        network.ip(network.left, "link", "del", "gone")
        told = lambda line: "gone: the interface is gone" in line  # noqa: E731
        capturing.errors.wait_for(told, "word of it")
        send("vleft", b"meanwhile")
        appear()
        wait_until(known, "a packet of the interface that came back")
        capturing.finish()
    said = [frame[14:] for frame in frames_of(capturing.path)]
    assert said[:2] == [b"before", b"meanwhile"]
    assert set(said[2:]) == {b"again"}
    assert set(interfaces(Path(capturing.path))) == {"gone", "vleft"}
    assert facts(Path(capturing.path))["Number of interfaces in file"] == "3"


@pytest.mark.skipif(not TCX, reason="needs tcx, which makes starting slow")
def test_a_capture_that_is_interrupted_while_it_starts_leaves_nothing(network, left, tmp_path):
    """Of many interfaces some have programs by then, of which the rest is not waited for."""
    names = [f"many{number}" for number in range(30)]
    for name in names:
        network.ip(network.left, "link", "add", name, "type", "veth", "peer", "name", f"{name}p")
    with network.holder(network.left) as pid:
        words = [ECAPTURE, "tls", "-m", "pcap", "--netns", pid, "-w", tmp_path / "x.pcapng"]
        with running(*words, stdin=None, stderr=subprocess.PIPE, env=environment({})) as starting:
            said = Lines(starting.stderr)
            said.wait_for(lambda line: "62 interfaces" in line, "how many interfaces there are")
            starting.send_signal(signal.SIGINT)
            assert starting.wait(DEADLINE) == 130
        assert left(lambda: sum(map(programs_at, names))) == 0
    assert not [line for line in said.all() if line.startswith(("ready", "Traceback"))]


def word_in(path, word):
    path = Path(path)
    return path.exists() and word in path.read_bytes()


def numbered(raw, count, stop=None, first=0):
    """Frames of a kilobyte, numbered; ``stop`` is an event that ends it before."""
    head = bytes.fromhex("ffffffffffff") + OURS + ETHERTYPE
    for number in range(first, first + count):
        if stop is not None and stop.is_set():
            return
        raw.send(head + number.to_bytes(4, "big") + bytes(1000))


def numbers_of(path):
    return [int.from_bytes(frame[14:18], "big") for frame in frames_of(path)]


@pytest.fixture
def tiny_disk(tmp_path):
    place = tmp_path / "tiny"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1536k", "none", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("options", [(), ("--eventrotatesize", 1)], ids=["one file", "rotated"])
def test_a_full_disk_ends_the_capture_with_what_fitted(capture, network, left, tiny_disk, options):
    """All but the batch that found no room; every file ends with a whole block."""
    output = tiny_disk / "packets.pcapng"
    with network.holder(network.left) as pid, raw_socket(left, "vleft") as raw:
        words = ("--netns", pid, "-i", "vleft", *options)
        capturing = capture(*words, mode="pcap", output=output)
        for first in range(0, 1100, 100):
            numbered(raw, 100, first=first)
            wait_until(
                lambda least=(first + 100) * 1018: size_of(tiny_disk) >= least, "these written"
            )
        numbered(raw, 4000, first=1100)
        capturing.finish(None, status=6)
        assert left(lambda: programs_at("vleft")) == 0
    assert "No space left on device" in capturing.stderr
    assert str(output) in capturing.stderr
    files = sorted(tiny_disk.iterdir(), key=lambda path: (path == output, path.name))
    assert (len(files) > 1) == bool(options)
    numbers = [number for path in files for number in numbers_of(path)]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) >= 1100
    for content in (path.read_bytes() for path in files):
        assert sum(length for _at, _kind, length in blocks(content)) == len(content)


def size_of(folder):
    """Bytes of all files in it."""
    with suppress(FileNotFoundError):  # set aside this moment
        return sum(path.stat().st_size for path in folder.iterdir())
    return 0


def test_a_reader_that_goes_away_is_no_failure(capture, network, left):
    with network.holder(network.left) as pid, raw_socket(left, "vleft") as raw:
        options = ("--netns", pid, "-i", "vleft")
        capturing = capture(*options, mode="pcap", output="-")
        numbered(raw, 1)
        assert os.read(capturing.process.stdout.fileno(), 4) == b"\x0a\x0d\x0d\x0a"
        capturing.process.stdout.close()
        numbered(raw, 200)
        capturing.finish(None)
        assert left(lambda: programs_at("vleft")) == 0


def test_a_capture_that_is_killed_in_a_flood_leaves_what_was_flushed(capture, network, left):
    """All packets from the first one on, none left out, and no program at the interface."""
    stop = threading.Event()
    with network.holder(network.left) as pid, raw_socket(left, "vleft") as raw:
        capturing = capture("--netns", pid, "-i", "vleft", "--snaplen", 128, mode="pcap")
        assert left(lambda: programs_at("vleft")) == 2 * TCX
        sending = threading.Thread(target=numbered, args=(raw, 10_000_000, stop))
        sending.start()
        try:
            wait_until(lambda: Path(capturing.path).stat().st_size > 300_000, "some of them")
            capturing.process.send_signal(signal.SIGKILL)
            capturing.process.wait()
            assert left(lambda: programs_at("vleft")) == 0
        finally:
            stop.set()
            sending.join()
    numbers = numbers_of(capturing.path)
    assert numbers == list(range(len(numbers)))
    assert len(numbers) > 1000
    names = ["-T", "fields", "-e", "frame.number", "-Y", "eth.type == 0x88b5"]
    words = ["tshark", "-n", "-r", capturing.path, *names]
    shown = subprocess.run(words, capture_output=True, text=True, check=False)
    # of a packet that was being written it says that the file was cut short there
    assert len(shown.stdout.splitlines()) == len(numbers), shown.stderr
