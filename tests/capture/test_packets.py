# SPDX-License-Identifier: Apache-2.0
"""Packets on loopback and on a veth pair: each once, in order, with their time, ends and owners."""

import os
import socket
import time

import pytest
from harness import CAPTURES

from packets import CAPTURES_PACKETS, read

pytestmark = [CAPTURES, CAPTURES_PACKETS]


def exchange(family=socket.AF_INET, address="127.0.0.1", size=3000):
    """A TCP connection within this process: (client's port, server's port, what was said)."""
    said = os.urandom(size)
    with socket.create_server((address, 0), family=family) as server:
        with socket.create_connection(server.getsockname()[:2]) as client:
            port = client.getsockname()[1]
            accepted, _ = server.accept()
            with accepted:
                client.sendall(said)
                got = b""
                while len(got) < size:
                    got += accepted.recv(size)
        assert got == said
        return port, server.getsockname()[1], said


@pytest.mark.parametrize(
    ("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
def test_a_connection_is_there_whole_and_once(capture, family, address):
    before = time.time_ns()
    capturing = capture("-i", "lo", mode="pcap")
    client, server, said = exchange(family, address)
    capturing.finish()
    after = time.time_ns()
    packets = [
        p for p in read(capturing.path) if {p.source_port, p.destination_port} == {client, server}
    ]
    sent = b"".join(p.payload for p in packets if p.source_port == client)
    assert sent == said
    assert [p.flags for p in packets[:3]] == ["S", "AS", "A"]
    assert sum("S" in p.flags for p in packets) == 2
    assert sum("F" in p.flags for p in packets) == 2
    assert {(p.source, p.destination, p.interface) for p in packets} == {(address, address, "lo")}
    assert all(p.captured == p.original == len(p.frame) for p in packets)
    times = [p.time_ns for p in packets]
    assert times == sorted(times)
    assert before < times[0] < times[-1] < after
    assert capturing.summary["lost"] == 0
