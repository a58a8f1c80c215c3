# SPDX-License-Identifier: Apache-2.0
"""What is joined quickly is what is joined slowly, of every mixture of sessions and losses."""

from __future__ import annotations

import random

import pytest
from commands import KNOWN, begin_record, end_record, text_record

from ecapture._wire import CommandFlag, Flag, TextRole
from ecapture.events import (
    Command,
    CommandEnd,
    CommandText,
    Event,
    ProcessExit,
    Statement,
    WholeQuery,
)
from ecapture.kernel.decode import Decoder
from ecapture.pipeline.mysql import MysqlStatements

ANSWERED = KNOWN | CommandFlag.ANSWERED
QUERY = 3


def slowly(events: list[Event], stage: MysqlStatements) -> list[Event]:
    """What the stage's own methods make of them, one by one."""
    out: list[Event] = []
    for event in events:
        if type(event) is Command:
            stage.begin(event, out)
        elif type(event) is WholeQuery:
            stage.whole(event, out)
        elif type(event) is CommandText:
            stage.text(event)
        elif type(event) is CommandEnd:
            stage.end(event, out)
        else:
            if type(event) is ProcessExit:
                stage.exit(event, out)
            out.append(event)
    return out


def command(source: random.Random, mess: float, started_ns: int) -> list[bytes]:
    """The records of one, some of them odd or missing."""
    number = source.choice((QUERY, QUERY, QUERY, QUERY, 1, 2, 17, 22, 23, 24, 28, 240, 241))
    few = 3 if mess else 30  # that meet, as they only do where records were lost
    tid = source.randrange(101, 101 + few)
    session = source.randrange(7, 7 + few)
    whose = {"session": session, "tid": tid, "started_ns": started_ns}
    text = source.choice((b"select 1", b"", "é".encode(), b"\xff", b"x" * 300))
    told = source.choice((ANSWERED, ANSWERED, ANSWERED | CommandFlag.HAS_STATEMENT))
    how: dict[str, object] = {}
    if source.random() < mess:
        told = source.choice((KNOWN, ANSWERED, 0, ANSWERED | CommandFlag.CLOSES))
        how = {"error": source.choice((0, 1064)), "results": source.randrange(4)}
    rows = source.choice((CommandFlag.HAS_ROWS, CommandFlag.HAS_AFFECTED, 0))
    begun = {"time_ns": started_ns, "connection": session, **whose}
    records = [begin_record(number, text_length=len(text), **begun)]
    pieces = [(text, 0)]
    if source.random() < 0.5:
        records, pieces = [begin_record(number, sent=text, **begun)], []
    if source.random() < mess and len(text) > 3:
        pieces = [(text[:3], 0), (text[3:], 3)]
    for piece, offset in pieces if text else ():
        last = Flag.LAST if offset + len(piece) == len(text) else 0
        flags = last | (
            source.choice((Flag.TRUNCATED, Flag.FAULT, 0)) if source.random() < mess else 0
        )
        role = source.choice(list(TextRole)) if source.random() < mess else TextRole.STATEMENT
        records.append(
            text_record(piece, role, length=len(text), offset=offset, flags=flags, **whose)
        )
    records.append(
        end_record(
            number,
            told=told | rows,
            affected=3,
            rows=2,
            **how,
            **begun | {"time_ns": started_ns + 500},
        )
    )
    return [record for record in records if source.random() >= mess / 3]


@pytest.mark.parametrize("mess", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("seed", range(100))
def test_random_commands(seed: int, mess: float) -> None:
    source = random.Random(f"{seed} {mess}")
    waiting = [command(source, mess, 1_000 * (n + 1)) for n in range(40)]
    records: list[bytes] = []
    running: list[list[bytes]] = []
    while waiting or running:
        if waiting and len(running) < 3:
            running.append(waiting.pop(0))
        one = source.choice(running)
        if one:
            records.append(one.pop(0))
        running = [some for some in running if some]
    whole = Decoder(0).decode(b"".join(records))
    one_by_one = Decoder(0)
    apart = [event for record in records for event in one_by_one.decode(record)]
    assert not any(type(event) is WholeQuery for event in apart)
    assert by_session(joined(whole, source)) == by_session(joined(apart, source))
    whole.insert(source.randrange(len(whole)), ProcessExit(50_000, 100, "mysqld"))
    assert ProcessExit in map(type, joined(whole, source))


def joined(events: list[Event], source: random.Random) -> list[Event]:
    """What is joined quickly, which must be what is joined slowly."""
    quick, slow = MysqlStatements(), MysqlStatements()
    told: list[Event] = []
    at = 0
    while at < len(events):
        size = source.randrange(1, 20)
        told += quick.feed(events[at : at + size])
        at += size
    told += quick.close()
    assert told == slowly(events, slow) + slow.close()
    assert any(isinstance(event, Statement) for event in told)
    return told


def by_session(events: list[Event]) -> dict[object, list[Event]]:
    """The same, by whom it is of: between sessions only the time tells which was first."""
    found: dict[object, list[Event]] = {}
    for event in events:
        assert isinstance(event, Statement)
        found.setdefault(event.session, []).append(event)
    return found
