# SPDX-License-Identifier: Apache-2.0
"""Captured packets as an independent reader has them, and networks to capture in.

``read`` is tshark's view of a file. ``Network`` is two namespaces joined by a veth pair, made by
the test and gone with it: no address in it leads anywhere else.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import json
import os
import re
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import pytest
from harness import DEADLINE, Captured

from ecapture.formats.pcapng import Block, Code, blocks, options_of
from ecapture.kernel import _network

CAPTURES_PACKETS = pytest.mark.needs("program:tshark", "program:capinfos", "program:ip")
_libc = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count()
_OWNER = re.compile(r"pid (\d+) \((.*)\)")


class Packet(NamedTuple):
    """One packet of a file, as tshark tells it."""

    interface: str
    time_ns: int
    captured: int
    original: int
    outbound: bool
    owners: tuple[tuple[int, str], ...]
    protocols: str
    source: str
    source_port: int
    destination: str
    destination_port: int
    flags: str
    payload: bytes
    frame: bytes


_FIELDS = (
    "frame.interface_name",
    "frame.time_epoch",
    "frame.cap_len",
    "frame.len",
    "frame.packet_flags_direction",
    "frame.comment",
    "frame.protocols",
    "ip.src",
    "ipv6.src",
    "ip.dst",
    "ipv6.dst",
    "tcp.srcport",
    "udp.srcport",
    "tcp.dstport",
    "udp.dstport",
    "tcp.flags.str",
    "tcp.payload",
    "udp.payload",
)


def read(path: Path, *options: str) -> list[Packet]:
    """All packets of a file. Fails if tshark has anything to complain about."""
    layers = json.loads(_tshark(path, "-T", "json", "-x", *_each("-e", ()), *options) or "[]")
    frames = [bytes.fromhex(packet["_source"]["layers"]["frame_raw"][0]) for packet in layers]
    table = _tshark(path, "-T", "fields", "-E", "separator=|", *_each("-e", _FIELDS), *options)
    rows = [dict(zip(_FIELDS, line.split("|"), strict=True)) for line in table.splitlines()]
    assert len(rows) == len(frames)
    return [_packet(row, frame) for row, frame in zip(rows, frames, strict=True)]


def _each(option: str, values: Sequence[str]) -> list[str]:
    return [word for value in values for word in (option, value)]


def _tshark(path: Path, *words: str) -> str:
    done = subprocess.run(
        # without name look-ups; TCP in the order of the file
        ["tshark", "-n", "-r", path, *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE,
    )
    complaints = [
        line for line in done.stderr.splitlines() if line and "Running as user" not in line
    ]
    assert (done.returncode, complaints) == (0, []), complaints
    return done.stdout


def _packet(row: dict[str, str], frame: bytes) -> Packet:
    def first(*names: str) -> str:
        return next((row[name] for name in names if row[name]), "").split(",")[0]

    seconds, _, fraction = row["frame.time_epoch"].partition(".")
    return Packet(
        row["frame.interface_name"],
        int(seconds) * 10**9 + int(fraction.ljust(9, "0")),
        int(row["frame.cap_len"]),
        int(row["frame.len"]),
        int(row["frame.packet_flags_direction"] or "0", 0) == 2,
        tuple((int(pid), comm) for pid, comm in _OWNER.findall(_split(row["frame.comment"]))),
        row["frame.protocols"],
        first("ip.src", "ipv6.src"),
        int(first("tcp.srcport", "udp.srcport") or 0),
        first("ip.dst", "ipv6.dst"),
        int(first("tcp.dstport", "udp.dstport") or 0),
        row["tcp.flags.str"].strip("·").replace("·", ""),
        bytes.fromhex(row["tcp.payload"] or row["udp.payload"]),
        frame,
    )


def _split(comments: str) -> str:
    # several comments of one packet are joined by commas
    return comments.replace("),pid", ")\npid")


def interfaces(path: Path) -> dict[str, dict[str, str]]:
    """What capinfos tells of each interface of a file."""
    done = subprocess.run(
        ["capinfos", path], capture_output=True, text=True, check=True, timeout=DEADLINE
    )
    assert done.stderr == ""
    found: dict[str, dict[str, str]] = {}
    current: dict[str, str] = {}
    for line in done.stdout.splitlines():
        name, equals, value = line.strip().partition(" = ")
        if line.startswith("Interface #"):
            current = {}
        elif equals and name == "Name":
            found[value] = current
        elif equals:
            current[name] = value
    return found


class Packets(Captured):
    """``ecapture tls -m pcap -i lo`` running, for one port."""

    def __init__(self, folder: Path, *options: object, port: int, **how: object) -> None:
        words = ("-i", "lo", *options, f"port {port}")
        super().__init__(folder, *words, **({"mode": "pcap"} | how))


class Network:
    """Two network namespaces, joined: ``left`` is 10.99.0.1 and fd99::1, ``right`` 10.99.0.2 …

    ``inside`` is the beginning of a command line that runs in one of them.
    """

    def __init__(self) -> None:
        stem = f"ec{os.getpid()}-{next(_numbers)}"
        self.left, self.right = f"{stem}-l", f"{stem}-r"
        self.interfaces = {self.left: "vleft", self.right: "vright"}

    def __enter__(self) -> Self:
        for name in (self.left, self.right):
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        # fmt: off
        _ip("-n", self.left, "link", "add", "vleft", "type", "veth",
            "peer", "name", "vright", "netns", self.right)
        # fmt: on
        for number, (name, interface) in enumerate(self.interfaces.items(), 1):
            _ip("-n", name, "addr", "add", f"10.99.0.{number}/24", "dev", interface)
            _ip("-n", name, "addr", "add", f"fd99::{number}/64", "dev", interface, "nodad")
            _ip("-n", name, "link", "set", interface, "up")
        return self

    def __exit__(self, *_: object) -> None:
        for name in (self.left, self.right):
            _ip("netns", "del", name)

    def inside(self, name: str) -> tuple[str, ...]:
        """Words to put before a command."""
        return ("ip", "netns", "exec", name)

    def ip(self, name: str, *words: str) -> None:
        """``ip`` in one of the namespaces."""
        _ip("-n", name, *words)

    @contextmanager
    def holder(self, name: str) -> Iterator[int]:
        """A process in a namespace, which does nothing: its pid."""
        process = subprocess.Popen([*self.inside(name), "sleep", "infinity"])
        try:
            yield process.pid
        finally:
            process.kill()
            process.wait()


@contextmanager
def in_namespace(name: str) -> Iterator[Callable[[Callable[[], Any]], Any]]:
    """A function that runs another one in a namespace, in one thread of its own."""

    def enter() -> None:
        with Path(f"/run/netns/{name}").open() as space:
            _network.enter_network(space.fileno())

    with ThreadPoolExecutor(1, initializer=enter) as thread:
        yield lambda action: thread.submit(action).result()


def programs_at(interface: str) -> int:
    """How many programs tcx has at an interface of the calling thread's namespace.

    BPF_PROG_QUERY of bpf(2), whose number is that of the machine.
    """
    count = 0
    number = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
    for direction in (46, 47):  # BPF_TCX_INGRESS, BPF_TCX_EGRESS
        query = ctypes.create_string_buffer(64)
        struct.pack_into("II", query, 0, socket.if_nametoindex(interface), direction)
        if _libc.syscall(number, 16, query, len(query)):
            failed = ctypes.get_errno()
            # there never was one; this kernel has no tcx
            assert failed in (errno.ENOENT, errno.EINVAL), os.strerror(failed)
        count += struct.unpack_from("I", query, 24)[0]
    return count


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, timeout=DEADLINE)


def statistics(path: Path) -> dict[int, dict[str, int]]:
    """What the last statistics block of each interface says, by the interface's number."""
    content = path.read_bytes()
    names = {Code.STATISTICS_RECEIVED: "received", Code.STATISTICS_DROPPED: "dropped"}
    found: dict[int, dict[str, int]] = {}
    for at, kind, length in blocks(content):
        if kind != Block.STATISTICS:
            continue
        number = int.from_bytes(content[at + 8 : at + 12], "little")
        options = dict(options_of(content, at + 20, at + length - 4))
        found[number] = {
            name: int.from_bytes(options[code], "little") for code, name in names.items()
        }
    return found
