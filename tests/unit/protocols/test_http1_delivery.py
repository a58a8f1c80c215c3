# SPDX-License-Identifier: Apache-2.0
import gzip

from ecapture.protocols.http1_delivery import Delivery, joined
from ecapture.protocols.http1_head import Ends, Framing
from ecapture.protocols.messages import Body, Direction, Mark, MessageComplete, ServerEvent


def delivery(codings=(), *, body_limit=100, event_stream=False):
    framing = Framing(Ends.BY_CHUNKS, codings=codings)
    made = Delivery(
        Direction.TO_CLIENT, 4, framing, body_limit=body_limit, event_stream=event_stream
    )
    made.time_ns = 7
    return made


def test_what_one_piece_has_is_one_body():
    way, out = delivery(), []
    data = b"..ab..cd.."
    assert not way.begun
    way.take(data, 2, 4)
    way.take(data, 6, 8)
    assert way.begun
    way.flush(out)
    way.flush(out)
    assert out == [Body(Direction.TO_CLIENT, 7, 0, 4, b"abcd")]


def test_a_piece_that_is_content_only_is_not_copied():
    way, out = delivery(body_limit=1 << 20), []
    data = bytes(5000)
    way.take(data, 0, 5000)
    way.flush(out)
    assert out[0].data is data


def test_the_end_tells_sizes_codings_and_doubts():
    way, out = delivery(("gzip",), body_limit=3), []
    sent = gzip.compress(b"abcdef")
    way.take(sent, 0, len(sent))
    way.doubt("first")
    way.doubt("second")
    way.trailers = (("A", "b"),)
    way.finish(out, (), "")
    (body, end) = out
    assert body.data == b"abc"
    assert isinstance(end, MessageComplete)
    assert (end.size, end.decoded_size, end.kept) == (len(sent), 6, 3)
    assert (end.codings, end.trailers) == (("gzip",), (("A", "b"),))
    assert (end.marks, end.problem) == ((Mark.AMBIGUOUS,), "first")


def test_an_unfinished_coding_is_no_fault_of_unfinished_content():
    sent = gzip.compress(b"abcdef")[:-4]
    for marks, expected in (((Mark.UNFINISHED,), (Mark.UNFINISHED,)), ((), (Mark.MALFORMED,))):
        way, out = delivery(("gzip",)), []
        way.take(sent, 0, len(sent))
        way.finish(out, marks, "")
        assert out[-1].marks == expected


def test_events_come_with_the_content_and_the_last_at_the_end():
    way, out = delivery(event_stream=True), []
    way.take(b"data: a\n\ndata: b", 0, 16)
    way.flush(out)
    assert [type(m) for m in out] == [Body, ServerEvent]
    way.gap(5, out)
    way.finish(out, (), "")
    assert [type(m) for m in out[2:]] == [MessageComplete]
    assert out[-1].marks == (Mark.GAP,)


def test_marks_are_joined_once_each():
    gap, limited = (Mark.GAP,), (Mark.LIMITED, Mark.GAP)
    assert joined((), ()) == ()
    assert joined((), gap) is gap
    assert joined(gap, limited, gap) == (Mark.GAP, Mark.LIMITED)
