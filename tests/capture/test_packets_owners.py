# SPDX-License-Identifier: Apache-2.0
"""Whose each packet is: from the first of a connection to the last, also after sockets move."""

import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from harness import CAPTURES

from ecapture.formats.pcapng import Block, blocks, options_of, process_of
from ecapture.kernel.owners import cgroup_root
from packets import CAPTURES_PACKETS, Network, in_namespace, read

pytestmark = [CAPTURES, CAPTURES_PACKETS]
TALKER = Path(__file__).parent / "programs" / "talker.py"


class Talker:
    """tests/capture/programs/talker.py, running."""

    def __init__(self, stack, name):
        self.name = name
        self._process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, TALKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        )
        stack.callback(self._process.stdin.close)
        self.pid = self._process.pid
        self("name", name)

    def __call__(self, *words):
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    @property
    def owner(self):
        return self.pid, self.name


@pytest.fixture
def talker():
    with ExitStack() as stack:
        yield lambda name: Talker(stack, name)


def between(path, *ports):
    """The packets between two ports, in order."""
    return [p for p in read(path) if {p.source_port, p.destination_port} == set(ports)]


def test_every_packet_of_a_new_connection_has_both_its_processes(capture, talker):
    capturing = capture("-i", "lo", mode="pcap")
    server, client = talker("ec-server"), talker("ec-client")
    port = int(server("listen", 0))
    own = int(client("connect", port))
    server("accept")
    client("say", "hello")
    assert server("hear") == "hello"
    client("close")
    server("close")
    capturing.finish()
    packets = between(capturing.path, port, own)
    assert [p.payload for p in packets if p.payload] == [b"hello"]
    # the handshake before anybody has accepted, and the last acknowledgement, are of somebody, too
    assert len(packets) >= 8
    for packet in packets:
        sender = client if packet.source_port == own else server
        receiver = server if sender is client else client
        assert packet.owners == (sender.owner, receiver.owner), packet
        assert packet.outbound


@pytest.mark.needs("sock_from_file")
def test_connections_that_are_older_than_the_capture_have_their_processes(capture, talker):
    server, client = talker("old-server"), talker("old-client")
    port = int(server("listen", 0))
    own = int(client("connect", port))
    server("accept")
    capturing = capture("-i", "lo", mode="pcap")
    client("say", "late")
    server("hear")
    capturing.finish()
    packets = between(capturing.path, port, own)
    assert packets[0].payload == b"late"
    assert packets[0].owners == (client.owner, server.owner)
    assert packets[1].owners == (server.owner, client.owner)


@pytest.mark.needs("tp_btf:sock_send_length")
def test_a_socket_that_another_process_uses_becomes_its_own(capture, talker):
    capturing = capture("-i", "lo", mode="pcap")
    server, client = talker("parent"), talker("caller")
    port = int(server("listen", 0))
    own = int(client("connect", port))
    server("accept")
    client("say", "one")
    child, heard = server("child", "hear").split()
    assert heard == "one"
    client("say", "two")
    assert server("hear") == "two"
    client("say", "three")
    server("hear")
    capturing.finish()
    said = {p.payload: p.owners for p in between(capturing.path, port, own) if p.payload}
    assert said[b"one"] == (client.owner, server.owner)
    assert said[b"two"] == (client.owner, (int(child), "parent"))
    assert said[b"three"] == (client.owner, server.owner)


def test_processes_are_known_where_no_cgroups_are_mounted(capture):
    """As below ``ip netns exec``, which mounts a /sys of its own."""
    with Network() as network:
        capturing = capture("-i", "lo", mode="pcap", prefix=network.inside(network.left))
        with in_namespace(network.left) as left, left(on_loopback) as one:
            one.sendto(b"known", one.getsockname())
        capturing.finish()
    (packet,) = read(capturing.path)
    assert [pid for pid, _comm in packet.owners] == [os.getpid()] * 2


def on_loopback():
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.bind(("127.0.0.1", 0))
    return one


def test_datagrams_have_their_processes(capture, talker):
    capturing = capture("-i", "lo", mode="pcap")
    one, other = talker("one"), talker("other")
    first, second = int(one("udp")), int(other("udp"))
    one("send", second, "ping")
    assert other("receive") == "ping"
    other("send", first, "pong")
    assert one("receive") == "pong"
    capturing.finish()
    packets = between(capturing.path, first, second)
    assert [(p.payload, p.owners) for p in packets] == [
        (b"ping", (one.owner, other.owner)),
        (b"pong", (other.owner, one.owner)),
    ]


def test_an_owner_option_tells_tools_the_same(capture, talker):
    capturing = capture("-i", "lo", mode="pcap")
    one = talker("odd\x01n\xe4me".encode().decode("latin-1")[:8])
    port = int(one("udp"))
    one("send", port, "self")
    capturing.finish()
    content = Path(capturing.path).read_bytes()
    found = []
    for at, kind, length in blocks(content):
        captured = int.from_bytes(content[at + 20 : at + 24], "little")
        if kind == Block.PACKET and b"self" in content[at : at + length]:
            options = options_of(content, at + 28 + (captured + 3) // 4 * 4, at + length - 4)
            found.append(process_of(options))
    assert [(pid, uid) for pid, uid, _comm in found] == [(one.pid, os.getuid())]
    assert [p.owners[0][0] for p in between(capturing.path, port)] == [one.pid]


@pytest.mark.parametrize("option", ["--pid", "--comm"])
def test_a_scope_keeps_the_packets_of_its_processes_only(capture, talker, option):
    wanted, other = talker("wanted"), talker("unwanted")
    named = wanted.pid if option == "--pid" else wanted.name
    capturing = capture("-i", "lo", option, named, mode="pcap")
    ports = int(wanted("listen", 0)), int(other("listen", 0))
    for who, port in ((wanted, ports[0]), (other, ports[1])):
        peer = talker("peer")
        peer("connect", port)
        who("accept")
        peer("say", who.name)
        assert who("hear") == who.name
    capturing.finish()
    packets = read(capturing.path)
    assert {p.source_port for p in packets} | {p.destination_port for p in packets} >= {ports[0]}
    assert all(ports[0] in (p.source_port, p.destination_port) for p in packets)
    assert [p.flags for p in packets[:3]] == ["S", "AS", "A"]
    assert [p.payload for p in packets if p.payload] == [b"wanted"]


def said_by(path):
    return sorted(p.payload for p in read(path) if "icmp" not in p.protocols)


def test_users_are_told_apart(capture, talker):
    wanted, other = talker("wanted"), talker("unwanted")
    wanted("user", 65534)
    capturing = capture("-i", "lo", "--uid", 65534, mode="pcap")
    for who in (wanted, other):
        who("send", who("udp"), who.name)
    capturing.finish()
    assert said_by(capturing.path) == [b"wanted"]


@pytest.mark.needs("sock_from_file")
def test_cgroups_are_told_apart_by_new_sockets_and_by_old_ones(capture, talker):
    folder = cgroup_root() / f"ecapture-test-{os.getpid()}"
    below = folder / "below"
    below.mkdir(parents=True)
    try:
        old, new, other = talker("old"), talker("new"), talker("unwanted")
        old("join", below)
        new("join", below)
        port = old("udp")
        capturing = capture("-i", "lo", "--cgroup_path", folder, mode="pcap")
        old("send", port, "old")
        for who in (new, other):
            who("send", who("udp"), who.name)
        capturing.finish()
        for who in (old, new):
            who("join", cgroup_root())
    finally:
        below.rmdir()
        folder.rmdir()
    assert said_by(capturing.path) == [b"new", b"old"]


def test_a_command_has_its_own_packets_and_those_of_its_descendants_only(capture, talker):
    other = talker("other")
    port = int(other("udp"))
    script = f"import socket; s = socket.socket(2, 2); s.sendto(b'mine', ('127.0.0.1', {port}))"
    words = ["sh", "-c", f'{sys.executable} -c "{script}"; true']
    capturing = capture("-i", "lo", mode="pcap", command=words)
    other("send", other("udp"), "notmine")
    capturing.finish(number=None)
    packets = read(capturing.path)
    assert [p.payload for p in packets] == [b"mine"]
    assert packets[0].owners[0][1].startswith("python")


def test_names_are_captured_beside_a_scope_if_asked(capture, talker):
    wanted, other = talker("wanted"), talker("resolver")
    script = (
        "import socket; s = socket.socket(2, 2); s.sendto(b'question', ('127.0.0.1', 53));"
        "s.sendto(b'else', ('127.0.0.1', 9))"
    )
    capturing = capture("-i", "lo", "--pid", wanted.pid, "--with-dns", mode="pcap")
    subprocess.run([sys.executable, "-c", script], check=True)
    wanted("send", wanted("udp"), "mine")
    capturing.finish()
    del other
    payloads = [p.payload for p in read(capturing.path) if p.payload and "icmp" not in p.protocols]
    assert b"else" not in payloads
    assert payloads[-1] == b"mine"
    assert len(payloads) == 2
