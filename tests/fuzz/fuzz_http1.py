# SPDX-License-Identifier: Apache-2.0
"""Invariant: whatever both directions are fed, nothing escapes an Http1Connection, every message
that is begun is ended once, no byte is counted twice, and no more than the limits is kept.

    PYTHONPATH=src python tests/fuzz/fuzz_http1.py --inputs 1000000 --seed 1
"""

from __future__ import annotations

import gzip
import random

from fuzzing import main, mutate, pieces

from ecapture.protocols.http1 import Http1Connection
from ecapture.protocols.messages import (
    Body,
    Direction,
    Head,
    Message,
    MessageComplete,
    Note,
    Opaque,
    ServerEvent,
    Switched,
)

LIMIT, MAX_HEAD, MAX_FIELDS = 50, 600, 8

FRAMES = b"\x81\x05hello\xc1\x07\xf2H\xcd\xc9\xc9\x07\x00"
REQUESTS = [
    b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HEAD / HTTP/1.0\r\n\r\n",
    b"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    b"PUT /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nA: b\r\n\r\n",
    b"POST /d HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 90\r\n\r\n" + b"x" * 90,
    b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /ws HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x85abcdhello",
    b"GET /e HTTP/1.1\r\nHost: a\r\nX: one\r\n two\r\n\r\n",
]
RESPONSES = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\nuntil close",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n5\r\nagain\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 30\r\n\r\n"
    + gzip.compress(b"hello hello hello", mtime=0),
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: a\n\nid: 1\ndata: b\n\n",
    b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    + FRAMES,
    b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\n\r\nPRI * HTTP/2.0\r\n",
]
WORDS = [
    b"Content-Length: 9\r\n", b"Content-Length: -1\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Content-Encoding: br\r\n", b"\r\n ", b"HTTP/1.1", b"GET ", b"HTTP/1.1 200 OK\r\n", b"5\r\n",
    b"X: y\r\n" * 20, b"Upgrade: websocket\r\n", b"chunked, ", b"ffffffff", b"\r\n0\r\n\r\n",
]  # fmt: skip


def attempt(chance: random.Random) -> None:
    connection = Http1Connection(body_limit=LIMIT, max_head=MAX_HEAD, max_fields=MAX_FIELDS)
    turns = [
        (direction, piece)
        for direction, seeds in zip(Direction, (REQUESTS, RESPONSES), strict=True)
        for piece in pieces(chance, mutate(chance, seeds, WORDS))
    ]
    if chance.random() < 0.5:
        # Any order of both directions, each in its own order.
        order = sorted(range(len(turns)), key=lambda _: chance.random())
        order.sort(key=lambda i: (turns[i][0] is Direction.TO_CLIENT) * chance.random())
        both = {direction: [t for t in turns if t[0] is direction] for direction in Direction}
        turns = [both[turns[i][0]].pop(0) for i in order]
    out: list[Message] = []
    fed = 0
    for time_ns, (direction, piece) in enumerate(turns):
        gap = chance.choice((2, 50, 10_000, -1)) if chance.random() < 0.03 else 0
        fed += len(piece) + max(gap, 0)
        out += connection.feed(direction, piece, time_ns, gap)
        for parser in connection._parsers:
            assert len(parser._queue) <= max(MAX_HEAD, 5000)
            assert len(parser._seeker._store) <= 100_000
    out += connection.end(len(turns), cut=chance.random() < 0.5)
    judge(out, fed)
    assert connection.end(len(turns)) == []


def judge(out: list[Message], fed: int) -> None:
    begun: dict[tuple[int, Direction], int] = {}
    counted = 0
    for message in out:
        key = (message.exchange, message.direction)
        match message:
            case Head():
                assert key not in begun, "one message at a time"
                assert len(message.fields) <= MAX_FIELDS
                assert bool(message.marks) == bool(message.problem)
                counted += message.size
                if not message.informational:
                    begun[key] = 0
            case Body():
                begun[key] += len(message.data)
                assert message.data
            case MessageComplete():
                assert begun.pop(key, 0) == message.kept <= LIMIT
                assert message.kept <= message.decoded_size
                counted += message.size
            case Note():
                counted += message.size
            case ServerEvent() | Switched() | Opaque():
                pass
    assert not begun, "every message ends"
    assert counted <= fed


if __name__ == "__main__":
    main(attempt)
