# SPDX-License-Identifier: Apache-2.0
"""Bytes are in order or a gap says how many are not; conversations end; sums are right."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import CONVERSATION, ended, exited, plaintext

from ecapture.events import ConversationEnd, Gap, Plaintext, Summary
from ecapture.pipeline.flows import Flows

OTHER = (200, 0x9000, 7)
HOUR = 3600 * 1_000_000_000


@pytest.fixture
def flows():
    return Flows(Summary())


def at(offset, payload=b"12345", **fields):
    return plaintext(payload, stream_offset=offset, **fields)


def test_what_is_complete_passes_as_the_very_list(flows):
    events = [at(0), at(5), at(0, direction="read"), at(0, conversation=OTHER, pid=200)]
    assert flows.feed(events) is events
    assert flows.summary == Summary(events=4, bytes=20, flows=2)


def test_a_gap_stands_before_the_event_that_proves_it(flows):
    late = at(12)
    first, gap, second = flows.feed([at(0), late])
    assert first.stream_offset == 0
    assert gap == Gap(late.time_ns, 100, "curl", "write", CONVERSATION, None, 5, 7)
    assert second is late


def test_a_lost_beginning_is_a_gap(flows):
    gap, _event = flows.feed([at(100)])
    assert (gap.stream_offset, gap.length) == (0, 100)


def test_gaps_are_by_direction_and_conversation(flows):
    flows.feed([at(0), at(0, direction="read"), at(0, conversation=OTHER, pid=200)])
    found = flows.feed([at(7), at(5, direction="read"), at(6, conversation=OTHER, pid=200)])
    assert [(type(e) is Gap, e.conversation, e.direction) for e in found] == [
        (True, CONVERSATION, "write"),
        (False, CONVERSATION, "write"),
        (False, CONVERSATION, "read"),
        (True, OTHER, "write"),
        (False, OTHER, "write"),
    ]


def test_a_truncated_piece_is_no_gap(flows):
    cut = at(0, b"12", length=5, call_length=5, missing="truncated")
    events = [cut, at(5)]
    assert flows.feed(events) is events
    assert (flows.summary.truncated, flows.summary.unreadable) == (1, 0)


def test_unreadable_pieces_are_counted(flows):
    flows.feed(
        [at(0, b"", length=5, missing="unreadable"), at(5, b"", length=9, missing="sendfile")]
    )
    assert (flows.summary.truncated, flows.summary.unreadable) == (0, 1)


def test_the_end_of_a_conversation_forgets_its_offsets(flows):
    events = [at(0), ended(), at(0, conversation=(100, 0x7000, 6))]
    assert flows.feed(events) is events
    assert flows.summary.flows == 2
    assert not flows.feed([exited(pid=1)])[:-1]


def test_an_exit_ends_the_open_conversations_of_its_process_before_it(flows):
    second = (100, 0x8000, 9)
    flows.feed([at(0), at(0, conversation=second), at(0, conversation=OTHER, pid=200)])
    found = flows.feed([exited()])
    assert [e.conversation for e in found[:-1]] == sorted([CONVERSATION, second])
    assert {e.reason for e in found[:-1]} == {"exit"}
    assert found[-1] == exited()
    assert flows.feed([exited()]) == [exited()]


def test_an_end_of_what_was_never_seen_passes(flows):
    assert flows.feed([ended()]) == [ended()]


def test_idle_conversations_end_and_others_stay():
    flows = Flows(Summary(), idle_ns=HOUR)
    flows.feed([at(0, time_ns=0), at(0, time_ns=HOUR, conversation=OTHER, pid=200)])
    found = flows.flush(HOUR + 60 * 10**9)
    assert found == [ConversationEnd(HOUR + 60 * 10**9, 100, "curl", CONVERSATION, "idle")]
    assert flows.flush(HOUR + 61 * 10**9) == []


def test_a_conversation_that_wakes_up_has_lost_nothing():
    flows = Flows(Summary(), idle_ns=HOUR)
    flows.feed([at(0, time_ns=0)])
    assert len(flows.flush(2 * HOUR)) == 1
    events = [at(5, time_ns=3 * HOUR)]
    assert flows.feed(events) is events
    assert flows.summary.flows == 1
    (gap, _) = flows.feed([at(11, time_ns=3 * HOUR)])
    assert gap.length == 1


def test_of_those_that_sleep_the_newest_are_remembered():
    flows = Flows(Summary(), idle_ns=HOUR, most_asleep=2)
    keys = [(number, 0x7000, number) for number in range(100, 104)]
    for key in keys[:3]:
        flows.feed([at(0, time_ns=0, conversation=key, pid=key[0])])
    assert len(flows.flush(2 * HOUR)) == 3
    flows.feed([at(0, time_ns=2 * HOUR, conversation=keys[3], pid=keys[3][0])])
    events = [at(5, time_ns=3 * HOUR, conversation=keys[2], pid=keys[2][0])]
    assert flows.feed(events) is events
    assert len(flows.flush(4 * HOUR)) == 1
    events = [at(5, time_ns=5 * HOUR, conversation=keys[n], pid=keys[n][0]) for n in (1, 3)]
    assert flows.feed(events) is events
    assert flows.summary.flows == 4


def test_nothing_is_held_back(flows):
    flows.feed([at(0)])
    assert flows.close() == []


@given(
    sizes=st.lists(
        st.tuples(st.integers(0, 50), st.sampled_from(["read", "write"]), st.booleans())
    ),
    cuts=st.lists(st.integers(0, 100)),
)
def test_shown_and_lost_make_what_happened(sizes, cuts):
    """Of a stream some pieces are dropped: gaps and pieces together cover it without overlap."""
    position = {"read": 0, "write": 0}
    arrived, last_seen = [], {"read": 0, "write": 0}
    for size, direction, delivered in sizes:
        piece = at(position[direction], b"x" * size, direction=direction)
        position[direction] += size
        if delivered:
            arrived.append(piece)
            last_seen[direction] = position[direction]
    summary = Summary()
    flows = Flows(summary)
    out = []
    begin = 0
    for cut in [*sorted(c % (len(arrived) + 1) for c in cuts), len(arrived)]:
        out += flows.feed(arrived[begin:cut])
        begin = cut
    covered = {"read": 0, "write": 0}
    for event in out:
        assert event.stream_offset == covered[event.direction]
        covered[event.direction] += event.length
    assert covered == last_seen
    assert [event for event in out if type(event) is Plaintext] == arrived
    assert summary.events == len(arrived)
    assert summary.bytes == sum(len(event.payload) for event in arrived)
