# SPDX-License-Identifier: Apache-2.0
"""Filter expressions in the kernel let through what libpcap lets through, and bad ones nothing.

Judge is libpcap's own interpreter, over the frames that a capture without a filter has of the same
traffic. Live, the kernel has taken the VLAN tag out of a frame, so an expression that does not say
``vlan`` sees what is behind it, as in tcpdump; the judge is given the frame without its tag then.
"""

import ctypes
import socket
import struct
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from harness import CAPTURES, run_ecapture

from ecapture.kernel import expression as compiled_by
from packets import CAPTURES_PACKETS, Network, in_namespace, interfaces, read

pytestmark = [CAPTURES, CAPTURES_PACKETS]
LEFT, RIGHT = "10.99.0.1", "10.99.0.2"
EXPRESSIONS = [
    "udp dst port 7001",
    "tcp or arp",
    "ip host 10.99.0.2 and (udp portrange 7002-7003 or ip[8] > 200)",
    "ip6 and not icmp6",
    "udp[8:4] = 0xfeedface and len > 60",
    "vlan 77 and udp port 7001",
]


class Head(ctypes.Structure):
    """struct pcap_pkthdr"""

    _fields_ = (("time", ctypes.c_long * 2), ("captured", ctypes.c_uint), ("length", ctypes.c_uint))


def judged(expression, frames):
    """The frames that libpcap itself would keep, read from a file."""
    library = compiled_by._library()
    handle = ctypes.c_void_p(library.pcap_open_dead(1, 262144))
    program = compiled_by._Program()
    assert not library.pcap_compile(
        handle, ctypes.byref(program), expression.encode(), 1, 0xFFFFFFFF
    )

    def wanted(frame):
        if frame[12:14] == b"\x81\x00" and "vlan" not in expression:
            frame = frame[:12] + frame[16:]
        head = Head((0, 0), len(frame), len(frame))
        return library.pcap_offline_filter(ctypes.byref(program), ctypes.byref(head), frame)

    kept = [frame for frame in frames if wanted(frame)]
    library.pcap_freecode(ctypes.byref(program))
    library.pcap_close(handle)
    return kept


def talk(peer_raw):
    """Frames of many kinds, from the left side."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for port in range(7000, 7005):
            for payload in (b"", b"x", b"\xfe\xed\xfa\xce", b"\xfe\xed\xfa\xce" + bytes(90)):
                sender.sendto(payload, (RIGHT, port))
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 255)
        sender.sendto(b"far", (RIGHT, 9))
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"six", ("fd99::2", 7001))
    with socket.socket() as client:
        client.connect_ex((RIGHT, 7001))  # refused: SYN and RST
    head = b"\xff" * 6 + b"\x02\0\0\0\0\1"
    ipv4 = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 30, 1, 0, 9, 17, 0, bytes(4), bytes(4))
    udp = struct.pack(">HHHH", 5, 7001, 10, 0) + b"in"
    for tag in (77, 78):
        peer_raw.send(head + struct.pack(">HHH", 0x8100, tag, 0x0800) + ipv4 + udp)
    peer_raw.send(head + b"\x08\x00" + ipv4[:11])  # ends within the header


def test_the_kernel_lets_through_what_libpcap_does(capture):
    with ExitStack() as stack:
        network = stack.enter_context(Network())
        pid = stack.enter_context(network.holder(network.right))
        left = stack.enter_context(in_namespace(network.left))
        words = ("--netns", pid, "-i", "vright")
        whole = capture(*words, mode="pcap")
        filtered = {one: capture(*words, *one.split(), mode="pcap") for one in EXPRESSIONS}

        def run():
            raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            raw.bind(("vleft", 0))
            with raw:
                talk(raw)

        start = time.time_ns()
        left(run)
        end = time.time_ns()
        for capturing in (whole, *filtered.values()):
            capturing.finish()
    # what the interfaces themselves say before and after is not seen by all captures
    frames = [p.frame for p in read(whole.path) if start <= p.time_ns <= end]
    assert len(frames) > 25
    for expression, capturing in filtered.items():
        kept = [p.frame for p in read(capturing.path) if start <= p.time_ns <= end]
        assert kept == judged(expression, frames), expression
        assert kept, expression
        assert capturing.summary["lost"] == 0


def test_directions_are_known_to_filters(capture):
    with Network() as network, network.holder(network.left) as pid:
        ways = {
            way: capture("--netns", pid, "-i", "vleft", way, mode="pcap")
            for way in ("inbound", "outbound")
        }
        with in_namespace(network.left) as left:
            left(lambda: socket.socket().connect_ex((RIGHT, 9)))
        for capturing in ways.values():
            capturing.finish()
    flags = {way: [p.flags for p in read(c.path) if p.flags] for way, c in ways.items()}
    assert flags == {"inbound": ["AR"], "outbound": ["S"]}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("tcp", "prot"), "syntax error"),
        (("host", "300.1.2.3.4.5"), "300.1.2.3.4.5"),
        (("ip[0]", "=", "5", "and", "arp"), "expression rejects all packets"),
        (("vpi", "5"), "ATM"),
    ],
)
def test_a_bad_expression_is_refused_with_the_words_of_libpcap(tmp_path, words, said):
    output = tmp_path / "kept.pcapng"
    output.write_bytes(b"as it was")
    done = run_ecapture("tls", "-m", "pcap", "-i", "lo", "-w", output, *words)
    assert done.returncode == 2
    assert said in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert b"ready:" not in done.stderr
    assert output.read_bytes() == b"as it was"


def test_an_expression_for_another_link_type_is_refused_or_leaves_the_interface_out(
    capture, tmp_path
):
    with Network() as network, network.holder(network.left) as pid:
        network.ip(network.left, "tuntap", "add", "ectun", "mode", "tun")
        words = ("tls", "-m", "pcap", "--netns", pid, "-w", tmp_path / "x.pcapng")
        refused = run_ecapture(*words, "-i", "ectun", "ether", "host", "1:2:3:4:5:6")
        capturing = capture("--netns", pid, "ether", "broadcast", mode="pcap")
        with in_namespace(network.left) as left:
            left(lambda: socket.socket().connect_ex((RIGHT, 9)))  # asks by ARP who that is
        capturing.finish()
    assert refused.returncode == 2
    assert b"ethernet" in refused.stderr
    assert b"ready:" not in refused.stderr
    assert "ectun: its packets are not captured" in capturing.stderr
    assert {p.interface for p in read(capturing.path)} == {"vleft"}
    assert set(interfaces(Path(capturing.path))) == {"lo", "vleft"}


def test_filters_belong_to_packets():
    done = run_ecapture("tls", "tcp", "port", "443")
    assert done.returncode == 2
    assert b"-m pcap" in done.stderr
    assert run_ecapture("tls", "-i", "lo").returncode == 2


def test_a_filter_and_a_scope_both_hold(capture, tmp_path):
    script = tmp_path / "sends.py"
    script.write_text(
        "import socket; s = socket.socket(2, 2)\n"
        "[s.sendto(b'hi', ('127.0.0.1', port)) for port in (7001, 7002)]\n"
    )
    words = [sys.executable, script]
    capturing = capture("-i", "lo", "udp", "port", "7001", mode="pcap", command=words)
    subprocess.run(words, check=True)  # not the one that is watched
    capturing.finish(number=None)
    packets = [p for p in read(Path(capturing.path)) if "icmp" not in p.protocols]
    assert [(p.payload, p.destination_port) for p in packets] == [(b"hi", 7001)]
