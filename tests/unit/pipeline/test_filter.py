# SPDX-License-Identifier: Apache-2.0
import pytest
from exchanges import CONVERSATION, MS, exchange, gap, plaintext, request, response, said
from hypothesis import given, settings
from hypothesis import strategies as st

from ecapture.errors import UsageError
from ecapture.events import ConversationEnd, ProcessExit
from ecapture.pipeline.filter import HELD_INFORMATIONAL, Filter, Filtered
from ecapture.protocols.messages import Direction, ServerEvent, WebSocketMessage

ASKED = request("POST", "/api/v1/users?page=2", [("Host", "Example.com:8443")], b"x" * 100)
ANSWERED = response(503, [("Content-Type", "text/plain")], b"y" * 50, at=300 * MS)
BOTH = exchange(ASKED, ANSWERED)
END = ConversationEnd(0, 7, "curl", CONVERSATION, "freed")
EXIT = ProcessExit(0, 7, "curl")
WORDS = said(WebSocketMessage(Direction.TO_CLIENT, 0, size=9))


def test_containers_are_looked_up_only_where_they_are_asked_for():
    asked = []

    def container_of(pid):
        asked.append(pid)
        return "0123456789abcdef" * 4 if pid == 7 else ""

    assert Filter("container == 0123456789AB", container_of=container_of).matches(BOTH)
    assert not Filter("container == 0123456789", container_of=container_of).matches(BOTH)
    assert not Filter("container ~ .", container_of=container_of).matches(plaintext(pid=8))
    assert asked == [7, 7, 8]
    Filter("pid == 7", container_of=container_of).matches(BOTH)
    assert len(asked) == 3


def test_malformed():
    with pytest.raises(UsageError, match=r"--only: expected(.|\n)*\^"):
        Filter("method = GET", option="--only")


# --- the stage ---


def fed(expression, *batches, close=True, **limits):
    stage = Filtered(Filter(expression), **limits)
    out = [stage.feed(list(batch)) for batch in batches]
    return [*out, stage.close()] if close else out


def test_without_response_fields_nothing_waits():
    assert fed("method == POST", [ASKED], [ANSWERED], [BOTH]) == [[ASKED], [ANSWERED], [BOTH], []]
    assert fed("method == GET", [ASKED], [ANSWERED], [BOTH]) == [[], [], [], []]
    assert fed("pid == 7", [ASKED], [plaintext()], [gap()]) == [[ASKED], [plaintext()], [gap()], []]


@pytest.mark.parametrize("expression", ["status == 503", "duration > 250ms", "size == 150"])
def test_a_request_waits_for_what_its_response_tells(expression):
    assert fed(expression, [ASKED], [ANSWERED], [BOTH]) == [[], [ASKED, ANSWERED], [BOTH], []]


@pytest.mark.parametrize("expression", ["status == 200", "duration < 250ms", "size != 150"])
def test_and_is_dropped_with_it(expression):
    assert fed(expression, [ASKED], [ANSWERED], [BOTH]) == [[], [], [], []]


def test_both_are_judged_by_both_but_each_by_its_direction():
    parts = [[ASKED], [ANSWERED]]
    assert fed("status == 503 and method == POST and direction == read", *parts) == [
        [],
        [ANSWERED],
        [],
    ]


def test_a_response_that_overtook_its_request_waits():
    assert fed("method == POST", [ANSWERED], [ASKED], [BOTH]) == [[], [ASKED, ANSWERED], [BOTH], []]
    assert fed("status == 503", [ANSWERED], [ASKED]) == [[ANSWERED], [ASKED], []]


def test_informational_responses_go_with_their_exchange_or_for_their_own_sake():
    hints = [response(103, at=n) for n in range(2)]
    parts = [[ASKED], hints, [ANSWERED]]
    assert fed("method == POST", *parts) == [[ASKED], hints, [ANSWERED], []]
    assert fed("method == GET", *parts) == [[], [], [], []]
    assert fed("status == 503", *parts) == [[], [], [ASKED, *hints, ANSWERED], []]
    assert fed("status == 103", *parts) == [[], [], hints, []]
    assert fed("status == 200", *parts) == [[], [], [], []]
    assert fed("status == 103", [ASKED], hints) == [[], [], hints]


def test_held_informational_responses_are_bounded():
    hints = [response(103, at=n) for n in range(HELD_INFORMATIONAL + 2)]
    stage = Filtered(Filter("not status == 200"))
    assert stage.feed([ASKED, *hints]) == hints[-2:]
    assert stage.early == 2
    assert stage.close() == [ASKED, *hints[:-2]]
    assert stage._bytes == 0


def test_a_response_without_request_goes_with_its_exchange():
    alone = exchange(None, ANSWERED)
    assert fed("size == 50", [ANSWERED], [alone]) == [[], [ANSWERED, alone], []]
    assert fed("method == POST", [ANSWERED], [alone]) == [[], [], []]


def test_pipelined_and_interleaved_exchanges_are_told_apart():
    asked = [request(exchange=n) for n in range(3)]
    answered = [response(200 + n, exchange=n) for n in range(3)]
    out = fed("status == 201", asked, answered)
    assert out == [[], [asked[1], answered[1]], []]
    streams = [request(stream=n) for n in (1, 3)], [response(200 + n, stream=n) for n in (3, 1)]
    assert fed("status == 201", *streams) == [[], [streams[0][0], streams[1][1]], []]


def test_conversations_are_told_apart():
    other = (8, 0x7F00, 1)
    theirs = response(200, conversation=other)
    assert fed("status == 200", [ASKED], [theirs], [ANSWERED]) == [[], [theirs], [], []]


def test_the_end_of_a_conversation_releases_what_it_held():
    elsewhere = request(conversation=(8, 1, 1))
    ended = fed("not status == 200", [ASKED, elsewhere], [END], close=False)
    assert ended == [[], [ASKED, END]]
    assert fed("status == 503", [ASKED], [END, EXIT]) == [[], [END, EXIT], []]


def test_the_end_of_the_capture_releases_everything_in_order():
    asked = [request(exchange=n) for n in range(4)]
    assert fed("not status == 200", asked) == [[], asked]


def test_an_unanswered_exchange_releases_its_request():
    unanswered = exchange(ASKED)
    assert fed("not status == 200", [ASKED], [unanswered]) == [[], [ASKED, unanswered], []]


def test_held_messages_are_bounded_by_count():
    asked = [request(exchange=n) for n in range(5)]
    stage = Filtered(Filter("not status == 200"), held_messages=2)
    assert stage.feed(asked) == asked[:3]
    assert stage.early == 3
    assert stage.close() == asked[3:]


def test_held_messages_are_bounded_by_bytes():
    asked = [request("PUT", body=b"x" * 10_000, exchange=n) for n in range(5)]
    stage = Filtered(Filter("not status == 200 and method == PUT"), held_bytes=25_000)
    assert stage.feed(asked) == asked[:3]
    assert stage.early == 3
    # Those let go early are still known to their responses.
    late = response(200, exchange=0), response(204, exchange=1)
    assert stage.feed(list(late)) == [late[1]]
    assert stage.close() == asked[3:]
    assert stage._bytes == 0


def test_memory_is_flat_over_many_conversations():
    stage = Filtered(Filter("status == 503"))
    for number in range(20_000):
        stage.feed([request(conversation=(7, number, 1))])
    assert len(stage._known) == len(stage._held) == 4096
    assert len(stage._of_conversation) == 4096


def test_a_second_request_of_one_number_releases_the_first():
    again = request("PUT")
    assert fed("not status == 200", [ASKED], [again]) == [[], [ASKED], [again]]


def test_websocket_messages_are_judged_by_their_upgrade():
    asked = request(target="/chat")
    switched = response(101)
    words = said(WebSocketMessage(Direction.TO_CLIENT, 0, data=b"hi", size=2))
    events = [[asked, switched, exchange(asked, switched)], [words], [END], [words]]
    assert fed("path == /chat", *events, close=False) == [events[0], [words], [END], []]
    assert fed("path == /talk", *events, close=False) == [[], [], [END], []]


def test_server_sent_events_are_judged_by_their_request():
    asked = request(target="/feed")
    event = said(ServerEvent(Direction.TO_CLIENT, 0, data="x"))
    assert fed("path == /feed", [asked], [event, event], close=False) == [[asked], [event, event]]


events = st.one_of(
    st.builds(request, exchange=st.integers(0, 3), at=st.integers(0, 5)),
    st.builds(response, st.sampled_from([100, 101, 200, 503]), exchange=st.integers(0, 3)),
    st.sampled_from([END, EXIT, BOTH, exchange(ASKED), exchange(None, ANSWERED), plaintext(b"x")]),
)


@given(
    st.lists(events, max_size=30),
    st.sampled_from(["pid == 7", "status >= 0 or pid == 7", "size < 1g or size > 0 or pid == 7"]),
    st.integers(1, 4),
)
@settings(max_examples=300)
def test_whatever_comes_goes_once(given, expression, limit):
    """An expression that is true of everything loses nothing and repeats nothing."""
    stage = Filtered(Filter(expression), held_messages=limit)
    out = [event for single in given for event in stage.feed([single])] + stage.close()
    assert sorted(map(id, out)) == sorted(map(id, given))
    assert not stage._known
    assert not stage._held
    assert not stage._of_conversation
    assert stage._bytes == 0
