# SPDX-License-Identifier: Apache-2.0
"""Invariant: whatever is fed to a WebSocketParser, nothing escapes it, no byte is counted
twice, and no more than the limits is kept.

    PYTHONPATH=src python tests/fuzz/fuzz_websocket.py --inputs 1000000 --seed 1
"""

from __future__ import annotations

import random
import zlib

from fuzzing import main, mutate, pieces

from ecapture.protocols.messages import Direction, Note, WebSocketMessage
from ecapture.protocols.websocket import WebSocketParser
from ecapture.protocols.websocket_deflate import Deflate

LIMIT = 300


def frame(first: int, payload: bytes, key: bytes = b"") -> bytes:
    mask = 0x80 if key else 0
    size = len(payload)
    header = (
        bytes((first, mask | size))
        if size < 126
        else bytes((first, mask | 126, size >> 8, size & 255))
    )
    return (
        header + key + bytes(b ^ key[i & 3] for i, b in enumerate(payload))
        if key
        else header + payload
    )


def deflated(*texts: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    packed = [packer.compress(text) + packer.flush(zlib.Z_SYNC_FLUSH) for text in texts]
    return b"".join(frame(0xC1, data[:-4]) for data in packed)


SEEDS = [
    frame(0x81, b"hello"),
    frame(0x81, b"hello", b"abcd") * 3,
    frame(0x01, b"hel") + frame(0x89, b"ping") + frame(0x00, b"l") + frame(0x80, b"o"),
    frame(0x82, bytes(200)),
    frame(0x82, bytes(range(256)) * 3, b"\x01\x02\x03\x04"),
    frame(0x88, b"\x03\xe8bye") + frame(0x8A, b""),
    deflated(b"one one one", b"one two one two"),
    deflated(bytes(40_000), b"after"),
    b"\x82\x7f" + (70_000).to_bytes(8, "big"),
]
WORDS = [
    b"\x81\x00",
    b"\x80\x00",
    b"\x01\x00",
    b"\x7e\xff\xff",
    b"\x7f" + b"\xff" * 8,
    b"\x89\x7d",
    b"\x03\x00",
]


def attempt(chance: random.Random) -> None:
    data = mutate(chance, SEEDS, WORDS)
    late = chance.random() < 0.3
    parser = WebSocketParser(
        chance.choice(list(Direction)),
        deflate=chance.choice((None, Deflate(), Deflate(True, True))),
        joined_late=late,
        message_limit=LIMIT,
    )
    out = []
    missing = 0
    for piece in pieces(chance, data):
        gap = chance.choice((3, 1000, -1)) if chance.random() < 0.02 else 0
        missing += max(gap, 0)
        out += parser.feed(piece, 1, gap=gap)
        assert len(parser._pending) <= 4096 + len(piece)
    out += parser.end(2)
    counted = 0
    for message in out:
        assert isinstance(message, Note | WebSocketMessage)
        counted += message.size
        if isinstance(message, WebSocketMessage):
            assert len(message.data) <= LIMIT
            assert message.fragments >= 1
            assert not message.problem or message.marks
    assert counted <= len(data) + missing
    assert parser.end(3) == []


if __name__ == "__main__":
    main(attempt)
