# SPDX-License-Identifier: Apache-2.0
"""Text becomes values, or is refused with the option's name and what to do."""

import contextlib
import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecapture.config import Scope, byte_size, ring_size
from ecapture.errors import TargetNotFound, UsageError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1000", 1000),
        ("1k", 1024),
        ("64K", 65536),
        ("64kb", 65536),
        ("16m", 16 << 20),
        ("16 MiB", 16 << 20),
        (" 2g ", 2 << 30),
        ("5b", 5),
    ],
)
def test_sizes(text, size):
    assert byte_size(text, "--truncate") == size


@pytest.mark.parametrize("text", ["", "k", "-1", "1.5m", "1t", "1 k k", "0x10", "9" * 5000, "²"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(UsageError, match="is not a size") as caught:
        byte_size(text, "--truncate")
    assert caught.value.fields["option"] == "--truncate"
    assert caught.value.hint


def test_a_size_that_no_counter_holds_is_refused():
    with pytest.raises(UsageError, match="more than there can be"):
        byte_size("999999999999999g", "--truncate")


@given(st.text())
def test_any_text_is_a_size_or_refused(text):
    with contextlib.suppress(UsageError):
        assert byte_size(text, "--truncate") >= 0


@given(st.integers(min_value=1 << 16, max_value=1 << 30))
def test_a_ring_has_a_power_of_two_pages_and_room_for_what_was_asked(size):
    found = ring_size(size, "--mapsize")
    assert found & (found - 1) == 0
    assert found % os.sysconf("SC_PAGE_SIZE") == 0
    assert size <= found < 2 * size or found == os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("size", [0, (1 << 16) - 1, (1 << 30) + 1])
def test_a_ring_too_small_or_too_large_is_refused(size):
    with pytest.raises(UsageError, match="--mapsize"):
        ring_size(size, "--mapsize")


def test_an_empty_scope_and_an_own_process_are_fine():
    Scope().check()
    Scope(pids=(os.getpid(),), uids=(0, 4_000_000), comms=("a" * 15,), follow=True).check()
    Scope(comms=(os.fsdecode(b"\xff" * 15),)).check()


@pytest.mark.parametrize("uid", [-1, 1 << 32])
def test_a_user_that_cannot_be_is_refused(uid):
    with pytest.raises(UsageError, match="--uid"):
        Scope(uids=(uid,)).check()


def test_a_process_that_is_not_there_is_refused():
    gone = os.fork()
    if gone == 0:
        os._exit(0)
    os.waitpid(gone, 0)
    with pytest.raises(TargetNotFound, match=f"process {gone}"):
        Scope(pids=(gone,)).check()


def test_a_thread_is_no_process():
    release = threading.Event()
    thread = threading.Thread(target=release.wait)
    thread.start()
    try:
        with pytest.raises(UsageError, match="is a thread of process") as caught:
            Scope(pids=(thread.native_id,)).check()
    finally:
        release.set()
        thread.join()
    assert str(os.getpid()) in caught.value.hint


@pytest.mark.parametrize("comm", ["", "a" * 16, "ä" * 8])
def test_a_name_that_no_command_can_have_is_refused(comm):
    with pytest.raises(UsageError, match="--comm"):
        Scope(comms=(comm,)).check()


def test_cgroups_are_directories_of_the_tree(tmp_path):
    with pytest.raises(TargetNotFound, match="cgroup v2"):
        Scope(cgroups=(str(tmp_path),)).check()
    (tmp_path / "cgroup.procs").touch()
    Scope(cgroups=(str(tmp_path),)).check()
    with pytest.raises(UsageError, match="--cgroup_path"):
        Scope(cgroups=(str(tmp_path),) * 17).check()


@pytest.mark.parametrize(
    ("scope", "option"),
    [
        (Scope(uids=tuple(range(257))), "--uid"),
        (Scope(comms=tuple(f"c{n}" for n in range(257))), "--comm"),
    ],
)
def test_more_than_the_kernel_programs_have_room_for(scope, option):
    with pytest.raises(UsageError, match=f"{option}: more than 256 given"):
        scope.check()
    Scope(uids=scope.uids[:256], comms=scope.comms[:256]).check()
