# SPDX-License-Identifier: Apache-2.0
"""A file that takes floods holds the same bytes whichever way they went."""

import os

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
