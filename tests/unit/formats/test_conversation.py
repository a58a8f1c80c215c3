# SPDX-License-Identifier: Apache-2.0
"""Messages as text: golden outputs."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spoken import (
    START,
    TO_CLIENT,
    TO_SERVER,
    answer,
    exchange,
    gap,
    http,
    plaintext,
    request_head,
    response_head,
    said,
)

from ecapture.events import Connection, ConversationEnd, Event, ProcessExit
from ecapture.formats.conversation import ConversationFormat
from ecapture.protocols.messages import (
    GrpcMessage,
    Head,
    Mark,
    Note,
    ServerEvent,
    WebSocketMessage,
)

SENT = (
    b"--- 2026-01-02T03:04:05.001000000Z pid=7 tid=8 comm=curl write 10.0.0.1:40000 > 10.0.0.2:443"
)
RECEIVED = (
    b"--- 2026-01-02T03:04:05.005000000Z pid=7 tid=8 comm=curl read 10.0.0.2:443 > 10.0.0.1:40000"
)
SAID = RECEIVED.replace(b".005", b".000")


def shown(*events: Event, **options: Any) -> bytes:
    return b"".join(ConversationFormat(**options).encode(list(events)))


def body_of(event: Event, **options: Any) -> bytes:
    return shown(event, **options).partition(b"\n\n")[2]


def test_request_and_response() -> None:
    pair = exchange()
    expected = (
        SENT
        + b""" http/1.1 request length=0
GET /path?q=1 HTTP/1.1
Host: example.com
User-Agent: curl/8.5.0
Accept: */*

"""
        + RECEIVED
        + b""" http/1.1 response length=11
HTTP/1.1 200 OK
Server: nginx/1.25.3
Date: Fri, 02 Jan 2026 03:04:05 GMT
Content-Type: application/json
Content-Length: 12
X-Odd-CASE: kept

{"a": "\xc3\xa9"}
"""
    )
    assert shown(pair.request, pair.response) == expected
    assert shown(pair) == b""


def test_http2_shows_its_pseudo_header_fields() -> None:
    head = request_head(
        version="2", scheme="https", authority="example.com", fields=(("accept", "*/*"),)
    )
    expected = b""" http/2 request stream=5 length=0
GET /path?q=1 HTTP/2
:scheme: https
:authority: example.com
accept: */*

"""
    assert shown(http("request", head, stream=5)) == SENT + expected
    head = response_head(version="2", reason="", fields=())
    expected = b" http/2 response stream=5 length=0\nHTTP/2 200\n\n"
    assert shown(http("response", head, stream=5)) == RECEIVED + expected


def test_a_head_nobody_saw() -> None:
    head = Head(TO_CLIENT, START, kind="response", version="2", marks=(Mark.JOINED_LATE,))
    message = http("response", head, stream=1, body=b"rest", size=4)
    expected = b" http/2 response stream=1 length=4 [joined late]\n\nrest\n"
    assert shown(message) == RECEIVED + expected
    coloured = shown(message, colour=True)
    assert re.sub(rb"\x1b\[[0-9;]*m", b"", coloured) == RECEIVED + expected


def test_codings_trailers_and_marks() -> None:
    message = http(
        "response",
        response_head(fields=(("content-type", "text/plain"),), marks=(Mark.AMBIGUOUS,)),
        body=b"line\n",
        size=30,
        codings=("gzip", "br"),
        trailers=(("Digest", "x"), ("Odd", "a\nb")),
        marks=(Mark.UNFINISHED,),
        problem="e",
    )
    expected = rb""" http/1.1 response length=30 coding=gzip,br decoded=5 [ambiguous, unfinished: e]
HTTP/1.1 200 OK
content-type: text/plain

line
[trailers]
Digest: x
Odd: a\x0ab
"""
    assert shown(message) == RECEIVED + expected


def test_informational_responses_are_shown_when_they_come_and_not_again() -> None:
    head = response_head(status=100, reason="Continue", fields=())
    expected = b" http/1.1 response length=0\nHTTP/1.1 100 Continue\n\n"
    begin = RECEIVED.replace(b".005", b".002")
    assert shown(http("response", head, time_ns=head.time_ns)) == begin + expected
    assert shown(exchange(informational=(head,))) == b""


def test_content_that_was_shown_before_its_head_is_not_missed() -> None:
    head = Head(TO_SERVER, START, version="2", marks=(Mark.JOINED_LATE,))
    late = http("request", head, stream=1, size=9, decoded_size=9)
    assert shown(late) == SENT + b" http/2 request stream=1 length=9 [joined late]\n\n"


def test_line_ends_in_fields_cannot_forge_lines() -> None:
    head = request_head(version="2", target="/a\n/b", fields=(("x", "1\r\n--- forged"),))
    assert rb"GET /a\x0a/b HTTP/2" in shown(http("request", head))
    assert rb"x: 1\x0d\x0a--- forged" in shown(http("request", head))
    lone = Head(TO_SERVER, START, method="A\nB", target="/", version="2")
    assert rb"A\x0aB / HTTP/2" in shown(http("request", lone))
    empty = Head(TO_SERVER, START, fields=(("a", "b\nc"),))
    assert rb"a: b\x0ac" in shown(http("request", empty))


@pytest.mark.parametrize(
    "message, expected",
    [
        (answer(b"\x89PNG", "image/png", decoded_size=48213), b"[image/png, 48213 bytes]\n"),
        (answer(b"\x00\x01", "", decoded_size=2), b"[binary, 2 bytes]\n"),
        (answer(b"\xe9", "text/plain; charset=iso-8859-1"), b"\xc3\xa9\n"),
        (answer(b"\xe9", "text/plain"), b"\xe9\n"),
        (answer(b"{}\n", "application/json"), b"{}\n"),
        (
            answer(b"abc", "text/plain", decoded_size=20),
            "abc\n[… 17 more bytes not kept]\n".encode(),
        ),
        (answer(b"", "text/plain", decoded_size=20), "[… 20 more bytes not kept]\n".encode()),
        (answer(b"\x08\x96\x01", "application/x-protobuf"), b"1: 150\n"),
        (answer(b"\xff\xff", "application/x-protobuf"), b"[application/x-protobuf, 2 bytes]\n"),
        (answer(b"\x1f\x8b\x08", "text/html"), b"[text/html, 3 bytes]\n"),
        (answer(b"\x00", "x/y\x1b[2J"), b"[x/y\\x1b[2j, 1 bytes]\n"),
        (
            answer(b"data: x\n\n", "text/event-stream"),
            b"[text/event-stream, 9 bytes, shown as events]\n",
        ),
        (
            answer(b"\x1f\x8b", "text/event-stream", marks=(Mark.UNDECODED,)),
            b"[text/event-stream, 2 bytes]\n",
        ),
    ],
)
def test_bodies(message, expected: bytes) -> None:
    assert body_of(message) == expected


def test_hex_dumps_every_body() -> None:
    dump = b"00000000  89 50 4e 47                                       |.PNG|\n"
    assert body_of(answer(b"\x89PNG", "image/png"), hexadecimal=True) == dump
    assert body_of(answer(b"text", "text/event-stream"), hexadecimal=True).endswith(b"|text|\n")
    events = answer(b"", "text/event-stream", decoded_size=4)
    assert body_of(events, hexadecimal=True).endswith(b"4 bytes, shown as events]\n")
    event = said(ServerEvent(TO_CLIENT, START, data="text"))
    assert shown(event, hexadecimal=True).endswith(b"|text|\n")
    event = said(GrpcMessage(TO_CLIENT, START, data=b"text", decoded_size=4))
    assert shown(event, hexadecimal=True).endswith(b"|text|\n")
    assert shown(plaintext(b"text"), hexadecimal=True).endswith(b"|text|\n")


def test_grpc_content_is_not_shown_twice() -> None:
    head = response_head(version="2", fields=(("content-type", "application/grpc"),))
    trailers = (("grpc-status", "5"), ("grpc-message", "none"))
    message = http("response", head, size=12, decoded_size=12, trailers=trailers)
    text = shown(message)
    assert b"length=12 grpc=NOT_FOUND\n" in text
    assert b"not kept" not in text
    assert text.endswith(b"\n\n[trailers]\ngrpc-status: 5\ngrpc-message: none\n")
    only = response_head(version="2", fields=(*head.fields, ("grpc-status", "0")))
    assert b" grpc=OK\n" in shown(http("response", only))


@pytest.mark.parametrize(
    "message, expected",
    [
        (
            WebSocketMessage(
                TO_CLIENT, START, 3, kind="text", data="é".encode(), size=9, decoded_size=2,
                fragments=2, compressed=True, marks=(Mark.GAP,), problem="p",
            ),
            " websocket text stream=3 length=9 decoded=2 fragments=2 [gap: p]\né\n",
        ),
        (
            WebSocketMessage(TO_CLIENT, START, kind="binary", data=b"\0\1", size=2, decoded_size=9),
            " websocket binary length=2\n[binary, 9 bytes]\n",
        ),
        (
            WebSocketMessage(TO_CLIENT, START, kind="text", data=b"ab", size=9, decoded_size=9),
            " websocket text length=9\nab\n[… 7 more bytes not kept]\n",
        ),
        (
            WebSocketMessage(
                TO_CLIENT, START, kind="close", data=b"bye", size=5, decoded_size=3, close_code=1000
            ),
            " websocket close length=5 code=1000\nbye\n",
        ),
        (WebSocketMessage(TO_CLIENT, START, kind="ping"), " websocket ping length=0\n"),
        (
            ServerEvent(TO_CLIENT, START, 3, 0, "a b", "1\n2", "7", retry_ms=5, size=9),
            " event a\\x20b stream=3 length=9 id=7 retry=5\n1\n2\n",
        ),
        (ServerEvent(TO_CLIENT, START), " event message length=0\n"),
        (
            GrpcMessage(TO_CLIENT, START, 3, 0, 1, b"\x08\x96\x01", size=3, decoded_size=3),
            " grpc message=1 stream=3 length=3\n1: 150\n",
        ),
        (
            GrpcMessage(TO_CLIENT, START, 3, 0, 0, b'{"a":1}', 7, 9, compressed=True),
            ' grpc message=0 stream=3 length=7 decoded=9\n{"a":1}\n[… 2 more bytes not kept]\n',
        ),
        (
            GrpcMessage(TO_CLIENT, START, 3, data=b"\xff\xff", size=2, decoded_size=2),
            " grpc message=0 stream=3 length=2\n[binary, 2 bytes]\n",
        ),
        (
            GrpcMessage(
                TO_CLIENT, START, 3, data=b"\x08\x01", size=2, decoded_size=2,
                marks=(Mark.UNDECODED,), problem="coding x",
            ),
            " grpc message=0 stream=3 length=2 [undecoded: coding x]\n[binary, 2 bytes]\n",
        ),
        (
            GrpcMessage(TO_CLIENT, START, 3, data=b"\r\r", size=2, decoded_size=2),
            " grpc message=0 stream=3 length=2\n\r\r\n",
        ),
        (
            Note(TO_CLIENT, START, 3, mark=Mark.JOINED_LATE, detail="header table unknown", size=9),
            " note stream=3 length=9 [joined late: header table unknown]\n",
        ),
        (Note(TO_CLIENT, START, mark=Mark.GAP), " note [gap]\n"),
    ],
)  # fmt: skip
def test_what_is_said(message: Any, expected: str) -> None:
    assert shown(said(message)) == SAID + expected.encode()


def test_unknown_protocols_are_text_or_dumps() -> None:
    assert shown(plaintext(b"SSH-2.0-x\r\n")) == SAID + b" length=11\nSSH-2.0-x\r\n\n"
    assert shown(plaintext(b"\x00")).endswith(b"|.|\n")
    rest = "é!".encode()[1:]
    assert shown(plaintext(rest, stream_offset=9)).endswith(rest + b"\n")
    assert shown(plaintext(rest)).endswith(b"|.!|\n")
    assert b" lost=99\n" in shown(gap())


def test_ends_have_no_lines() -> None:
    key = (7, 1, 1)
    assert shown(ConversationEnd(START, 7, "c", key, "freed"), ProcessExit(START, 7, "c")) == b""


def test_a_terminal_is_not_driven() -> None:
    head = response_head(reason="\x1b[2J", fields=(("x", "\x9b1m"), ("y", "Ã©")))
    message = http("response", head, body=b"\x1b[1m\xc3\xa9\r\n", size=8, trailers=(("t", "\x07"),))
    text = shown(message, terminal=True)
    assert b"\x1b" not in text
    assert b"\x07" not in text
    assert rb"HTTP/1.1 200 \x1b[2J" in text
    assert rb"x: \x9b1m" in text
    assert "y: é\n".encode() in text
    assert text.endswith(b"\\x1b[1m\xc3\xa9\n[trailers]\nt: \\x07\n")


def test_colours_go_around_what_is_escaped() -> None:
    pair = exchange(response=http("response", body=b"\x1b]0;x\x07", size=7, marks=(Mark.GAP,)))
    text = shown(pair.request, pair.response, colour=True)
    assert b"\x1b[36mHost\x1b[0m: example.com\n" in text
    assert b"\x1b[1mGET /path?q=1 HTTP/1.1\x1b[0m\n" in text
    assert b"\x1b[1;32mHTTP/1.1 200 OK\x1b[0m\n" in text
    assert b"length=7\x1b[0m \x1b[33m[gap]\x1b[0m\n" in text
    plain = re.sub(rb"\x1b\[[0-9;]*m", b"", text)
    assert plain == shown(pair.request, pair.response, terminal=True)
    assert b"\x1b" not in plain


def test_an_address_in_brackets_is_no_mark() -> None:
    ends = Connection("ipv6", "::1", 40000, "::2", 443, "descriptor")
    text = shown(http("response", connection=ends, marks=(Mark.GAP,)), colour=True)
    assert b"\x1b[2m--- " in text
    assert re.search(
        rb" \[::2\]:443 > \[::1\]:40000 http/1.1 response length=\d+\x1b\[0m \x1b\[33m\[gap\]", text
    )


def test_colours_of_the_rest() -> None:
    note = said(Note(TO_CLIENT, START, mark=Mark.GAP))
    image = answer(b"\x89", "image/png")
    events = [note, image, plaintext(b"\x1b[m"), plaintext(b"\0"), gap()]
    text = shown(*events, colour=True)
    assert b"\x1b[33m[image/png, 1 bytes]\x1b[0m\n" in text
    assert b"\x1b[2m--- " in text
    assert re.sub(rb"\x1b\[[0-9;]*m", b"", text) == shown(*events, terminal=True)


def test_nothing_is_coloured_in_pipes() -> None:
    pair = exchange()
    assert b"\x1b" not in shown(pair.request, pair.response, plaintext(b"x"), gap())


@settings(deadline=None)
@given(
    st.binary(max_size=60), st.text(st.characters(max_codepoint=255), max_size=30), st.booleans()
)
def test_nothing_captured_raises_or_escapes(body: bytes, value: str, colour: bool) -> None:
    head = response_head(reason=value, fields=((value, value), ("Content-Type", value)))
    message = http("response", head, body=body, size=9, trailers=((value, value),), problem=value)
    frame = WebSocketMessage(TO_CLIENT, START, kind="text", data=body, size=1)
    call = GrpcMessage(TO_CLIENT, START, data=body, decoded_size=1)
    events = [message, said(frame), said(call), plaintext(body)]
    shown(*events)
    text = shown(*events, terminal=True, colour=colour)
    plain = re.sub(rb"\x1b\[[0-9;]*m", b"", text).decode()
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", plain)
