# SPDX-License-Identifier: Apache-2.0
"""The stage that recognises conversations: what it holds back, lets go, and hands to a talk."""

from __future__ import annotations

import h2.config
import h2.connection
import msgspec
import pytest
from talks import Speech, kinds, one

from ecapture.events import ConversationEnd, Exchange, Gap, HttpMessage, Plaintext, ProcessExit
from ecapture.pipeline.messages import Messages, client_writes
from ecapture.pipeline.talk import EARLY_NS
from ecapture.protocols.detect import LOOK_AHEAD
from ecapture.protocols.messages import Mark

ASKED = b"GET /a HTTP/1.1\r\nHost: here\r\n\r\n"
ANSWERED = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
SECOND = 1_000_000_000


@pytest.fixture
def stage():
    return Messages()


def test_messages_come_at_once_and_then_their_exchange(stage):
    speech = Speech()
    (request,) = stage.feed([speech.write(ASKED)])
    response, exchange = stage.feed([speech.read(ANSWERED)])
    assert (request.head.method, request.head.target) == ("GET", "/a")
    assert (response.head.status, response.body) == (200, b"hello")
    assert (request.direction, response.direction) == ("write", "read")
    assert (exchange.request, exchange.response) == (request, response)
    assert exchange.role == "client"
    assert stage.feed([speech.end()]) == [speech.end()]
    assert stage.close() == []


def test_a_server_is_told_by_who_asks(stage):
    speech = Speech()
    events = stage.feed([speech.read(ASKED), speech.write(ANSWERED)])
    assert one(events, Exchange).role == "server"
    assert [e.direction for e in events if isinstance(e, HttpMessage)] == ["read", "write"]


@pytest.mark.parametrize("first", ["read", "write"])
def test_a_response_before_any_request_tells_who_is_who(stage, first):
    speech = Speech()
    events = stage.feed([speech.say(first, ANSWERED)]) + stage.flush(SECOND)
    exchange = one(events, Exchange)
    assert exchange.request is None
    assert exchange.role == ("client" if first == "read" else "server")
    assert exchange.response.direction == first


def test_who_is_the_client_is_told_by_start_lines_before_content():
    log = b"POST / HTTP/1.1\r\nHost: a\r\n\r\nlog:\nHTTP/1.1 200 OK\r\n"
    assert client_writes({1: log, 0: b""}, 1)
    assert not client_writes({1: b"", 0: log}, 0)
    assert client_writes({1: b"rest of it" + ASKED, 0: b"\x01\x02"}, 0) is False
    assert client_writes({0: b"rest of it\n" + ANSWERED, 1: b""}, 0)
    assert client_writes({0: b"?", 1: b"?"}, 1)


# --- holding back ---


def test_an_undecided_beginning_is_held_until_it_is_known(stage):
    speech = Speech()
    assert stage.feed([speech.write(b"GE"), speech.write(b"T")]) == []
    (request,) = stage.feed([speech.write(ASKED[3:])])
    assert request.head.target == "/a"
    assert request.marks == ()


def test_what_is_held_passes_unchanged_when_its_time_is_up(stage):
    speech = Speech()
    held = [speech.write(b"GE"), speech.lost("read", 7)]
    assert stage.feed(held) == []
    assert stage.flush(SECOND // 4) == []
    assert stage.flush(SECOND) == held
    assert stage.flush(2 * SECOND) == []
    assert stage.feed([speech.write(b"T /")]) == [speech.last]


def test_a_busy_capture_lets_go_without_a_flush(stage):
    speech, other = Speech(), Speech(conversation=(8, 1, 1))
    held = speech.write(b"GE")
    assert stage.feed([held]) == []
    busy = stage.feed([other.write(ASKED, at=SECOND)])
    assert [type(e) for e in busy] == [HttpMessage, Plaintext]
    assert busy[1] == held


@pytest.mark.parametrize("how", ["end", "close"])
def test_what_is_held_is_not_lost_at_the_end(stage, how):
    speech = Speech()
    held = speech.write(b"HTTP/1")
    assert stage.feed([held]) == []
    rest = stage.feed([speech.end()]) if how == "end" else stage.close()
    assert rest[0] == held


def test_a_beginning_is_held_for_a_number_of_pieces_and_of_bytes(stage):
    speech = Speech()
    endless = [speech.write(b"A" if n else b"GET x") for n in range(2000)]
    shown = [event for event in endless if stage.feed([event])]
    assert shown
    assert endless.index(shown[0]) < 1024

    speech = Speech(conversation=(8, 1, 1))
    frame = b"\0\x40\0\0\0\0\0\0\1"  # a DATA frame of 16 KiB that may be one
    assert stage.feed([speech.write(frame)]) == []
    assert stage.feed([speech.write(bytes(LOOK_AHEAD))]) != []


def test_pieces_without_bytes_are_held_for_a_number_only(stage):
    speech = Speech()
    empty = [speech.write(b"", length=10) for _ in range(2000)]
    assert sum(len(stage.feed([event])) for event in empty) > 1000


def test_a_loss_in_what_is_held_is_told_to_the_parser(stage):
    speech = Speech()
    head = b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\n"
    events = stage.feed([speech.write(head[:3]), speech.write(head[3:] + b"abc")])
    events += stage.feed([speech.lost("write", 4), speech.write(b"xyz")])
    request = one(events, HttpMessage)
    assert request.marks == (Mark.GAP,)
    assert (request.body, request.size) == (b"abcxyz", 10)


def test_answers_that_wait_are_let_go_in_the_order_in_which_they_came(stage):
    speeches = [Speech(conversation=(8, number, 1)) for number in range(50)]
    for speech in speeches:
        assert stage.feed([speech.read(ANSWERED)]) == []
    told = [e.conversation for e in stage.flush(2 * EARLY_NS) if isinstance(e, HttpMessage)]
    assert told == [speech.conversation for speech in speeches]


def test_an_answer_that_waits_for_its_question_is_let_go_by_time(stage):
    speech, other = Speech(), Speech(conversation=(8, 1, 1))
    assert stage.feed([speech.read(ANSWERED)]) == []
    assert stage.flush(EARLY_NS // 2) == []
    assert kinds(stage.flush(2 * EARLY_NS)) == ["HttpMessage", "Exchange"]
    assert stage.flush(SECOND) == []
    # a busy capture has no time to flush
    again = speech.read(ANSWERED, at=SECOND)
    assert stage.feed([again]) == []
    busy = stage.feed([other.write(ASKED, at=2 * SECOND)])
    assert {e.conversation for e in busy} == {speech.conversation, other.conversation}
    assert not stage._early


# --- unknown protocols ---


def test_unknown_protocols_pass_as_they_are_with_their_losses(stage):
    speech = Speech()
    said = [speech.write(b"\x01\x02 hello"), speech.lost("write", 5), speech.read(b"\x03")]
    assert stage.feed(said) == said
    assert stage.feed([speech.end()]) == [speech.end()]


def test_a_protocol_that_becomes_evident_later_is_read(stage):
    speech = Speech()
    unknown = speech.read(b"\x80\x81 the middle of something")
    assert stage.feed([unknown]) == [unknown]
    events = stage.feed([speech.write(ASKED), speech.read(ANSWERED)])
    assert kinds(events) == ["HttpMessage", "HttpMessage", "Exchange"]
    assert one(events, Exchange).role == "client"


def test_other_events_stand_in_their_place(stage):
    speech = Speech()
    exit_ = ProcessExit(0, 7, "curl")
    events = stage.feed([speech.write(ASKED), exit_, speech.read(ANSWERED)])
    assert kinds(events) == ["HttpMessage", "ProcessExit", "HttpMessage", "Exchange"]


def test_the_gap_of_a_conversation_never_heard_of_passes(stage):
    gap = Speech().lost("read", 3)
    assert stage.feed([gap]) == [gap]
    assert stage.close() == []


# --- ends ---


def test_the_end_of_the_capture_gives_out_what_is_unfinished(stage):
    speech = Speech()
    stage.feed([speech.write(ASKED), speech.read(ANSWERED[:-2])])
    response, exchange = stage.close()
    assert response.marks == (Mark.UNFINISHED,)
    assert response.body == b"hel"
    assert exchange.response == response
    assert stage.close() == []


@pytest.mark.parametrize("cut", [False, True])
def test_content_that_lasts_until_the_end_is_whole_unless_the_capture_ended_first(stage, cut):
    speech = Speech()
    stage.feed([speech.write(ASKED), speech.read(b"HTTP/1.0 200 OK\r\n\r\nall of it")])
    events = stage.close() if cut else stage.feed([speech.end()])
    response = one(events, HttpMessage)
    assert response.body == b"all of it"
    assert response.marks == ((Mark.UNFINISHED,) if cut else ())


def test_a_request_without_an_answer_is_an_exchange_at_the_end(stage):
    speech = Speech()
    (request,) = stage.feed([speech.write(ASKED)])
    exchange, end = stage.feed([speech.end()])
    assert exchange.request == request
    assert exchange.response is None
    assert isinstance(end, ConversationEnd)


def test_a_handle_that_comes_back_is_another_conversation(stage):
    speech = Speech()
    stage.feed([speech.write(ASKED[:20]), speech.end()])
    again = Speech(conversation=(*speech.conversation[:2], 2))
    (request,) = stage.feed([again.write(ASKED)])
    assert request.marks == ()


def test_nothing_is_kept_of_conversations_that_ended(stage):
    for n in range(50):
        speech = Speech(conversation=(7, n, 1))
        stage.feed([speech.write(ASKED), speech.read(ANSWERED), speech.end()])
        held = Speech(conversation=(7, n, 2))
        stage.feed([held.write(b"G"), held.end()])
        other = Speech(conversation=(7, n, 3))
        stage.feed([other.write(b"\1"), other.end()])
    assert not stage._talks
    assert not stage._holding
    assert stage._allowance.left == Messages()._allowance.left


# --- bounds ---


def upload(speech, size, *, method=b"POST"):
    head = method + b" / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size
    return [speech.write(head)] + [speech.write(bytes(16384)) for _ in range(size // 16384)]


def test_content_is_kept_up_to_its_limit_and_the_size_still_told():
    stage, speech = Messages(body_limit=1000), Speech()
    request = one(stage.feed(upload(speech, 1 << 20)), HttpMessage)
    assert len(request.body) == 1000
    assert request.size == request.decoded_size == 1 << 20


def test_content_that_waits_is_bounded_over_all_conversations():
    stage = Messages(waiting_limit=1 << 20)
    found = []
    for n in range(10):  # requests that nobody answers
        found += stage.feed(upload(Speech(conversation=(7, n, 1)), 1 << 18))
    kept = [len(e.body) for e in found if isinstance(e, HttpMessage)]
    assert kept[:4] == [1 << 18] * 4
    assert sum(kept) <= 1 << 20
    refused = [e for e in found if not e.body]
    assert len(refused) == 6
    for event in refused:
        assert event.marks == (Mark.LIMITED,)
        assert event.problem
        assert event.size == 1 << 18
    stage.close()
    speech = Speech()
    assert len(one(stage.feed(upload(speech, 1 << 18)), HttpMessage).body) == 1 << 18


def test_the_conversation_of_an_event_names_all_it_yields(stage):
    speech = Speech()
    events = stage.feed([speech.read(ASKED), speech.write(ANSWERED)])
    for event in events:
        assert event.conversation == speech.conversation
        assert event.connection == speech.last.connection
        assert (event.pid, event.uid, event.comm) == (7, 1000, "curl")
    # and they are values like all others
    assert msgspec.json.encode(events[-1])


def test_gaps_in_a_known_protocol_are_told_by_marks_only(stage):
    speech = Speech()
    events = stage.feed([speech.write(ASKED), speech.read(ANSWERED), speech.lost("read", 100)])
    events += stage.feed([speech.write(ASKED), speech.read(ANSWERED)])
    assert not [e for e in events if isinstance(e, Gap)]
    assert [e.message.mark for e in events if type(e).__name__ == "Said"] == [Mark.GAP]
    assert len([e for e in events if isinstance(e, Exchange) and e.response]) == 2


# --- places in a tunnel ---

CONNECT = b"CONNECT there:22 HTTP/1.1\r\nHost: there:22\r\n\r\n"
CONNECTED = b"HTTP/1.1 200 Connection established\r\n\r\n"


def test_what_is_missing_in_a_tunnel_is_told_once_at_its_place(stage):
    speech = Speech()
    stage.feed([speech.write(CONNECT), speech.read(CONNECTED)])
    # what a piece says of itself is not told beside it
    cut = speech.write(b"SSH-2.0-y\r\n", length=30)
    unread = speech.write(b"", length=20, missing="unreadable")
    lost = speech.lost("read", 9)
    assert cut.missing == "truncated"
    for event in (cut, unread, lost):
        assert stage.feed([event]) == [event]


def test_a_cut_piece_that_begins_before_a_tunnel(stage):
    speech = Speech()
    stage.feed([speech.write(CONNECT)])
    events = stage.feed([speech.read(CONNECTED + b"SSH", length=len(CONNECTED) + 11)])
    shown, gap = one(events, Plaintext), one(events, Gap)
    assert (shown.payload, shown.stream_offset) == (b"SSH", len(CONNECTED))
    assert (gap.direction, gap.stream_offset, gap.length) == ("read", len(CONNECTED) + 3, 8)


def test_what_is_said_before_a_tunnel_is_agreed_has_its_own_place(stage):
    speech = Speech()
    stage.feed([speech.write(CONNECT + b"SSH-"), speech.write(b"2.0-y")])
    shown = one(stage.feed([speech.read(CONNECTED)]), Plaintext)
    assert (shown.direction, shown.payload) == ("write", b"SSH-2.0-y")
    assert (shown.stream_offset, shown.call_offset) == (len(CONNECT), 0)
    assert shown.call_length == shown.length == len(shown.payload)


def test_frames_of_a_tunnel_in_a_stream_have_their_places(stage):
    made = h2.connection.H2Connection
    client = made(h2.config.H2Configuration(client_side=True))
    server = made(h2.config.H2Configuration(client_side=False))
    speech = Speech()
    client.initiate_connection()
    server.initiate_connection()
    client.send_headers(1, [(":method", "CONNECT"), (":authority", "there:22")])
    asked = client.data_to_send()
    server.receive_data(asked)
    server.send_headers(1, [(":status", "200")])
    stage.feed([speech.write(asked), speech.read(server.data_to_send())])
    for word in (b"one", b"two", b"one"):
        client.send_data(1, word)
    client.ping(b"trailing")
    call = speech.write(client.data_to_send())
    events = [e for e in stage.feed([call]) if isinstance(e, Plaintext)]
    assert [(e.payload, e.call_offset) for e in events] == [(b"one", 9), (b"two", 21), (b"one", 33)]
    assert [e.stream_offset for e in events] == [len(asked) + e.call_offset for e in events]
    assert {e.call_length for e in events} == {call.length}
