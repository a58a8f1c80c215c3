# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import msgspec
import pytest

from ecapture.events import UNKNOWN_ENDS, Connection, ConversationEnd, Ends, Plaintext
from ecapture.pipeline.ends import LateEnds

ENDS = Connection("ipv4", "127.0.0.1", 1, "127.0.0.1", 2, "inferred")
MINE, OTHER = (7, 1, 1), (7, 2, 1)
MS = 1_000_000


def said(time_ms=0, conversation=MINE, connection=None, payload=b"x", why=UNKNOWN_ENDS):
    return Plaintext(
        time_ns=time_ms * MS,
        pid=7,
        tid=7,
        uid=0,
        comm="p",
        direction="write",
        conversation=conversation,
        connection=connection,
        no_connection="" if connection else why,
        stream_offset=0,
        call_length=len(payload),
        call_offset=0,
        length=len(payload),
        payload=payload,
    )


def told(time_ms=0, conversation=MINE):
    return Ends(time_ms * MS, 7, "p", conversation, ENDS)


def with_ends(event):
    return msgspec.structs.replace(event, connection=ENDS, no_connection="")


def test_what_has_addresses_passes_untouched():
    events = [said(connection=ENDS), ConversationEnd(1, 7, "p", MINE, "freed")]
    assert LateEnds().feed(events) is events


def test_addresses_told_later_are_put_in_and_the_order_is_kept():
    stage, first, second = LateEnds(), said(0), said(1)
    between = said(1, OTHER, ENDS)
    assert stage.feed([first, between]) == []
    assert stage.feed([second, told(2)]) == [with_ends(first), between, with_ends(second)]
    third = said(3)
    assert stage.feed([third]) == [with_ends(third)]


def test_later_bytes_with_addresses_tell_them_too():
    stage, first, second = LateEnds(), said(0), said(1, connection=ENDS)
    assert stage.feed([first]) == []
    assert stage.feed([second]) == [with_ends(first), second]


@pytest.mark.parametrize("way", ["flush", "event", "close", "end"])
def test_nobody_waits_forever(way):
    stage, first = LateEnds(), said(0)
    assert stage.feed([first]) == []
    assert stage.flush(59 * MS) == []
    if way == "flush":
        assert stage.flush(60 * MS) == [first]
    elif way == "event":
        later = said(500, OTHER, ENDS)
        assert stage.feed([later]) == [first, later]
    elif way == "end":
        end = ConversationEnd(1, 7, "p", MINE, "freed")
        assert stage.feed([end]) == [first, end]
    else:
        assert stage.close() == [first]
    assert stage.close() == []


def test_a_conversation_is_waited_for_once():
    stage = LateEnds()
    stage.feed([said(0)])
    stage.flush(600 * MS)
    events = [said(601)]
    assert stage.feed(events) is events
    stage.feed([told(602)])
    after = said(603)
    assert stage.feed([after]) == [with_ends(after)]


def test_where_there_will_never_be_addresses_nothing_waits():
    event = said(why="the descriptor is not an IPv4 or IPv6 socket")
    assert LateEnds().feed([event]) == [event]


def test_what_is_held_is_bounded():
    stage = LateEnds()
    out = stage.feed([said(0)])
    for number in range(5000):
        out += stage.feed([said(0, OTHER, ENDS, b"%d" % number)])
    assert len(out) == 5001
    stage = LateEnds()
    large = said(0, payload=bytes(5 << 20))
    assert stage.feed([large]) == []
    assert len(stage.feed([large])) == 2


def test_late_addresses_never_leave_the_stage():
    assert LateEnds().feed([told()]) == []
