# SPDX-License-Identifier: Apache-2.0
import time
import tracemalloc

import pytest
from http1_talk import CHUNKED, GET, LENGTH, OK, TO_CLIENT, TO_SERVER, short, talk

from ecapture.protocols.http1 import Http1Connection
from ecapture.protocols.messages import Body, Head, Mark, MessageComplete, Note

STEPS = (1, 5, 1 << 20)


def say(data, step=1 << 20, direction=TO_SERVER, **limits):
    return talk(*((direction, data[i : i + step]) for i in range(0, len(data), step)), **limits)


# Joined late, garbage


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(
    "before", [b'"rest": [1, 2]}', b"\x00\x01\x02", b"of words\r\n\r\n", b"a: b\r\nc: d\r\n\r\n"]
)
def test_joined_late(before, step):
    got = say(before + GET + GET, step)
    assert short(got) == [
        (Mark.JOINED_LATE, len(before)), (1, "/a"), (1, "end"), (2, "/a"), (2, "end"),
    ]  # fmt: skip
    got = say(before + OK + OK, step, TO_CLIENT)
    assert [m.size for m in got if isinstance(m, Note)] == [len(before)]
    assert [m.data for m in got if isinstance(m, Body)][-1][-1:] == b"k"


@pytest.mark.parametrize("step", STEPS)
def test_garbage_after_a_message_is_passed_over_and_said(step):
    got = say(GET + b"\x16\x03\x01 no http \r\n" + GET, step)
    assert short(got) == [
        (1, "/a"), (1, "end"), (Mark.MALFORMED, 14), (2, "/a"), (2, "end"),
    ]  # fmt: skip


@pytest.mark.parametrize("step", STEPS)
def test_garbage_after_a_start_line_is_passed_over_and_said(step):
    start = b"GET /b HTTP/1.1\r\n"
    got = say(GET + start + b"\xff\xfe garbage\r\n" + GET, step)
    assert [entry for entry in short(got) if entry[0] != Mark.MALFORMED] == [
        (1, "/a"), (1, "end"), (2, "/a"), (2, "end"),
    ]  # fmt: skip
    assert sum(m.size for m in got if isinstance(m, Note)) == len(start) + 12


@pytest.mark.parametrize(
    ("wrong", "mark"),
    [
        (b"5\r\nhello!!\r\n", Mark.MALFORMED),
        (b"-5\r\nhello\r\n", Mark.MALFORMED),
        (b"g\r\n", Mark.MALFORMED),
        (b"\r\n", Mark.MALFORMED),
        (b"0x5\r\nhello\r\n", Mark.MALFORMED),
        (b"fffffffffffffffff\r\n", Mark.MALFORMED),
        (b"ffffffffffffffff\r\n", Mark.LIMITED),
        (b"5;" + b"x" * 5000 + b"\r\n", Mark.MALFORMED),
        (b"0\r\ngarbage\r\n\r\n", Mark.MALFORMED),
        (b"0\r\nA: " + b"x" * 200_000 + b"\r\n\r\n", Mark.LIMITED),
    ],
)
@pytest.mark.parametrize("step", [7, 1 << 20])
def test_wrong_chunking_ends_the_message_and_the_next_is_found(wrong, mark, step):
    got = say(CHUNKED + b"2\r\nhi\r\n" + wrong + GET, step)
    assert short(got)[0] == (1, "/a")
    assert got[1].data.startswith(b"hi")
    ends = [m for m in got if isinstance(m, MessageComplete)]
    assert ends[0].marks == (mark, Mark.UNFINISHED)
    assert ends[0].problem
    assert [m.target for m in got if isinstance(m, Head)] == ["/a", "/a"]
    assert ends[1].marks == ()


@pytest.mark.parametrize("chunks", [b"5\nhello\n0\n\n", b"5\r\nhello\n0\r\n\r\n"])
def test_bare_line_feeds_around_chunks_are_ambiguous(chunks):
    for step in STEPS:
        got = say(CHUNKED + chunks + GET, step)
        (end, _) = [m for m in got if isinstance(m, MessageComplete)]
        assert (end.size, end.marks) == (5, (Mark.AMBIGUOUS,))


@pytest.mark.parametrize("value", [b"-1", b"99999999999999999999", b"1, 2"])
def test_a_length_that_cannot_be_followed(value):
    data = b"POST /x HTTP/1.1\r\nContent-Length: " + value + b"\r\n\r\ncontent" + GET
    for step in STEPS:
        got = say(data, step)
        assert [type(m) for m in got] == [Head, MessageComplete, Note, Head, MessageComplete]
        assert got[0].marks == got[1].marks == (got[2].mark,)
        assert got[2].size == 7


# Limits


@pytest.mark.parametrize("step", [100, 1 << 20])
def test_a_head_that_is_too_long_is_shown_in_part(step):
    data = b"GET /big HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 1000 + b"\r\n" + GET
    got = say(data, step, max_head=1000)
    assert (got[0].target, got[0].fields[0]) == ("/big", ("Host", "a"))
    assert got[0].marks[0] == got[1].marks[0] == Mark.LIMITED
    assert len(got[0].fields) < 200
    assert isinstance(got[2], Note)
    assert short(got)[3:] == [(2, "/a"), (2, "end")]


def test_an_endless_head_is_bounded():
    connection = Http1Connection()
    connection.feed(TO_SERVER, b"GET / HTTP/1.1\r\nHost: a\r\nX: ", 0)
    tracemalloc.start()
    for _ in range(2000):
        connection.feed(TO_SERVER, b"x" * 16384, 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 << 20


def test_content_beyond_the_limit_is_counted_only():
    data = LENGTH.replace(b"9", b"5000") + b"0123456789" * 500
    for step in (7, 10_000):
        got = say(data, step, body_limit=25)
        assert b"".join(m.data for m in got if isinstance(m, Body)) == data[-5000:][:25]
        assert (got[-1].size, got[-1].decoded_size, got[-1].kept) == (5000, 5000, 25)
        assert got[-1].marks == ()


@pytest.mark.parametrize("framing", ["length", "chunks", "close", "lost"])
def test_memory_is_flat_however_much_one_connection_moves(framing):
    piece = bytes(range(256)) * 64
    connection = Http1Connection()
    connection.feed(TO_SERVER, GET, 0)
    head = {
        "length": b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "close": b"HTTP/1.1 200 OK\r\n\r\n",
        "lost": b"\0",
    }[framing]
    connection.feed(TO_CLIENT, head, 0)
    if framing == "chunks":
        piece = b"4000\r\n" + piece + b"\r\n"
    given = 0
    tracemalloc.start()
    for _ in range(20_000):
        given += sum(len(m.data) for m in connection.feed(TO_CLIENT, piece, 1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20
    assert given == (0 if framing == "lost" else 1 << 20)


# Gaps


def test_a_gap_in_content_of_known_length_is_a_hole():
    got = talk((TO_SERVER, LENGTH + b"abc"), (TO_SERVER, b"ghi", 3), (TO_SERVER, GET))
    assert short(got) == [
        (1, "/a"), (1, b"abc"), (1, b"ghi"), (1, "end", Mark.GAP), (2, "/a"), (2, "end"),
    ]  # fmt: skip
    assert (got[3].size, got[3].kept) == (9, 6)
    got = talk((TO_SERVER, LENGTH + b"abc"), (TO_SERVER, GET, 6))
    assert short(got)[2:] == [(1, "end", Mark.GAP), (2, "/a"), (2, "end")]
    got = talk((TO_SERVER, CHUNKED + b"5\r\nab"), (TO_SERVER, b"\r\n0\r\n\r\n", 3))
    assert short(got)[2:] == [(1, "end", Mark.GAP)]


def test_a_gap_in_content_until_close_is_a_hole():
    got = talk((TO_CLIENT, b"HTTP/1.0 200 OK\r\n\r\nabc"), (TO_CLIENT, b"def", -1))
    assert short(got) == [(1, 200), (1, b"abc"), (1, b"def"), (1, "end", Mark.GAP)]


@pytest.mark.parametrize("begun", [LENGTH + b"abc", CHUNKED + b"5\r\nab", CHUNKED + b"0\r\nA: b"])
@pytest.mark.parametrize("gap", [1000, -1])
def test_a_gap_beyond_the_content_leads_to_the_next_message(begun, gap):
    got = talk((TO_SERVER, begun), (TO_SERVER, b"rest" + GET, gap))
    (end, _) = [m for m in got if isinstance(m, MessageComplete)]
    assert end.marks == (Mark.GAP, Mark.UNFINISHED)
    assert short(got)[-3][0] == Mark.GAP
    assert short(got)[-2:] == [(2, "/a"), (2, "end")]


def test_a_gap_between_messages_or_in_a_head_is_said():
    got = talk((TO_SERVER, GET), (TO_SERVER, GET, 10), (TO_SERVER, GET[:9]), (TO_SERVER, GET, 20))
    assert short(got) == [
        (1, "/a"), (1, "end"), (Mark.GAP, 10), (2, "/a"), (2, "end"),
        (Mark.GAP, 29), (3, "/a"), (3, "end"),
    ]  # fmt: skip


# Time


@pytest.mark.parametrize(
    "piece",
    [
        b"GET / HTTP/1.1\r\nA: b\r\n",
        b"GET / HTTP/1.1\r\ngarbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: -1\r\n\r\n",
        b"\n\n",
        b"\r\n \r\n",
        b"1\r\nx\r\n",
        b"A",
        b" HTTP/1.1\r\n",
    ],
)
@pytest.mark.parametrize("direction", [TO_SERVER, TO_CLIENT])
@pytest.mark.parametrize("begun", [b"", CHUNKED, b"\0", b"POST / HTTP/1.1\r\nA: b\r\n"])
def test_no_input_takes_more_time_than_its_length_allows(piece, direction, begun):
    data = begun + piece * ((1 << 18) // len(piece))
    for step in (997, 1 << 18):
        began = time.process_time()
        say(data, step, direction)
        assert time.process_time() - began < 20.0


@pytest.mark.parametrize("step", [1000, 1 << 20])
def test_a_start_line_that_is_too_long_is_counted(step):
    long = b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n"
    got = say(long + GET, step, max_head=5000)
    assert short(got) == [(Mark.LIMITED, len(long)), (1, "/a"), (1, "end")]


def test_a_request_behind_the_end_of_a_text_is_no_target():
    for piece in (b"and so on.", b"and so on HTTP/1.1 "):
        got = talk((TO_SERVER, piece), (TO_SERVER, GET))
        assert short(got) == [(Mark.JOINED_LATE, len(piece)), (1, "/a"), (1, "end")]
    got = talk((TO_SERVER, b"GET /a b HTTP/1.1\r\n\r\n"))
    assert short(got) == [(1, "/a b", Mark.MALFORMED), (1, "end")]
