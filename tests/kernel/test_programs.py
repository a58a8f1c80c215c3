# SPDX-License-Identifier: Apache-2.0
"""Every kernel program passes the verifier of this kernel, and every variant captures the same."""

import os
import re
import select
import subprocess
from contextlib import closing

import pytest
from speaking import HOOKS, Hooked, Speaker, distinct, settings, spoken

from bpf_object import programs, shipped
from ecapture._wire import PIECE_MAXIMUM
from ecapture.config import CaptureConfig
from ecapture.events import ConversationEnd, Losses, Plaintext
from ecapture.kernel import _native
from ecapture.kernel.attach import Place, Programs
from ecapture.kernel.decode import Decoder
from ecapture.kernel.families import FAMILIES
from ecapture.kernel.feature import BTF, feature, machine
from ecapture.probes import probes

pytestmark = pytest.mark.needs("root", "bpf", "ringbuf", "uprobe")

# helpers (UAPI linux/bpf.h) that some of the promised kernels do not have
HELPERS = {162: "sock_from_file", 174: "attach_cookie", 181: "bpf_loop"}
VARIANTS = distinct(
    (),
    ("uprobe_multi",),
    ("bpf_loop",),
    ("attach_cookie",),
    ("btf",),
    ("uprobe_multi", "attach_cookie", "bpf_loop", "btf"),
    ("tp_btf:sock_send_length", "tp_btf:sched_process_exit"),
)


def lacking(program):
    """What this kernel lacks for a program."""
    names = {HELPERS[number] for number in program.helpers if number in HELPERS}
    missing = [name for name in sorted(names) if not feature(name)]
    if not feature("btf"):
        return [*missing, "btf"]  # the variants below load it with types of our own
    typed = re.fullmatch(r"tp_btf/(\w+)", program.section)
    if typed and f"\0btf_trace_{typed[1]}\0".encode() not in BTF.read_bytes():
        missing.append(f"the tracepoint {typed[1]}")
    return missing


ALL = [(path, program) for path in shipped(machine()) for program in programs(path)]


@pytest.mark.parametrize(
    ("path", "program"), ALL, ids=[f"{path.name.split('.')[0]}-{p.name}" for path, p in ALL]
)
def test_the_verifier_accepts_each_program(path, program):
    missing = lacking(program)
    if missing:
        pytest.skip(f"this kernel lacks {', '.join(missing)}")
    _native.take_messages()
    with _native.Object(str(path)) as loaded:
        for name in loaded.programs():
            loaded.set_autoload(name, name == program.name)
        try:
            loaded.load()
        except _native.NativeError as error:
            said = "\n".join(text for _level, text in _native.take_messages())
            pytest.fail(f"{error}\n{said[-8000:]}")


@pytest.mark.parametrize("mask", VARIANTS, ids=lambda mask: "+".join(mask) or "as it is")
@pytest.mark.parametrize("follow", [False, True], ids=["", "follow"])
def test_every_variant_loads_for_all_probes(without, mask, follow):
    without(*mask)
    if follow and not feature("btf"):
        pytest.skip("following needs types")
    hooks = [h for probe in probes().values() for h in probe.hooks + probe.unattended_hooks]
    Programs(settings(follow=follow), hooks).close()


@pytest.mark.parametrize("mask", VARIANTS, ids=lambda mask: "+".join(mask) or "as it is")
def test_what_hooks_are_attached_with_was_loaded(without, mask):
    without(*mask)
    hooks = [h for probe in probes().values() for h in probe.hooks + probe.unattended_hooks]
    loaded = Programs(settings(), hooks)
    try:
        for row, hook in enumerate(hooks):
            family = FAMILIES[hook.shape]
            for site in {False, family.sites}:
                place = Place(row, 0, site, file_row=0 if family.by_file else -1)
                for program, _at_return in loaded._ways(place, returns=True):
                    assert loaded._objects[family.object].program_fd(program) >= 0, program
    finally:
        loaded.close()


def read_all(hooked):
    decoder = Decoder(0)
    events = decoder.decode(hooked.drain())
    assert decoder.malformed == 0
    return events


@pytest.mark.parametrize("mask", VARIANTS, ids=lambda mask: "+".join(mask) or "as it is")
def test_every_variant_captures_the_same(without, speaker, mask):
    without(*mask)
    with Hooked(speaker, settings()) as hooked:
        said = [("write", 1), ("read", 31), ("write", 33), ("pointed", 500), ("read", 40_000)]
        for call, length in said:
            speaker.say(call, length)
        speaker.say("write", 0)
        speaker.say("read", -1)
        speaker.say("pointed", 13)  # fails
        speaker.say("end")
        events = read_all(hooked)
        assert hooked.programs.losses() == Losses()
    end = events.pop()
    assert isinstance(end, ConversationEnd)
    assert all(type(event) is Plaintext for event in events)
    start = 0
    offsets = {"read": 0, "write": 0}
    for call, length in said:
        direction = "read" if call == "read" else "write"
        got, count = b"", 0
        while len(got) < length:
            event = events.pop(0)
            assert (event.direction, event.call_length, event.call_offset) == (
                direction,
                length,
                len(got),
            )
            assert event.stream_offset == offsets[direction] + len(got)
            assert (event.pid, event.missing, event.comm) == (speaker.pid, "", "speaker")
            assert event.conversation == end.conversation
            got += event.payload
            count += 1
        assert event.last
        assert count == -(-length // PIECE_MAXIMUM)
        assert got == spoken(start, length)
        start += length
        offsets[direction] += length
    assert events == []


def test_the_bounded_loop_delivers_16_mib_and_tells_of_the_rest(without, speaker):
    without("bpf_loop")
    size, most = (16 << 20) + 5, 16 << 20
    with Hooked(speaker, settings(ring=32 << 20)) as hooked:
        speaker.say("write", size)
        events = read_all(hooked)
        losses = hooked.programs.losses()
    assert b"".join(event.payload for event in events) == spoken(0, most)
    assert events[-1].missing == "truncated"
    assert sum(event.length for event in events) == size
    assert (losses.truncated_calls, losses.truncated_bytes) == (1, 5)


@pytest.mark.needs("bpf_loop")
def test_without_that_bound_calls_of_any_size_are_whole(speaker):
    size = (20 << 20) + 5
    with Hooked(speaker, settings(ring=32 << 20)) as hooked:
        speaker.say("read", size)
        events = read_all(hooked)
        assert hooked.programs.losses() == Losses()
    assert b"".join(event.payload for event in events) == spoken(0, size)


@pytest.mark.parametrize("limit", [0, 1, 100, PIECE_MAXIMUM, PIECE_MAXIMUM + 1])
def test_the_payload_limit_cuts_and_counts(speaker, limit):
    with Hooked(speaker, settings(payload=limit)) as hooked:
        speaker.say("write", 50_000)
        speaker.say("write", 10)
        events = read_all(hooked)
        losses = hooked.programs.losses()
    second = events.pop()
    assert b"".join(event.payload for event in events) == spoken(0, limit)
    assert events[-1].missing == "truncated"
    assert sum(event.length for event in events) == 50_000
    assert second.stream_offset == 50_000
    cut = [50_000 - limit, max(0, 10 - limit)]
    assert losses.truncated_bytes == sum(cut)
    assert losses.truncated_calls == sum(map(bool, cut))


def test_what_cannot_be_read_is_told_and_counted(speaker, hooked):
    speaker.say("unreadable", 100)
    (event,) = read_all(hooked)
    assert (event.missing, event.payload, event.length) == ("unreadable", b"", 100)
    losses = hooked.programs.losses()
    assert (losses.fault_records, losses.fault_bytes) == (1, 100)


def test_bytes_of_files_are_counted_not_shown(speaker, hooked):
    speaker.say("file", 1 << 33)
    speaker.say("write", 4)
    sent, event = read_all(hooked)
    assert (sent.missing, sent.payload, sent.length) == ("sendfile", b"", 1 << 33)
    assert event.stream_offset == 1 << 33


def test_a_call_built_on_another_is_shown_once(speaker, hooked):
    speaker.say("outer", 7)
    (event,) = read_all(hooked)
    assert event.payload == spoken(0, 7)


def test_a_reused_handle_is_a_new_conversation(speaker, hooked):
    for call in ("write", "end", "write", "end", "end"):
        speaker.say(call, 3)
    first, first_end, second, second_end = read_all(hooked)
    assert first.conversation == first_end.conversation
    assert second.conversation == second_end.conversation
    assert first.conversation[:2] == second.conversation[:2]
    assert first.conversation[2] < second.conversation[2]
    assert second.stream_offset == 0


@pytest.mark.needs("attach_cookie", "bpf_loop")
def test_where_returns_may_not_be_probed_writes_are_taken_as_asked_for(speaker):
    with Hooked(speaker, settings(), returns=False) as hooked:
        speaker.say("write", 5)
        speaker.say("read", 6)
        (event,) = read_all(hooked)
    assert event.assumed
    assert event.payload == spoken(0, 5)


def scopes(pid):
    return [
        ({}, True),
        ({"pids": (pid,)}, True),
        ({"pids": (1,)}, False),
        ({"uids": (0,)}, True),
        ({"uids": (12345, 0)}, True),
        ({"uids": (12345,)}, False),
        ({"comms": ("speaker",)}, True),
        ({"comms": ("speake",)}, False),
        ({"comms": ("speakers",)}, False),
        ({"comms": ("speaker",), "uids": (12345,)}, False),
        ({"comms": ("speaker",), "uids": (0,), "pids": (pid, 1)}, True),
    ]


def test_the_filter_changes_while_running(speaker):
    with Hooked(speaker, settings()) as hooked:
        start = 0
        for scope, wanted in scopes(speaker.pid):
            hooked.programs.set_scope(settings(**scope))
            speaker.say("write", 9)
            shown = [event.payload for event in read_all(hooked)]
            assert shown == ([spoken(start, 9)] if wanted else []), scope
            start += 9


@pytest.mark.needs("btf")
def test_a_process_is_known_by_its_name_and_by_those_of_its_threads(speaker):
    with Hooked(speaker, settings()) as hooked:
        for comm, shown in (("speaker", True), ("elsewhere", True), ("anywhere", False)):
            hooked.programs.set_scope(settings(comms=(comm,)))
            speaker.say("elsewhere", 9)
            found = [event.comm for event in read_all(hooked) if type(event) is Plaintext]
            assert found == ["elsewhere"] * shown, comm


def test_the_reader_is_woken_when_the_ring_is_a_quarter_full(speaker):
    """By the record that makes it so, also where that is shorter than what it has reserved."""
    ring, reserved = 1 << 18, 768 + 144 + 8
    needed = -(-(ring // 4) // reserved)
    assert needed * reserved - ring // 4 > 513 + 144 + 8
    with Hooked(speaker, settings(ring=ring)) as hooked, closing(select.epoll()) as poll:
        poll.register(hooked.programs.ring.fd, select.EPOLLIN | select.EPOLLET)
        poll.poll(0)
        for _ in range(needed - 1):
            speaker.say("write", 513)
        assert poll.poll(0) == []
        speaker.say("write", 513)
        assert len(poll.poll(30)) == 1


@pytest.mark.needs("tp_btf:sched_process_exit")
def test_a_child_for_whom_there_is_no_room_is_counted():
    loaded = Programs(settings(pids=(os.getpid(),), follow=True), HOOKS)
    with closing(loaded):
        pids = loaded.maps["pids"]
        for number in range(pids.max_entries - 1):
            pids.update((1 << 23 | number).to_bytes(4, "little"), b"\1")
        assert loaded.losses() == Losses()
        subprocess.run(["true"], check=True)
        assert loaded.losses() == Losses(table_full_records=1)


def test_added_processes_pass(speaker):
    with Hooked(speaker, settings(pids=(1,))) as hooked:
        speaker.say("write", 1)
        assert hooked.programs.add_pid(speaker.pid)
        assert not hooked.programs.add_pid(speaker.pid)
        speaker.say("write", 2)
        assert [len(event.payload) for event in read_all(hooked)] == [2]


def test_a_process_that_is_not_named_is_not_probed(speaker, speaker_path, hooked):
    with Speaker(speaker_path) as other:
        other.say("write", 5)
        speaker.say("write", 5)
    assert {event.pid for event in read_all(hooked) if type(event) is Plaintext} == {speaker.pid}


def test_what_finds_no_room_is_counted_where_it_stands(speaker):
    with Hooked(speaker, settings(ring=4096 * 16)) as hooked:
        for _ in range(100):
            speaker.say("write", 1000)
        early = read_all(hooked)
        speaker.say("write", 1000)
        (late,) = read_all(hooked)
        losses = hooked.programs.losses()
    assert 0 < len(early) < 100
    assert len(early) + losses.ring_full_records == 100
    assert losses.ring_full_bytes == 1000 * losses.ring_full_records
    assert late.stream_offset == 100_000
    assert late.payload == spoken(100_000, 1000)


def test_after_detaching_nothing_is_captured(speaker, hooked):
    speaker.say("write", 5)
    hooked.attached.close()
    speaker.say("write", 5)
    assert len(read_all(hooked)) == 1


@pytest.mark.needs("tp_btf:sched_process_exit")
def test_the_end_of_a_process_is_told(speaker_path):
    with Speaker(speaker_path) as speaker, Hooked(speaker, settings()) as hooked:
        speaker.say("write", 5)
        speaker.__exit__()
        kinds = [type(event).__name__ for event in read_all(hooked)]
    assert kinds == ["Plaintext", "ProcessExit"]


def test_the_default_configuration_loads():
    Programs(CaptureConfig(), probes()["tls"].hooks).close()
