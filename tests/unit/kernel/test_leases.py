# SPDX-License-Identifier: Apache-2.0
"""Who writes to a file waits until that is allowed; who reads it does not."""

import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from ecapture.kernel.leases import Lease, Listener

DEADLINE = 30


@contextmanager
def listening():
    """A listener, and a function that makes its thread wait and returns when it has ended to."""
    with ThreadPoolExecutor(1) as thread:
        listener = thread.submit(Listener).result()
        yield listener, lambda: thread.submit(listener.wait, DEADLINE)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    return path


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_text("new"),
        lambda path: os.truncate(path, 1),
        lambda path: shutil.copy("/bin/true", path),
        lambda path: path.open("r+").close(),
    ],
    ids=["written", "cut", "copied", "opened"],
)
def test_who_writes_waits(file, write):
    with listening() as (listener, wait), Lease(str(file), listener) as lease:
        assert file.read_text() == "old"
        assert not lease.is_wanted()
        told = wait()
        with ThreadPoolExecutor(1) as thread:
            writing = thread.submit(write, file)
            told.result(DEADLINE)
            assert lease.is_wanted()
            assert not writing.done()
            assert file.stat().st_size == 3
            lease.give_up()
            writing.result(DEADLINE)
        assert lease.is_written()


def test_a_new_file_under_the_name_concerns_nobody(file, tmp_path):
    with listening() as (listener, _wait), Lease(str(file), listener) as lease:
        (tmp_path / "new").write_text("new")
        (tmp_path / "new").rename(file)
        assert not lease.is_wanted()
        file.unlink()
        assert not lease.is_wanted()


def test_a_file_that_is_being_written(file):
    with listening() as (listener, _wait):
        with file.open("r+"), Lease(str(file), listener) as early:
            assert early.writers
            assert not early.is_written()
        with Lease(str(file), listener) as late:
            assert not late.writers
            assert late.is_written()


def test_where_there_are_no_leases_its_time_of_change_tells(file, monkeypatch):
    def refused(_self):
        return False

    monkeypatch.setattr(Lease, "_take", refused)
    with listening() as (listener, _wait), Lease(str(file), listener) as lease:
        assert not lease.is_wanted()
        os.utime(file, ns=(1, 1))
        assert wait_for_another_time(file, lease.status.st_ctime_ns)
        assert lease.is_wanted()
        assert lease.is_written()


def wait_for_another_time(path, time_ns):
    """The clock of files moves on every few milliseconds only."""
    paused = threading.Event()
    for _ in range(1000):
        if path.stat().st_ctime_ns != time_ns:
            return True
        paused.wait(0.002)
        path.chmod(0o600)
    return False


def test_where_nobody_listens_any_more_there_is_no_lease(file):
    with ThreadPoolExecutor(1) as thread:
        listener = thread.submit(Listener).result()
    with Lease(str(file), listener) as lease:
        file.write_text("nobody waits")  # nor does a signal end this process
        assert lease.is_written()


def test_who_waits_can_be_woken():
    with listening() as (listener, wait):
        told = wait()
        listener.wake()
        told.result(DEADLINE)
