# SPDX-License-Identifier: Apache-2.0
"""gRPC messages come out one by one, however they were cut, compressed or lost."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ecapture.protocols.grpc import (
    STATUS_NAMES,
    MessageSplitter,
    is_grpc,
    method_of,
    status_of,
    whole_messages,
)
from ecapture.protocols.http2 import Http2Connection
from ecapture.protocols.messages import Direction, GrpcMessage, Mark

from .http2_peers import SERVER, Peers, frame, hear, octet_by_octet, trials

UP, DOWN = Direction.TO_SERVER, Direction.TO_CLIENT


def prefixed(message: bytes, flag: int = 0) -> bytes:
    return bytes((flag,)) + len(message).to_bytes(4, "big") + message


def splitter(**options: object) -> MessageSplitter:
    return MessageSplitter(UP, 1, **options)  # type: ignore[arg-type]


@given(st.lists(st.binary(max_size=40)), st.lists(st.integers(1, 17), min_size=1, max_size=5))
def test_messages_however_they_are_cut(contents: list[bytes], cuts: list[int]) -> None:
    octets = b"".join(prefixed(content) for content in contents)
    split = splitter()
    messages: list[GrpcMessage] = []
    rest = octets
    while rest:
        size = cuts[len(rest) % len(cuts)]
        messages += split.feed(rest[:size], 5)
        rest = rest[size:]
    assert [message.data for message in messages] == contents
    assert [message.number for message in messages] == list(range(len(contents)))
    assert all(message.marks == () for message in messages)
    assert not split.within
    assert split.size == len(octets)
    assert split.kept == split.decoded_size == sum(map(len, contents))
    assert split.end(6) == []


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("zstd", zstandard.ZstdCompressor().compress),
    ],
)
def test_compressed_messages(encoding: str, pack: object) -> None:
    packed = pack(b"message " * 30)  # type: ignore[operator]
    for cut in (lambda octets: [octets], octet_by_octet):
        split = splitter(encoding=encoding)
        octets = prefixed(packed, 1) + prefixed(b"plain") + prefixed(packed, 1)
        messages = [message for piece in cut(octets) for message in split.feed(piece, 1)]
        assert [message.data for message in messages] == [
            b"message " * 30,
            b"plain",
            b"message " * 30,
        ]
        assert [message.compressed for message in messages] == [True, False, True]
        assert messages[0].size == len(packed)
        assert messages[0].decoded_size == 240


def test_what_is_compressed_by_something_unknown_is_shown_as_sent() -> None:
    (message,) = splitter(encoding="snappy").feed(prefixed(b"??", 1), 1)
    assert message.data == b"??"
    assert message.marks == (Mark.UNDECODED,)


def test_what_is_not_what_it_says_is_shown_as_sent() -> None:
    (message,) = splitter(encoding="gzip").feed(prefixed(b"not gzip", 1), 1)
    assert message.data == b"not gzip"
    assert message.marks == (Mark.MALFORMED,)


def test_a_long_message_is_kept_to_the_limit() -> None:
    split = splitter(message_limit=1000)
    assert split.feed(b"\0\xff\xff\xff\xff", 1) == []
    tracemalloc.start()
    for _ in range(2000):
        split.feed(bytes(1000), 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000
    (message,) = split.end(2)
    assert message.size == 0xFFFFFFFF
    assert message.decoded_size == 2_000_000
    assert len(message.data) == 1000
    assert message.marks == (Mark.UNFINISHED,)
    assert message.problem == "2000000 of 4294967295 bytes"


def test_a_bomb_is_not_let_off() -> None:
    bomb = gzip.compress(bytes(200 << 20), compresslevel=1)
    split = splitter(encoding="gzip", message_limit=1000)
    tracemalloc.start()
    (message,) = split.feed(prefixed(bomb, 1), 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert Mark.LIMITED in message.marks
    assert len(message.data) == 1000
    assert peak < 10 << 20


def test_a_wrong_prefix_is_got_over_at_the_next_whole_messages() -> None:
    split = splitter()
    assert split.feed(b"garbage that is no prefix", 1) == []
    assert split.feed(b"more of it", 1) == []
    (message,) = split.feed(prefixed(b"good"), 1)
    assert message.data == b"good"
    assert split.passed == 35


def test_joined_late() -> None:
    split = splitter(joined_late=True)
    assert split.feed(b"the rest of a message", 1) == []
    first, second = split.feed(prefixed(b"one") + prefixed(b"two"), 1)
    assert (first.data, second.data) == (b"one", b"two")
    assert split.passed == 21


def test_a_gap_within_a_message_marks_it() -> None:
    split = splitter()
    split.feed(prefixed(b"0123456789")[:8], 1)
    assert split.gap(4, 1) == []
    (message,) = split.feed(b"789", 1)
    assert message.data == b"012789"
    assert message.marks == (Mark.GAP,)
    (after,) = split.feed(prefixed(b"after"), 1)
    assert after.marks == ()


def test_a_gap_to_the_end_of_a_message_ends_it() -> None:
    split = splitter(encoding="gzip")
    packed = gzip.compress(b"x" * 500)
    split.feed(prefixed(packed, 1)[:-4], 1)
    (message,) = split.gap(4, 1)
    assert Mark.GAP in message.marks


def test_a_gap_of_messages_is_got_over() -> None:
    split = splitter()
    split.feed(prefixed(b"0123456789")[:8], 1)
    (message,) = split.gap(100, 1)
    assert message.marks == (Mark.GAP,)
    assert split.gap(5, 1) == []
    assert split.feed(b"rest", 1) == []
    assert [each.data for each in split.feed(prefixed(b"next"), 1)] == [b"next"]


@given(st.lists(st.tuples(st.binary(max_size=30), st.integers(0, 9)), max_size=8))
def test_garbage_raises_nothing(pieces: list[tuple[bytes, int]]) -> None:
    split = splitter(encoding="gzip", message_limit=50)
    for octets, gap in pieces:
        if gap:
            split.gap(gap, 1)
        for message in split.feed(octets, 1):
            assert len(message.data) <= 50
    split.end(2)


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("application/grpc", True),
        ("application/grpc+proto", True),
        ("Application/gRPC; charset=x", True),
        ("application/grpc-web", False),
        ("application/json", False),
        ("", False),
    ],
)
def test_content_types(content_type: str, expected: bool) -> None:
    assert is_grpc(content_type) is expected


def test_methods_and_status() -> None:
    assert method_of("/a.b.Service/Call") == ("a.b.Service", "Call")
    assert method_of("nothing") == ("", "nothing")
    assert status_of(()) is None
    status = status_of((("grpc-status", "5"), ("grpc-message", "not%20h%C3%A9re")))
    assert status == (5, "NOT_FOUND", "not h\u00e9re")
    assert status_of((("grpc-status", "99"),)) == (99, "code 99", "")
    assert status_of((("grpc-status", "\u00b2"),)).code == -1
    assert len(STATUS_NAMES) == 17


def test_whole_messages() -> None:
    assert whole_messages(prefixed(b"a") + prefixed(b""))
    assert not whole_messages(prefixed(b"a")[:-1])
    assert not whole_messages(b"")
    assert not whole_messages(prefixed(b"a", 2))


# On HTTP/2.


def call() -> Peers:
    peers = Peers()
    packed = gzip.compress(b"reply " * 20)
    peers.ask(
        1,
        "/demo.Greeter/SayHello",
        prefixed(b"\x0a\x05world") + prefixed(b"again"),
        content_type="application/grpc",
        te="trailers",
    )
    peers.answer(
        1,
        prefixed(packed, 1),
        end=False,
        content_type="application/grpc+proto",
        grpc_encoding="gzip",
    )
    peers.server.send_headers(
        1, [("grpc-status", "0"), ("grpc-message", "fine%21")], end_stream=True
    )
    peers.carry()
    return peers


def test_a_call() -> None:
    heard = trials(Http2Connection, call().spoken)
    assert method_of(heard.request(1).target) == ("demo.Greeter", "SayHello")
    first, second = heard.grpc[1, UP]
    assert (first.data, first.number, second.data, second.number) == (
        b"\x0a\x05world",
        0,
        b"again",
        1,
    )
    (reply,) = heard.grpc[1, DOWN]
    assert reply.data == b"reply " * 20
    assert reply.compressed
    assert heard.content == {}
    assert status_of(heard.end(1).trailers) == (0, "OK", "fine!")
    assert heard.end(1, UP).size == 12 + 10


def test_a_call_that_began_unseen() -> None:
    spoken = [(SERVER, frame(0, 0, 9, prefixed(b"m1"))), (SERVER, frame(0, 0, 9, prefixed(b"m2")))]
    heard = hear(spoken, Http2Connection(client=1), ended=True)
    assert [message.data for message in heard.grpc[9, DOWN]] == [b"m1", b"m2"]
    assert heard.end(9).marks == (Mark.JOINED_LATE, Mark.UNFINISHED)


def test_a_call_that_is_not_what_it_says() -> None:
    peers = Peers()
    peers.ask(1, "/a/b", b"this is no gRPC message", content_type="application/grpc")
    heard = hear(peers.spoken)
    assert (1, UP) not in heard.grpc
    assert heard.end(1, UP).marks == (Mark.MALFORMED,)
    assert heard.end(1, UP).problem == "23 bytes are of no gRPC message"


def test_where_frames_may_be_missing_messages_are_marked() -> None:
    split = splitter()
    assert split.feed(prefixed(b"abcdefgh")[:8], 1) == []
    split.doubt(Mark.GAP)
    (message,) = split.feed(b"defgh", 1)
    assert (message.data, message.marks) == (b"abcdefgh", (Mark.GAP,))
    assert message.problem == "frames may be missing"
    assert split.feed(prefixed(b"next"), 1)[0].marks == ()


def test_whole_messages_end_what_lost_its_end() -> None:
    split = splitter()
    assert split.feed(prefixed(b"abcdefgh")[:8], 1) == []
    split.doubt(Mark.GAP)
    cut, *rest = split.feed(prefixed(b"one") + prefixed(b"two"), 1)
    assert (cut.data, cut.size, cut.marks) == (b"abc", 8, (Mark.GAP,))
    assert [(message.data, message.marks) for message in rest] == [(b"one", ()), (b"two", ())]
    assert split.passed == 0


def test_what_is_compressed_by_nothing_that_was_named_is_marked() -> None:
    (message,) = splitter().feed(prefixed(gzip.compress(b"hello"), 1), 1)
    assert message.data == gzip.compress(b"hello")
    assert message.marks == (Mark.UNDECODED,)
