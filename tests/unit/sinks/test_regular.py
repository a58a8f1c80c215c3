# SPDX-License-Identifier: Apache-2.0
"""A file that takes floods holds the same bytes whichever way they went."""

import errno
import os
import resource
import signal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecapture.sinks.regular import RegularFile

# on a disk O_DIRECT works; the temporary directory of pytest is on one here and in memory elsewhere
SIZES = st.sampled_from([0, 1, 100, 4095, 4096, 4097, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    start=st.sampled_from([0, 1, 4096, 5000]),
    writes=st.lists(st.tuples(SIZES, st.booleans(), st.booleans()), max_size=5),
)
def test_every_mix_of_floods_and_trickles_is_written_whole(tmp_path, start, writes):
    fd = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        os.write(fd, b"s" * start)
        expected = b"s" * start
        file = RegularFile(fd, start)
        for number, (size, flood, flush) in enumerate(writes):
            piece = bytes([number + 1]) * size
            file.write([piece, b"|"], flood=flood)
            expected += piece + b"|"
            if flush:
                file.flush()
                assert (tmp_path / "out").read_bytes() == expected
        file.close()
        file.close()
        assert (tmp_path / "out").read_bytes() == expected
        os.fstat(fd)  # the descriptor stays the caller's
    finally:
        os.close(fd)


def test_a_file_system_without_direct_access_takes_the_ordinary_way():
    fd = os.memfd_create("out")
    try:
        file = RegularFile(fd, 0)
        file.write([b"x" * 3_000_000], flood=True)
        file.close()
        assert os.fstat(fd).st_size == 3_000_000
    finally:
        os.close(fd)


def test_what_cannot_be_written_raises(tmp_path):
    (tmp_path / "out").touch()
    fd = os.open(tmp_path / "out", os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="Bad file descriptor"):
            RegularFile(fd, 0).write([b"x"], flood=False)
    finally:
        os.close(fd)


@pytest.fixture
def small_disk():
    """Let no file grow beyond 3 MB, which fails as a full disk does, in the middle of a write."""
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, former[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, former)
    signal.signal(signal.SIGXFSZ, ignored)


def fill(file, pieces, **how):
    for _ in range(100):
        file.write(pieces, **how)
    file.flush()


@pytest.mark.parametrize("flood", [True, False])
@pytest.mark.usefixtures("small_disk")
def test_a_full_disk_leaves_whole_calls(tmp_path, flood):
    fd = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
    file = RegularFile(fd, 0)
    with pytest.raises(OSError, match="File too large") as caught:
        fill(file, [b"x" * 69_999, b"|"], flood=flood)
    assert caught.value.errno == errno.EFBIG
    os.close(fd)
    written = (tmp_path / "out").read_bytes()
    assert written.endswith(b"|")
    assert set(map(len, written.split(b"|")[:-1])) == {69_999}
    assert written.count(b"|") >= (1 if flood else 42)


@pytest.mark.usefixtures("small_disk")
def test_a_full_disk_leaves_the_end_that_was_to_be_overwritten(tmp_path):
    fd = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
    file = RegularFile(fd, 0)
    file.write([b"[\n]}"], flood=False)
    with pytest.raises(OSError, match="File too large"):
        fill(file, [b"x" * 70_000 + b"\n]}"], flood=False, back=3)
    os.close(fd)
    assert (tmp_path / "out").read_bytes() == b"[" + b"x" * 70_000 * 42 + b"\n]}"
