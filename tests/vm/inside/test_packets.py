# SPDX-License-Identifier: Apache-2.0
"""Packets on this kernel: whole, once, with their processes, through a filter; nothing is left."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "capture"))

from harness import CAPTURES, Captured

from packets import CAPTURES_PACKETS, Network, in_namespace, read

pytestmark = [CAPTURES, CAPTURES_PACKETS]
LEFT, RIGHT = "10.99.0.1", "10.99.0.2"


@pytest.fixture
def network():
    with Network() as made:
        yield made


def udp(address):
    bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    bound.bind((address, 0))
    return bound


def test_packets_pass_the_filter_with_their_owner_and_nothing_is_left(tmp_path, network):
    with (
        network.holder(network.left) as pid,
        in_namespace(network.left) as left,
        in_namespace(network.right) as right,
        right(lambda: udp(RIGHT)) as other,
        Captured(tmp_path, "--netns", pid, "-i", "vleft", "udp", mode="pcap") as run,
    ):
        with left(lambda: udp(LEFT)) as one:
            one.sendto(b"there" + bytes(900), other.getsockname())
            other.sendto(b"back", other.recvfrom(1000)[1])
            assert one.recv(100) == b"back"
        run.finish()
        qdiscs = subprocess.run(
            [*network.inside(network.left), "tc", "qdisc", "show"], capture_output=True, check=True
        )
    packets = read(Path(run.path))
    assert [(p.payload.rstrip(b"\0"), p.outbound) for p in packets] == [
        (b"there", True),
        (b"back", False),
    ]
    assert [[pid for pid, _comm in p.owners] for p in packets] == [[os.getpid()]] * 2
    assert b"clsact" not in qdiscs.stdout
