# SPDX-License-Identifier: Apache-2.0
"""Nothing is lost that was not told, nothing is split, and capturing never waits."""

import threading
import time

import pytest

from ecapture.errors import SinkError
from ecapture.sinks.forward import Forwarder

DEADLINE = 60


class Receiver:
    """The other end, scripted: connections that keep what they are sent."""

    def __init__(self):
        self.links = []
        self.refusals = 0
        self.attempts = 0
        self.changed = threading.Condition()

    def connect(self):
        with self.changed:
            self.attempts += 1
            self.changed.notify_all()
            if self.refusals:
                self.refusals -= 1
                raise ConnectionRefusedError(111, "refused")
            self.links.append(Link(self.changed))
            return self.links[-1]

    def wait_for(self, condition):
        with self.changed:
            assert self.changed.wait_for(condition, DEADLINE)


class Link:
    def __init__(self, changed):
        self.got = []
        self.confirmed = 1 << 30  # bytes, of all that was sent
        self.broken = False
        self.closed = False
        self.blocked = None
        self.changed = changed

    def send(self, piece):
        if self.blocked is not None:
            with self.changed:
                self.blocked = True
                self.changed.notify_all()
                self.changed.wait_for(lambda: self.broken, DEADLINE)
        self.check()
        with self.changed:
            self.got.append(piece)
            self.changed.notify_all()

    def unconfirmed(self):
        return max(0, sum(map(len, self.got)) - self.confirmed)

    def check(self):
        if self.broken:
            raise ConnectionResetError(104, "reset")

    def close(self):
        self.closed = True

    def abort(self):
        self.break_off()

    def break_off(self):
        with self.changed:
            self.broken = True
            self.changed.notify_all()


@pytest.fixture
def receiver():
    return Receiver()


def forwarder(receiver, **options):
    options = {"joined": False, "pauses": (0.001, 0.004)} | options
    return Forwarder(receiver.connect, "there", **options)


def test_pieces_arrive_one_by_one(receiver):
    sink = forwarder(receiver)
    sink.write(b"a", b"", b"b")
    sink.write()
    sink.tick()
    sink.write(b"c")
    sink.close()
    sink.close()
    (link,) = receiver.links
    assert link.got == [b"a", b"b", b"c"]
    assert link.closed


def test_or_joined(receiver):
    sink = forwarder(receiver, joined=True)
    sink.write(b"a", b"b")
    sink.write(b"c")
    sink.close()
    assert receiver.links[0].got == [b"ab", b"c"]


def test_a_wrong_address_is_refused_at_once(receiver):
    receiver.refusals = 1
    with pytest.raises(SinkError, match=r"there: cannot be reached \(refused\)"):
        forwarder(receiver)


def test_what_was_not_confirmed_is_sent_again_after_the_opening(receiver):
    sink = forwarder(receiver, opening=lambda: b"<%d>" % len(receiver.links))
    first = receiver.links[0]
    first.confirmed = 0
    sink.write(b"one", b"two", b"three")
    receiver.wait_for(lambda: first.got == [b"<1>", b"one", b"two", b"three"])
    first.confirmed = 3 + 3 + 1  # the opening, "one", and a byte of "two"
    sink.write(b"four")
    receiver.wait_for(lambda: len(first.got) == 5)
    first.break_off()
    receiver.wait_for(lambda: len(receiver.links) == 2 and len(receiver.links[1].got) >= 4)
    sink.close()
    assert first.closed
    assert receiver.links[1].got == [b"<2>", b"two", b"three", b"four"]


def test_a_piece_whose_sending_failed_is_sent_again_whole(receiver):
    sink = forwarder(receiver)
    first = receiver.links[0]
    first.blocked = False
    sink.write(b"one")
    receiver.wait_for(lambda: first.blocked)
    first.break_off()
    receiver.wait_for(lambda: len(receiver.links) == 2 and receiver.links[1].got)
    sink.close()
    assert receiver.links[1].got == [b"one"]


def test_the_opening_is_sent_though_nothing_else_is(receiver):
    forwarder(receiver, opening=lambda: b"magic").close()
    assert receiver.links[0].got == [b"magic"]


def test_it_connects_again_at_growing_intervals(receiver):
    sink = forwarder(receiver, pauses=(0.001, 0.004))
    pauses = []
    connect = sink._connect

    def counted():
        pauses.append(sink._pause)
        return connect()

    sink._connect = counted
    receiver.refusals = 5
    receiver.links[0].break_off()
    sink.write(b"one")
    receiver.wait_for(lambda: len(receiver.links) == 2 and receiver.links[1].got)
    sink.close()
    assert pauses == [0.001, 0.002, 0.004, 0.004, 0.004, 0.004]
    assert sink._pause == 0


def test_the_queue_is_bounded_and_losses_are_told(receiver, caplog):
    sink = forwarder(receiver, queue_bytes=10, linger=0.05)
    link = receiver.links[0]
    link.blocked = False
    sink.write(b"taken")
    receiver.wait_for(lambda: link.blocked)
    sink.write(b"0123456789", b"x", b"yy")
    assert (sink.lost_pieces, sink.lost_bytes) == (2, 3)
    assert caplog.messages == ["there: the queue is full, output is being lost"]
    with pytest.raises(SinkError, match=r"there: 4 pieces \(18 bytes\) were not delivered"):
        sink.close()


def test_a_piece_larger_than_the_queue_passes_alone(receiver):
    sink = forwarder(receiver, queue_bytes=10)
    sink.write(b"x" * 1000)
    sink.close()
    assert receiver.links[0].got == [b"x" * 1000]


def test_closing_waits_for_confirmation_but_not_for_ever(receiver):
    sink = forwarder(receiver, linger=0.1)
    receiver.links[0].confirmed = 0
    sink.write(b"one")
    started = time.monotonic()
    with pytest.raises(SinkError, match=r"1 pieces \(3 bytes\)"):
        sink.close()
    assert 0.1 <= time.monotonic() - started < DEADLINE
    assert receiver.links[0].got == [b"one"]


def test_closing_connects_again_for_what_is_left(receiver):
    sink = forwarder(receiver, linger=DEADLINE)
    receiver.links[0].break_off()
    receiver.refusals = 3
    sink.write(b"one")
    sink.close()
    assert receiver.links[1].got == [b"one"]


def test_a_receiver_that_never_comes_back(receiver):
    sink = forwarder(receiver, linger=0.05)
    receiver.refusals = 1 << 30
    receiver.links[0].break_off()
    sink.write(b"one", b"two")
    with pytest.raises(SinkError, match=r"2 pieces \(6 bytes\)"):
        sink.close()
    assert receiver.attempts < 200


def test_whoever_is_thrown_out_at_once_does_not_hammer(receiver):
    sink = forwarder(receiver, pauses=(0.01, 1000.0), linger=0.01)
    connect = receiver.connect

    def hostile():
        link = connect()
        link.broken = True
        return link

    sink._connect = hostile
    receiver.links[0].break_off()
    sink.write(b"one")
    receiver.wait_for(lambda: receiver.attempts >= 4)
    with pytest.raises(SinkError):
        sink.close()
    assert sink._pause > 0.05
