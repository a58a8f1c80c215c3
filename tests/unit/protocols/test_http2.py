# SPDX-License-Identifier: Apache-2.0
"""HTTP/2 as heard from outside: hyper-h2 speaks at both ends, plans come from hypothesis."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import Sequence

import h2.errors
import h2.settings
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecapture.protocols.http2 import Http2Connection, error_name
from ecapture.protocols.http2_frames import PREFACE
from ecapture.protocols.http2_streams import ContentLimits
from ecapture.protocols.messages import (
    Body,
    Direction,
    Head,
    Mark,
    Message,
    MessageComplete,
    Note,
    ServerEvent,
    Switched,
    WebSocketMessage,
)

from .http2_peers import CLIENT, SERVER, Heard, Peers, frame, hear, octet_by_octet, trials
from .trials import four_trials

UP, DOWN = Direction.TO_SERVER, Direction.TO_CLIENT

token = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=12).map(lambda name: f"x{name}")
value = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=200)
big = st.integers(3000, 12_000).map(lambda size: "y" * size)
fields = st.lists(st.tuples(token, st.one_of(value, value, value, big)), max_size=5)
body = st.binary(max_size=600)
trailer = st.lists(st.tuples(token, value), max_size=2)
exchange = st.fixed_dictionaries(
    {
        "path": value.map(lambda path: f"/{path}"),
        "request": fields,
        "sent": st.lists(body, max_size=3),
        "asked": trailer,
        "status": st.integers(200, 599),
        "informed": st.booleans(),
        "response": fields,
        "returned": st.lists(body, max_size=3),
        "answered": trailer,
        "padding": st.none() | st.integers(0, 255),
        "priority": st.booleans(),
    }
)


def play(plan: list[dict], order: list[int], table: int) -> Peers:
    """Have all requests sent first, interleaved, then the answers in another order."""
    peers = Peers()
    settings_now = {h2.settings.SettingCodes.HEADER_TABLE_SIZE: table}
    for count, each in enumerate(plan):
        stream = 2 * count + 1
        pseudo = [
            (":method", "PUT"),
            (":scheme", "https"),
            (":authority", "here"),
            (":path", each["path"]),
        ]
        # hyper-h2 4.4 makes a frame too long when it splits a block that has a priority.
        long = sum(len(value) for _, value in each["request"]) > 8000
        weighed = each["priority"] and not long
        priority = {"priority_weight": 3, "priority_exclusive": True} if weighed else {}
        peers.client.send_headers(stream, pseudo + each["request"], **priority)
        if count == 1:
            peers.client.update_settings(settings_now)
            peers.server.update_settings(settings_now)
        peers.carry()
    for count, each in enumerate(plan):
        stream = 2 * count + 1
        for part in each["sent"]:
            peers.client.send_data(stream, part, pad_length=each["padding"])
        if each["asked"]:
            peers.client.send_headers(stream, each["asked"], end_stream=True)
        else:
            peers.client.end_stream(stream)
        peers.carry()
    for count in order:
        stream, each = 2 * count + 1, plan[count]
        if each["informed"]:
            peers.server.send_headers(stream, [(":status", "103"), ("link", "</a>")])
        status = [(":status", str(each["status"]))]
        peers.server.send_headers(stream, status + each["response"])
        if count % 2:
            peers.carry()
        for part in each["returned"]:
            peers.server.send_data(stream, part, pad_length=each["padding"])
        if each["answered"]:
            peers.server.send_headers(stream, each["answered"], end_stream=True)
        else:
            peers.server.end_stream(stream)
    peers.carry()
    return peers


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_every_exchange_is_heard_as_it_was_meant(data: st.DataObject) -> None:
    plan = data.draw(st.lists(exchange, min_size=1, max_size=5))
    order = data.draw(st.permutations(range(len(plan))))
    table = data.draw(st.sampled_from([0, 100, 4096, 65536]))
    peers = play(plan, order, table)
    connection = Http2Connection()
    heard = hear(peers.spoken, connection)
    assert connection.open_streams == 0
    assert connection.client == CLIENT
    assert not heard.notes
    assert not heard.others
    for count, each in enumerate(plan):
        check(heard, 2 * count + 1, each)
    cuts = data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=8))

    def pieces(octets: bytes) -> list[bytes]:
        result = []
        while octets:
            size = cuts[len(result) % len(cuts)]
            result.append(octets[:size])
            octets = octets[size:]
        return result

    assert hear(peers.spoken, None, pieces).same() == heard.same()


def check(heard: Heard, stream: int, each: dict) -> None:
    request = heard.request(stream)
    assert (request.kind, request.method, request.target) == ("request", "PUT", each["path"])
    assert (request.authority, request.scheme, request.version) == ("here", "https", "2")
    assert request.fields == tuple(each["request"])
    response = heard.response(stream)
    assert (response.kind, response.status) == ("response", each["status"])
    assert response.fields == tuple(each["response"])
    informed = heard.heads[stream, DOWN][:-1]
    assert [head.status for head in informed] == [103] * each["informed"]
    for direction, content, trailers in ((UP, "sent", "asked"), (DOWN, "returned", "answered")):
        whole = b"".join(each[content])
        end = heard.end(stream, direction)
        assert heard.body(stream, direction) == whole
        assert (end.size, end.decoded_size, end.kept) == (len(whole),) * 3
        assert end.trailers == tuple(each[trailers])
        assert end.marks == ()


def typical() -> Peers:
    peers = Peers()
    peers.ask(1, "/a", user_agent="curl")
    peers.answer(1, b"first", server="nginx")
    peers.ask(3, "/b", b"upload", user_agent="curl")
    peers.answer(3, b"second", server="nginx", etag="xyz")
    return peers


def test_the_three_trials() -> None:
    heard = trials(Http2Connection, typical().spoken)
    assert heard.body(3, UP) == b"upload"
    assert heard.body(1) == b"first"
    assert not heard.notes


def test_the_observed_process_may_be_the_server() -> None:
    spoken = [(1 - direction, octets) for direction, octets in typical().spoken]
    connection = Http2Connection()
    assert hear(spoken, connection).same() == hear(typical().spoken).same()
    assert connection.client == SERVER


def test_the_four_trials() -> None:
    """One direction alone, with nothing in the header table."""

    def part(stream: int) -> bytes:
        head = b"\x83\x87" + b"\x04\x02/%d" % (stream % 10) + b"\x10\x04x-id\x02ab"
        return frame(1, 4, stream, head) + frame(0, 1, stream, b"content" * 5)

    def read(pieces: Sequence[bytes], _late: bool) -> list[Message]:
        connection = Http2Connection()
        return [message for piece in pieces for message in connection.feed(CLIENT, piece, 1)]

    parts = [PREFACE + frame(4, 0, 0) + part(1), part(3) + part(5), part(7)]
    whole = four_trials(read, parts, tail=part(9)[:30])
    assert [type(message) for message in whole] == [Head, Body, MessageComplete] * 4


# Joined late.


def test_from_the_middle() -> None:
    peers = typical()
    before = len(peers.spoken)
    peers.ask(5, "/c", user_agent="curl", x_new="seen")
    peers.answer(5, b"third", server="nginx", x_new="this too")
    peers.ask(7, "/d", user_agent="curl", x_new="seen")
    peers.answer(7, b"fourth", server="nginx", x_new="this too")
    for cut in (lambda piece: (piece,), octet_by_octet):
        connection = Http2Connection()
        heard = hear(peers.spoken[before:], connection, cut)
        for stream, content in ((5, b"third"), (7, b"fourth")):
            request = heard.request(stream)
            assert (request.method, request.scheme) == ("GET", "https")
            assert request.fields[-2:] == (("?", "?"), ("x-new", "seen"))
            assert heard.response(stream).fields == (("?", "?"), ("x-new", "this too"))
            assert request.marks == (Mark.JOINED_LATE,)
            assert heard.body(stream) == content
        (note,) = heard.notes
        assert f"{note.mark}: {note.detail}" == "joined late: header table unknown"
        assert connection.client == CLIENT


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2400))
def test_from_any_octet(skipped: int) -> None:
    """However the capture begins, what comes later is heard once the frames are found."""
    peers = typical()
    peers.ask(5, "/between")
    peers.answer(5, bytes(range(256)) * 8)
    skipped = min(skipped, sum(len(octets) for _, octets in peers.spoken))
    peers.ask(7, "/last", x_plain="said")
    peers.answer(7, b"the last", x_plain="said")
    peers.ask(9, "/very-last", x_plain="said")
    peers.answer(9, b"the very last", x_plain="said")
    spoken = []
    for direction, octets in peers.spoken:
        part = octets[skipped:]
        skipped = max(skipped - len(octets), 0)
        if part:
            spoken.append((direction, part))
    connection = Http2Connection()
    heard = hear(spoken, connection)
    assert heard.body(9) == b"the very last"
    assert heard.request(9).method == "GET"
    assert ("x-plain", "said") in heard.response(9).fields
    assert connection.open_streams == 0


def test_content_of_a_stream_that_began_unseen() -> None:
    late = Http2Connection()
    heard = hear([(SERVER, frame(0, 0, 9, b"rest") + frame(0, 1, 9, b" of it"))], late)
    (head,) = heard.heads[9, DOWN]
    assert head.marks == (Mark.JOINED_LATE,)
    assert heard.body(9) == b"rest of it"
    assert heard.end(9).size == 10
    assert late.open_streams == 0


def test_who_the_client_is_is_put_right() -> None:
    connection = Http2Connection()
    assert connection.client is None
    connection.feed(1, frame(0, 0, 9, b"said by the server, as it turns out"), 1)
    wrong, head = connection.feed(1, frame(1, 4, 11, b"\x88"), 2)  # :status 200
    assert (wrong.stream, wrong.direction, wrong.marks) == (9, UP, (Mark.JOINED_LATE,))
    assert (head.stream, head.direction, head.status) == (11, DOWN, 200)
    assert connection.client == 0
    late, complete = connection.feed(1, frame(0, 1, 9), 3)
    assert late.direction == complete.direction == DOWN
    assert connection.open_streams == 1


def test_trailers_of_a_call_that_began_unseen() -> None:
    trailers = b"\x40\x0bgrpc-status\x010"
    heard = hear([(SERVER, frame(0, 0, 9, b"\0\0\0\0\1x") + frame(1, 5, 9, trailers))])
    heard_end = heard.end(9, DOWN if (9, DOWN) in heard.complete else UP)
    assert heard_end.trailers == (("grpc-status", "0"),)


# What befalls a stream or a connection.


def test_reset_and_go_away() -> None:
    peers = Peers()
    peers.ask(1, "/never")
    peers.client.reset_stream(1, h2.errors.ErrorCodes.CANCEL)
    peers.ask(3, "/half")
    peers.answer(3, b"half of", end=False)
    peers.server.reset_stream(3, h2.errors.ErrorCodes.INTERNAL_ERROR)
    peers.server.close_connection(
        h2.errors.ErrorCodes.ENHANCE_YOUR_CALM, additional_data=b"slow", last_stream_id=3
    )
    peers.carry()
    connection = Http2Connection()
    heard = hear(peers.spoken, connection)
    assert connection.open_streams == 0
    never, away = heard.notes
    assert (never.stream, never.mark) == (1, Mark.ABANDONED)
    assert never.detail == "RST_STREAM CANCEL from the client"
    assert away.detail == "GOAWAY ENHANCE_YOUR_CALM, last stream 3, 'slow'"
    assert heard.end(3).marks == (Mark.ABANDONED,)
    assert heard.end(3).problem == "RST_STREAM INTERNAL_ERROR from the server"
    assert heard.body(3) == b"half of"


def test_frames_after_a_reset_are_no_news() -> None:
    peers = Peers()
    peers.ask(1)
    octets = frame(3, 0, 1, bytes(4)) + frame(1, 4, 1, b"\x88") + frame(0, 1, 1, b"late")
    heard = hear([*peers.spoken, (SERVER, octets)])
    assert (1, DOWN) not in heard.heads
    assert error_name(99) == "error 0x63"


def test_promise() -> None:
    peers = Peers()
    peers.ask(1, "/page")
    peers.server.push_stream(
        1, 2, [(":method", "GET"), (":scheme", "https"), (":authority", "h"), (":path", "/css")]
    )
    peers.answer(1, b"page")
    peers.answer(2, b"style")
    connection = Http2Connection()
    heard = trials(Http2Connection, peers.spoken)
    assert heard.request(2).target == "/css"
    assert heard.request(2).marks == (Mark.PROMISED,)
    assert heard.body(2) == b"style"
    again = hear(peers.spoken, connection)
    assert again.same() == heard.same()
    assert connection.open_streams == 0


def test_upgraded_from_http1() -> None:
    peers = Peers(upgraded=True)
    peers.answer(1, b"answered as HTTP/2", server="x")
    peers.ask(3, "/next")
    peers.answer(3, b"next")
    connection = Http2Connection(client=CLIENT, upgraded=True)
    heard = hear(peers.spoken, connection)
    assert (1, UP) not in heard.heads
    assert heard.response(1).status == 200
    assert heard.response(1).marks == ()
    assert heard.body(1) == b"answered as HTTP/2"
    assert heard.body(3) == b"next"
    assert connection.open_streams == 0


def connect(protocol: str, status: str = "200", *answered: tuple[str, str]) -> Peers:
    peers = Peers()
    protocol_field = [(":protocol", protocol)] if protocol else []
    asked = [(":method", "CONNECT"), *protocol_field, (":authority", "there:443")]
    peers.client.send_headers(1, asked)
    peers.carry()
    peers.server.send_headers(1, [(":status", status), *answered])
    peers.carry()
    return peers


def test_extensions_of_a_websocket_in_several_fields() -> None:
    named = [("sec-websocket-extensions", name) for name in ("other", "permessage-deflate")]
    peers = connect("websocket", "200", *named)
    # the example of RFC 7692, 7.2.3.1
    peers.server.send_data(1, b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00", end_stream=True)
    peers.carry()
    message = hear(peers.spoken).others[-1]
    assert isinstance(message, WebSocketMessage)
    assert (message.data, message.marks) == (b"Hello", ())


def test_websocket() -> None:
    peers = connect("websocket")
    peers.client.send_data(1, b"\x81\x85\0\0\0\0hello", end_stream=True)
    peers.carry()
    peers.server.send_data(1, b"\x81\x05world", end_stream=True)
    peers.carry()
    connection = Http2Connection()
    heard = hear(peers.spoken, connection)
    assert (":protocol", "websocket") in heard.request(1).fields
    switched, up, down = heard.others
    assert isinstance(switched, Switched)
    assert switched.protocol == "websocket"
    assert isinstance(up, WebSocketMessage)
    assert isinstance(down, WebSocketMessage)
    assert (up.direction, up.data, up.stream) == (UP, b"hello", 1)
    assert (down.direction, down.data) == (DOWN, b"world")
    assert connection.open_streams == 0


def test_tunnel() -> None:
    peers = connect("")
    peers.client.send_data(1, b"up", end_stream=True)
    peers.carry()
    peers.server.send_data(1, b"down", end_stream=True)
    peers.carry()
    connection = Http2Connection()
    heard = hear(peers.spoken, connection)
    assert heard.opaque == {(1, UP): b"up", (1, DOWN): b"down"}
    assert heard.others[0].protocol == "tunnel"
    assert connection.open_streams == 0


def test_refused_tunnel() -> None:
    peers = connect("", status="403")
    peers.client.end_stream(1)
    peers.server.send_data(1, b"no", end_stream=True)
    peers.carry()
    heard = hear(peers.spoken)
    assert heard.body(1) == b"no"
    assert not heard.others


def test_event_stream() -> None:
    peers = Peers()
    peers.ask(1)
    peers.answer(1, b"data: one\n\ndata: two\n\n", content_type="text/event-stream")
    heard = trials(Http2Connection, peers.spoken)
    assert [event.data for event in heard.others if isinstance(event, ServerEvent)] == [
        "one",
        "two",
    ]


# Content.


def test_codings_are_undone() -> None:
    peers = Peers()
    text = b"text, and again text" * 50
    peers.ask(1)
    peers.answer(1, gzip.compress(text), content_encoding="gzip")
    heard = trials(Http2Connection, peers.spoken)
    assert heard.body(1) == text
    assert heard.end(1).codings == ("gzip",)
    assert heard.end(1).size == len(gzip.compress(text))
    assert heard.end(1).decoded_size == len(text)


def test_a_body_is_kept_to_its_limit_and_its_size_is_told() -> None:
    peers = Peers()
    peers.ask(1)
    peers.answer(1, bytes(10_000))
    heard = hear(peers.spoken, Http2Connection(content=ContentLimits(body=100)))
    assert len(heard.body(1)) == 100
    assert heard.end(1).size == 10_000
    assert heard.end(1).truncated


def test_only_so_many_messages_are_decoded_at_once() -> None:
    peers = Peers()
    packed = zlib.compress(b"z" * 100)
    for stream in (1, 3, 5):
        peers.ask(stream)
        peers.answer(stream, packed[:5], end=False, content_encoding="deflate")
    for stream in (1, 3, 5):
        peers.server.send_data(stream, packed[5:], end_stream=True)
    peers.carry()
    heard = hear(peers.spoken, Http2Connection(content=ContentLimits(decoded=2)))
    assert [heard.body(stream) for stream in (1, 3, 5)] == [b"z" * 100, b"z" * 100, packed]
    assert heard.end(5).marks == (Mark.LIMITED,)


# Missing octets.


def exchange_with_content(size: int) -> tuple[bytes, bytes, Peers]:
    peers = Peers()
    peers.ask(1, x_a="1")
    peers.answer(1, b"begun", end=False, x_a="1")
    before = b"".join(octets for direction, octets in peers.spoken if direction == SERVER)
    question = b"".join(octets for direction, octets in peers.spoken if direction == CLIENT)
    del peers.spoken[:]
    peers.server.send_data(1, bytes(range(256)) * (size // 256), end_stream=True)
    peers.carry()
    peers.ask(3, x_a="1")
    peers.answer(3, b"after", x_a="1")
    return question, before, peers


def test_a_hole_in_content_costs_nothing_else() -> None:
    question, before, peers = exchange_with_content(1024)
    connection = Http2Connection()
    messages = connection.feed(CLIENT, question, 1) + connection.feed(SERVER, before, 1)
    (_, content), *rest = peers.spoken
    messages += connection.feed(SERVER, content[:100], 1)
    messages += connection.feed(SERVER, content[300:], 1, gap=200)
    for direction, octets in rest:
        messages += connection.feed(direction, octets, 1)
    heard = Heard(messages)
    assert heard.body(1) == b"begun" + content[9:100] + content[300:]
    assert heard.end(1).size == 5 + 1024
    assert heard.end(1).marks == (Mark.GAP,)
    assert heard.response(3).fields == (("x-a", "1"),)
    assert heard.end(3).marks == ()
    assert not heard.notes


@pytest.mark.parametrize("gap", [-1, 5000])
def test_a_gap_of_frames_is_marked_and_got_over(gap: int) -> None:
    question, before, peers = exchange_with_content(1024)
    connection = Http2Connection()
    messages = connection.feed(CLIENT, question, 1) + connection.feed(SERVER, before, 1)
    (_, content), *rest = peers.spoken
    messages += connection.feed(SERVER, content[:100], 1)
    missing = gap
    for direction, octets in rest:
        messages += connection.feed(direction, octets, 1, gap=missing * (direction == SERVER))
        missing *= direction != SERVER
    messages += connection.end(2)
    heard = Heard(messages)
    assert heard.body(3) == b"after"
    assert heard.response(3).marks == (Mark.GAP,)
    assert heard.response(3).fields == (("?", "?"),)
    assert Mark.GAP in heard.end(1).marks
    assert Mark.UNFINISHED in heard.end(1).marks
    notes = [(note.mark, note.detail) for note in heard.notes]
    assert notes[0] == (Mark.GAP, "frames may be missing")
    assert (Mark.GAP, "header table unknown") in notes


# Bad input.


def test_garbage_after_a_valid_start_is_passed_over() -> None:
    peers = typical()
    before = len(peers.spoken)
    peers.ask(5, x_b="1")
    peers.answer(5, b"again", x_b="1")
    spoken = [*peers.spoken[:before], (SERVER, b"HTTP/1.1 400 Bad\r\n\r\n"), *peers.spoken[before:]]
    heard = hear(spoken)
    assert heard.body(5) == b"again"
    assert heard.response(5).fields == (("x-b", "1"),)
    assert [note.mark for note in heard.notes][:2] == [Mark.MALFORMED, Mark.MALFORMED]
    assert heard.notes[1].size == len(b"HTTP/1.1 400 Bad\r\n\r\n")


def test_a_header_block_without_end_is_bounded() -> None:
    peers = Peers()
    connection = Http2Connection()
    hear(peers.spoken, connection)
    part = b"\0\1a\x7f\xe1\x7e" + b"v" * 16000
    tracemalloc.start()
    messages = connection.feed(CLIENT, frame(1, 0, 1, part), 1)
    for _ in range(200):
        messages += connection.feed(CLIENT, frame(9, 0, 1, part), 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 << 20
    (note,) = messages
    assert isinstance(note, Note)
    assert note.mark == Mark.LIMITED
    (head, end) = connection.feed(CLIENT, frame(9, 4, 1) + frame(0, 1, 1), 1)
    assert head.marks == (Mark.LIMITED,)
    assert end.marks == (Mark.LIMITED,)


def test_empty_continuations_are_counted() -> None:
    connection = Http2Connection()
    connection.feed(CLIENT, PREFACE, 1)
    messages = connection.feed(CLIENT, frame(1, 0, 1) + frame(9, 0, 1) * 5000, 1)
    assert [message.mark for message in messages] == [Mark.LIMITED]


def test_a_block_that_is_broken_off() -> None:
    connection = Http2Connection()
    connection.feed(CLIENT, PREFACE, 1)
    octets = frame(1, 0, 1, b"\x82") + frame(6, 0, 0, bytes(8)) + frame(1, 5, 3, b"\x82\x84")
    note, head, _ = connection.feed(CLIENT, octets, 1)
    assert (note.mark, note.stream) == (Mark.MALFORMED, 1)
    assert (head.stream, head.target) == (3, "/")
    (unseen,) = connection.feed(CLIENT, frame(9, 4, 5, b"\x82"), 1)
    assert unseen.detail == "CONTINUATION of an unseen header block"


def test_a_head_without_its_middle() -> None:
    connection = Http2Connection()
    connection.feed(CLIENT, PREFACE, 1)
    octets = frame(1, 5, 1, b"\x82\x84" + b"\x86" * 20)
    connection.feed(CLIENT, octets[:15], 1)
    head, end = connection.feed(CLIENT, octets[20:], 1, gap=5)
    assert head.marks == end.marks == (Mark.GAP,)


def test_wrong_padding_and_wrong_trailers() -> None:
    connection = Http2Connection()
    connection.feed(CLIENT, PREFACE, 1)
    head, _ = connection.feed(CLIENT, frame(1, 0x0D, 1, b"\x09\x82"), 1)
    assert head.marks == (Mark.MALFORMED,)
    connection.feed(CLIENT, frame(1, 4, 3, b"\x82\x84"), 1)
    (end,) = connection.feed(CLIENT, frame(1, 5, 3, b"\x82"), 1)
    assert end.marks == (Mark.MALFORMED,)
    (note,) = connection.feed(CLIENT, frame(1, 5, 3, b"\x82"), 1)
    assert note.detail == "HEADERS after the end of the message"


def test_open_streams_are_bounded() -> None:
    connection = Http2Connection(stream_limit=10)
    connection.feed(CLIENT, PREFACE, 1)
    messages = []
    for count in range(50):
        messages += connection.feed(CLIENT, frame(1, 4, 2 * count + 1, b"\x82\x84"), 1)
    assert connection.open_streams == 10
    heard = Heard(messages)
    assert heard.end(1, UP).marks == (Mark.LIMITED,)
    assert len(heard.complete) == 40


def test_what_is_unfinished_is_given_out_at_the_end() -> None:
    peers = Peers()
    peers.ask(1)
    peers.answer(1, b"not all", end=False)
    connection = Http2Connection()
    heard = hear(peers.spoken, connection, ended=True)
    assert heard.end(1).marks == (Mark.UNFINISHED,)
    assert connection.open_streams == 0
    assert not connection.end(9)


def test_memory_is_flat_while_content_goes_by() -> None:
    peers = Peers()
    peers.ask(1)
    peers.answer(1, b"x", end=False)
    connection = Http2Connection()
    hear(peers.spoken, connection)
    piece = frame(0, 0, 1, bytes(16384))
    for _ in range(80):
        connection.feed(SERVER, piece, 1)
    tracemalloc.start()
    for _ in range(3000):
        assert not connection.feed(SERVER, piece, 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200_000
    end = connection.feed(SERVER, frame(0, 1, 1), 1)[0]
    assert end.size == 3080 * 16384 + 1
    assert end.kept == 1 << 20


def test_what_was_hunted_through_in_vain_is_told_at_the_end() -> None:
    connection = Http2Connection()
    assert not connection.feed(SERVER, b"nothing that is a frame", 1)
    connection.feed(CLIENT, PREFACE + frame(1, 0, 1, b"\x82"), 1)
    passed, unfinished = sorted(connection.end(2), key=lambda note: note.stream)
    assert (passed.mark, passed.size) == (Mark.JOINED_LATE, 23)
    assert (unfinished.mark, unfinished.size) == (Mark.UNFINISHED, 1)


def test_a_promise_of_a_stream_that_is_there() -> None:
    connection = Http2Connection()
    connection.feed(CLIENT, PREFACE + frame(1, 5, 1, b"\x82\x84"), 1)
    promise = frame(5, 4, 1, (2).to_bytes(4, "big") + b"\x82\x84")
    assert len(connection.feed(SERVER, frame(4, 0, 0) + promise, 1)) == 2
    (note,) = connection.feed(SERVER, promise, 1)
    assert note.detail == "stream 2 is promised, but was there"


def test_a_reset_of_nothing_and_many_ended_streams() -> None:
    connection = Http2Connection()
    connection.feed(CLIENT, PREFACE + frame(3, 0, 1, bytes(4)), 1)
    for stream in range(3, 2003, 2):
        connection.feed(CLIENT, frame(1, 5, stream, b"\x82\x84"), 1)
        connection.feed(SERVER, frame(4, 0, 0) + frame(1, 5, stream, b"\x88"), 1)
    assert connection.open_streams == 0
    assert not connection.feed(SERVER, frame(0, 1, 2001, b"straggler"), 1)


def test_a_message_is_not_made_of_what_stands_around_a_gap() -> None:
    peers = Peers()
    peers.ask(1, "/a/b", content_type="application/grpc")
    peers.answer(1, b"\0\0\0\0\x0aAAAAA", end=False, content_type="application/grpc")
    connection = Http2Connection()
    messages = [m for who, octets in peers.spoken for m in connection.feed(who, octets, 1)]
    rest = frame(0, 0, 1, b"\0\0\0\0\3abc") + frame(0, 0, 1, b"\0\0\0\0\3def")
    heard = Heard(messages + connection.feed(SERVER, rest, 2, gap=14))
    assert [(message.data, message.marks) for message in heard.grpc[1, DOWN]] == [
        (b"AAAAA", (Mark.GAP,)),
        (b"abc", ()),
        (b"def", ()),
    ]


def test_data_behind_the_end_of_a_message_is_said() -> None:
    peers = Peers()
    peers.ask(1)
    peers.spoken.append((CLIENT, frame(0, 0, 1, b"smuggled")))
    heard = hear(peers.spoken)
    assert heard.body(1, UP) == b""
    (note,) = heard.notes
    assert (note.stream, note.mark, note.size) == (1, Mark.MALFORMED, 8)
    assert note.detail == "DATA after the end of the message"


def test_a_head_whose_frame_has_no_end_is_said() -> None:
    peers = Peers()
    peers.ask(1)
    (who, octets) = peers.spoken[-1]
    assert who == CLIENT
    heard = hear([*peers.spoken[:-1], (who, octets[:-3])], ended=True)
    assert heard.heads == {}
    (note,) = heard.notes
    assert (note.mark, note.size) == (Mark.UNFINISHED, len(octets) - 3)


@pytest.mark.parametrize("gap", [1, 4, 8])
def test_nothing_is_told_of_a_goaway_but_what_is_there(gap: int) -> None:
    octets = PREFACE + frame(4, 0, 0) + frame(7, 0, 0, b"\0\0\0\5\0\0\0\1why not")
    connection = Http2Connection()
    head = len(octets) - 15
    messages = connection.feed(CLIENT, octets[:head], 1)
    messages += connection.feed(CLIENT, octets[head + gap :], 1, gap=gap)
    assert [note.detail for note in Heard(messages).notes] == ["GOAWAY ?"]
