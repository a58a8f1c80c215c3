# SPDX-License-Identifier: Apache-2.0
"""Header blocks in parts: what comes of whole ones, and of those that cannot be decoded."""

from __future__ import annotations

import hpack
from hypothesis import given
from hypothesis import strategies as st

from ecapture.protocols.http2_blocks import TABLE_UNKNOWN, BlockReader, FieldBlock, Remark
from ecapture.protocols.http2_frames import Frame
from ecapture.protocols.messages import Direction, Mark

HEADERS, PUSH_PROMISE, CONTINUATION = 1, 5, 9
END_STREAM, END_HEADERS, PADDED, PRIORITY = 1, 4, 8, 0x20


def part(kind: int, flags: int, payload: bytes, stream: int = 1, *, whole: bool = True) -> Frame:
    return Frame(kind, flags, stream, len(payload), payload, whole)


@given(st.lists(st.integers(0, 60), max_size=6), st.booleans(), st.booleans())
def test_a_block_in_any_parts_is_the_same(cuts: list[int], padded: bool, weighed: bool) -> None:
    fields = [(":method", "GET"), (":path", "/a"), ("x-one", "1"), ("x-two", "2" * 20)]
    octets = hpack.Encoder().encode(fields)
    edges = [0, *sorted(min(cut, len(octets)) for cut in cuts), len(octets)]
    pieces = [octets[edges[i] : edges[i + 1]] for i in range(len(edges) - 1)]
    reader = BlockReader(1 << 16)
    flags = END_STREAM
    first = pieces.pop(0)
    if weighed:
        flags |= PRIORITY
        first = bytes(5) + first
    if padded:
        flags |= PADDED
        first = b"\x03" + first + bytes(3)
    if not pieces:
        flags |= END_HEADERS
    block = reader.feed(part(HEADERS, flags, first))
    while pieces:
        assert block is None
        assert reader.within == 1
        piece = pieces.pop(0)
        block = reader.feed(part(CONTINUATION, 0 if pieces else END_HEADERS, piece))
    assert block is not None
    assert (block.method, block.path, block.last, block.size) == ("GET", "/a", True, len(octets))
    assert block.plain == fields[2:]
    assert block.marks == ()
    assert not reader.within
    assert not reader.remarks


def test_a_promise() -> None:
    reader = BlockReader(1 << 16)
    payload = b"\x02" + (4).to_bytes(4, "big") + b"\x82" + bytes(2)
    block = reader.feed(part(PUSH_PROMISE, END_HEADERS | PADDED, payload))
    assert block is not None
    assert (block.promised, block.method, block.last) == (4, "GET", False)
    nothing = reader.feed(part(PUSH_PROMISE, END_HEADERS, bytes(4)))
    assert nothing is not None
    assert nothing.marks == (Mark.MALFORMED,)


def test_pseudo_fields_have_their_places() -> None:
    block = FieldBlock(1, last=False, promised=0, size=9)
    block.take([(":status", "204"), ("", "nameless"), (":odd", "x"), (":protocol", "websocket")])
    assert (block.status, block.protocol, block.pseudo) == (204, "websocket", 3)
    assert block.plain == [("", "nameless"), (":odd", "x"), (":protocol", "websocket")]
    head = block.head(Direction.TO_CLIENT, 5, 1)
    assert (head.kind, head.status, head.size, head.time_ns) == ("response", 204, 9, 5)
    block.take([(":status", "\u00b2\u00b2\u00b2")])
    assert block.status == 0


def test_the_table_is_given_up_with_what_is_not_decoded() -> None:
    reader = BlockReader(100)
    known = b"\x40\x03x-a\x011"
    again = part(HEADERS, END_HEADERS, b"\xbe")
    for broken in (
        part(HEADERS, END_HEADERS, b"\x00", whole=False),
        part(HEADERS, END_HEADERS, bytes(101), whole=False),
        part(HEADERS, END_HEADERS | PADDED, b"\x09\x82"),
        part(HEADERS, END_HEADERS | PADDED, b""),
        part(HEADERS, END_HEADERS, b"\x80"),
    ):
        reader.feed(part(HEADERS, END_HEADERS, known))
        block = reader.feed(again)
        assert block is not None
        assert block.plain == [("x-a", "1")]
        block = reader.feed(broken)
        assert block is not None
        assert len(block.marks) == 1
        reader.remarks.clear()
        unknown = reader.feed(again)
        assert unknown is not None
        assert unknown.plain == [("?", "?")]
        assert unknown.marks == block.marks
        assert reader.remarks == [Remark(0, block.marks[0], TABLE_UNKNOWN)]
        reader.feed(again)
        assert len(reader.remarks) == 1


def test_a_continuation_of_nothing() -> None:
    reader = BlockReader(100)
    assert reader.feed(part(CONTINUATION, END_HEADERS, b"\x82", 3)) is None
    assert [remark.stream for remark in reader.remarks] == [3]
    reader.remarks.clear()
    reader.feed(part(HEADERS, 0, b"\x82", 1))
    assert reader.feed(part(CONTINUATION, END_HEADERS, b"\x82", 3)) is None
    assert [remark.stream for remark in reader.remarks] == [1, 3]
    assert not reader.within


def test_a_list_beyond_the_limit_is_marked() -> None:
    block = BlockReader(100).feed(part(HEADERS, END_HEADERS, b"\x82" * 5))
    assert block is not None
    assert block.marks == (Mark.LIMITED,)


def test_a_table_that_is_larger_than_what_is_kept_is_a_limit() -> None:
    encoder = hpack.Encoder()
    encoder.header_table_size = 1 << 20
    old = [("x-old", "1" * 20)]
    block = encoder.encode(old + [(f"x-{number}", "v" * 1000) for number in range(100)])
    reader = BlockReader(1 << 18)
    for octets, marks in ((block, ()), (encoder.encode(old), (Mark.LIMITED,))):
        found = reader.feed(part(HEADERS, END_HEADERS, octets))
        assert found is not None
        assert found.marks == marks
