# SPDX-License-Identifier: Apache-2.0
"""What must hold for gRPC messages and protocol buffers, whatever the octets and the gaps:

- nothing is raised;
- every octet of content belongs to a message, to a prefix, or is counted as passed over;
- a message's data is within its limit; the numbers of messages have no holes;
- protocol buffers that were read whole are no shorter than their fields written back.

    PYTHONPATH=src python tests/fuzz/fuzz_grpc.py --inputs 1000000 --seed 1
"""

from __future__ import annotations

import gzip
import random

from fuzzing import main, mutate, pieces

from ecapture.protocols.grpc import MessageSplitter
from ecapture.protocols.messages import Direction, GrpcMessage
from ecapture.protocols.protobuf import Field, decode, render

LIMIT = 64
WORDS = (b"\x08\1", b"\x0a\2", b"\x0b", b"\x0c", b"\0\0\0\0\1", b"\xff" * 10, b"\1\0\0\0\5")
PROTOBUF = (
    b"\x08\x96\x01\x12\x07testing\x1a\x03\x08\x96\x01",
    b"\x0d\0\0\x20\x40\x11\0\0\0\0\0\0\xf0\x3f\x23\x08\x01\x24\x2a\x04\x0a\x02\x08\x01",
    b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x12\x03\xe2\x82\xac",
)


def prefixed(message: bytes, flag: int = 0) -> bytes:
    """Write a message."""
    return bytes((flag,)) + len(message).to_bytes(4, "big") + message


SEEDS = (
    b"".join(prefixed(message) for message in PROTOBUF),
    prefixed(gzip.compress(b"text " * 30, mtime=0), 1) + prefixed(b"") + prefixed(PROTOBUF[0]),
    prefixed(bytes(200)) + prefixed(b"x"),
)


def varint(value: int) -> bytes:
    """Write a varint in its shortest form."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def write(fields: tuple[Field, ...]) -> bytes:
    """Write fields back."""
    out = b""
    for number, wire, value in fields:
        out += varint(number << 3 | wire)
        if wire == 3:
            assert isinstance(value, tuple)
            out += write(value) + varint(number << 3 | 4)
        elif isinstance(value, int):
            sizes = {1: 8, 5: 4}
            out += varint(value) if wire == 0 else value.to_bytes(sizes[wire], "little")
        else:
            raw = write(value) if isinstance(value, tuple) else value
            raw = raw.encode() if isinstance(raw, str) else raw
            out += varint(len(raw)) + raw
    return out


def try_protobuf(octets: bytes) -> None:
    """Decode; what was whole has at least the size of its fields in the shortest form."""
    decoded = decode(octets)
    assert decoded.size <= len(octets)
    assert decoded.problem or decoded.size == len(octets)
    written = write(decoded.fields) if not decoded.problem else b""
    assert len(written) <= len(octets)
    render(decoded, lines_limit=50)


def try_messages(chance: random.Random, octets: bytes) -> None:
    """Split; account for every octet."""
    split = MessageSplitter(
        Direction.TO_SERVER,
        1,
        encoding=chance.choice(("", "gzip", "deflate", "unknown")),
        message_limit=LIMIT,
        joined_late=chance.random() < 0.2,
    )
    messages: list[GrpcMessage] = []
    missing = fed = 0
    for piece in pieces(chance, octets):
        if chance.random() < 0.05:
            gap = chance.choice((0, chance.randrange(1, 50)))
            missing += gap
            messages += split.gap(gap, 1)
        fed += len(piece)
        messages += split.feed(piece, 1)
    messages += split.end(2)
    assert split.size == fed + missing
    assert [message.number for message in messages] == list(range(len(messages)))
    assert all(len(message.data) <= LIMIT for message in messages)
    assert split.kept == sum(len(message.data) for message in messages)
    if not missing and not any(message.marks for message in messages):
        assert fed == split.passed + sum(5 + message.size for message in messages)
    for message in messages:
        try_protobuf(message.data)


def attempt(chance: random.Random) -> None:
    """Try one input."""
    if chance.random() < 0.5:
        try_protobuf(mutate(chance, PROTOBUF, WORDS))
    else:
        try_messages(chance, mutate(chance, SEEDS, WORDS))


if __name__ == "__main__":
    main(attempt)
