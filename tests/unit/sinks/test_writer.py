# SPDX-License-Identifier: Apache-2.0
"""Bytes arrive in order, the queue is bounded, and failures are told once and for all."""

import fcntl
import os
import threading

import pytest

from ecapture.errors import SinkError
from ecapture.sinks.writer import Closed, Writer

DEADLINE = 60


@pytest.fixture
def pipe():
    """Return a pipe of one page: (where to read, where to write)."""
    readable, writable = os.pipe()
    fcntl.fcntl(writable, fcntl.F_SETPIPE_SZ, 4096)
    yield readable, writable
    for fd in (readable, writable):
        try:
            os.close(fd)
        except OSError:
            continue


def read_all(fd, into):
    while got := os.read(fd, 1000):
        into.append(got)


def test_pieces_arrive_in_order(tmp_path):
    path = tmp_path / "out"
    writer = Writer(os.open(path, os.O_WRONLY | os.O_CREAT), "out", owned=True)
    pieces = [b"%d," % n for n in range(5000)]
    for at in range(0, len(pieces), 7):
        writer.write(*pieces[at : at + 7])
    writer.write()
    writer.write(b"")
    writer.close()
    assert path.read_bytes() == b"".join(pieces)


def test_a_file_is_emptied_when_it_begins(tmp_path):
    path = tmp_path / "out"
    path.write_bytes(b"from an earlier run")
    for pieces in ((b"new",), ()):
        before = path.read_bytes()
        writer = Writer(os.open(path, os.O_WRONLY), "out", owned=True)
        assert path.read_bytes() == before
        if not pieces:
            writer.begin()
        writer.write(*pieces)
        writer.begin()
        writer.close()
        assert path.read_bytes() == b"".join(pieces)


@pytest.mark.parametrize("size", [1, 2047, 2048, 100_000])
def test_a_slow_reader_gets_all_of_it(pipe, size):
    """The pipe takes a page at a time: every write is partial."""
    readable, writable = pipe
    writer = Writer(writable, "pipe", owned=True)
    got = []
    reader = threading.Thread(target=read_all, args=(readable, got))
    reader.start()
    pieces = [bytes([n]) * size for n in range(7)] * 3
    writer.write(*pieces)
    writer.write(b"end")
    writer.close()
    reader.join(DEADLINE)
    assert b"".join(got) == b"".join(pieces) + b"end"


def test_more_pieces_than_one_call_takes(tmp_path):
    path = tmp_path / "out"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    writer = Writer(fd, "out", owned=True)
    pieces = [bytes([n & 255]) * 3000 for n in range(2500)]  # IOV_MAX is 1024
    writer.write(*pieces)
    writer.close()
    assert path.read_bytes() == b"".join(pieces)


def test_a_full_queue_makes_the_writer_wait_and_not_grow(pipe):
    readable, writable = pipe
    writer = Writer(writable, "pipe", owned=True, queue_bytes=10_000)
    passed = threading.Event()

    def fill():
        for _ in range(5):
            writer.write(b"x" * 5000)
        passed.set()

    thread = threading.Thread(target=fill)
    thread.start()
    # the pipe holds 4096, the queue 10000 with what is being written: 25000 do not fit
    with writer._changed:
        assert writer._changed.wait_for(lambda: writer._queued == 10_000, DEADLINE)
    assert not passed.is_set()
    assert writer._queued <= 10_000
    got = []
    reader = threading.Thread(target=read_all, args=(readable, got))
    reader.start()
    assert passed.wait(DEADLINE)
    thread.join()
    writer.close()
    reader.join(DEADLINE)
    assert len(b"".join(got)) == 25_000


def test_one_piece_larger_than_the_queue_passes(tmp_path):
    path = tmp_path / "out"
    writer = Writer(os.open(path, os.O_WRONLY | os.O_CREAT), "out", owned=True, queue_bytes=10)
    writer.write(b"x" * 1000)
    writer.write(b"y" * 1000)
    writer.close()
    assert path.stat().st_size == 2000


def until_raised(writer, error):
    def write_on():
        for _ in range(100_000):
            writer.write(b"x" * 4096)

    with pytest.raises(error) as caught:
        write_on()
    return caught.value


def test_a_reader_that_goes_away_ends_the_capture_without_failure(pipe):
    readable, writable = pipe
    writer = Writer(writable, "standard output", owned=False)
    os.close(readable)
    error = until_raised(writer, Closed)
    assert error.exit_code == 0
    with pytest.raises(Closed):
        writer.write(b"more")
    with pytest.raises(Closed):
        writer.close()
    os.fstat(writable)  # not ours: still open


def test_a_waiting_writer_hears_of_the_failure(pipe):
    readable, writable = pipe
    writer = Writer(writable, "pipe", owned=True, queue_bytes=5000)
    raised = threading.Event()

    def fill():
        until_raised(writer, Closed)
        raised.set()

    thread = threading.Thread(target=fill)
    thread.start()
    with writer._changed:
        assert writer._changed.wait_for(lambda: writer._queued > 0, DEADLINE)
    os.close(readable)
    assert raised.wait(DEADLINE)
    thread.join()


def test_a_full_disk_is_an_error_with_advice():
    writer = Writer(os.open("/dev/full", os.O_WRONLY), "/dev/full", owned=True)
    error = until_raised(writer, SinkError)
    assert not isinstance(error, Closed)
    assert "No space left" in str(error)
    assert "/dev/full" in str(error)
    assert "-w FILE" in error.hint
    with pytest.raises(SinkError):
        writer.close()


def test_a_late_failure_is_told_by_close():
    writer = Writer(os.open("/dev/full", os.O_WRONLY), "/dev/full", owned=True)
    writer.write(b"x")
    with pytest.raises(SinkError, match="No space left"):
        writer.close()


def test_a_descriptor_of_our_own_is_closed_and_others_are_not(tmp_path):
    for owned in (True, False):
        fd = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
        writer = Writer(fd, "out", owned=owned)
        writer.close()
        if owned:
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(fd)
        else:
            os.close(fd)


def test_output_that_does_not_block_is_waited_for(pipe):
    """Others set O_NONBLOCK on a terminal or pipe that we share with them."""
    readable, writable = pipe
    os.set_blocking(writable, False)
    writer = Writer(writable, "pipe", owned=True)
    writer.write(b"x" * 50_000)
    got = []
    reader = threading.Thread(target=read_all, args=(readable, got))
    reader.start()
    writer.close()
    reader.join(DEADLINE)
    assert len(b"".join(got)) == 50_000


def test_a_flood_into_a_file_arrives_whole_and_small_writes_at_once(tmp_path):
    path = tmp_path / "out"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.write(fd, b"before:")
    writer = Writer(fd, "out", owned=True)
    writer.write(b"small")
    with writer._changed:
        assert writer._changed.wait_for(lambda: writer._queued == 0, DEADLINE)
    assert path.read_bytes() == b"before:small"
    block = os.urandom(300_001)
    for _ in range(20):
        writer.write(block)
    writer.close()
    assert path.read_bytes() == b"before:small" + block * 20
