# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL's messages: whole, byte by byte, cut, with bytes missing; and what they say."""

from __future__ import annotations

import pytest
from pgmessages import bind, message, parse, startup

from ecapture.errors import ProtocolError
from ecapture.protocols import postgres
from ecapture.protocols.postgres import Message, MessageReader

QUERY = message("Q", b"SELECT 1\0")
STREAM = QUERY + message("S") + message("P", b"n\0SELECT $1\0\0\1\0\0\0\x17")
PARSED = [
    Message(ord("Q"), b"SELECT 1\0", 9),
    Message(ord("S"), b"", 0),
    Message(ord("P"), b"n\0SELECT $1\0\0\1\0\0\0\x17", 18),
]


def test_messages_whole() -> None:
    assert MessageReader(1000).feed(STREAM, boundary=True) == PARSED


def test_messages_byte_by_byte() -> None:
    reader = MessageReader(1000)
    found = []
    for at in range(len(STREAM)):
        found += reader.feed(STREAM[at : at + 1], boundary=at == 0)
    assert found == PARSED


def test_what_is_before_the_first_boundary_is_skipped() -> None:
    reader = MessageReader(1000)
    assert reader.feed(STREAM[3:], boundary=False) == []
    assert reader.feed(STREAM, boundary=True) == PARSED


def test_a_message_that_was_cut_tells_its_length() -> None:
    reader = MessageReader(1000)
    assert reader.feed(message("Q", b"a" * 500)[:100], boundary=True) == []
    assert reader.feed(STREAM, boundary=True) == [Message(ord("Q"), b"a" * 95, 500), *PARSED]


def test_a_message_that_is_cut_is_told_at_once() -> None:
    reader = MessageReader(1000)
    long = message("Q", b"a" * 500)
    assert reader.feed(long[:50], boundary=True) == []
    assert reader.feed(long[50:100], boundary=False, cut=True) == [
        Message(ord("Q"), b"a" * 95, 500)
    ]
    assert reader.feed(STREAM, boundary=True) == PARSED


def test_only_the_kinds_that_are_wanted() -> None:
    reader = MessageReader(1000, (ord("S"),))
    assert reader.feed(STREAM, boundary=True) == PARSED[1:2]
    assert reader.feed(message("Q", b"a" * 500)[:50], boundary=True, cut=True) == []


def test_missing_bytes_cost_the_message_and_no_more() -> None:
    reader = MessageReader(1000)
    assert reader.feed(QUERY[:7], boundary=True) == []
    reader.forget()
    assert reader.feed(QUERY[9:], boundary=False) == []
    assert reader.feed(STREAM, boundary=True) == PARSED


def test_no_more_than_the_limit_is_kept() -> None:
    reader = MessageReader(10)
    reader.feed(message("Q", b"a" * 500)[:100], boundary=True)
    found = reader.feed(QUERY, boundary=True)
    assert found[0] == Message(ord("Q"), b"aaaaa", 500)


def test_nonsense_is_skipped_up_to_the_next_boundary() -> None:
    reader = MessageReader(1000)
    assert reader.feed(b"Q\0\0\0\1" + QUERY, boundary=True) == []
    assert reader.feed(STREAM, boundary=True) == PARSED


def test_a_startup_packet_has_no_type() -> None:
    (found,) = MessageReader(1000).feed(startup(user="a", database="b"), boundary=True)
    assert found.kind == postgres.STARTUP
    assert postgres.read_startup(found.body) == (196608, {b"user": b"a", b"database": b"b"})


def test_a_request_for_encryption_is_no_start() -> None:
    body = (80877103).to_bytes(4, "big")
    assert postgres.read_startup(body) == (0, {})


def test_bind_has_values_and_formats() -> None:
    raw = bind("p", "s", (b"x", None, b""), formats=(1,))
    found = postgres.read_bind(raw[5:])
    assert found == postgres.Bind(b"p", b"s", (b"x", None, b""), (1, 1, 1), cut=False)


def test_bind_that_was_cut_keeps_what_is_there() -> None:
    raw = bind("", "s", (b"x", b"long value"))
    found = postgres.read_bind(raw[5:-4])
    assert found == postgres.Bind(b"", b"s", (b"x",), (0, 0), cut=True)


def test_parse_that_was_cut_tells_the_length_of_its_text() -> None:
    raw = parse("n", "SELECT 1")
    whole = Message(ord("P"), raw[5:], len(raw) - 5)
    assert postgres.read_parse(whole) == (b"n", b"SELECT 1", 8, (), False)
    cut = Message(ord("P"), raw[5:11], len(raw) - 5)
    assert postgres.read_parse(cut) == (b"n", b"SELE", 0, (), True)


@pytest.mark.parametrize("body", [b"", b"name", b"a\0text"])
def test_what_has_no_end_is_an_error(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        postgres.read_parse(Message(ord("P"), body, len(body)))


def test_a_count_that_cannot_be_is_an_error() -> None:
    with pytest.raises(ProtocolError):
        postgres.read_types(b"\xff\xff\0\0")


def test_a_failure() -> None:
    body = b"SFEHLER\0VFATAL\0C28P01\0Mno\xe9\0\0"
    assert postgres.read_failure(body) == ("28P01", b"no\xe9", True)
    assert postgres.read_failure(b"") == ("", b"", False)


@pytest.mark.parametrize(
    ("tag", "rows"),
    [("INSERT 0 5", 5), ("SELECT 0", 0), ("BEGIN", None), ("", None), ("COPY 12", 12)],
)
def test_rows_of_a_tag(tag: str, rows: int | None) -> None:
    assert postgres.rows_of(tag) == rows


@pytest.mark.parametrize("more", [30, 100, 500])
def test_what_is_beyond_the_limit_is_not_put_together_with_what_follows(more: int) -> None:
    reader = MessageReader(100)
    long = message("Q", bytes(range(250)))
    assert reader.feed(long[:120], boundary=True) == []
    assert reader.feed((long + STREAM * 20)[120 : 120 + more], boundary=False) == []
    assert reader.feed(STREAM, boundary=True) == [Message(ord("Q"), long[5:100], 250), *PARSED]
