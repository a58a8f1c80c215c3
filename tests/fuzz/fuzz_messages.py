# SPDX-License-Identifier: Apache-2.0
"""Invariant: whatever is captured, whole or not, the stage of messages and the text formats take
it; every message belongs to one exchange, nothing waits at the end, and the allowance is given
back.

    PYTHONPATH=src python tests/fuzz/fuzz_messages.py --inputs 1000000 --seed 1
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "unit"))

from fuzz_http1 import REQUESTS, RESPONSES, WORDS
from fuzzing import main, mutate, pieces
from talks import Speech

from ecapture.events import Event, Exchange, HttpMessage
from ecapture.formats.brief import BriefFormat
from ecapture.formats.conversation import ConversationFormat
from ecapture.pipeline.messages import Messages

LIMIT, WAITING = 60, 300


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame of HTTP/2."""
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")
    return head + payload


# Static table: GET / https, POST, 200; a literal field with its name for content types.
_GET, _POST, _OK = b"\x82\x87\x84\x41\x01a", b"\x83\x87\x84", b"\x88"
_GRPC = b"\x40\x0ccontent-type\x10application/grpc"
_EVENTS = b"\x40\x0ccontent-type\x11text/event-stream"
ASKED = [
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0),
    frame(1, 5, 1, _GET) + frame(1, 4, 3, _POST) + frame(0, 1, 3, b"content"),
    frame(1, 4, 5, _POST + _GRPC) + frame(0, 1, 5, b"\0\0\0\0\x05\x12\x03abc"),
    frame(1, 5, 7, b"\xbe" + _GET) + frame(3, 0, 7, b"\0\0\0\x08"),
    frame(1, 4, 9, b"\x42\x07CONNECT\x41\x03a:1") + frame(0, 0, 9, b"in a tunnel"),
    frame(7, 0, 0, bytes(8)) + frame(1, 5, 11, _GET),
]
ANSWERED = [
    frame(4, 0, 0) + frame(4, 1, 0),
    frame(1, 4, 1, _OK) + frame(0, 1, 1, b"some content") + frame(1, 5, 3, _OK),
    frame(1, 4, 5, _OK + _GRPC)
    + frame(0, 0, 5, b"\0\0\0\0\x02\x08\x01\0\0")
    + frame(1, 5, 5, b"\x40\x0bgrpc-status\x010"),
    frame(1, 4, 3, _OK + _EVENTS) + frame(0, 0, 3, b"data: 1\n\ndata: 2\n\n"),
    frame(5, 4, 1, b"\0\0\0\x02" + _GET) + frame(1, 5, 2, _OK),
    frame(1, 4, 9, _OK) + frame(0, 1, 9, b"back through the tunnel"),
    frame(3, 0, 3, b"\0\0\0\x02") + frame(7, 0, 0, bytes(8)),
]
# Tunnels, with HTTP/1 and HTTP/2 within and other things.
_CONNECT = b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n"
_CONNECTED = b"HTTP/1.1 200 Connected\r\n\r\n"
TUNNELLED = [
    _CONNECT,
    _CONNECT + REQUESTS[0],
    _CONNECT + b"".join(ASKED[:2]),
    _CONNECT + b"GET /page 200 1 ms\n",
    *REQUESTS[:4],
]
CONNECTED = [
    _CONNECTED,
    _CONNECTED + RESPONSES[0],
    _CONNECTED + b"".join(ANSWERED[:2]),
    *RESPONSES[:3],
]


def attempt(chance: random.Random) -> None:
    whole = chance.random() < 0.2
    stage = Messages(body_limit=LIMIT, waiting_limit=WAITING, whole=whole)
    text = ConversationFormat(colour=chance.random() < 0.3, hexadecimal=chance.random() < 0.2)
    brief = BriefFormat()
    seeds = chance.choice(((REQUESTS, RESPONSES), (ASKED, ANSWERED), (TUNNELLED, CONNECTED)))
    sides = chance.sample(("read", "write"), 2)
    speech = Speech()
    turns = [
        (side, piece)
        for side, own in zip(sides, seeds, strict=True)
        for piece in pieces(chance, mutate(chance, own, WORDS))
    ]
    if chance.random() < 0.5:
        turns.sort(key=lambda turn: (turn[0] == sides[0]) * chance.random())
    found: list[Event] = []
    for side, piece in turns:
        events: list[Event] = []
        if chance.random() < 0.03:
            events.append(speech.lost(side, chance.choice((1, 9, 100, 1 << 40))))
        kept = piece[: chance.randrange(len(piece) + 1)] if chance.random() < 0.05 else piece
        events.append(speech.say(side, kept, length=len(piece)))
        if chance.random() < 0.02:
            events.append(speech.end())
        out = stage.feed(events)
        if chance.random() < 0.05:
            out += stage.flush(chance.choice((0, 1 << 62)))
        text.encode(out)
        brief.encode(out)
        found += out
        assert stage._allowance.left >= 0
    last = stage.feed([speech.end()]) if chance.random() < 0.5 else stage.close()
    text.encode(last)
    brief.encode(last)
    found += last
    assert not stage._talks
    assert not stage._holding
    assert not stage._early
    assert stage._allowance.left == WAITING
    messages = [event for event in found if isinstance(event, HttpMessage)]
    assert all(len(message.body) <= LIMIT for message in messages)
    exchanges = [event for event in found if isinstance(event, Exchange)]
    parts = [part for e in exchanges for part in (e.request, e.response) if part is not None]
    final = [message for message in messages if not 100 <= message.head.status < 200]
    switching = [part for part in parts if part.head.status == 101]
    assert {id(part) for part in parts} == {id(message) for message in (*final, *switching)}
    assert len(parts) == len(final) + len(switching)


if __name__ == "__main__":
    main(attempt)
