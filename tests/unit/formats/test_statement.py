# SPDX-License-Identifier: Apache-2.0
"""Statements to databases in every format."""

from __future__ import annotations

import json

import msgspec

from ecapture.events import Statement
from ecapture.formats.brief import BriefFormat
from ecapture.formats.conversation import ConversationFormat
from ecapture.formats.jsonl import JsonLinesFormat

STATEMENT = Statement(
    1_700_000_000_000_000_002,
    1_700_000_000_000_000_001,
    10,
    11,
    107,
    "postgres",
    "postgresql",
    "execute",
    10,
    session_ns=5,
    user="al ice",
    database="shop",
    client="127.0.0.1:5000",
    application="psql",
    name="s1",
    text="SELECT $1,\n$2",
    length=13,
    parameters=("it's", None),
    duration_ns=1_234_567,
    tag="SELECT 1",
    rows=1,
    marks=("pipelined",),
)
BEGINNING = "2023-11-14T22:13:20.000000002Z pid=10 comm=postgres execute"
WHO = "user=al\\x20ice database=shop client=127.0.0.1:5000 application=psql session=10 name=s1"


def encoded(format_: BriefFormat | ConversationFormat, event: Statement) -> str:
    return b"".join(format_.encode([event])).decode()


def test_text_has_the_whole_statement_and_its_parameters() -> None:
    assert encoded(ConversationFormat(), STATEMENT) == (
        f"--- {BEGINNING} {WHO} ok tag=SELECT\\x201 rows=1 1.235ms [pipelined]\n"
        "SELECT $1,\n$2\n  $1 = it's\n  $2 = NULL\n"
    )


def test_text_of_an_error() -> None:
    event = msgspec.structs.replace(
        STATEMENT, outcome="error", error="42P01", message="no such é", rows=None, tag="",
        marks=(), parameters=(), missing="truncated", length=99, duration_ns=None,
    )  # fmt: skip
    assert encoded(ConversationFormat(), event) == (
        f"--- {BEGINNING} {WHO} length=99 error=42P01 - [truncated]\n"
        "SELECT $1,\n$2\n  error: no such é\n"
    )


def test_a_terminal_is_not_driven_by_a_statement() -> None:
    event = msgspec.structs.replace(STATEMENT, text="SELECT '\x1b[2J'", parameters=("\x07",))
    shown = encoded(ConversationFormat(terminal=True), event)
    assert "\x1b" not in shown
    assert "\x07" not in shown


def test_brief_is_one_line() -> None:
    assert encoded(BriefFormat(), STATEMENT) == (
        f'{BEGINNING} {WHO} ok tag=SELECT\\x201 rows=1 1.235ms "SELECT $1,\\x0a$2" [pipelined]\n'
    )


def test_jsonl_has_every_field() -> None:
    (line,) = JsonLinesFormat(container_of=lambda _: "c0").encode([STATEMENT])
    told = json.loads(line)
    assert told.pop("type") == "statement"
    assert told.pop("time") == "2023-11-14T22:13:20.000000002Z"
    assert told.pop("container") == "c0"
    expected = json.loads(msgspec.json.encode(STATEMENT))
    expected.pop("type")
    assert told == expected


def test_jsonl_says_null_where_nothing_is_known() -> None:
    event = Statement(2, 0, 3, 3, 0, "mysqld", "mysql", "query", 7, outcome="unknown")
    told = json.loads(JsonLinesFormat().encode([event])[0])
    assert told["started_ns"] is told["duration_ns"] is told["rows"] is None
    assert told["outcome"] == "unknown"
