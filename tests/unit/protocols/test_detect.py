# SPDX-License-Identifier: Apache-2.0
"""Protocols are told by their first octets, and what is unknown is known for that soon."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecapture.protocols.detect import LOOK_AHEAD, NEED_DATA, Answer, Protocol, detect, resume
from ecapture.protocols.http2_frames import PREFACE

from .http2_peers import Peers, frame

REQUEST = b"GET /index.html HTTP/1.1\r\nHost: here\r\n\r\n"
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
OTHER = [
    b"hello world, this is a text",
    b"EHLO mail.example\r\n",
    b"220 mail.example ESMTP\r\n",
    b"*1\r\n$4\r\nPING\r\n",
    b"SELECT * FROM words\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"\x00\x00\x00\x27\x00\x03\x00\x00\x00\x00\x00\x01",  # Kafka
    b"\x4a\x00\x00\x00\x0a8.0.36\x00",  # MySQL
    b'{"json": "line"}\n',
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"GET /index.html 200 4.2 ms - 12\nGET /next 200 1.1 ms - 3\n",  # a log
    b"POST /api 500\n",
    b"GET /\r\n",  # HTTP/0.9
    bytes(64),
]


@pytest.mark.parametrize(
    ("start", "protocol"),
    [(REQUEST, "http1"), (RESPONSE, "http1"), (PREFACE, "http2"), (frame(4, 0, 0), "http2")],
)
def test_at_the_beginning(start: bytes, protocol: str) -> None:
    for direction in (0, 1):
        answers = [detect({direction: start[:size]}) for size in range(len(start) + 1)]
        known = answers.index(Protocol(protocol))
        assert set(answers[:known]) == {NEED_DATA}
        assert set(answers[known:]) == {Protocol(protocol)}
        assert detect({direction: start, 1 - direction: b"\xff" * 20}) == protocol
    assert resume(start) == protocol


@pytest.mark.parametrize("method", [b"PROPFIND", b"M-SEARCH", b"X_OWN"])
def test_other_methods_need_their_line(method: bytes) -> None:
    line = method + b" /a HTTP/1.1\r\n"
    assert detect({0: line[:-3]}) is NEED_DATA
    assert detect({0: line}) == Protocol.HTTP1
    assert detect({0: method + b" /a\r\n"}) == Protocol.UNKNOWN


@pytest.mark.parametrize("start", OTHER)
def test_others_are_unknown_at_once(start: bytes) -> None:
    assert detect({0: start}) == Protocol.UNKNOWN
    assert detect({0: start, 1: start}) == Protocol.UNKNOWN
    assert resume(start) is None


def test_joined_late() -> None:
    assert detect({0: b"the rest of a page</html>" + RESPONSE}) == Protocol.HTTP1
    assert detect({1: b'"the rest of a form"}' + REQUEST}) == Protocol.HTTP1
    peers = Peers()
    peers.ask(1)
    peers.answer(1, b"content")
    for direction, octets in peers.spoken[2:]:
        assert detect({direction: octets}) == Protocol.HTTP2
        assert resume(octets) == Protocol.HTTP2
    data = frame(0, 0, 1, bytes(16384))
    assert detect({0: data[:9000]}) is NEED_DATA
    assert detect({0: data}) == Protocol.HTTP2


def test_nothing_is_needed_without_bound() -> None:
    assert detect({}) is NEED_DATA
    assert detect({0: b"", 1: b""}) is NEED_DATA
    endless = b"REPORT /" + b"x" * LOOK_AHEAD
    assert detect({0: endless}) == Protocol.UNKNOWN
    data = frame(0, 0, 1, bytes(60_000))
    assert detect({0: data[: LOOK_AHEAD - 1]}) is NEED_DATA
    assert detect({0: data[:LOOK_AHEAD]}) == Protocol.UNKNOWN


def test_noise_is_not_taken_for_anything() -> None:
    noise = random.Random(3)
    answers = [detect({0: noise.randbytes(noise.randrange(9, 400))}) for _ in range(3000)]
    assert answers.count(Protocol.UNKNOWN) > 2990
    assert Protocol.HTTP1 not in answers
    assert Protocol.HTTP2 not in answers


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_an_answer_is_always_there(one: bytes, other: bytes) -> None:
    assert isinstance(detect({0: one, 1: other}), (Protocol, Answer))
    resume(one)


def test_a_long_word_that_is_no_target_takes_one_look() -> None:
    began = time.process_time()
    assert detect({0: b"A " + b"a" * 1600 + b"\r\nother"}) == Protocol.UNKNOWN
    assert detect({0: b"A " + b"a" * 8000 + b" "}) is NEED_DATA
    assert time.process_time() - began < 20.0
