# SPDX-License-Identifier: Apache-2.0
"""Halves of streams: what their head makes of their content."""

from __future__ import annotations

import gzip

import pytest

from ecapture.protocols.http2_streams import ContentLimits, Half, Readers, Stream
from ecapture.protocols.messages import (
    Body,
    Direction,
    GrpcMessage,
    Head,
    Mark,
    Message,
    MessageComplete,
    Opaque,
    ServerEvent,
    WebSocketMessage,
)
from ecapture.protocols.websocket import WebSocketConnection

DOWN = Direction.TO_CLIENT


def begun(**fields: str) -> Half:
    half = Half(Readers(ContentLimits()))
    named = tuple((name.replace("_", "-"), value) for name, value in fields.items())
    half.begin(Head(DOWN, 1, 1, kind="response", fields=named))
    return half


def heard(half: Half, *pieces: bytes) -> list[Message]:
    out: list[Message] = []
    for piece in pieces:
        half.feed(piece, DOWN, 2, 1, out)
    half.end(DOWN, 3, 1, out)
    return out


def test_nothing_without_content() -> None:
    assert heard(begun()) == [MessageComplete(DOWN, 3, 1)]
    assert heard(Half(Readers(ContentLimits()))) == []


def test_content() -> None:
    body, end = heard(begun(), b"abc")
    assert body == Body(DOWN, 2, 1, data=b"abc")
    assert end == MessageComplete(DOWN, 3, 1, size=3, decoded_size=3, kept=3)


@pytest.mark.parametrize(
    ("announced", "marks"),
    [("3", ()), ("4", (Mark.MALFORMED,)), ("2", (Mark.MALFORMED,)), ("x", ()), ("9" * 99, ())],
)
def test_content_of_another_length_than_was_announced(announced: str, marks: object) -> None:
    _, end = heard(begun(content_length=announced), b"abc")
    assert isinstance(end, MessageComplete)
    assert end.marks == marks
    assert end.problem == (f"3 bytes, where {announced} were announced" if marks else "")
    # to HEAD, or with 304
    (none,) = heard(begun(content_length=announced))
    assert isinstance(none, MessageComplete)
    assert not none.marks


def test_what_is_cut_short_is_not_called_malformed() -> None:
    half = begun(content_length="9")
    half.say(Mark.ABANDONED, "RST_STREAM")
    _, end = heard(half, b"abc")
    assert isinstance(end, MessageComplete)
    assert end.marks == (Mark.ABANDONED,)


def test_an_end_is_given_out_once() -> None:
    half = begun()
    heard(half, b"abc")
    out: list[Message] = []
    half.end(DOWN, 4, 1, out)
    assert not out


def test_stacked_codings() -> None:
    half = Half(Readers(ContentLimits()))
    fields = (("content-encoding", "gzip"), ("content-encoding", "gzip"))
    half.begin(Head(DOWN, 1, 1, kind="response", fields=fields))
    body, end = heard(half, gzip.compress(gzip.compress(b"abc")))
    assert isinstance(body, Body)
    assert isinstance(end, MessageComplete)
    assert body.data == b"abc"
    assert end.codings == ("gzip", "gzip")


def test_a_coding_that_ends_early_is_marked_unless_the_end_is_missing() -> None:
    packed = gzip.compress(b"abc")[:-3]
    end = heard(begun(content_encoding="gzip"), packed)[-1]
    assert isinstance(end, MessageComplete)
    assert end.marks == (Mark.MALFORMED,)
    half = begun(content_encoding="gzip")
    half.say(Mark.ABANDONED, "reset")
    end = heard(half, packed)[-1]
    assert isinstance(end, MessageComplete)
    assert (end.marks, end.problem) == ((Mark.ABANDONED,), "reset")


def test_decoders_are_given_back() -> None:
    readers = Readers(ContentLimits(decoded=1))
    for _ in range(3):
        half = Half(readers)
        half.begin(Head(DOWN, 1, 1, kind="response", fields=(("content-encoding", "gzip"),)))
        assert heard(half, gzip.compress(b"abc"))[0] == Body(DOWN, 2, 1, data=b"abc")
    half = Half(readers)
    half.begin(Head(DOWN, 1, 1, kind="response", fields=(("content-encoding", "gzip"),)))
    heard(half, b"not gzip")  # falls back to what was sent
    assert readers.active == 0


@pytest.mark.parametrize("size", [0, 7])
def test_missing_content(size: int) -> None:
    half = begun()
    out: list[Message] = []
    half.feed(b"abc", DOWN, 2, 1, out)
    half.miss(size, DOWN, 2, 1, out)
    end = heard(half, b"def")[-1]
    assert isinstance(end, MessageComplete)
    assert (end.size, end.kept, end.marks) == (6 + size, 6, (Mark.GAP,))


def test_missing_content_before_any_other() -> None:
    half = begun()
    out: list[Message] = []
    half.miss(5, DOWN, 2, 1, out)
    end = heard(half, b"def")[-1]
    assert isinstance(end, MessageComplete)
    assert (end.size, end.kept, end.marks) == (8, 3, (Mark.GAP,))


def test_events_come_after_their_content() -> None:
    body, event, end = heard(begun(content_type="text/event-stream"), b"data: x\n\n")
    assert isinstance(body, Body)
    assert isinstance(event, ServerEvent)
    assert event.data == "x"
    assert isinstance(end, MessageComplete)


def test_a_late_half_is_what_it_looks_like() -> None:
    for content, kind in ((b"\0\0\0\0\1x", GrpcMessage), (b"plain", Body)):
        half = Half(Readers(ContentLimits()))
        half.begin_late(Head(DOWN, 1, 1, marks=(Mark.JOINED_LATE,)), grpc=False)
        assert isinstance(heard(half, content)[0], kind)


def test_a_tunnel_has_no_messages() -> None:
    half = begun()
    half.tunnel = True
    out: list[Message] = []
    half.feed(b"abc", DOWN, 2, 1, out)
    half.miss(4, DOWN, 2, 1, out)
    assert out == [Opaque(DOWN, 2, 1, data=b"abc"), Opaque(DOWN, 2, 1, gap=4)]


def test_what_is_missing_from_events_messages_and_web_sockets() -> None:
    out: list[Message] = []
    half = begun(content_type="text/event-stream")
    half.feed(b"data: one\n", DOWN, 2, 1, out)
    half.miss(9, DOWN, 2, 1, out)
    half.feed(b"data: two\n\ndata: three\n\n", DOWN, 2, 1, out)
    events = [message for message in out if isinstance(message, ServerEvent)]
    assert Mark.GAP in events[0].marks
    assert (events[-1].data, events[-1].marks) == ("three", ())
    out.clear()
    half = begun(content_type="application/grpc")
    half.feed(b"\0\0\0\0\3a", DOWN, 2, 1, out)
    half.miss(2, DOWN, 2, 1, out)
    (message,) = out
    assert isinstance(message, GrpcMessage)
    assert (message.data, message.marks) == (b"a", (Mark.GAP,))
    out.clear()
    half = begun()
    half.tunnel = True
    half.websocket = WebSocketConnection(stream=1)
    half.feed(b"\x81\x03a", DOWN, 2, 1, out)
    half.miss(2, DOWN, 2, 1, out)
    half.feed(b"\x81\x01b", DOWN, 2, 1, out)
    texts = [message for message in out if isinstance(message, WebSocketMessage)]
    assert Mark.GAP in texts[0].marks
    assert texts[-1].data == b"b"


def test_events_are_kept_up_to_the_limit_of_content() -> None:
    out: list[Message] = []
    half = Half(Readers(ContentLimits(body=4)))
    half.begin(Head(DOWN, 1, 1, kind="response", fields=(("content-type", "text/event-stream"),)))
    half.feed(b"data:abcdefgh\n\n", DOWN, 2, 1, out)
    (event,) = [message for message in out if isinstance(message, ServerEvent)]
    assert (len(event.data) <= 4, event.marks) == (True, (Mark.LIMITED,))


def test_what_may_be_missing_marks_events_messages_and_web_sockets() -> None:
    out: list[Message] = []
    half = begun(content_type="text/event-stream")
    half.feed(b"data: one\n", DOWN, 2, 1, out)
    half.doubt(Mark.GAP, DOWN, 2, 1, out)
    half.feed(b"data: two\n\ndata: three\n\n", DOWN, 2, 1, out)
    events = [message for message in out if isinstance(message, ServerEvent)]
    assert [(event.data, event.marks) for event in events] == [
        ("one\ntwo", (Mark.GAP,)),
        ("three", ()),
    ]
    out.clear()
    half = begun(content_type="application/grpc")
    half.doubt(Mark.GAP, DOWN, 2, 1, out)
    half.feed(b"\0\0\0\0\3ab", DOWN, 2, 1, out)
    half.feed(b"c", DOWN, 2, 1, out)
    half.end(DOWN, 3, 1, out)
    message, end = out
    assert isinstance(message, GrpcMessage)
    assert isinstance(end, MessageComplete)
    assert (message.data, message.marks, end.marks) == (b"abc", (Mark.GAP,), (Mark.GAP,))
    out.clear()
    half = begun()
    half.tunnel = half.done = True
    half.websocket = WebSocketConnection(stream=1)
    half.feed(b"\x81\x03a", DOWN, 2, 1, out)
    half.doubt(Mark.GAP, DOWN, 2, 1, out)
    half.feed(b"\x81\x01b", DOWN, 2, 1, out)
    texts = [(message.data, message.marks) for message in out]  # type: ignore[attr-defined]
    assert texts == [(b"a", (Mark.GAP, Mark.UNFINISHED)), (b"b", ())]


def test_a_stream_is_grpc_if_either_half_is() -> None:
    stream = Stream(Readers(ContentLimits()))
    assert not stream.grpc
    fields = (("content-type", "application/grpc"),)
    stream.halves[1].begin(Head(DOWN, 1, 1, kind="response", fields=fields))
    assert stream.grpc
