# SPDX-License-Identifier: Apache-2.0
"""Lines of JSON: golden objects, and everything valid under the published schema."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spoken import (
    START,
    TO_CLIENT,
    answer,
    exchange,
    gap,
    http,
    plaintext,
    request_head,
    response_head,
    said,
)

from ecapture.events import ConversationEnd, Event, ProcessExit
from ecapture.formats import jsonl_types
from ecapture.formats.jsonl import JsonLinesFormat
from ecapture.protocols.messages import (
    GrpcMessage,
    Mark,
    Note,
    ServerEvent,
    WebSocketMessage,
)

SCHEMA = json.loads(
    (Path(__file__).parents[3] / "docs" / "reference" / "jsonl.schema.json").read_text()
)
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

WHAT = {
    "time": "2026-01-02T03:04:05.000000000Z",
    "time_ns": START,
    "pid": 7,
    "comm": "curl",
    "container": "",
    "conversation": "7-abc0-1",
}
CONNECTION = {
    "family": "ipv4",
    "local": "10.0.0.1",
    "local_port": 40000,
    "remote": "10.0.0.2",
    "remote_port": 443,
    "found_by": "descriptor",
}
WHO = {**WHAT, "tid": 8, "uid": 1000, "connection": CONNECTION, "no_connection": "", "tls": None}


def lines(*events: Event, **options: Any) -> list[Any]:
    """The objects, each of which the schema permits."""
    raw = b"".join(JsonLinesFormat(**options).encode(list(events)))
    assert raw.endswith(b"\n") or not raw
    made = [json.loads(line) for line in raw.split(b"\n")[:-1]]
    for line in made:
        VALIDATOR.validate(line)
    return made


def test_exchange() -> None:
    (line,) = lines(exchange())
    assert line == {
        "type": "exchange",
        **WHO,
        "time": "2026-01-02T03:04:05.005000000Z",
        "time_ns": START + 5_000_000,
        "role": "client",
        "stream": 0,
        "exchange": 0,
        "duration_ns": 5_000_000,
        "wait_ns": 1_000_000,
        "request": {
            "time_ns": START + 1_000_000,
            "head_time_ns": START,
            "version": "1.1",
            "headers": [
                {"name": "Host", "value": "example.com"},
                {"name": "User-Agent", "value": "curl/8.5.0"},
                {"name": "Accept", "value": "*/*"},
            ],
            "size": 0,
            "decoded_size": 0,
            "kept": 0,
            "codings": [],
            "trailers": [],
            "marks": [],
            "problem": "",
            "method": "GET",
            "url": "https://example.com/path?q=1",
            "target": "/path?q=1",
            "host": "example.com",
        },
        "response": {
            "time_ns": START + 5_000_000,
            "head_time_ns": START + 2_000_000,
            "version": "1.1",
            "headers": [
                {"name": "Server", "value": "nginx/1.25.3"},
                {"name": "Date", "value": "Fri, 02 Jan 2026 03:04:05 GMT"},
                {"name": "Content-Type", "value": "application/json"},
                {"name": "Content-Length", "value": "12"},
                {"name": "X-Odd-CASE", "value": "kept"},
            ],
            "size": 11,
            "decoded_size": 11,
            "kept": 11,
            "codings": [],
            "trailers": [],
            "marks": [],
            "problem": "",
            "status": 200,
            "reason": "OK",
            "body": '{"a": "é"}',
        },
        "informational": [],
        "grpc": None,
    }


def test_members_keep_their_order() -> None:
    raw = JsonLinesFormat().encode([gap()])[0]
    begin = b'{"type":"gap","time":"2026-01-02T03:04:05.000000000Z","time_ns":'
    assert raw.startswith(begin)


def test_parts_that_are_missing() -> None:
    (late,) = lines(exchange(request=None, started_ns=0, role="server", connection=None))
    assert late["request"] is late["duration_ns"] is late["wait_ns"] is late["connection"] is None
    assert late["role"] == "server"
    (ended,) = lines(exchange(response=None, first_byte_ns=0))
    assert ended["response"] is ended["wait_ns"] is None


def test_content_is_text_or_base64_and_marked_where_it_is_cut() -> None:
    picture = answer(
        b"\x89PNG",
        "image/png",
        decoded_size=9,
        codings=("gzip",),
        trailers=(("T", "\xc3\xa9"),),
        marks=(Mark.LIMITED,),
        problem="p",
    )
    part = lines(exchange(response=picture))[0]["response"]
    assert base64.b64decode(part["body_base64"]) == b"\x89PNG"
    assert "body" not in part
    assert (part["kept"], part["decoded_size"], part["codings"]) == (4, 9, ["gzip"])
    assert part["trailers"] == [{"name": "T", "value": "é"}]
    assert (part["marks"], part["problem"]) == (["limited"], "p")
    cut = answer("aé".encode()[:2], "text/plain", decoded_size=9)
    assert lines(exchange(response=cut))[0]["response"]["body"] == "a"
    latin = answer(b"\xe9", "text/plain; charset=iso-8859-1")
    assert lines(exchange(response=latin))[0]["response"]["body"] == "é"
    wrong = answer(b"\xe9", "text/plain")
    assert lines(exchange(response=wrong))[0]["response"]["body_base64"] == "6Q=="


def test_informational_responses() -> None:
    head = response_head(status=103, reason="Early Hints", fields=(("Link", "x"),))
    (line,) = lines(exchange(informational=(head,)))
    assert line["informational"] == [
        {
            "time_ns": START + 2_000_000,
            "status": 103,
            "reason": "Early Hints",
            "headers": [{"name": "Link", "value": "x"}],
        }
    ]


def test_grpc_calls() -> None:
    kind = (("content-type", "application/grpc+proto"),)
    request = http("request", request_head(target="/pkg.Service/Do", fields=kind))
    trailers = (("grpc-status", "5"), ("grpc-message", "no%20way"))
    response = http("response", response_head(fields=kind), trailers=trailers)
    call = {"service": "pkg.Service", "method": "Do"}
    (line,) = lines(exchange(request=request, response=response))
    assert line["grpc"] == {**call, "status": 5, "status_name": "NOT_FOUND", "message": "no way"}
    (line,) = lines(exchange(request=request, response=None))
    assert line["grpc"] == {**call, "status": None, "status_name": "", "message": ""}
    (line,) = lines(exchange(request=None, response=response))
    assert line["grpc"]["service"] == line["grpc"]["method"] == ""


def test_websocket() -> None:
    message = WebSocketMessage(
        TO_CLIENT, START, 3, kind="text", data=b"hi", size=9, decoded_size=2, fragments=2,
        compressed=True, marks=(Mark.GAP,), problem="p",
    )  # fmt: skip
    assert lines(said(message)) == [
        {
            "type": "websocket",
            **WHO,
            "direction": "read",
            "stream": 3,
            "kind": "text",
            "size": 9,
            "decoded_size": 2,
            "fragments": 2,
            "compressed": True,
            "close_code": 0,
            "marks": ["gap"],
            "problem": "p",
            "text": "hi",
        }
    ]
    binary = WebSocketMessage(TO_CLIENT, START, kind="binary", data=b"\0", decoded_size=1)
    assert lines(said(binary))[0]["data_base64"] == "AA=="
    wrong = WebSocketMessage(TO_CLIENT, START, kind="text", data=b"\xff", decoded_size=1)
    assert lines(said(wrong))[0]["data_base64"] == "/w=="


def test_server_event() -> None:
    message = ServerEvent(TO_CLIENT, START, 3, 2, "tick", "1\n2", "7", 5, 9, (Mark.GAP,))
    (line, plain) = lines(said(message), said(ServerEvent(TO_CLIENT, START)))
    assert line == {
        "type": "server_event",
        **WHO,
        "direction": "read",
        "stream": 3,
        "exchange": 2,
        "event": "tick",
        "data": "1\n2",
        "last_id": "7",
        "retry_ms": 5,
        "size": 9,
        "marks": ["gap"],
    }
    assert plain["retry_ms"] is None


def test_grpc_message() -> None:
    data = b"\x08\x96\x01\x12\x03abc\x1a\x02\xff\xff\x22\x02\x08\x01\x2d\x00\x00\x80\x3f\x33\x34"
    message = GrpcMessage(
        TO_CLIENT, START, 3, number=1, data=data, size=9, decoded_size=len(data), compressed=True
    )
    (line,) = lines(said(message))
    nested = {"number": 1, "type": "varint", "value": 1}
    assert line == {
        "type": "grpc",
        **WHO,
        "direction": "read",
        "stream": 3,
        "number": 1,
        "size": 9,
        "decoded_size": len(data),
        "compressed": True,
        "fields": [
            {"number": 1, "type": "varint", "value": 150},
            {"number": 2, "type": "text", "value": "abc"},
            {"number": 3, "type": "bytes", "value": "//8="},
            {"number": 4, "type": "message", "value": [nested]},
            {"number": 5, "type": "fixed32", "value": 0x3F800000},
            {"number": 6, "type": "group", "value": []},
        ],
        "marks": [],
        "problem": "",
        "data_base64": base64.b64encode(data).decode(),
    }


@pytest.mark.parametrize("data", [b'{"a":1}', b"[1]", b"\r\r"])
def test_grpc_messages_that_are_text(data: bytes) -> None:
    (line,) = lines(said(GrpcMessage(TO_CLIENT, START, data=data, decoded_size=len(data))))
    assert line["text"] == data.decode()
    assert line["fields"] == []


def test_grpc_messages_that_are_not_decoded() -> None:
    marks = (Mark.UNDECODED,)
    (line, empty) = lines(
        said(GrpcMessage(TO_CLIENT, START, data=b"\x08\x01", decoded_size=2, marks=marks)),
        said(GrpcMessage(TO_CLIENT, START)),
    )
    assert line["fields"] == []
    assert line["data_base64"] == "CAE="
    assert "text" not in empty
    assert "data_base64" not in empty


def test_note() -> None:
    note = Note(TO_CLIENT, START, 3, mark=Mark.JOINED_LATE, detail="header table unknown", size=9)
    assert lines(said(note)) == [
        {
            "type": "note",
            **WHO,
            "direction": "read",
            "stream": 3,
            "mark": "joined late",
            "detail": "header table unknown",
            "size": 9,
        }
    ]


def test_plaintext() -> None:
    (line, binary) = lines(
        plaintext(b"SSH-2.0\r\n", missing="truncated", assumed=True, stream_offset=4),
        plaintext(b"\x00"),
    )
    assert line == {
        "type": "plaintext",
        **WHO,
        "direction": "read",
        "stream_offset": 4,
        "call_length": 9,
        "call_offset": 0,
        "length": 9,
        "missing": "truncated",
        "assumed": True,
        "text": "SSH-2.0\r\n",
    }
    assert binary["data_base64"] == "AA=="


def test_gap_and_end() -> None:
    end = ConversationEnd(START, 7, "curl", (7, 0xABC0, 1), "freed")
    assert lines(gap(), end, ends=True) == [
        {
            "type": "gap",
            **WHAT,
            "direction": "read",
            "connection": CONNECTION,
            "stream_offset": 10,
            "length": 99,
        },
        {"type": "end", **WHAT, "reason": "freed"},
    ]
    assert lines(end) == []


def test_what_has_no_line() -> None:
    assert lines(http("request"), ProcessExit(START, 7, "curl")) == []
    assert JsonLinesFormat().encode([http("request")]) == []


def test_containers() -> None:
    (line,) = lines(exchange(), container_of={7: "abc"}.__getitem__)
    assert line["container"] == "abc"


def test_what_is_remembered_is_bounded(monkeypatch) -> None:
    monkeypatch.setattr("ecapture.formats.jsonl._MAXIMUM_CACHED", 3)
    form = JsonLinesFormat()
    for port in range(10):
        connection = jsonl_types.Connection("ipv4", "1", port, "2", 3, "")
        event = gap()
        assert event.connection is not None
        form._connection(type(event.connection)("ipv4", "1", port, "2", 3, ""))
        assert connection in form._connections.values()
    assert len(form._connections) <= 3


LATIN = st.text(st.characters(max_codepoint=255), max_size=30)


@settings(deadline=None)
@given(st.binary(max_size=60), LATIN, st.booleans())
def test_nothing_captured_raises_or_breaks_the_schema(body: bytes, value: str, cut: bool) -> None:
    size = len(body) + cut
    head = request_head(
        method=value, target=value, fields=((value, value), ("Content-Type", value))
    )
    request = http("request", head, body=body, decoded_size=size, problem=value)
    response = answer(body, f"text/plain; charset={value}", trailers=((value, value),))
    frame = WebSocketMessage(TO_CLIENT, START, kind="text", data=body, decoded_size=size)
    call = GrpcMessage(TO_CLIENT, START, data=body, decoded_size=size)
    pair = exchange(request=request, response=response)
    events = [pair, said(frame), said(call), plaintext(body)]
    made = lines(*events)
    assert len(made) == 4
    if not cut:
        line = made[3]
        shown = line.get("text", "").encode() or base64.b64decode(line.get("data_base64", ""))
        assert shown == body


def test_for_a_terminal_it_says_the_same_escaped() -> None:
    event = said(ServerEvent(TO_CLIENT, START, data="a\x9b31m\u202e"))
    plain, shown = (JsonLinesFormat(terminal=t).encode([event])[0] for t in (False, True))
    assert "\x9b".encode() in plain
    assert b"a\\u009b31m\\u202e" in shown
    assert json.loads(shown) == json.loads(plain)
