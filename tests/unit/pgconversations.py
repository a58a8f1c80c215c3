# SPDX-License-Identifier: Apache-2.0
"""Random conversations of PostgreSQL's, most of them as most are; and who tells of them plainly.

``plainly`` feeds each session message by message, which is what the quick way must agree with.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from pgmessages import (
    BOUND,
    PARSED,
    READY,
    SYNC,
    bind,
    complete,
    describe,
    execute,
    failure,
    message,
    parse,
    query,
    startup,
)

from ecapture.events import Event, ProcessExit, Served, SessionFacts
from ecapture.pipeline.postgres_session import Session

FACTS = SessionFacts("old", "db", "local", "psql")
TAGS = (
    "SELECT 1",
    "INSERT 0 5",
    "BEGIN",
    "",
    "DISCARD ALL",
    "DEALLOCATE ALL",
    "SELECT 99999999999",
)
TEXTS = ("SELECT 1", "SELECT $1", "", "x" * 300, "SELECT 'é'", "a\0b")
NAMES = ("", "", "P_0", "é", "unknown")
VALUES = (b"1", None, b"", b"\0\0\0\7", b"\xff\xfe", b"y" * 50)
ROWS = message("T", bytes(30)) + message("D", bytes(20)) + message("N", b"SNOTICE\0\0")
ENCODINGS = ("UTF8", "LATIN1", "SJIS", "EUC_JP", "nonsense", "undefined")
_Turn = tuple[bytes, bytes]


def asked_plainly(source: random.Random) -> _Turn:
    """A query, and its answer."""
    answer = source.choice((b"", ROWS)) + complete(source.choice(TAGS)) + READY
    return query(source.choice(TEXTS)), answer


def executed(source: random.Random) -> _Turn:
    """What was prepared before, or now."""
    values = [source.choice(VALUES) for _ in range(source.randrange(4))]
    formats = source.choice(([], [0], [1], [source.randrange(3) for _ in values], [1, 0]))
    name, said, answer = source.choice(NAMES), b"", b""
    if source.random() < 0.5:
        types = source.choice(((), (23,), (25, 23), (20,)))
        said += parse(source.choice(("", name)), source.choice(TEXTS), types)
        answer += PARSED
    said += bind(source.choice(("", "", "", "c")), name, values, formats)
    answer += BOUND
    if source.random() < 0.5:
        said += describe("P")
    said += execute() + SYNC
    answer += source.choice((b"", ROWS, ROWS * 3)) + complete(source.choice(TAGS)) + READY
    return said, answer


def unusual(source: random.Random) -> _Turn:
    """What the quick way must leave alone."""
    failed = failure("42601", "no") + READY
    types = message("t", b"\0\1\0\0\0\x17")
    more = execute() + SYNC, message("s") + READY
    pipeline = bind("", "") + execute() + SYNC, BOUND + complete("SELECT 2") + READY
    encoding = message("S", f"client_encoding\0{source.choice(ENCODINGS)}\0".encode())
    return source.choice(
        (
            (query("SELEC"), failed),
            (parse("P_0", "SELECT $1") + describe("S", "P_0") + SYNC, PARSED + types + READY),
            (parse("", "SELECT $1") + describe("S") + SYNC, PARSED + types + READY),
            (parse("", "SELEC") + bind("", "") + execute() + SYNC, failed),
            (bind("", "P_0") + execute() + SYNC, failed),
            (query("SELECT 1; SELECT 2"), complete("SELECT 1") + complete("SELECT 2") + READY),
            (query("SET client_encoding"), encoding + complete("SET") + READY),
            (query(""), message("I") + READY),
            (message("C", b"SP_0\0") + SYNC, message("3") + READY),
            more,
            (pipeline[0] * 3, pipeline[1] * 3),
            (message("X"), b""),
            (startup(user="again"), READY),
            (b"", message("S", b"application_name\0late\0")),
            (b"", failure("57P01", "ended", "FATAL")),
        )
    )


def _runs(source: random.Random, said: bytes, mess: float) -> Iterator[tuple[bytes, bool]]:
    # Whole, or in parts, of which those behind the first may begin with a message, or not.
    at = 0
    while at < len(said):
        end = len(said)
        if source.random() < mess:
            end = source.randrange(at, len(said)) + 1
        yield said[at:end], at == 0 or source.random() < 0.3
        at = end


def _answers(source: random.Random, said: bytes) -> Iterator[bytes]:
    # As the kernel program sends them: several runs, each of whole messages.
    if len(said) < 40 or source.random() < 0.5:
        yield said
        return
    at = 0
    while at < len(said):
        end = at + 1 + int.from_bytes(said[at + 1 : at + 5], "big")
        yield said[at:end]
        at = end


def conversation(source: random.Random, pid: int, mess: float) -> list[Event]:
    """What one process says, with so much of a ``mess`` (0 to 1)."""
    now, kept = 0, {"read": 0, "write": 0}
    late = source.random() < 0.5
    client = source.choice(("local", "local", "[::1]:5", ""))
    events: list[Event] = []

    def add(direction: str, payload: bytes, *, boundary: bool) -> None:
        nonlocal now
        now += 1000
        if source.random() < mess:
            kept[direction] += 7
        missing = "unreadable" if source.random() < mess / 2 else ""
        cut = source.random() < mess / 2
        events.append(
            Served(
                now,
                pid,
                pid,
                107,
                "postgres",
                direction,
                5,
                client,
                "" if client else "no",
                kept[direction],
                len(payload),
                b"" if missing else payload,
                boundary,
                late,
                missing,
                cut,
            )
        )
        kept[direction] += len(payload)

    if not late:
        add("read", startup(user="a", database="b"), boundary=True)
        add("write", message("R", bytes(4)) + READY, boundary=True)
    for _ in range(source.randrange(12)):
        way = source.choices((asked_plainly, executed, unusual), (4, 6, 1 + 10 * mess))[0]
        said, answered = way(source)
        if source.random() < mess:
            answered = bytes(b ^ (source.random() < 0.02) for b in answered)
        for payload, boundary in _runs(source, said, mess):
            add("read", payload, boundary=boundary)
        whole = [(part, True) for part in _answers(source, answered)] if answered else []
        for payload, boundary in (
            whole if source.random() >= mess else _runs(source, answered, mess)
        ):
            add("write", payload, boundary=boundary)
    if source.random() < 0.5:
        events.append(ProcessExit(now + 1, pid, "postgres"))
    return events


def mixed(source: random.Random, *conversations: list[Event]) -> list[Event]:
    """Several at once, each in its order."""
    left = [list(reversed(one)) for one in conversations if one]
    events = []
    while left:
        one = source.choice(left)
        events.append(one.pop())
        left = [some for some in left if some]
    return events


def plainly(events: list[Event], facts_of: Callable[[int], SessionFacts]) -> list[Event]:
    """What follows from them, session by session, message by message."""
    sessions: dict[int, Session] = {}
    out: list[Event] = []
    last = 0
    for event in events:
        if isinstance(event, Served):
            last = event.time_ns
            if event.pid not in sessions:
                began = event.late or event.kept_offset > 0
                facts = facts_of(event.pid) if began else None
                sessions[event.pid] = Session(event, facts, 200)
            sessions[event.pid].feed(event, out)
        else:
            if isinstance(event, ProcessExit) and event.pid in sessions:
                sessions.pop(event.pid).close(event.time_ns, out)
            out.append(event)
    for session in sessions.values():
        session.abandon(last, out)
    return out
