# SPDX-License-Identifier: Apache-2.0
"""Records about commands become events; what is not as the wire says is counted."""

from __future__ import annotations

import random

import pytest
from commands import KNOWN, begin_record, end_record, text_record

from ecapture._wire import COMMAND_TEXT, CommandFlag, Flag, TextRole
from ecapture.events import Command, CommandEnd, CommandText, WholeQuery
from ecapture.kernel.decode import Decoder


def decode(*records: bytes) -> list[object]:
    decoder = Decoder(10)
    events = decoder.decode(b"".join(records))
    assert decoder.malformed == 0
    return events


def test_a_command_whole():
    begin, text, end = decode(
        begin_record(text_length=8), text_record(b"select 1"), end_record(affected=3)
    )
    key = (100, 101, 1_000)
    assert isinstance(begin, Command)
    assert (begin.time_ns, begin.key, begin.command, begin.connection) == (1_010, key, 3, 7)
    assert (begin.user, begin.host, begin.database, begin.unknown) == (
        "ada",
        "localhost",
        "shop",
        "",
    )
    assert (begin.length, begin.statement) == (8, None)
    assert isinstance(text, CommandText)
    assert (text.key, text.payload, text.role, text.last) == (key, b"select 1", 0, True)
    assert isinstance(end, CommandEnd)
    assert (end.time_ns, end.key, end.affected, end.rows, end.error) == (6_010, key, 3, None, 0)


def test_what_is_short_comes_with_the_beginning():
    first, second = decode(
        begin_record(sent=b"select 1"),
        begin_record(23, user=b"", sent=b"\0\1", role=TextRole.PACKET, text_length=0),
    )
    assert (first.sent, first.role, first.length) == (b"select 1", TextRole.STATEMENT, 8)
    assert (first.user, first.host, first.database) == ("ada", "localhost", "shop")
    assert (second.sent, second.role, second.length) == (b"\0\1", TextRole.PACKET, 0)
    assert (second.user, second.host, second.database) == ("", "localhost", "shop")


ENDED = KNOWN | CommandFlag.ANSWERED | CommandFlag.HAS_AFFECTED


def test_a_query_that_ends_as_most_do_is_one_event():
    (whole,) = decode(
        begin_record(sent=b"select 1"), end_record(told=ENDED, affected=3, time_ns=6_000)
    )
    assert whole == WholeQuery(
        6_010, 1_010, 100, 101, 999, "mariadbd", 0x7000, 7, "ada", "shop", "localhost", "",
        b"select 1", 3,
    )  # fmt: skip


@pytest.mark.parametrize(
    "end",
    [
        {"told": ENDED | CommandFlag.HAS_STATEMENT},
        {"told": KNOWN},
        {"told": ENDED, "error": 1064},
        {"told": ENDED, "results": 2},
        {"told": ENDED, "command": 22},
        {"told": ENDED, "started_ns": 999},
        {"told": ENDED, "tid": 102},
    ],
)
def test_others_come_as_they_are(end):
    told = decode(begin_record(sent=b"select 1"), end_record(**end))
    assert [type(event) for event in told] == [Command, CommandEnd]


def test_of_a_thread_and_of_a_session_the_order_is_kept():
    """A beginning waits for its end only until its thread or its session does something else."""
    for other in ({"tid": 102}, {"session": 0x8000}):
        told = decode(
            begin_record(sent=b"select 1"),
            begin_record(sent=b"select 2", time_ns=2_000, **other),
            end_record(told=ENDED, **other, started_ns=2_000),
        )
        assert [type(event) for event in told] == [Command, WholeQuery]
        assert [event.sent for event in told] == [b"select 1", b"select 2"]
    many = [
        begin_record(sent=b"select %d" % n, tid=1_000 + n, session=5_000 + n) for n in range(100)
    ]
    assert [event.tid for event in decode(*many)] == list(range(1_000, 1_100))
    ends = [end_record(told=ENDED, tid=1_000 + n, session=5_000 + n) for n in range(100)]
    told = decode(*many, *ends)
    assert [type(event) for event in told] == [Command] * 36 + [CommandEnd] * 36 + [WholeQuery] * 64


def test_names_of_the_same_bytes_are_told_apart():
    """What comes often is remembered: by the lengths of its parts, too."""
    names = [(b"ab", b"c", b"d"), (b"a", b"bc", b"d"), (b"", b"ab", b"cd"), (b"ab", b"c", b"d")]
    told = decode(*(begin_record(user=u, host=h, database=d) for u, h, d in names))
    assert [(t.user.encode(), t.host.encode(), t.database.encode()) for t in told] == names


def test_what_is_not_known_is_none_and_said():
    begin, cut = decode(
        begin_record(known=1, told=0, host=b"", database=b""),
        begin_record(told=KNOWN | CommandFlag.USER_CUT | CommandFlag.DATABASE_UNREAD),
    )
    assert begin.connection is None
    assert begin.unknown == "this build does not show client, database"
    assert cut.unknown == "database could not be read; user is cut"


@pytest.mark.parametrize(
    ("flags", "missing"),
    [
        (Flag.LAST, ""),
        (Flag.LAST | Flag.TRUNCATED, "truncated"),
        (Flag.TRUNCATED, ""),
        (Flag.LAST | Flag.FAULT, "unreadable"),
    ],
)
def test_why_a_text_has_less(flags, missing):
    (text,) = decode(text_record(b"abc", flags=flags, length=10))
    assert text.missing == missing


@pytest.mark.parametrize(
    "record",
    [
        text_record(b"abc", length=2),
        text_record(b"abc", offset=1),
        text_record(b"abc", role=max(TextRole) + 1),
        begin_record(size=88),
        begin_record(sent=b"select 1", sent_length=7),
        begin_record(user_length=65535),
        begin_record(user=b"x" * 513),
        begin_record(role=max(TextRole) + 1),
        end_record(size=104),
        text_record(b"", size=COMMAND_TEXT.size - 8)[: COMMAND_TEXT.size - 8],
    ],
)
def test_malformed_records_are_counted(record):
    decoder = Decoder(0)
    assert decoder.decode(record) == []
    assert decoder.malformed >= 1


def test_any_bytes_are_decoded_or_counted():
    source = random.Random(5)
    for record in (begin_record(sent=b"use"), text_record(b"select 1"), end_record()):
        for _ in range(300):
            damaged = bytearray(record)
            for _ in range(3):
                damaged[source.randrange(len(damaged))] = source.randrange(256)
            Decoder(0).decode(bytes(damaged))
