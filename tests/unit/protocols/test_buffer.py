# SPDX-License-Identifier: Apache-2.0
from hypothesis import given
from hypothesis import strategies as st

from ecapture.protocols.buffer import ByteQueue


def test_takes_what_was_fed_in_order():
    queue = ByteQueue()
    queue.feed(b"abc")
    queue.feed(memoryview(b"def"))
    assert len(queue) == 6
    assert queue.peek(4) == b"abcd"
    assert queue.peek(2, 4) == b"ef"
    assert queue.take(4) == b"abcd"
    assert queue.skip(100) == 2
    assert queue.take(1) == b""
    assert queue.taken == 6


def test_finds_across_pieces_without_looking_twice():
    queue = ByteQueue()
    looked = []

    class Watched(bytearray):
        def find(self, wanted, begin=0, end=None):
            looked.append(begin)
            return super().find(wanted, begin, len(self) if end is None else end)

    queue._store = Watched()
    for byte in b"a" * 100 + b"\r":
        queue.feed(bytes((byte,)))
        assert queue.find(b"\r\n") == -1
    assert looked == [0, *range(100)], "each search begins where the last one could not have seen"
    queue.feed(b"\n")
    assert queue.find(b"\r\n") == 100


def test_finds_the_first_of_several():
    queue = ByteQueue()
    queue.feed(b"x\n\n\r\n")
    assert queue.find(b"\n\r\n", b"\n\n") == 1
    queue.take(2)
    assert queue.find(b"\n\r\n", b"\n\n") == 0


def test_gives_memory_back():
    queue = ByteQueue()
    piece = b"x" * 16384
    most = 0
    for _ in range(2000):
        queue.feed(piece)
        queue.take(len(piece) - 1)
        queue.skip(1)
        most = max(most, len(queue._store))
    assert most <= 2 * len(piece)
    queue.feed(b"y" * 100_000)
    for _ in range(99_000):
        queue.take(1)
        assert len(queue._store) <= 2 * len(queue) + 16384 + 1


@given(st.lists(st.one_of(st.binary(max_size=40), st.integers(0, 60)), max_size=40))
def test_behaves_like_a_slice(steps):
    queue = ByteQueue()
    model = b""
    for step in steps:
        if isinstance(step, bytes):
            queue.feed(step)
            model += step
        else:
            assert queue.take(step) == model[:step]
            model = model[step:]
        assert len(queue) == len(model)
        assert queue.find(b"\x00\x01", b"\x00") == min(
            (i for i in (model.find(b"\x00\x01"), model.find(b"\x00")) if i >= 0), default=-1
        )
