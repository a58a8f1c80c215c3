# SPDX-License-Identifier: Apache-2.0
"""The native layer: what it owns is closed once, errors carry errno, records come out whole."""

import errno
import gc
import mmap
import os
import shutil
import time

import pytest
from speaking import DEADLINE, Hooked, settings, spoken

from bpf_object import shipped
from ecapture.binary.elf import ElfFile
from ecapture.config import CaptureConfig
from ecapture.errors import AttachRefused, TargetNotFound
from ecapture.kernel import _native
from ecapture.kernel.attach import Place
from ecapture.kernel.decode import Decoder
from ecapture.kernel.feature import machine

pytestmark = pytest.mark.needs("root", "bpf", "ringbuf", "uprobe")
PLAINTEXT = next(str(path) for path in shipped(machine()) if path.name.startswith("plaintext."))
ONE = (1).to_bytes(4, "little")
TWO = (2).to_bytes(4, "little")


def descriptors():
    gc.collect()
    return set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names only


@pytest.fixture
def loaded():
    """Return the object with its maps and without its programs."""
    with _native.Object(PLAINTEXT) as found:
        for program in found.programs():
            found.set_autoload(program, False)
        found.load()
        yield found


# --- objects ---


def test_an_object_tells_what_is_in_it():
    with _native.Object(PLAINTEXT) as found:
        assert {"call_enter", "call_leave"} <= set(found.programs())
        assert {"events", "settings", "losses", "hooks"} <= set(found.maps())
        assert found.path == PLAINTEXT


def test_what_cannot_be_opened_says_why(tmp_path, capfd):
    with pytest.raises(_native.NativeError) as caught:
        _native.Object(str(tmp_path / "nothing"))
    assert caught.value.errno == errno.ENOENT
    assert (caught.value.operation, caught.value.subject) == ("open", str(tmp_path / "nothing"))
    (tmp_path / "text").write_text("no object")
    _native.take_messages()
    with pytest.raises(_native.NativeError) as caught:
        _native.Object(str(tmp_path / "text"))
    assert caught.value.errno
    assert any("ELF" in text for _level, text in _native.take_messages())
    assert capfd.readouterr() == ("", ""), "libbpf's words are kept, not printed"


def test_messages_are_taken_once_and_bounded(tmp_path):
    (tmp_path / "text").write_text("no object")
    for _ in range(5000):
        with pytest.raises(_native.NativeError):
            _native.Object(str(tmp_path / "text"))
    assert 0 < len(_native.take_messages()) <= 4000
    assert _native.take_messages() == []


def test_a_closed_object_refuses_everything(loaded):
    entries = loaded.map("pids")
    loaded.close()
    loaded.close()
    for use in (
        loaded.programs,
        loaded.maps,
        loaded.load,
        lambda: loaded.map("pids"),
        lambda: loaded.set_autoload("call_enter", True),
        lambda: loaded.attach("call_enter"),
        lambda: loaded.attach_uprobe("call_enter", "/bin/sh", 0),
        lambda: loaded.attach_uprobe_multi("call_enter", "/bin/sh", [0]),
        lambda: entries.lookup(ONE),
        lambda: entries.update(ONE, b"\1"),
        lambda: entries.delete(ONE),
        entries.keys,
        lambda: _native.Object(PLAINTEXT).reuse_map("pids", entries),
    ):
        with pytest.raises(ValueError, match="closed"):
            use()


def test_unknown_names_are_key_errors(loaded):
    for use in (
        lambda: loaded.map("nonesuch"),
        lambda: loaded.set_autoload("nonesuch", True),
        lambda: loaded.set_map_size("nonesuch", 1),
        lambda: loaded.attach("nonesuch"),
    ):
        with pytest.raises(KeyError, match="nonesuch"):
            use()


def test_nothing_leaks_descriptors(speaker, loaded):
    before = descriptors()
    for _ in range(3):
        with Hooked(speaker, settings()):
            pass
    forgotten = _native.Object(PLAINTEXT)
    for program in forgotten.programs():
        forgotten.set_autoload(program, False)
    forgotten.load()
    entries = forgotten.map("pids")
    del forgotten
    entries.update(ONE, b"\1")  # a map keeps its object
    del entries
    assert descriptors() == before


# --- maps ---


def test_maps_hold_what_was_put_in(loaded):
    entries = loaded.map("pids")
    assert (entries.name, entries.key_size, entries.value_size) == ("pids", 4, 1)
    assert entries.lookup(ONE) is None
    entries.update(ONE, b"\1")
    entries.update(TWO, b"\2")
    assert entries.lookup(TWO) == b"\2"
    assert sorted(entries.keys()) == [ONE, TWO]
    entries.delete(ONE)
    entries.delete(ONE)
    assert entries.keys() == [TWO]


def test_sizes_are_checked_before_the_kernel_reads(loaded):
    entries = loaded.map("pids")
    for use in (
        lambda: entries.lookup(b""),
        lambda: entries.lookup(b"12345"),
        lambda: entries.update(ONE, b""),
        lambda: entries.update(ONE, b"12"),
        lambda: entries.delete(b"123"),
    ):
        with pytest.raises(ValueError, match=r"has \d bytes, not"):
            use()


def test_a_full_map_says_so(loaded):
    entries = loaded.map("uids")
    for key in range(entries.max_entries):
        entries.update(key.to_bytes(4, "little"), b"\1")
    with pytest.raises(_native.NativeError) as caught:
        entries.update(b"\xff\xff\xff\xff", b"\1")
    assert caught.value.errno == errno.E2BIG
    assert (caught.value.operation, caught.value.subject) == ("update", "uids")


def test_a_map_is_shared(loaded):
    with _native.Object(PLAINTEXT) as other:
        other.reuse_map("pids", loaded.map("pids"))
        for program in other.programs():
            other.set_autoload(program, False)
        other.load()
        other.map("pids").update(TWO, b"\2")
        assert loaded.map("pids").lookup(TWO) == b"\2"


def test_raw_maps_and_programs_say_why_not():
    with pytest.raises(_native.NativeError) as caught:
        _native.create_map(1, 0, 0, 0)
    assert (caught.value.errno, caught.value.operation) == (errno.EINVAL, "create")
    with pytest.raises(_native.NativeError) as caught:
        _native.load_program(2, b"")
    assert caught.value.operation == "load"
    os.close(_native.create_map(1, 4, 4, 1))


# --- links ---


@pytest.mark.needs("uprobe_multi")
def test_every_place_has_a_cookie():
    with pytest.raises(ValueError, match="1 cookies for 2 places"):
        _native.link_uprobe_multi(0, "/bin/sh", [1, 2], [3])


@pytest.mark.parametrize("mask", [(), ("uprobe_multi",)], ids=["as it is", "perf events"])
def test_what_is_gone_is_not_found(without, speaker, tmp_path, mask):
    without(*mask)
    with Hooked(speaker, settings()) as hooked:
        with pytest.raises(TargetNotFound, match="gone"):
            hooked.programs.attach(str(tmp_path / "gone"), [Place(0, 64)])
        gone = os.fork()
        if gone == 0:
            os._exit(0)
        os.waitpid(gone, 0)
        with pytest.raises(TargetNotFound, match=f"process {gone}"):
            hooked.programs.attach(str(speaker.path), [Place(0, 64)], gone)


def test_what_is_no_file_is_refused_and_nothing_stays(speaker, hooked):
    before = descriptors()
    with pytest.raises(AttachRefused, match="/proc"):
        hooked.programs.attach("/proc", [Place(0, 0), Place(1, 8)])
    assert descriptors() == before


# --- the ring ---


def test_records_come_out_whole_over_the_end_of_a_small_ring(speaker):
    """Sizes that share no factor with the ring's put records over its end in every way."""
    sizes = [1, 7, 8, 9, 127, 500, 1000, 3001, 5000, 16384, 16385, 20_011]
    with Hooked(speaker, settings(ring=mmap.PAGESIZE * 16)) as hooked:
        assert hooked.programs.ring.size == mmap.PAGESIZE * 16
        decoder = Decoder(0)
        start, got = 0, b""
        for round_ in range(30):
            for size in sizes[: len(sizes) - round_ % 3]:
                speaker.say("write", size)
                start += size
                got += b"".join(e.payload for e in decoder.decode(hooked.drain()))
        assert decoder.malformed == 0
        assert got == spoken(0, start)
        assert hooked.programs.losses().ring_full_records == 0
        assert start > 10 * mmap.PAGESIZE * 16


def test_a_limit_cuts_between_records(speaker, hooked):
    for size in (10, 1000, 30, 5000):
        speaker.say("write", size)
    ring = hooked.programs.ring
    assert ring.drain(8) == b"", "no record is so small"
    found = []
    for limit in (1000, 1144, 1500, 6000):
        batch = ring.drain(limit)
        assert len(batch) <= limit
        assert len(batch) % 8 == 0
        found.append([len(event.payload) for event in Decoder(0).decode(batch)])
    assert found == [[10], [1000], [30], [5000]]
    assert ring.pending() == 0


def test_a_number_of_records_is_a_limit_too(speaker, hooked):
    for size in (10, 20, 30, 40, 50):
        speaker.say("write", size)
    ring = hooked.programs.ring
    found = []
    for _ in range(3):
        batch = ring.drain(1 << 20, 2)
        found.append(([len(event.payload) for event in Decoder(0).decode(batch)], ring.more))
    assert found == [([10, 20], True), ([30, 40], True), ([50], False)]
    assert ring.drain(1 << 20, 2) == b""
    assert not ring.more


def test_a_closed_ring_refuses(hooked):
    hooked.programs.ring.close()
    hooked.programs.ring.close()
    with pytest.raises(ValueError, match="closed"):
        hooked.programs.ring.drain(100)
    with pytest.raises(ValueError, match="closed"):
        hooked.programs.ring.pending()


def test_only_a_ring_can_be_read(loaded):
    with pytest.raises(_native.NativeError) as caught:
        _native.Ring(loaded.map("pids"))
    assert caught.value.errno
    with pytest.raises(TypeError):
        _native.Ring(None)


def test_a_sleeping_reader_is_woken_by_the_next_record(speaker, hooked):
    import select  # noqa: PLC0415 - only here

    poll = select.epoll()
    poll.register(hooked.programs.ring.fd, select.EPOLLIN | select.EPOLLET)
    poll.poll(0)
    speaker.say("write", 5)
    assert poll.poll(0) == [], "a reader that is awake comes by itself"
    hooked.drain()
    hooked.programs.sleep()
    speaker.say("write", 5)
    assert poll.poll(DEADLINE)
    poll.close()


# --- mappings ---


@pytest.mark.needs("mapping_watch")
def test_an_executable_mapping_is_told_with_path_and_build_id(speaker_path, tmp_path):
    path = tmp_path / "library.so"
    shutil.copy(speaker_path, path)
    with ElfFile(str(path)) as elf:
        build_id = elf.build_id
    processors = sorted(os.sched_getaffinity(0))
    watch = _native.MapWatch(processors)
    began_ns = time.monotonic_ns()
    try:
        assert len(watch.fds) == len(processors)
        with path.open("rb") as file:
            area = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC)
        (found,) = [one for one in watch.read() if one[3] == str(path)]
        pid, address, size, _path, told, mapped_ns = found
        assert began_ns <= mapped_ns <= time.monotonic_ns()
        maps = [line.split() for line in open("/proc/self/maps") if str(path) in line]  # noqa: PTH123, SIM115
        assert pid == os.getpid()
        assert f"{address:x}-{address + size:x}" == maps[0][0]
        assert told == (build_id if watch.with_build_ids else "")
        assert watch.lost == 0
        area.close()
    finally:
        watch.close()


def map_executable(path, times):
    with path.open("rb") as file:
        for _ in range(times):
            mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC).close()


@pytest.mark.needs("mapping_watch")
def test_more_mappings_than_there_is_room_for_are_counted(speaker_path):
    allowed = os.sched_getaffinity(0)
    processor = min(allowed)
    os.sched_setaffinity(0, {processor})  # each processor has its buffer and its count
    watch = _native.MapWatch([processor], 1)
    try:
        map_executable(speaker_path, 2000)
        seen = sum(one[3] == str(speaker_path) for one in watch.read())
        map_executable(speaker_path, 1)  # what was lost is told with the next one
        watch.read()
        assert 0 < seen < 2000
        assert watch.lost >= 2000 - seen
    finally:
        watch.close()
        os.sched_setaffinity(0, allowed)


@pytest.mark.needs("mapping_watch")
def test_a_watch_is_closed_once_and_leaves_nothing():
    before = descriptors()
    watch = _native.MapWatch([0])
    watch.close()
    watch.close()
    with pytest.raises(ValueError, match="closed"):
        watch.read()
    with pytest.raises(_native.NativeError) as caught:
        _native.MapWatch([0, 1 << 20])
    assert caught.value.operation == "watch"
    with pytest.raises(OverflowError):
        _native.MapWatch([0], -1)
    del watch
    forgotten = _native.MapWatch([0])
    assert len(descriptors()) == len(before) + 1
    del forgotten
    assert descriptors() == before


def test_the_defaults_of_a_capture_fit():
    assert CaptureConfig().limits.ring % mmap.PAGESIZE == 0
