# SPDX-License-Identifier: Apache-2.0
"""In which order notices of mappings are taken, and what happens when some are lost."""

from __future__ import annotations

import os
from contextlib import closing

import pytest

from ecapture import notices
from ecapture.notices import Notices, online_processors


class Watch:
    """Answers with what was put in; its descriptor can be read while there is something."""

    def __init__(self) -> None:
        self.lost = 0
        self._read_end, self._write_end = os.pipe()
        self.fds = [self._read_end]
        self._told: list[tuple[int, int, int, str, str, int]] = []

    def tell(self, path: str, size: int, pid: int = 1, at_ns: int = 0) -> None:
        self._told.append((pid, 0x1000, size, path, "", at_ns))
        os.write(self._write_end, b"x")

    def read(self):
        told, self._told = self._told, []
        if told:
            os.read(self._read_end, len(told))
        return told

    def close(self) -> None:
        os.close(self._read_end)
        os.close(self._write_end)


@pytest.fixture
def watch():
    with closing(Watch()) as watch:
        yield watch


@pytest.fixture
def wake():
    read_end, write_end = os.pipe()
    yield read_end, write_end
    os.close(read_end)
    os.close(write_end)


def test_small_ones_come_first_also_those_that_came_later(watch, wake):
    with closing(Notices(watch, wake[0], (), pytest.fail)) as notices:
        watch.tell("/large", 1 << 20)
        watch.tell("/small", 1 << 12)
        assert notices.take().path == "/small"
        watch.tell("/smaller", 1 << 10)
        assert [notices.take().path for _ in range(2)] == ["/smaller", "/large"]


def test_a_large_one_waits_no_longer_than_it_takes(watch, wake):
    """However many small ones come: each takes its turn by when it came and how long it takes."""
    with closing(Notices(watch, wake[0], (), pytest.fail)) as notices:
        watch.tell("/large", 1 << 20, at_ns=1_000)
        taken = []
        for n in range(1, 40):
            watch.tell(f"/{n}", 4096, at_ns=n * 1_000_000)
            taken.append(notices.take().path)
        at = taken.index("/large")
        assert taken[:at] == [f"/{n}" for n in range(1, at + 1)]
        assert 1 <= at < 20  # a megabyte takes some ten milliseconds


def test_only_files_of_these_processes(watch, wake):
    with closing(Notices(watch, wake[0], (7,), pytest.fail)) as notices:
        watch.tell("/other", 1, pid=8)
        watch.tell("//anon", 1, pid=8)
        watch.tell("[vdso]", 1, pid=7)
        watch.tell("/mine", 2, pid=7)
        found = notices.take()
        assert (found.size, found.pid, found.start, found.path) == (2, 7, 0x1000, "/mine")


def test_a_wake_up_ends_it_whatever_is_pending(watch, wake):
    with closing(Notices(watch, wake[0], (), pytest.fail)) as notices:
        watch.tell("/one", 1)
        os.write(wake[1], b"c")
        assert notices.take() is None


def test_losses_are_told_once(watch, wake):
    told = []
    with closing(Notices(watch, wake[0], (), told.append)) as notices:
        watch.lost = 5
        watch.tell("/one", 1)
        watch.tell("/two", 2)
        assert [notices.take().path for _ in range(2)] == ["/one", "/two"]
        watch.lost = 6
        watch.tell("/three", 3)
        assert notices.take().path == "/three"
    assert told == [5, 1]


def test_too_many_to_wait_are_lost_and_told(watch, wake, monkeypatch):
    """A program that maps files for ever must not fill our memory."""
    monkeypatch.setattr(notices, "_MAXIMUM_PENDING", 8)
    told = []

    def lost(count):
        told.append(count)
        os.write(wake[1], b"c")

    with closing(Notices(watch, wake[0], (), lost)) as waiting:
        for n in range(8):
            watch.tell(f"/{n}", 1)
        assert waiting.take().path == "/0"
        for _ in range(2):
            watch.tell("/more", 1)
        watch.lost = 5
        assert waiting.take() is None
    assert told == [5 + 7 + 2]


def test_there_is_a_processor():
    assert os.cpu_count() == len(online_processors())


def test_without_sysfs_the_processors_are_counted(monkeypatch, tmp_path):
    class Hidden(type(tmp_path)):
        def read_text(self):
            raise FileNotFoundError(str(self))

    monkeypatch.setattr(notices, "Path", Hidden)
    assert online_processors() == list(range(os.cpu_count()))


def test_what_was_told_before_anybody_listened_is_taken(watch, wake, monkeypatch):
    """The kernel wakes once, and whoever registers has been woken by that."""
    watch.tell("/early", 1)
    silent, kept = os.pipe()
    monkeypatch.setattr(watch, "fds", [silent])
    with closing(Notices(watch, wake[0], (), pytest.fail)) as notices:
        assert notices.take().path == "/early"
    os.close(silent)
    os.close(kept)
