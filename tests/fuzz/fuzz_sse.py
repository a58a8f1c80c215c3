# SPDX-License-Identifier: Apache-2.0
"""What must hold for event streams, however they are cut, damaged or interrupted:

- nothing is raised, and nothing is kept beyond the limit;
- without a gap the same events come out of the stream in one piece and out of its pieces;
- sizes add up to no more than what was fed.

    PYTHONPATH=src python tests/fuzz/fuzz_sse.py --inputs 1000000 --seed 1
"""

from __future__ import annotations

import random

from fuzzing import main, mutate, pieces

from ecapture.protocols.messages import Mark, ServerEvent
from ecapture.protocols.sse import EventStreamParser

LIMIT = 40
WORDS = (
    b"data:",
    b"event:",
    b"id:",
    b"retry:",
    b":",
    b"\n\n",
    b"\r\r",
    b"\r\n\r\n",
    b"\xef\xbb\xbf",
)
SEEDS = (
    b"data: one\n\nevent: named\ndata: two\ndata: three\n\n",
    b"\xef\xbb\xbf: a comment\r\nid: 7\r\nretry: 100\r\ndata: \xe2\x82\xac\r\n\r\n",
    b"id: \0\rdata\r\rretry: x\rdata:  y\r\r",
    b"data: " + b"long " * 30 + b"\n\n",
)


def events_of(parts: list[bytes], *, limit: int, late: bool) -> list[ServerEvent]:
    """What comes out of a stream that arrives in these parts, all at the same time."""
    parser = EventStreamParser(event_limit=limit, joined_late=late)
    return [event for part in parts for event in parser.feed(part, 1)] + parser.end(1)


def attempt(chance: random.Random) -> None:
    """Try one input."""
    data = mutate(chance, SEEDS, WORDS)
    cut = pieces(chance, data)
    late = chance.random() < 0.3
    limit = chance.choice((LIMIT, 1 << 20))
    if chance.random() < 0.5:
        whole = events_of([data], limit=limit, late=late)
        parted = events_of(cut, limit=limit, late=late)
        # A line that waits for its end counts against the limit with the name before its value.
        if not any(Mark.LIMITED in event.marks for event in whole + parted):
            assert parted == whole
        assert sum(event.size for event in whole) <= len(data)
        found = whole
    else:
        parser = EventStreamParser(event_limit=limit, joined_late=late)
        found = []
        for part in cut:
            gap = chance.choice((0, 0, 0, 1, 1 << 40))
            found += parser.feed(part, 1, gap=gap)
            assert len(parser._tail) <= limit
        found += parser.end(2)
    for event in found:
        assert len(event.data) <= limit
        assert event.size >= 0


if __name__ == "__main__":
    main(attempt)
