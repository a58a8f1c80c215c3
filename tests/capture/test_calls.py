# SPDX-License-Identifier: Apache-2.0
"""Every way to call a TLS library: the exact bytes, once, in order, from whom to whom."""

from __future__ import annotations

import signal

import pytest
from harness import CAPTURES, joined, selected
from peers import assert_calls, assert_exact, assert_nothing_else, programs, stream_of

pytestmark = CAPTURES


@pytest.fixture
def captured_pair(capture, peer):
    """Both ends of a connection in one process, started before the capture and spoken to within."""

    def play(*words, status=0, **how):
        program = peer("pair", "--wait-go", *words, **how)
        program.wait_for("ready")
        with capture("--pid", program.pid) as run:
            program.go()
            program.end(status)
            run.finish()
        assert run.summary["lost"] == run.summary["unreadable"] == run.summary["malformed"] == 0
        return program, run.shown()

    return play


WAYS = {
    "plain": [],
    "ex": ["--read-ex", "--write-ex"],
    "tls12": ["--tls", "1.2"],
    "ipv6": ["--ipv6"],
    "socket-bio": ["--bio", "socket"],
    "custom-bio": ["--bio", "custom"],
    "tiny-reads": ["--read-size", "97"],
    "peek": ["--peek"],
    "peek-ex": ["--peek", "--read-ex"],
    "seccomp": ["--seccomp"],
    "threads": ["--threads", "3"],
    "threads-ex": ["--threads", "3", "--read-ex", "--write-ex"],
}


@pytest.mark.parametrize("words", WAYS.values(), ids=WAYS.keys())
def test_each_way_of_calling_is_shown_exactly(captured_pair, words):
    program, shown = captured_pair(*words)
    assert_exact(shown, program)
    assert_nothing_else(shown, program)


def test_calls_of_one_byte(captured_pair):
    program, shown = captured_pair(sizes=[1], count=500)
    assert_exact(shown, program)
    assert {event.length for event in shown} == {1}


def test_a_call_of_a_mebibyte_comes_in_pieces_of_one_call(captured_pair):
    program, shown = captured_pair(sizes=[1 << 20])
    assert_exact(shown, program)
    (client,) = program.of("done", side="client")
    pieces = stream_of(shown, client, "write")
    assert {piece.call_length for piece in pieces} == {1 << 20}
    assert [piece.call_offset for piece in pieces] == list(range(0, 1 << 20, 16384))


@pytest.mark.parametrize("size", [31, 32, 33, 16383, 16384, 16385, 32768, 32769])
def test_no_size_of_call_is_cut_or_padded(captured_pair, size):
    program, shown = captured_pair(sizes=[size])
    assert_exact(shown, program)


FULL = {"partial": ["--partial"], "moving": ["--moving"], "both": ["--partial", "--moving"]}


@pytest.mark.parametrize("words", FULL.values(), ids=FULL.keys())
def test_a_retried_write_is_shown_once_and_a_partial_one_as_far_as_it_went(captured_pair, words):
    program, shown = captured_pair(*words, count=5)
    assert all(done["write"]["retries"] for done in program.of("done"))
    assert_exact(shown, program)
    assert_nothing_else(shown, program)


def test_forked_workers_are_told_apart(capture, peer):
    with capture("--comm", "tlspeer") as run:
        program = peer("pair", "--fork", "3").end()
        run.finish()
    servers = program.of("done", side="server")
    assert len({done["pid"] for done in servers}) == 3
    assert_exact(run.shown(), program, connections=3)


def test_calls_of_fibers_do_not_end_in_the_order_of_their_beginning(captured_pair):
    program, shown = captured_pair("--fibers", "nested-down")
    assert_exact(shown, program, connections=2)


@pytest.mark.parametrize("inside", ["read", "write"])
def test_a_process_that_dies_in_mid_call_costs_nothing_else(captured_pair, inside):
    program, shown = captured_pair("--die-mid-call", inside, status=-signal.SIGKILL)
    (client,) = program.of("done", side="client")
    assert joined(stream_of(shown, client, "write")) == program.says("c")
    assert joined(stream_of(shown, client, "read")) == program.says("s")


def test_early_data_is_shown_once_and_before_the_rest(captured_pair):
    program, shown = captured_pair("--early-data", sizes=[1, 100, 5000])
    for side, direction, early, rest in (
        ("client", "write", "early_write", "c"),
        ("server", "read", "early_read", "c"),
    ):
        (done,) = program.of("done", side=side, generation=1)
        assert done[early]["bytes"] == len(program.says("e"))
        stream = stream_of(shown, done, direction)
        assert joined(stream) == program.says("e") + program.says(rest)


def test_memory_bios_yield_all_bytes_and_no_wrong_address(captured_pair):
    program, shown = captured_pair("--memory-bio")
    right = set()
    for side, writes, reads in (("client", "c", "s"), ("server", "s", "c")):
        (done,) = program.of("done", side=side)
        for direction, label in (("write", writes), ("read", reads)):
            (tid,) = done[direction]["tids"]
            stream = selected(shown, tid=tid, direction=direction)
            assert joined(stream) == program.says(label)
            assert_calls(stream, done[direction])
            right |= {
                (e.direction, e.source, e.destination) for e in stream_of(shown, done, direction)
            }
    named = {(e.direction, e.source, e.destination) for e in shown if e.source != "?"}
    assert named <= right


def test_a_file_sent_by_the_kernel_is_counted_and_one_sent_by_the_program_is_shown(
    captured_pair, tmp_path
):
    content = programs.message("file", "f", 0, 300000)
    (tmp_path / "file").write_bytes(content)
    program, shown = captured_pair("--sendfile", tmp_path / "file")
    sent, received = (program.of("sendfile", side=side)[0] for side in ("client", "server"))
    client, server = (program.of("done", side=side)[0] for side in ("client", "server"))
    reads = joined(stream_of(shown, server, "read"))
    assert reads == program.says("c") + content, received
    writes = stream_of(shown, client, "write")
    if not sent["ktls"]:
        assert joined(writes) == program.says("c") + content
        pytest.skip(f"SSL_sendfile cannot run here: {sent['reason']}")
    files = selected(writes, missing="sendfile")
    assert sum(event.call_length for event in files) == len(content)
    assert joined(files) == b""
