# SPDX-License-Identifier: Apache-2.0
"""Packets a second without loss, and what one costs, beside dumpcap in the same run.

    sudo .venv/bin/python benchmarks/packets.py [--seconds 3] [--size 64] [--snaplen 128]

Two network namespaces are made and joined by a veth pair; datagrams are sent from one to the other
while one of both captures: first at the end that sends them, from a socket; then at the end where
they arrive, put on the wire faster than sockets can. What was sent is what the generator says, what
was captured is counted in the file, and what is missing is compared with what is said to be lost.
Cost is processor time: of the capturing process, and what sending takes longer than with nobody
capturing. All lines are figures of this machine at this moment; the ratios matter.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
ECAPTURE = Path(sys.executable).parent / "ecapture"
LEFT, RIGHT, PORT = f"ecb{os.getpid()}l", f"ecb{os.getpid()}r", 9099
RATES = (50_000, 100_000, 150_000, 200_000, 250_000, 300_000, 400_000, 500_000, 0)
AIM = 200_000


class Run(NamedTuple):
    """One flood: how much was sent and found in the file, and seconds of processor time."""

    sent: int
    captured: int
    reported: int
    elapsed: float
    own: float
    sender: float


@contextmanager
def network() -> Iterator[None]:
    for name in (LEFT, RIGHT):
        ip("netns", "add", name)
    try:
        ip("-n", LEFT, "link", "add", "vl", "type", "veth", "peer", "name", "vr", "netns", RIGHT)
        for name, interface, number in ((LEFT, "vl", 1), (RIGHT, "vr", 2)):
            ip("-n", name, "addr", "add", f"10.98.0.{number}/24", "dev", interface)
            # without IPv6, whose own packets would count as sent
            ip("-n", name, "link", "set", interface, "addrgenmode", "none", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield
    finally:
        for name in (LEFT, RIGHT):
            ip("netns", "del", name)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def flood(
    program: Path, options: argparse.Namespace, rate: int, *, arriving: bool
) -> tuple[int, float, float]:
    """(datagrams sent, seconds of processor time, seconds)."""
    words = ["ip", "netns", "exec", LEFT, program, "10.98.0.2", PORT, options.seconds]
    words += [options.size, rate / options.senders]
    if arriving:
        words += ["vl", link(RIGHT, "vr")["address"], "10.98.0.1"]
    before = passed()
    senders = [
        subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE, text=True)
        for _ in range(options.senders)
    ]
    told = [sender.communicate()[0].split() for sender in senders]
    sent = passed() - before if arriving else sum(int(one[0]) for one in told)
    return sent, sum(int(one[1]) for one in told) / 1e9, max(float(one[2]) for one in told)


def link(space: str, name: str) -> dict[str, Any]:
    words = ["ip", "-n", space, "-s", "-j", "link", "show", name]
    [found] = json.loads(subprocess.run(words, check=True, capture_output=True).stdout)
    return found


def passed() -> int:
    """Frames that have passed on to the other end, where not all find room; all are ours."""
    return link(LEFT, "vl")["stats64"]["tx"]["packets"]


def processor_seconds(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def packets_in(path: Path) -> int:
    """Packets to the flood's port, counted block by block."""
    count = 0
    wanted = PORT.to_bytes(2, "big")
    with path.open("rb") as file:
        while head := file.read(8):
            kind, length = int.from_bytes(head[:4], "little"), int.from_bytes(head[4:], "little")
            body = file.read(length - 8)
            if len(body) < length - 8:
                break
            # Ethernet, IPv4 without options, UDP: destination port
            count += kind == 6 and body[20 + 14 + 22 : 20 + 14 + 24] == wanted
    return count


@contextmanager
def sink() -> Iterator[None]:
    """A socket that takes what is sent, so that nothing is answered; nobody reads it."""
    ready, stop = threading.Event(), threading.Event()

    def run() -> None:
        with Path(f"/run/netns/{RIGHT}").open() as space:
            from ecapture.kernel import _network  # noqa: PLC0415

            _network.enter_network(space.fileno())
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            bound.bind(("10.98.0.2", PORT))
            ready.set()
            stop.wait()

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def measure(
    kind: str,
    program: Path,
    folder: Path,
    options: argparse.Namespace,
    rate: int,
    *,
    arriving: bool,
) -> Run:
    path = folder / f"{kind}.pcapng"
    path.unlink(missing_ok=True)
    name, interface = (RIGHT, "vr") if arriving else (LEFT, "vl")
    space = subprocess.Popen(["ip", "netns", "exec", name, "sleep", "infinity"])
    if kind == "dumpcap":
        words = ["ip", "netns", "exec", name, "dumpcap", "-q", "-i", interface]
        words += ["-s", options.snaplen, "-B", 16, "-w", path]
    else:
        words = [ECAPTURE, "tls", "-m", "pcap", "--netns", space.pid, "-i", interface]
        words += ["--snaplen", options.snaplen, "-w", path]
    capture = subprocess.Popen([str(w) for w in words], stderr=subprocess.PIPE, text=True)
    said: list[str] = []
    for line in capture.stderr:
        said.append(line)
        if line.startswith(("ready:", "File:")):
            break
    before = processor_seconds(capture.pid)
    sent, sender, elapsed = flood(program, options, rate, arriving=arriving)
    time.sleep(0.3)
    own = processor_seconds(capture.pid) - before
    capture.send_signal(signal.SIGINT)
    said += capture.stderr.read().splitlines()
    capture.wait()
    space.kill()
    space.wait()
    return Run(sent, packets_in(path), lost(said), elapsed, own, sender)


def lost(said: list[str]) -> int:
    """What the capturing program itself says it lost."""
    for line in said:
        if line.startswith("summary:"):
            return int(line.partition("packets_dropped=")[2].split()[0])
        if line.startswith("Packets received/dropped"):
            return int(line.partition(": ")[2].partition(" ")[0].partition("/")[2])
    return 0


def compare(program: Path, folder: Path, options: argparse.Namespace, *, arriving: bool) -> None:
    held = {"dumpcap": 0.0, "ecapture": 0.0}
    print("arriving, put on the wire" if arriving else "sent from a socket")
    print(f"{'':10}{'asked/s':>9}{'sent/s':>9}{'captured':>10}{'lost':>8}{'unsaid':>8}"
          f"{'own us':>8}{'path us':>8}")  # fmt: skip
    for rate in options.rates:
        idle = flood(program, options, rate, arriving=arriving)
        for kind, most in held.items():
            run = measure(kind, program, folder, options, rate, arriving=arriving)
            missing = run.sent - run.captured
            per_second = run.sent / run.elapsed
            path = 1e6 * (run.sender / run.sent - idle[1] / idle[0])
            figures = f"{rate or 'all':>9}{per_second:9.0f}{run.captured:10}{missing:8}"
            cost = f"{1e6 * run.own / run.sent:8.2f}{path:8.2f}"
            print(f"{kind:10}{figures}{missing - run.reported:8}{cost}", flush=True)
            if not missing:
                held[kind] = max(most, per_second)
    ratio = held["ecapture"] / held["dumpcap"] if held["dumpcap"] else float("inf")
    print(f"without loss: dumpcap {held['dumpcap']:.0f}/s, ecapture {held['ecapture']:.0f}/s,"
          f" ratio {ratio:.2f}; aim {AIM}/s")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--size", type=int, default=64, help="bytes of payload")
    parser.add_argument("--snaplen", type=int, default=128)
    parser.add_argument("--senders", type=int, default=1, help="processes that send at once")
    parser.add_argument("--rates", type=int, nargs="+", default=RATES)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, network(), sink():
        folder = Path(name)
        program = folder / "flood"
        subprocess.run(["gcc", "-O2", "-o", program, HERE / "flood.c"], check=True)
        for arriving in (False, True):
            compare(program, folder, options, arriving=arriving)


if __name__ == "__main__":
    main()
