# SPDX-License-Identifier: Apache-2.0
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.frame_protocol import XorMaskerSimple

from ecapture.errors import ProtocolError
from ecapture.protocols import websocket_frames
from ecapture.protocols.websocket_frames import find_frame, read_header, unmask


@given(st.binary(max_size=3000), st.binary(min_size=4, max_size=4))
def test_unmasking_agrees_with_wsproto(data, key):
    assert unmask(data, key) == bytes(XorMaskerSimple(key).process(data))


def test_headers_of_every_length():
    assert read_header(b"\x81\x05", 0, 2)[:6] == (2, True, False, 1, 5, b"")
    assert read_header(b"\x02\x85abcd", 0, 6)[:6] == (6, False, False, 2, 5, b"abcd")
    assert read_header(b"..\xc1\x7e\x01\x00", 2, 6)[:6] == (4, True, True, 1, 256, b"")
    assert read_header(b"\x82\xff\0\0\0\0\0\1\0\0abcd", 0, 14)[:6] == (
        14,
        True,
        False,
        2,
        65536,
        b"abcd",
    )
    assert not read_header(b"\x81\x7e\x00\x05", 0, 4).minimal
    assert not read_header(b"\x81\x7f\0\0\0\0\0\0\xff\xff", 0, 10).minimal
    for size in range(14):
        assert read_header(b"\x82\xff\0\0\0\0\0\1\0\0abcd"[:size], 0, size) is None


@pytest.mark.parametrize(
    "wrong",
    [
        b"\x83\x00",  # reserved opcode
        b"\x8b\x00",
        b"\xa1\x00",  # RSV2
        b"\x91\x00",  # RSV3
        b"\x08\x00",  # a control frame in fragments
        b"\x89\x7e\x00\x80",  # a long one
        b"\xc9\x00",  # a compressed one
        b"\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff",  # negative, for some
        b"\x81\x7f\x00\x00\x02\x00\x00\x00\x00\x00",  # huge
    ],
)
def test_implausible_headers_are_refused(wrong):
    with pytest.raises(ProtocolError):
        read_header(wrong, 0, len(wrong))


def test_frames_are_found_behind_the_rest_of_one():
    frames = b"\x81\x05hello" * 4
    assert find_frame(b"rest of a payload" + frames, masked=False, edges=()) == 17
    assert find_frame(b"\x81\x05hello", masked=False, edges={0}) == 0
    assert find_frame(b"\x81\x05hello", masked=False, edges=()) == -1
    assert find_frame(b"\x81\x05hello", masked=True, edges={0}) == -1
    assert find_frame(b"\x81\x7e\x40\x00" + b"x" * 100, masked=False, edges={0}) == 0


def test_noise_is_seldom_taken_for_frames():
    noise = random.Random(7)
    found = sum(
        find_frame(noise.randbytes(4096), masked=masked, edges={0}) >= 0
        for masked in (False, True)
        for _ in range(200)
    )
    assert found <= 8, "one in fifty"


def test_a_search_is_bounded(monkeypatch):
    calls = 0
    real = read_header

    def counting(*arguments):
        nonlocal calls
        calls += 1
        return real(*arguments)

    monkeypatch.setattr(websocket_frames, "read_header", counting)
    # Every offset begins frames that are plausible for a while.
    assert find_frame((b"\x01\x00" * 2 + b"\x83") * 20_000, masked=False, edges=()) == -1
    assert calls <= 1024 + 6
