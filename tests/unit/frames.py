# SPDX-License-Identifier: Apache-2.0
"""Ethernet frames of TCP and UDP, for tests of what stands around packets. Checksums are right."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

CLIENT, SERVER = "10.1.2.3", "10.4.5.6"
_MACS = {CLIENT: b"\x02\0\0\0\0\1", SERVER: b"\x02\0\0\0\0\2"}


def checksum(content: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    padded = content + bytes(len(content) % 2)
    total = sum(struct.unpack(f">{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(source: str, destination: str, protocol: int, content: bytes) -> bytes:
    """An Ethernet frame with one IPv4 packet."""
    ends = IPv4Address(source).packed + IPv4Address(destination).packed
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(content), 1, 0, 64, protocol, 0) + ends
    head = head[:10] + struct.pack(">H", checksum(head)) + head[12:]
    return _MACS[destination] + _MACS[source] + b"\x08\x00" + head + content


def udp(source: tuple[str, int], destination: tuple[str, int], payload: bytes) -> bytes:
    """A frame with one UDP datagram, without a checksum."""
    head = struct.pack(">HHHH", source[1], destination[1], 8 + len(payload), 0)
    return ipv4(source[0], destination[0], 17, head + payload)


class Stream:
    """Frames of one TCP connection, as both sides would send them, in the order of calls."""

    def __init__(self, client_port: int = 40000, server_port: int = 443) -> None:
        self.ends = (CLIENT, client_port), (SERVER, server_port)
        self._next = [1000, 5000]

    def handshake(self) -> list[bytes]:
        """SYN, SYN-ACK, ACK."""
        return [self._frame(0, b"", 0x02), self._frame(1, b"", 0x12), self._frame(0, b"", 0x10)]

    def say(self, by_server: bool, payload: bytes, most: int = 1400) -> list[bytes]:
        """The segments of some bytes."""
        pieces = [payload[at : at + most] for at in range(0, len(payload), most)]
        return [self._frame(int(by_server), piece, 0x18) for piece in pieces]

    def _frame(self, side: int, payload: bytes, flags: int) -> bytes:
        (source, source_port), (destination, destination_port) = (
            self.ends[side],
            self.ends[1 - side],
        )
        acknowledged = self._next[1 - side] if flags & 0x10 else 0
        # fmt: off
        head = struct.pack(
            ">HHIIBBHHH", source_port, destination_port, self._next[side], acknowledged,
            0x50, flags, 65535, 0, 0,
        )
        # fmt: on
        ends = IPv4Address(source).packed + IPv4Address(destination).packed
        pseudo = ends + struct.pack(">BBH", 0, 6, len(head) + len(payload))
        total = checksum(pseudo + head + payload)
        self._next[side] += len(payload) + bool(flags & 0x02)
        return ipv4(
            source, destination, 6, head[:16] + struct.pack(">H", total) + head[18:] + payload
        )
