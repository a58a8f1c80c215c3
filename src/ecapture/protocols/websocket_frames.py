# SPDX-License-Identifier: Apache-2.0
"""WebSocket frame headers (RFC 6455, 5.2): reading one, and finding one again when lost.

A header is *plausible* if its opcode is defined, RSV2 and RSV3 are clear, a control frame is whole
and short, and the length is below ``_MAX_FRAME``. Reading an implausible one raises: the reader has
lost its place. To find a place, each offset where one could begin is judged by the frames that
follow each other from there, with points:

- one for each frame, another if it has a long length field (few accidents have all its zeros),
  another if its payload ends exactly where the bytes at hand end;
- one if the offset is an *edge*, where a piece of the stream began: programs read and write frames
  or batches of them, seldom parts.

Three points are enough at an edge, four elsewhere. The mask bit has to be as the direction demands,
and continuations have to continue something.

Invariants: a search takes at most ``_STEPS`` headers, however the bytes are chosen.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple

from ecapture.errors import ProtocolError

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
OPCODES = frozenset((CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG))
HEADER_SIZE = 14
"""The longest header: two bytes, eight of length, four of mask."""

_MAX_FRAME = 1 << 40
"""The longest payload that is believed: 1 TiB. RFC 6455 permits 2**63 - 1."""
_SEEK_FRAME = 1 << 24
"""The longest payload that is believed while a place is sought: 16 MiB."""
_STEPS = 1024
_CHAIN = 6
"""How many frames are followed; more would prove nothing more."""
_POSSIBLE = re.compile(rb"[\x00-\x02\x41\x42\x80-\x82\x88-\x8a\xc1\xc2]")
_XOR = tuple(bytes(value ^ key for value in range(256)) for key in range(256))
_SHORT = 1024


class FrameHeader(NamedTuple):
    """A header of ``size`` bytes, its payload being of ``length``; ``key`` is empty if unmasked."""

    size: int
    fin: bool
    compressed: bool
    opcode: int
    length: int
    key: bytes
    minimal: bool


def refuse(offset: int, reason: str) -> ProtocolError:
    """Return the error for what is wrong at ``offset`` of the piece at hand."""
    return ProtocolError(protocol="websocket", offset=offset, reason=reason)


def read_header(data: bytes | bytearray, at: int, end: int) -> FrameHeader | None:
    """Read the header at ``at``, or return None if it is not complete before ``end``.

    Raises ProtocolError if it is implausible.
    """
    if end - at < 2:
        return None
    first, second = data[at], data[at + 1]
    opcode = first & 0x0F
    length = second & 0x7F
    if first & 0x30 or opcode not in OPCODES:
        raise refuse(at, f"frame of kind {opcode} with reserved bits {first >> 4 & 7:03b}")
    if opcode >= CLOSE and (length > 125 or first & 0xC0 != 0x80):
        raise refuse(at, "control frame that is long, compressed or in fragments")
    size = 2
    minimal = True
    if length >= 126:
        size = 4 if length == 126 else 10
        if end - at < size:
            return None
        least = 126 if length == 126 else 1 << 16
        length = int.from_bytes(data[at + 2 : at + size], "big")
        minimal = length >= least
        if length > _MAX_FRAME:
            raise refuse(at, f"frame of {length} bytes")
    key = b""
    if second & 0x80:
        size += 4
        if end - at < size:
            return None
        key = bytes(data[at + size - 4 : at + size])
    return FrameHeader(size, first > 0x7F, first & 0x40 != 0, opcode, length, key, minimal)


def unmask(data: bytes, key: bytes) -> bytes:
    """Return ``data`` with the four bytes of ``key`` taken off in turn (RFC 6455, 5.3)."""
    size = len(data)
    if size <= _SHORT:
        # One operation on a long number beats four passes for what is short.
        pad = (key * (size // 4 + 1))[:size]
        number = int.from_bytes(data, "little") ^ int.from_bytes(pad, "little")
        return number.to_bytes(size, "little")
    plain = bytearray(size)
    for lane in range(4):
        plain[lane::4] = data[lane::4].translate(_XOR[key[lane]])
    return bytes(plain)


def find_frame(data: bytes | bytearray, *, masked: bool, edges: Collection[int]) -> int:
    """Return the first offset that earns its points, or -1. ``edges`` are where pieces began."""
    steps = 0
    for match in _POSSIBLE.finditer(data):
        start = match.start()
        edge = start in edges
        points, taken = _judge(data, start, masked=masked)
        if points + edge >= (3 if edge else 4):
            return start
        steps += taken
        if steps > _STEPS:
            break
    return -1


def _judge(data: bytes | bytearray, start: int, *, masked: bool) -> tuple[int, int]:
    """Return the points that the frames from ``start`` on earn, and how many were looked at."""
    at = start
    end = len(data)
    points = taken = 0
    within: bool | None = None  # whether a fragmented message is open; None is not known
    while at < end and taken < _CHAIN:
        taken += 1
        try:
            header = read_header(data, at, end)
        except ProtocolError:
            return 0, taken
        if header is None:
            break
        if bool(header.key) != masked or not header.minimal or header.length > _SEEK_FRAME:
            return 0, taken
        if header.opcode < CLOSE:
            if within is not None and within != (header.opcode == CONTINUATION):
                return 0, taken
            if header.opcode == CONTINUATION and header.compressed:
                return 0, taken
            within = not header.fin
        points += 1 if header.length < 126 else 2
        at += header.size + header.length
    return points + (at == end), taken
