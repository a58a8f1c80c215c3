# SPDX-License-Identifier: Apache-2.0
"""Kernels without tcx links: the same packets by clsact filters, and nothing left on interfaces."""

import re
import signal
import socket
import subprocess

import pytest
from harness import CAPTURES

from packets import CAPTURES_PACKETS, Network, in_namespace, read

pytestmark = [CAPTURES, CAPTURES_PACKETS, pytest.mark.needs("program:tc")]
OLD = {"ECAPTURE_WITHOUT": "tcx"}
RIGHT = "10.99.0.2"


def on_loopback():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        one.sendto(b"lo", one.getsockname())


@pytest.fixture
def network():
    with Network() as made:
        yield made


@pytest.fixture
def left(network):
    with in_namespace(network.left) as call:
        yield call


def tc(network, *words):
    """What tc says in the left namespace."""
    done = subprocess.run(
        [*network.inside(network.left), "tc", *words], check=True, capture_output=True, text=True
    )
    return done.stdout


def filters(network):
    """Names of all filters at the left side's interface, in the order in which they run."""
    told = tc(network, "filter", "show", "dev", "vleft", "ingress")
    told += tc(network, "filter", "show", "dev", "vleft", "egress")
    return re.findall(r"handle \S+ (.*?) (?:direct-action|not_in_hw|flowid|id \d)", told)


def connect():
    with socket.socket() as client:
        client.connect_ex((RIGHT, 9))  # refused: SYN and RST


def test_packets_are_the_same_and_nothing_is_left(capture, network, left):
    with network.holder(network.left) as pid:
        capturing = capture("--netns", pid, mode="pcap", env=OLD)
        assert len(filters(network)) == 2
        left(connect)
        left(on_loopback)
        capturing.finish()
    packets = read(capturing.path)
    said = [(p.interface, p.flags, p.outbound) for p in packets if p.flags]
    assert said == [("vleft", "S", True), ("vleft", "AR", False)]
    assert [p.interface for p in packets if p.payload == b"lo"] == ["lo"]
    assert "clsact" not in tc(network, "qdisc", "show")


def test_what_a_killed_capture_left_is_removed_and_others_stay(capture, network, left):
    with network.holder(network.left) as pid:
        killed = capture("--netns", pid, "-i", "vleft", mode="pcap", env=OLD)
        killed.process.send_signal(signal.SIGKILL)
        killed.process.wait()
        assert len(filters(network)) == 2
        # somebody else's, placed meanwhile, which ends the chain
        # fmt: off
        tc(network, "filter", "add", "dev", "vleft", "egress", "prio", "1", "bpf", "bytecode",
           "1,6 0 0 0", "flowid", "1:1")
        # fmt: on
        beside = capture("--netns", pid, "-i", "vleft", mode="pcap", env=OLD)
        assert any(str(beside.process.pid) in name for name in filters(network))
        assert not any(str(killed.process.pid) in name for name in filters(network))
        last = capture("--netns", pid, "-i", "vleft", mode="pcap", env=OLD)
        # a capture that lives keeps its filters
        assert sum(str(beside.process.pid) in name for name in filters(network)) == 2
        left(connect)
        last.finish()
        beside.finish()
        for capturing in (beside, last):
            assert [p.flags for p in read(capturing.path) if p.flags] == ["S", "AR"]
        assert len(filters(network)) == 1
        assert "clsact" in tc(network, "qdisc", "show")


def test_a_qdisc_that_was_there_before_stays(capture, network):
    tc(network, "qdisc", "add", "dev", "vleft", "clsact")
    with network.holder(network.left) as pid:
        for finish in (True, False):
            capturing = capture("--netns", pid, "-i", "vleft", mode="pcap", env=OLD)
            if finish:
                capturing.finish()
            else:
                capturing.process.kill()
                capturing.process.wait()
        capture("--netns", pid, "-i", "vleft", mode="pcap", env=OLD).finish()
    assert filters(network) == []
    assert "clsact" in tc(network, "qdisc", "show", "dev", "vleft")


def test_an_ingress_qdisc_leaves_room_for_one_direction(capture, network, left):
    tc(network, "qdisc", "add", "dev", "vleft", "ingress")
    with network.holder(network.left) as pid:
        capturing = capture("--netns", pid, "-i", "vleft", mode="pcap", env=OLD)
        left(connect)
        capturing.finish()
    assert "packets that are sent are not captured" in capturing.stderr
    assert [p.flags for p in read(capturing.path) if p.flags] == ["AR"]
    assert "ingress" in tc(network, "qdisc", "show", "dev", "vleft")
