# SPDX-License-Identifier: Apache-2.0
"""Frames are found where they are, whatever came before, and what is lost is told."""

from __future__ import annotations

import random
import tracemalloc

import hyperframe.frame
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecapture.protocols.http2_frames import (
    PREFACE,
    Frame,
    FrameReader,
    Kind,
    begins_with_frames,
    problem_of,
)

from .http2_peers import frame, octet_by_octet

SETTINGS = frame(4, 0, 0, bytes(6))


def opened(**limits: int) -> FrameReader:
    reader = FrameReader(**limits)
    (first,) = reader.feed(PREFACE)
    assert first == Frame(Kind.OPENED, 0, 0, 0, PREFACE, whole=True)
    return reader


def joined(frames: list[Frame]) -> list[tuple[int, int, bytes]]:
    """Put the pieces of DATA together."""
    result: list[tuple[int, int, bytes]] = []
    within = False
    for each in frames:
        if within:
            kind, stream, payload = result.pop()
            result.append((kind, stream, payload + each.payload))
        else:
            result.append((each.kind, each.stream, each.payload))
        within = each.kind == Kind.DATA and not each.whole
    return result


streams = st.integers(1, 2**24 - 1)
wire_frames = st.one_of(
    st.builds(
        hyperframe.frame.DataFrame,
        stream_id=streams,
        data=st.binary(min_size=1, max_size=90),
        pad_length=st.integers(0, 20),
        flags=st.sampled_from([(), ("END_STREAM",), ("PADDED",), ("PADDED", "END_STREAM")]),
    ),
    st.builds(
        hyperframe.frame.HeadersFrame,
        stream_id=streams,
        data=st.binary(min_size=1, max_size=60),
        flags=st.sampled_from([("END_HEADERS",), ("END_STREAM",)]),
    ),
    st.builds(hyperframe.frame.ContinuationFrame, stream_id=streams, data=st.binary(max_size=9)),
    st.builds(hyperframe.frame.RstStreamFrame, stream_id=streams, error_code=st.integers(0, 9)),
    st.builds(
        hyperframe.frame.GoAwayFrame,
        last_stream_id=streams,
        additional_data=st.binary(max_size=300),
    ),
    st.builds(hyperframe.frame.WindowUpdateFrame, stream_id=streams, window_increment=st.just(7)),
    st.builds(hyperframe.frame.PingFrame, opaque_data=st.binary(min_size=8, max_size=8)),
    st.builds(hyperframe.frame.SettingsFrame, settings=st.dictionaries(st.just(1), st.just(9))),
    st.builds(hyperframe.frame.PriorityFrame, stream_id=streams, stream_weight=st.just(3)),
    st.builds(hyperframe.frame.AltSvcFrame, stream_id=st.just(0), origin=st.binary(max_size=9)),
)
SHOWN = {0, 1, 3, 5, 7, 9}


@given(st.lists(wire_frames, max_size=12), st.lists(st.integers(1, 30), min_size=1, max_size=5))
def test_reads_what_hyperframe_writes(plan: list, cuts: list[int]) -> None:
    octets = b"".join(each.serialize() for each in plan)
    expected = []
    for each in plan:
        if each.type in SHOWN:
            payload = each.serialize()[9:]
            if each.type == 0:
                unflagged = 0 if "PADDED" in each.flags else each.pad_length
                payload = each.data + bytes(unflagged)
            expected.append((each.type, each.stream_id, payload[: 256 if each.type == 7 else None]))
    assert joined(opened().feed(octets)) == expected
    reader = opened()
    pieces: list[Frame] = []
    while octets:
        size = cuts[len(octets) % len(cuts)]
        pieces += reader.feed(octets[:size])
        octets = octets[size:]
    assert joined(pieces) == expected
    assert reader.end() == 0


def test_a_server_opens_with_settings() -> None:
    assert FrameReader().feed(SETTINGS)[0].kind == Kind.OPENED
    assert FrameReader().feed(frame(4, 1, 0))[0].kind == Kind.JOINED
    reader = FrameReader()
    frames = [each for octet in octet_by_octet(SETTINGS) for each in reader.feed(octet)]
    assert [each.kind for each in frames] == [Kind.OPENED]


@pytest.mark.parametrize("skipped", [b"", b"x", bytes(50), b"text that is content " * 50])
def test_finds_frames_behind_the_rest_of_one(skipped: bytes) -> None:
    data = frame(0, 1, 5, b"content")
    for cut in (lambda piece: [piece], octet_by_octet):
        reader = FrameReader()
        frames: list[Frame] = []
        for octets in (skipped + data, frame(0, 1, 7, b"more"), data):
            frames += [each for piece in cut(octets) for each in reader.feed(piece)]
        found = next(each for each in frames if each.kind == Kind.FOUND)
        assert found.length == len(skipped)
        assert joined(frames)[-3:] == [
            (0, 5, b"content"),
            (0, 7, b"more"),
            (0, 5, b"content"),
        ]


def test_finds_frames_in_noise() -> None:
    noise = random.Random(5).randbytes(300_000)
    reader = FrameReader()
    frames: list[Frame] = []
    for start in range(0, len(noise), 16384):
        frames += reader.feed(noise[start : start + 16384])
    assert [each.kind for each in frames] == [Kind.JOINED]
    assert reader.hunting
    data = frame(0, 1, 5, b"content")
    found, first = reader.feed(data)
    assert (found.kind, found.length) == (Kind.FOUND, len(noise))
    assert first.payload == b"content"


def test_hunting_is_bounded() -> None:
    reader = FrameReader()
    tracemalloc.start()
    for _ in range(50):
        # Headers that are plausible and announce more than comes.
        reader.feed((b"\0\xff\xff\0\0\0\0\0\1" + b"\xff" * 91) * 160)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20
    assert reader.end() == 50 * 16000


@pytest.mark.parametrize(
    ("kind", "length", "flags", "stream", "wrong"),
    [
        (0, 5, 0, 0, "DATA on stream 0"),
        (1, 5, 0, 0, "HEADERS on stream 0"),
        (2, 4, 0, 1, "PRIORITY of length 4"),
        (3, 5, 0, 1, "RST_STREAM of length 5"),
        (4, 7, 0, 0, "SETTINGS of length 7"),
        (4, 6, 1, 0, "SETTINGS of length 6"),
        (4, 6, 0, 1, "SETTINGS on stream 1"),
        (5, 3, 0, 1, "PUSH_PROMISE of length 3"),
        (6, 9, 0, 0, "PING of length 9"),
        (7, 7, 0, 0, "GOAWAY of length 7"),
        (8, 3, 0, 0, "WINDOW_UPDATE of length 3"),
        (0x48, 0x545450, 0, 0, "a frame of type 72, length 5526608"),
        (8, 4, 0, 9, ""),
        (0x48, 9, 0, 0, ""),
        (0, 1 << 20, 0, 9, ""),
    ],
)
def test_frames_that_cannot_be(kind: int, length: int, flags: int, stream: int, wrong: str) -> None:
    assert problem_of(kind, length, flags, stream) == wrong
    header = length.to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")
    reader = opened()
    lost = [
        each
        for each in reader.feed(header + bytes(40 if wrong else length))
        if each.kind == Kind.LOST
    ]
    assert [each.payload.decode() for each in lost][:1] == ([wrong] if wrong else [])


def test_a_gap_within_a_payload_costs_that_payload() -> None:
    reader = opened()
    data, headers = frame(0, 1, 1, bytes(range(100))), frame(1, 4, 3, b"h" * 50)
    (piece,) = reader.feed(data[:30])
    hole, rest, head = reader.feed(data[50:] + headers, gap=20)
    assert (piece.payload, piece.whole) == (bytes(range(21)), False)
    assert (hole.kind, hole.stream, hole.length) == (Kind.HOLE, 1, 20)
    assert (rest.payload, rest.whole, rest.flags) == (bytes(range(41, 100)), True, 1)
    assert head.whole
    assert not reader.feed(headers[:20])
    (broken,) = reader.feed(headers[30:], gap=10)
    assert (broken.kind, broken.whole, broken.length) == (Kind.HEADERS, False, 50)


def test_a_gap_up_to_the_very_end_of_a_payload() -> None:
    reader = opened()
    data = frame(0, 1, 1, bytes(100))
    reader.feed(data[:30])
    hole, end, after = reader.feed(data, gap=79)
    assert (hole.length, end.payload, end.whole, after.payload) == (79, b"", True, bytes(100))


def test_a_gap_over_the_length_of_the_padding() -> None:
    reader = opened()
    data = frame(0, 8, 1, b"\x03abcdefg\0\0\0")
    reader.feed(data[:9])
    hole, rest = reader.feed(data[11:], gap=2)
    assert (hole.length, rest.payload) == (1, b"bcdefg\0\0\0")


def test_a_gap_of_nothing_but_padding() -> None:
    reader = opened()
    (piece,) = reader.feed(frame(0, 9, 1, b"\x05abc" + bytes(5))[:-5])
    end, after = reader.feed(frame(0, 1, 3, b"x"), gap=5)
    assert (piece.payload, end.payload, end.whole, after.payload) == (b"abc", b"", True, b"x")


def test_a_gap_to_the_end_of_a_head() -> None:
    reader = opened()
    reader.feed(frame(1, 5, 1, b"abcdef")[:-2])
    head, after = reader.feed(frame(0, 1, 3, b"x"), gap=2)
    assert (head.kind, head.payload, head.whole) == (Kind.HEADERS, b"abcd", False)
    assert after.payload == b"x"


def test_many_losses_in_one_piece_are_one_passage() -> None:
    reader = opened()
    octets = b"".join(frame(0, 0, 0) + frame(0, 1, 5, b"x") * 120 for _ in range(30))
    frames = reader.feed(octets)
    assert [each.kind for each in frames].count(Kind.LOST) == 9
    assert reader.hunting
    found, first = reader.feed(frame(0, 1, 5, b"y"))
    assert found.length > len(octets) // 2
    assert first.payload == b"y"


def test_three_frames_in_a_row_are_believed_without_the_end() -> None:
    data = frame(0, 0, 5, b"x") * 3
    frames = FrameReader().feed(b"rest" + data + frame(0, 0, 5, bytes(99))[:20])
    assert [each.kind for each in frames] == [Kind.JOINED, Kind.FOUND, 0, 0, 0, 0]
    assert frames[1].length == 4
    many = frame(8, 0, 0, b"\0\0\0\1") * 200
    assert [each.kind for each in FrameReader().feed(b"rest" + many[:-1])][1] == Kind.FOUND


@pytest.mark.parametrize("gap", [-1, 1 << 40])
def test_any_other_gap_is_a_loss(gap: int) -> None:
    reader = opened()
    data = frame(0, 1, 1, bytes(range(100)))
    reader.feed(data[:30])
    lost, found, first = reader.feed(data[60:] + data, gap=gap)
    assert (lost.kind, lost.length, lost.payload) == (Kind.LOST, max(gap, 0), b"")
    assert (found.kind, found.length) == (Kind.FOUND, len(data) - 60)
    assert first.payload == bytes(range(100))
    again, found, _ = reader.feed(data, gap=5)
    assert (again.kind, again.length, found.length) == (Kind.LOST, 5, 0)


def test_a_gap_before_anything() -> None:
    joined_frame, found, first = FrameReader().feed(frame(0, 1, 1, b"x"), gap=-1)
    assert joined_frame.kind == Kind.JOINED
    assert (found.length, first.payload) == (0, b"x")


def test_a_long_payload_is_cut_and_told() -> None:
    reader = opened(payload_limit=1000)
    octets = frame(1, 4, 1, b"h" * 5000)
    frames = [each for octet in octet_by_octet(octets) for each in reader.feed(octet)]
    (cut,) = frames
    assert (len(cut.payload), cut.length, cut.whole) == (1000, 5000, False)


def test_more_padding_than_frame() -> None:
    (end,) = opened().feed(frame(0, 8, 1, b"\x09abc"))
    assert end.payload == b""
    assert opened().feed(frame(0, 8, 1))[0].whole


@given(st.lists(st.tuples(st.binary(max_size=60), st.integers(-1, 80))))
def test_garbage_and_gaps_raise_nothing(pieces: list[tuple[bytes, int]]) -> None:
    for reader in (FrameReader(payload_limit=100), opened(payload_limit=100)):
        for octets, gap in pieces:
            reader.feed(octets, gap)
        reader.end()


def test_begins_with_frames() -> None:
    assert begins_with_frames(SETTINGS) is True
    assert begins_with_frames(frame(0, 0, 1, bytes(9))[:12]) is None
    assert begins_with_frames(b"GET / HTTP/1.1\r\n") is False
    assert begins_with_frames(b"") is None
    assert begins_with_frames(frame(7, 0, 0, bytes(3))) is False


@pytest.mark.parametrize(
    ("octets", "size"),
    [(PREFACE[:10], 10), (PREFACE + b"\0\0", 2), (PREFACE + frame(1, 4, 1, bytes(9))[:-3], 15),
     (PREFACE + frame(0, 0, 1, bytes(9))[:-3], 0), (PREFACE + frame(6, 0, 0, bytes(8)), 0)],
)  # fmt: skip
def test_what_has_begun_is_counted(octets: bytes, size: int) -> None:
    for pieces in ([octets], octet_by_octet(octets)):
        reader = FrameReader()
        for piece in pieces:
            reader.feed(piece)
        assert reader.unfinished == size
