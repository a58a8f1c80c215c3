# SPDX-License-Identifier: Apache-2.0
"""What must hold for HTTP/2, whatever the octets and the gaps:

- ``feed`` and ``end`` raise nothing;
- a message ends once, after a head of the same stream and direction, and after the last ``end``
  nothing is open;
- content given out is within its limit, and no more is kept than the limits allow;
- no input takes long (see ``fuzzing``).

    PYTHONPATH=src python tests/fuzz/fuzz_http2.py --inputs 1000000 --seed 1

Inputs are conversations of hyper-h2 (and frames that it would not write), mutated and cut into
pieces, some of which are left out.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from fuzzing import main

from ecapture.protocols.http2 import Http2Connection
from ecapture.protocols.http2_streams import ContentLimits
from ecapture.protocols.messages import Body, Head, Message, MessageComplete

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit" / "protocols"))
from http2_peers import Peers, frame

Pieces = list[tuple[int, bytes, int]]
LIMITS = ContentLimits(body=300, message=200, decoded=4)
HEADER_LIMIT = 2000
STREAM_LIMIT = 8
FRAME_TYPES = 11
INTERESTING = (0, 1, 2, 4, 5, 8, 9, 0x1F, 0x3F, 0x40, 0x7F, 0x80, 0xBE, 0xFF)


def seeds() -> list[list[tuple[int, bytes]]]:
    """Conversations to begin with."""
    plain = Peers()
    plain.ask(1, "/a", user_agent="x")
    plain.answer(1, b"content", server="y")
    plain.ask(3, "/b", b"upload", user_agent="x")
    plain.answer(3, b"more", server="y", content_type="text/event-stream")
    rich = Peers()
    rich.ask(1, "/s/m", b"\0\0\0\0\2\x08\1", content_type="application/grpc")
    rich.answer(1, b"\1\0\0\0\3abc", end=False, content_type="application/grpc")
    rich.server.send_headers(1, [("grpc-status", "0")], end_stream=True)
    rich.client.send_headers(3, [(":method", "CONNECT"), (":protocol", "websocket")])
    rich.carry()
    rich.answer(3, b"\x81\x02hi", end=False)
    rich.client.send_data(3, b"\x81\x80\0\0\0\0", end_stream=True, pad_length=3)
    rich.ask(5, "/z", content_encoding="gzip")
    rich.server.reset_stream(5)
    rich.server.close_connection(additional_data=b"bye")
    rich.carry()
    odd = [
        (1, frame(1, 0, 7, b"\x82\x84") + frame(9, 0, 7, b"\x40\1a\1b") + frame(9, 4, 7, b"\xbe")),
        (0, frame(5, 4, 7, b"\0\0\0\4\x82\x84") + frame(1, 0x2D, 4, b"\1" + bytes(5) + b"\x88\0")),
        (0, frame(1, 4, 7, b"\x3f\xe1\x1f\x88\x5a\x04gzip") + frame(0, 9, 7, b"\1\x1f\x8b\x08\0")),
        (1, frame(0, 1, 7) + frame(2, 0, 9, bytes(5)) + frame(8, 0, 0, b"\0\0\1\0")),
    ]
    return [plain.spoken, rich.spoken, odd, plain.spoken[3:], rich.spoken[4:]]


SEEDS = seeds()


def mutate(chance: random.Random, octets: bytes) -> bytes:
    """Change one piece a little."""
    changed = bytearray(octets)
    for _ in range(chance.randrange(1, 4)):
        where = chance.randrange(len(changed) + 1)
        match chance.randrange(7):
            case 0 if changed:
                changed[where % len(changed)] = chance.choice(INTERESTING)
            case 1 if changed:
                changed[where % len(changed)] ^= 1 << chance.randrange(8)
            case 2:
                del changed[where : where + chance.randrange(12)]
            case 3:
                changed[where:where] = chance.randbytes(chance.randrange(12))
            case 4:
                kind, stream = chance.randrange(FRAME_TYPES), chance.choice((0, 1, 2, 3, 7))
                payload = changed[where : where + chance.randrange(20)]
                changed[where:where] = frame(kind, chance.choice(INTERESTING), stream, payload)
            case 5:
                changed[where:where] = changed[: chance.randrange(40)]
            case _:
                del changed[where:]
    return bytes(changed)


def make(chance: random.Random) -> Pieces:
    """Make an input."""
    pieces: Pieces = []
    for direction, octets in chance.choice(SEEDS):
        if chance.random() < 0.08:
            continue
        changed = mutate(chance, octets) if chance.random() < 0.4 else octets
        gap = 0
        if chance.random() < 0.05:
            gap = chance.choice((-1, chance.randrange(1, 30), 1 << 40))
            changed = changed[max(gap, 0) :]
        if chance.random() < 0.2:
            cut = chance.randrange(len(changed) + 1)
            pieces.append((direction, changed[:cut], gap))
            pieces.append((direction, changed[cut:], 0))
        else:
            pieces.append((direction, changed, gap))
    return pieces


def listen(pieces: Pieces) -> None:
    """Feed one input and see that what must hold does."""
    connection = Http2Connection(
        header_limit=HEADER_LIMIT, stream_limit=STREAM_LIMIT, content=LIMITS
    )
    messages: list[Message] = []
    for direction, octets, gap in pieces:
        messages += connection.feed(direction, octets, 1, gap)
        assert connection.open_streams <= STREAM_LIMIT
    messages += connection.end(2)
    assert connection.open_streams == 0
    begun: dict[tuple[int, int], int] = {}
    for message in messages:
        key = (message.stream, message.direction)
        if isinstance(message, Head):
            if not message.informational or message.kind == "request":
                begun[key] = 0
        elif isinstance(message, Body):
            assert message.data
            begun[key] += len(message.data)
            assert begun[key] <= LIMITS.body
        elif isinstance(message, MessageComplete):
            kept = begun.pop(key)
            assert message.kept >= kept
    assert not begun


def attempt(chance: random.Random) -> None:
    """Try one input."""
    listen(make(chance))


if __name__ == "__main__":
    main(attempt)
