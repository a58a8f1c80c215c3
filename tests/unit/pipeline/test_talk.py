# SPDX-License-Identifier: Apache-2.0
"""Conversations of known protocols: messages, pairs, losses, and protocols within protocols."""

from __future__ import annotations

import zlib

import h2.config
import h2.connection
import h2.settings
import pytest
import wsproto
import wsproto.extensions
from talks import Speech, kinds, of, one
from wsproto.events import AcceptConnection, Message, Request

from ecapture.events import Exchange, Gap, HttpMessage, Plaintext, Said
from ecapture.pipeline.messages import Messages
from ecapture.pipeline.talk import _MAXIMUM_PAIRS
from ecapture.protocols.messages import (
    Direction,
    GrpcMessage,
    Mark,
    Note,
    ServerEvent,
    WebSocketMessage,
)

ROLES = ["client", "server"]


class Ends:
    """Both ends of a conversation of which one is observed, and all events that came of it."""

    def __init__(self, role="client", stage=None):
        self.stage = stage or Messages()
        self.speech = Speech()
        self.role = role
        self.events = []

    def asks(self, payload, **how):
        return self._said("write" if self.role == "client" else "read", payload, how)

    def answers(self, payload, **how):
        return self._said("read" if self.role == "client" else "write", payload, how)

    def _said(self, direction, payload, how):
        return self._add(self.stage.feed([self.speech.say(direction, payload, **how)]))

    def lost(self, direction, size):
        return self._add(self.stage.feed([self.speech.lost(direction, size)]))

    def end(self):
        return self._add(self.stage.feed([self.speech.end()]))

    def close(self):
        return self._add(self.stage.close())

    def _add(self, events):
        self.events += events
        return events

    def of(self, kind):
        return of(self.events, kind)

    def said(self, kind):
        return [e.message for e in self.of(Said) if isinstance(e.message, kind)]


def get(path=b"/", *fields):
    return b"\r\n".join([b"GET " + path + b" HTTP/1.1", b"Host: here", *fields, b"", b""])


def ok(body=b"", *fields):
    length = b"Content-Length: %d" % len(body)
    return b"\r\n".join([b"HTTP/1.1 200 OK", length, *fields, b"", b""]) + body


# --- pairs of HTTP/1 ---


@pytest.mark.parametrize("role", ROLES)
def test_pipelined_requests_are_paired_in_order(role):
    ends = Ends(role)
    ends.asks(get(b"/1") + get(b"/2") + get(b"/3"))
    ends.answers(ok(b"one") + ok(b"two"))
    ends.answers(ok(b"three"))
    pairs = [(e.request.head.target, e.response.body) for e in ends.of(Exchange)]
    assert pairs == [("/1", b"one"), ("/2", b"two"), ("/3", b"three")]
    assert {e.role for e in ends.of(Exchange)} == {role}


def test_an_answer_that_comes_before_the_end_of_the_request_waits_for_it():
    ends = Ends()
    ends.asks(b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nab")
    assert kinds(ends.answers(ok(b"early"))) == ["HttpMessage"]
    assert kinds(ends.asks(b"cd")) == ["HttpMessage", "Exchange"]
    assert one(ends.events, Exchange).request.body == b"abcd"


def test_informational_answers_are_given_out_at_once_and_kept_for_their_exchange():
    ends = Ends()
    ends.asks(get())
    (hint,) = ends.answers(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
    assert (hint.head.status, hint.direction, hint.exchange) == (103, "read", 1)
    assert hint.head.fields == (("Link", "</a>"),)
    assert kinds(ends.answers(ok())) == ["HttpMessage", "Exchange"]
    exchange = one(ends.events, Exchange)
    assert exchange.informational == (hint.head,)
    assert not exchange.response.marks


def test_of_many_informational_answers_an_exchange_keeps_some_and_says_so():
    ends = Ends()
    ends.asks(get())
    ends.answers(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100)
    ends.answers(ok())
    assert [m.head.status for m in ends.of(HttpMessage)] == [0, *[103] * 100, 200]
    exchange = one(ends.events, Exchange)
    assert len(exchange.informational) == 16
    assert Mark.LIMITED in exchange.response.marks
    assert "informational" in exchange.response.problem


def test_requests_whose_answers_were_lost_do_not_wait_for_ever():
    ends = Ends()
    ends.asks(get(b"/1"))
    ends.lost("read", 100)
    ends.asks(get(b"/2"))
    ends.answers(ok(b"two"))
    assert [(e.request.head.target, e.response and e.response.body) for e in ends.of(Exchange)] == [
        ("/2", b"two"),
        ("/1", None),
    ]


def test_the_number_of_waiting_requests_is_bounded():
    ends = Ends()
    for _ in range(3 * _MAXIMUM_PAIRS // 64):
        ends.asks(get() * 64)
    assert len(ends.of(Exchange)) >= 2 * _MAXIMUM_PAIRS
    (talk,) = ends.stage._talks.values()
    assert len(talk._pairs) <= _MAXIMUM_PAIRS


def test_times_are_those_of_the_bytes():
    ends = Ends()
    ends.asks(b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n", at=10)
    ends.asks(b"ab", at=20)
    ends.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", at=30)
    ends.answers(b"cd", at=40)
    exchange = one(ends.events, Exchange)
    assert (exchange.started_ns, exchange.first_byte_ns, exchange.time_ns) == (10, 30, 40)
    assert (exchange.request.time_ns, exchange.response.time_ns) == (20, 40)


def test_small_pieces_of_content_are_one_content():
    ends = Ends()
    ends.asks(get())
    body = bytes(range(256))
    ends.answers(ok(body)[: -len(body)])
    for byte in body:
        ends.answers(bytes([byte]))
    assert one(ends.events, Exchange).response.body == body


# --- answers that are heard before their questions ---


def test_a_thread_that_returns_late_from_its_write_is_waited_for():
    ends = Ends()
    assert ends.answers(ok(b"first")[:30], at=10) == []
    assert ends.answers(ok(b"first")[30:], at=20) == []
    ends.asks(get(b"/1"), at=30)
    ends.asks(get(b"/2"), at=40)
    ends.answers(ok(b"second"), at=50)
    assert [(e.request.head.target, e.response.body) for e in ends.of(Exchange)] == [
        ("/1", b"first"),
        ("/2", b"second"),
    ]
    assert ends.of(Exchange)[0].response.time_ns == 20


def test_an_upgrade_whose_answer_is_heard_first():
    ends = Ends()
    assert ends.answers(b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n") == []
    ends.asks(get(b"/chat", b"Upgrade: websocket"))
    ends.asks(b"\x81\x85\0\0\0\0hello")
    assert one(ends.events, Exchange).request.head.target == "/chat"
    assert [m.data for m in ends.said(WebSocketMessage)] == [b"hello"]
    assert not ends.said(Note)


@pytest.mark.parametrize("why", ["joined late", "lossy"])
def test_an_answer_to_what_was_not_heard_is_not_taken_for_the_next_one(why):
    ends = Ends()
    if why == "joined late":
        ends.asks(b"\1\2 the rest of an upload")
    else:
        ends.asks(get(b"/1"))
        ends.answers(ok(b"first"))
        ends.lost("write", 100)
    assert kinds(ends.answers(ok(b"unasked"))) == ["HttpMessage", "Exchange"]
    ends.asks(get(b"/next"))
    ends.answers(ok(b"next"))
    last, before = ends.of(Exchange)[-1], ends.of(Exchange)[-2]
    assert (last.request.head.target, last.response.body) == ("/next", b"next")
    assert before.request is None


def test_early_answers_are_bounded():
    ends = Ends()
    for _ in range(200):
        ends.answers(ok())
    assert len(ends.of(Exchange)) > 100
    (talk,) = ends.stage._talks.values()
    assert len(talk._early) < 100


@pytest.mark.parametrize("how", ["end", "close"])
def test_early_answers_are_not_lost_at_the_end(how):
    ends = Ends()
    assert ends.answers(ok(b"all")) == []
    getattr(ends, how)()
    assert one(ends.events, Exchange).response.body == b"all"
    assert not ends.stage._early


# --- what is missing ---


def test_the_missing_rest_of_a_payload_completes_its_message_at_once():
    # nginx sends files by SSL_sendfile: their bytes never are in its memory
    ends = Ends("server")
    ends.asks(get())
    ends.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")
    ends.answers(b"", length=5000, missing="sendfile")
    response = one(ends.events, Exchange).response
    assert response.marks == (Mark.GAP,)
    assert response.size == 5000
    ends.asks(get())
    ends.answers(ok(b"next"))
    assert ends.of(Exchange)[-1].response.marks == ()


def test_a_truncated_call_is_a_hole_and_the_next_message_is_read():
    ends = Ends()
    ends.asks(get())
    ends.answers(ok(b"x" * 1000)[:500], length=len(ok(b"x" * 1000)))
    ends.asks(get())
    ends.answers(ok(b"whole"))
    first, second = ends.of(Exchange)
    assert first.response.marks == (Mark.GAP,)
    assert first.response.size == 1000
    assert (second.response.body, second.response.marks) == (b"whole", ())


@pytest.mark.parametrize("role", ROLES)
def test_a_loss_between_messages_is_marked_and_the_next_is_read(role):
    ends = Ends(role)
    ends.asks(get(b"/1"))
    ends.answers(ok(b"one"))
    ends.lost("write" if role == "client" else "read", 60)
    ends.asks(b"lf of a head\r\n\r\n" + get(b"/3"))
    ends.answers(ok(b"three"))
    assert [m.mark for m in ends.said(Note)] == [Mark.GAP]
    last = ends.of(Exchange)[-1]
    assert last.request.head.target == "/3"
    assert last.response.body == b"three"


# --- server-sent events ---


def test_server_sent_events_are_messages_of_their_own_and_not_kept_as_content():
    ends = Ends()
    ends.asks(get())
    ends.answers(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
    for n in range(100):
        (event,) = ends.answers(b"event: tick\ndata: %d\n\n" % n)
        assert (event.message.event, event.message.data) == ("tick", str(n))
        assert event.direction == "read"
    ends.end()
    assert len(ends.said(ServerEvent)) == 100
    assert one(ends.events, Exchange).response.body == b""


@pytest.mark.parametrize("whole", [True, False])
def test_a_format_without_events_gets_them_as_content(whole):
    ends = Ends(stage=Messages(whole=whole, body_limit=20))
    said = b"data: one\n\ndata: two\n\n"
    ends.asks(get())
    ends.answers(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + said[:9])
    ends.answers(said[9:])
    ends.end()
    assert [m.data for m in ends.said(ServerEvent)] == ["one", "two"]
    response = one(ends.events, Exchange).response
    assert (response.body, response.size) == (said[:20] if whole else b"", len(said))


# --- upgrades and tunnels ---


@pytest.mark.parametrize("role", ROLES)
def test_websocket_both_ways_with_deflate(role):
    ends = Ends(role)
    deflate = wsproto.extensions.PerMessageDeflate
    client = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
    server = wsproto.WSConnection(wsproto.ConnectionType.SERVER)
    ends_of_wire = {ends.asks: (client, server), ends.answers: (server, client)}

    def send(tell, event):
        sender, receiver = ends_of_wire[tell]
        data = sender.send(event)
        receiver.receive_data(data)
        list(receiver.events())
        return tell(data)

    send(ends.asks, Request(host="here", target="/chat", extensions=[deflate()]))
    send(ends.answers, AcceptConnection(extensions=[deflate()]))
    question, answer = "what? " * 100, "that! " * 1000
    (asked,) = send(ends.asks, Message(data=question))
    (answered,) = send(ends.answers, Message(data=answer))
    assert asked.message.data.decode() == question
    assert answered.message.data.decode() == answer
    assert asked.message.compressed
    assert answered.message.size < answered.message.decoded_size == len(answer)
    assert asked.direction == ("write" if role == "client" else "read")
    exchange = one(ends.events, Exchange)
    assert exchange.response.head.status == 101
    assert len(ends.said(WebSocketMessage)) == 2


def test_a_tunnel_shows_what_it_carries_at_its_place():
    ends = Ends()
    ends.asks(b"CONNECT there:22 HTTP/1.1\r\nHost: there:22\r\n\r\n")
    head = b"HTTP/1.1 200 Connection established\r\n\r\n"
    ends.answers(head + b"SSH-2.0-x\r\n")
    ends.asks(b"SSH-2.0-y\r\n")
    ends.lost("read", 9)
    ends.answers(b"\0\1\2")
    first, second, third = ends.of(Plaintext)
    assert first.payload == b"SSH-2.0-x\r\n"
    assert (first.call_offset, first.stream_offset) == (len(head), len(head))
    assert first.length == len(first.payload)
    assert (second.payload, second.direction) == (b"SSH-2.0-y\r\n", "write")
    assert third.payload == b"\0\1\2"
    assert [gap.length for gap in ends.of(Gap)] == [9]
    assert one(ends.events, Exchange).response.head.status == 200


@pytest.mark.parametrize("role", ROLES)
def test_http_in_a_tunnel_is_read(role):
    ends = Ends(role)
    ends.asks(b"CONNECT there:80 HTTP/1.1\r\nHost: there:80\r\n\r\n")
    ends.answers(b"HTTP/1.1 200 Connection established\r\n\r\n")
    for path in (b"/1", b"/2"):
        ends.asks(get(path))
        ends.answers(ok(b"to " + path))
    _, one, two = ends.of(Exchange)
    assert (one.exchange, one.request.head.target, one.response.body) == (2, "/1", b"to /1")
    assert (two.exchange, two.request.head.target, two.response.body) == (3, "/2", b"to /2")
    assert not ends.of(Plaintext)
    assert not ends.said(Note)


def test_http2_in_a_tunnel_is_read():
    ends = Ends()
    ends.asks(b"CONNECT there:80 HTTP/1.1\r\nHost: there:80\r\n\r\n")
    ends.answers(b"HTTP/1.1 200 Connection established\r\n\r\n")
    two = Two(ends=ends)
    two.ask(1, path="/in")
    two.answer(1, b"fine")
    assert [e.request.head.target for e in ends.of(Exchange)] == ["there:80", "/in"]
    assert ends.of(Exchange)[1].response.body == b"fine"


# --- HTTP/2 ---

PSEUDO = [(":method", "GET"), (":scheme", "https"), (":authority", "here"), (":path", "/")]


class Two:
    """hyper-h2 on both sides of ``Ends``; ``mute`` lets them speak before the capture."""

    def __init__(self, role="client", *, upgraded=b"", ends=None):
        self.ends = ends or Ends(role)
        self.mute = False
        made = h2.connection.H2Connection
        self.client = made(h2.config.H2Configuration(client_side=True))
        self.server = made(h2.config.H2Configuration(client_side=False))
        if upgraded:
            settings = self.client.initiate_upgrade_connection()
            self.server.initiate_upgrade_connection(settings)
        else:
            self.client.initiate_connection()
            self.server.initiate_connection()
            self.carry()

    def carry(self):
        while True:
            asked = self.client.data_to_send()
            if asked:
                self.server.receive_data(asked)
                if not self.mute:
                    self.ends.asks(asked)
            answered = self.server.data_to_send()
            if answered:
                self.client.receive_data(answered)
                if not self.mute:
                    self.ends.answers(answered)
            if not asked and not answered:
                return

    def ask(self, stream, *fields, end=True, path="/"):
        self.client.send_headers(stream, [*PSEUDO[:3], (":path", path), *fields], end_stream=end)
        self.carry()

    def answer(self, stream, body=b"", *fields, end=True):
        self.server.send_headers(stream, [(":status", "200"), *fields], end_stream=not body and end)
        if body:
            self.server.send_data(stream, body, end_stream=end)
        self.carry()


@pytest.mark.parametrize("role", ROLES)
def test_streams_that_end_out_of_order_are_paired_by_number(role):
    two = Two(role)
    for stream in (1, 3, 5):
        two.ask(stream, path=f"/{stream}")
    for stream in (5, 1, 3):
        two.answer(stream, str(stream).encode())
    found = two.ends.of(Exchange)
    assert [(e.stream, e.request.head.target, e.response.body) for e in found] == [
        (5, "/5", b"5"),
        (1, "/1", b"1"),
        (3, "/3", b"3"),
    ]
    assert {e.role for e in found} == {role}
    assert two.ends.of(HttpMessage)[0].direction == ("write" if role == "client" else "read")
    assert not two.ends.of(Said)


def test_a_stream_whose_answer_is_heard_first_is_one_exchange():
    two = Two()
    two.mute = True
    two.client.send_headers(1, [*PSEUDO[:3], (":path", "/late")], end_stream=True)
    question = two.client.data_to_send()
    two.server.receive_data(question)
    two.server.send_headers(1, [(":status", "200")])
    two.server.send_data(1, b"sooner", end_stream=True)
    answer = two.server.data_to_send()
    assert kinds(two.ends.answers(answer)) == ["HttpMessage"]
    assert kinds(two.ends.asks(question)) == ["HttpMessage", "Exchange"]
    exchange = one(two.ends.events, Exchange)
    assert (exchange.request.head.target, exchange.response.body) == ("/late", b"sooner")
    assert not exchange.request.marks + exchange.response.marks
    assert not two.ends.said(Note)


@pytest.mark.parametrize("who", ["client", "server"])
@pytest.mark.parametrize("uploaded", [False, True])
@pytest.mark.parametrize("answered", [False, True])
def test_a_stream_that_is_given_up_is_an_exchange_at_once(who, uploaded, answered):
    two = Two()
    two.ask(1, end=uploaded)
    if answered:
        two.answer(1, b"half", end=False)
    getattr(two, who).reset_stream(1)
    two.carry()
    exchange = one(two.ends.events, Exchange)
    marked = exchange.response if answered else exchange.request
    said = [m.mark for m in two.ends.said(Note)]
    assert Mark.ABANDONED in marked.marks or Mark.ABANDONED in said
    (talk,) = two.ends.stage._talks.values()
    assert not talk._pairs


@pytest.mark.parametrize("role", ROLES)
def test_a_connection_older_than_the_capture_says_so_once_and_recovers(role):
    two = Two(role)
    two.ends = Ends(role)
    two.mute = True
    extra = [(f"x-field-{n}", f"value {n}") for n in range(20)]
    two.ask(1, *extra)
    two.answer(1, b"unseen", *extra)
    two.mute = False
    for stream in range(3, 13, 2):
        two.ask(stream, *extra, (f"x-new-{stream}", "v"), path=f"/{stream}")
        two.answer(stream, b"seen", *extra)
    notes = [m for m in two.ends.said(Note) if m.detail == "header table unknown"]
    assert [m.mark for m in notes] == [Mark.JOINED_LATE]
    found = two.ends.of(Exchange)
    assert [e.response.body for e in found] == [b"seen"] * 5
    assert {e.role for e in found} == {role}
    for exchange in found:
        # what the table lacks is marked, what it has learnt since is there
        assert exchange.request.head.get(f"x-new-{exchange.stream}") == "v"
        assert Mark.JOINED_LATE in exchange.request.marks


def test_grpc_messages_stand_for_the_content_of_their_stream():
    two = Two()
    pieces = [b"\x0a\x03one", b"\x0a\x03two"]
    framed = [b"\0" + len(piece).to_bytes(4, "big") + piece for piece in pieces]
    two.ask(1, ("content-type", "application/grpc"), end=False)
    two.client.send_data(1, framed[0], end_stream=True)
    two.carry()
    two.answer(1, framed[1], ("content-type", "application/grpc"), end=False)
    two.server.send_headers(1, [("grpc-status", "0")], end_stream=True)
    two.carry()
    found = two.ends.said(GrpcMessage)
    assert [(m.direction, m.data) for m in found] == [
        (Direction.TO_SERVER, pieces[0]),
        (Direction.TO_CLIENT, pieces[1]),
    ]
    exchange = one(two.ends.events, Exchange)
    assert exchange.response.trailers == (("grpc-status", "0"),)
    assert (exchange.request.body, exchange.response.body) == (b"", b"")


def test_a_tunnel_in_a_stream_is_shown_and_never_read_as_frames():
    two = Two()
    settings = {h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL: 1}
    two.server.update_settings(settings)
    two.carry()
    two.client.send_headers(1, [(":method", "CONNECT"), (":authority", "there:22")])
    two.carry()
    two.server.send_headers(1, [(":status", "200")])
    two.carry()
    two.client.send_data(1, b"PRI * or something else")
    two.carry()
    two.server.send_data(1, b"\0\0\x08\x06\0\0\0\0\0 and the like")
    two.carry()
    two.ask(3, path="/next")
    two.answer(3, b"fine")
    tunnelled = two.ends.of(Plaintext)
    assert [(e.direction, e.payload) for e in tunnelled] == [
        ("write", b"PRI * or something else"),
        ("read", b"\0\0\x08\x06\0\0\0\0\0 and the like"),
    ]
    assert [e.response.body for e in two.ends.of(Exchange)][-1] == b"fine"
    assert not two.ends.said(Note)


def test_an_upgrade_to_h2c_goes_on_as_http2():
    two = Two(upgraded=True)
    ends = two.ends
    ends.asks(get(b"/up", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c"))
    ends.answers(b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
    two.carry()
    two.answer(1, b"first")
    two.ask(3, path="/second")
    two.answer(3, b"second")
    first, second = ends.of(Exchange)
    assert (first.request.head.target, first.response.body) == ("/up", b"first")
    assert [head.status for head in first.informational] == [101]
    assert (second.request.head.target, second.response.body) == ("/second", b"second")
    assert not ends.said(Note)


def test_a_refused_upgrade_to_h2c_is_answered_in_http1():
    ends = Ends()
    ends.asks(get(b"/up", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c"))
    ends.answers(ok(b"as before"))
    (exchange,) = ends.of(Exchange)
    assert (exchange.request.head.target, exchange.response.body) == ("/up", b"as before")


def test_an_upgrade_to_h2c_that_ends_at_once_has_its_request_and_what_was_said():
    ends = Ends()
    ends.asks(get(b"/up", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c"))
    ends.answers(b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
    ends.end()
    (exchange,) = ends.of(Exchange)
    assert exchange.request.head.target == "/up"
    assert exchange.response is None
    assert [head.status for head in exchange.informational] == [101]


def test_content_codings_are_undone_in_messages():
    ends = Ends()
    ends.asks(get())
    ends.answers(ok(zlib.compress(b"text " * 1000), b"Content-Encoding: deflate"))
    response = one(ends.events, Exchange).response
    assert response.body == b"text " * 1000
    assert response.size < response.decoded_size == 5000
    assert response.codings == ("deflate",)


def test_two_messages_for_one_place_are_two_exchanges():
    # The first is taken for a request until the second tells who is the client.
    ends = Ends("server")
    ends.answers(b"\0\0\4\0\1\0\0\0\5tail")
    ends.asks(b"\0\0\6\1\5\0\0\0\5\x82\x87\x84\x41\x01a")
    ends.end()
    first, second = ends.of(Exchange)
    assert first.request.body == b"tail"
    assert second.request.head.method == "GET"
    assert [first.request, second.request] == ends.of(HttpMessage)
