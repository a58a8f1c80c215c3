# SPDX-License-Identifier: Apache-2.0
import re

import httpx
import pytest
from httpx_sse import EventSource
from hypothesis import given
from hypothesis import strategies as st
from trials import four_trials

from ecapture.protocols.messages import Mark
from ecapture.protocols.sse import EventStreamParser


def read(pieces, late=False, **options):
    parser = EventStreamParser(joined_late=late, **options)
    events = [event for piece in pieces for event in parser.feed(piece, 0)]
    return events + parser.end(0)


def size(stream):
    return len(stream.replace(b"\r", b"").replace(b"\n", b""))


def test_four_trials():
    parts = [
        b": a comment\ndata: first\ndata: line\n\n",
        "event: naïve\r\ndata:ümlaut\r\nid: 7\r\n\r\n".encode(),
        b"data\rdata\rid\r\r",
        b"retry: 500\nunknown: x\ndata: last\n\n",
    ]
    events = four_trials(
        lambda pieces, late: [e for e in read(pieces, late) if Mark.JOINED_LATE not in e.marks],
        parts,
        tail=b"data: unfinished",
    )
    seen = [(e.event, e.data, e.last_id, e.retry_ms, e.size) for e in events]
    assert seen == [
        ("message", "first\nline", "", -1, size(parts[0])),
        ("naïve", "ümlaut", "7", -1, size(parts[1])),
        ("message", "\n", "", -1, size(parts[2])),
        ("message", "last", "", 500, size(parts[3])),
    ]


def test_joined_late_the_first_event_is_marked_and_the_next_is_not():
    events = read([b"d of a line\ndata: rest\n\ndata: whole\n\n"], late=True)
    assert [(e.data, e.marks) for e in events] == [("rest", (Mark.JOINED_LATE,)), ("whole", ())]


def test_a_byte_order_mark_is_no_part_of_the_first_line():
    for step in (1, 2, 100):
        stream = b"\xef\xbb\xbfdata: x\n\n\xef\xbb\xbfdata: y\n\ndata: z\n\n"
        pieces = [stream[i : i + step] for i in range(0, len(stream), step)]
        assert [e.data for e in read(pieces)] == ["x", "z"]


def test_events_without_data_are_none_and_identifiers_with_nul_are_ignored():
    events = read([b"event: x\n\nid: a\n\nid: b\0c\ndata: 1\n\nretry: -5\n\nretry: 5x\n\n"])
    assert [(e.event, e.last_id) for e in events] == [("message", "a")]


def test_invalid_utf8_is_replaced_and_marked():
    (event,) = read([b"data: \xff\xfe\n\n"])
    assert event.data == "\ufffd\ufffd"
    assert event.marks == (Mark.MALFORMED,)


@pytest.mark.parametrize("step", [1, 17, 100_000])
def test_long_lines_and_many_lines_are_bounded(step):
    for stream in (b"data: " + b"x" * 5000 + b"\n\n", b"data\n" * 5000 + b"\n"):
        pieces = [stream[i : i + step] for i in range(0, len(stream), step)]
        parser = EventStreamParser(event_limit=100)
        events = []
        for piece in pieces:
            events += parser.feed(piece, 0)
            assert len(parser._tail) <= 100
            assert len(parser._lines) <= 100
        (event,) = events
        assert len(event.data) <= 100
        assert event.size == size(stream)
        assert event.marks == (Mark.LIMITED,)


def test_a_gap_marks_the_event_around_it():
    parser = EventStreamParser()
    assert parser.feed(b"data: one\nda", 0) == []
    (event,) = parser.feed(b"ta: lost\ndata: two\n\n", 0, gap=5)
    assert (event.data, event.marks) == ("one\ntwo", (Mark.GAP,))


def test_the_end_gives_out_what_is_unfinished():
    (event,) = read([b"data: half"])
    assert (event.data, event.marks) == ("half", (Mark.UNFINISHED,))


def reference(stream):
    """The algorithm of the standard, letter by letter, without limits."""
    text = stream.decode("utf-8", "replace").removeprefix("\ufeff")
    events, data, kind, last = [], [], "", ""
    lines = re.split("\r\n|\n|\r", text)
    for line in lines[:-1]:
        if not line:
            if data:
                events.append((kind or "message", "\n".join(data), last))
            data, kind = [], ""
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data.append(value)
        elif name == "event":
            kind = value
        elif name == "id" and "\0" not in value:
            last = value
    return events


WORDS = st.sampled_from(
    [b"data", b"event", b"id", b":", b" ", b"\n", b"\r", b"\r\n", b"x", b"\xc3\xa9", b"\0"]
)


@given(st.lists(WORDS, max_size=60), st.integers(1, 9))
def test_agrees_with_the_standard(words, step):
    stream = b"".join(words) + b"\n\n"
    pieces = [stream[i : i + step] for i in range(0, len(stream), step)]
    assert [(e.event, e.data, e.last_id) for e in read(pieces)] == reference(stream)


FIELDS = st.tuples(
    st.sampled_from(["data", "data:", "data: ", "event: ", "id: ", "retry: 7", ": ", "other: "]),
    st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0\ufeff"), max_size=9
    ),
)


@given(st.lists(st.lists(FIELDS, max_size=5), max_size=6), st.integers(1, 9))
def test_agrees_with_httpx_sse(events, step):
    blocks = [["data: always", *map("".join, fields)] for fields in events]
    stream = "".join(f"{line}\n" for block in blocks for line in (*block, "")).encode()
    kind = {"content-type": "text/event-stream"}
    said = EventSource(httpx.Response(200, headers=kind, content=stream)).iter_sse()
    heard = read([stream[i : i + step] for i in range(0, len(stream), step)])
    assert [(e.event, e.data, e.last_id) for e in heard] == [(e.event, e.data, e.id) for e in said]


def test_behind_a_gap_the_identifier_is_not_known():
    parser = EventStreamParser()
    (first,) = parser.feed(b"id: 1\ndata: one\n\n", 0)
    (second,) = parser.feed(b"data: two\n\n", 0, gap=9)
    assert (first.last_id, second.last_id) == ("1", "")


def test_a_time_that_is_too_long_is_not_shortened():
    (event,) = read([b"retry: 12345678901234567890\n\n"])
    assert (event.retry_ms, event.marks) == (-1, (Mark.LIMITED,))


def test_a_character_without_its_end_is_no_fault_of_the_senders():
    (event,) = read([b"data: half \xc3"])
    assert (event.data, event.marks) == ("half \ufffd", (Mark.UNFINISHED,))
    line = "data: éé".encode()
    (event,) = read([line[:7], line[7:] + b"\n\n"], event_limit=9)
    assert event.marks == (Mark.LIMITED,)
