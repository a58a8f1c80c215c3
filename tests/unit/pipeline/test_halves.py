# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from ecapture._wire import HOOK_HALF
from ecapture.events import (
    UNKNOWN_ENDS,
    Connection,
    ConversationEnd,
    Gap,
    Plaintext,
    ProcessExit,
    Summary,
)
from ecapture.pipeline import halves
from ecapture.pipeline.flows import Flows
from ecapture.pipeline.halves import Halves

OURS = Connection("ipv4", "127.0.0.1", 1, "127.0.0.1", 2, "inferred")
THEIRS = Connection("ipv4", "127.0.0.1", 3, "127.0.0.1", 2, "inferred")
WRITES, READS, LATER = (7, 17, 1), (7, 32, 1), (7, 49, 9)


def said(conversation, connection=OURS, direction="write", hook=HOOK_HALF, pid=7, at=0):
    return Plaintext(
        time_ns=0,
        pid=pid,
        tid=7,
        uid=0,
        comm="p",
        direction=direction,
        conversation=conversation,
        connection=connection,
        no_connection="" if connection else UNKNOWN_ENDS,
        stream_offset=at,
        call_length=1,
        call_offset=0,
        length=1,
        payload=b"x",
        hook=hook,
    )


def ended(conversation):
    return ConversationEnd(0, 7, "p", conversation, "freed")


def keys(events):
    return [event.conversation for event in events]


def test_without_halves_the_very_list_comes_back():
    events = [said(WRITES, hook=3), ended(WRITES)]
    assert Halves().feed(events) is events


def test_halves_with_the_same_ends_are_one():
    stage = Halves()
    assert keys(stage.feed([said(WRITES), said(READS, direction="read"), said(WRITES)])) == [
        WRITES,
        WRITES,
        WRITES,
    ]


def test_others_stay_apart():
    stage = Halves()
    other = (8, 32, 1)
    events = [said(WRITES), said(READS, THEIRS), said(other, pid=8), said(LATER, None)]
    assert keys(stage.feed(events)) == [WRITES, READS, other, LATER]


def test_ends_that_are_learned_later_join_what_comes_then():
    stage = Halves()
    assert keys(stage.feed([said(WRITES, None), said(WRITES), said(READS)])) == [WRITES] * 3


def test_what_was_shown_keeps_its_key():
    stage = Halves()
    events = [said(READS, None), said(WRITES), said(READS)]
    assert keys(stage.feed(events)) == [READS, WRITES, READS]


def test_keys_that_are_changed_change_no_conversation():
    stage = Halves()
    assert keys(stage.feed([said(WRITES), said(READS), said(LATER)])) == [WRITES] * 3


def test_bytes_are_counted_through_where_keys_are_changed():
    stage, flows = Halves(), Flows(Summary())
    pieces = [
        said(WRITES),
        said(READS, direction="read"),
        said(READS, direction="read", at=1),
        said(LATER, direction="read", at=3),  # what came before it was lost
        said(LATER, direction="read", at=4),
        said(WRITES, at=1),
    ]
    joined = stage.feed(pieces)
    assert [event.stream_offset for event in joined] == [0, 0, 1, 5, 6, 1]
    (gap,) = [event for event in flows.feed(joined) if isinstance(event, Gap)]
    assert (gap.direction, gap.stream_offset, gap.length) == ("read", 2, 3)


@pytest.mark.parametrize("first", [WRITES, READS])
def test_the_first_half_that_ends_ends_the_whole(first):
    stage = Halves()
    stage.feed([said(WRITES), said(READS)])
    other = READS if first == WRITES else WRITES
    assert keys(stage.feed([ended(first), ended(other)])) == [WRITES]
    assert keys(stage.feed([ended(other)])) == [other], "nobody's half: not ours to keep"
    assert keys(stage.feed([said(LATER)])) == [LATER], "the same ends, another connection"


def test_the_end_of_a_process_ends_its_halves():
    stage = Halves()
    gone = ProcessExit(0, 7, "p")
    assert stage.feed([said(WRITES), gone])[1] is gone
    assert keys(stage.feed([said(READS)])) == [READS]


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(halves, "_MAXIMUM_KNOWN", 10)
    stage = Halves()
    for number in range(100):
        port = Connection("ipv4", "127.0.0.1", number, "127.0.0.1", 2, "inferred")
        stage.feed([said((7, number, 1), port), said((7, number, 2), port)])
        stage.feed([ended((7, number, 1))] if number % 3 else [])
    assert len(stage._of_member) <= 11
    assert len(stage._of_ends) <= 11
    assert len(stage._over) <= 10
    assert stage.flush(0) == stage.close() == []
