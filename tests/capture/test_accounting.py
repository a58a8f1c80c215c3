# SPDX-License-Identifier: Apache-2.0
"""What is shown and what is said to be lost add up exactly to what happened."""

from __future__ import annotations

import os
import signal

import pytest
from harness import CAPTURES, Lost, wait_until
from peers import ENDS, assert_exact, endpoint

pytestmark = CAPTURES
PIECE = 16384  # payload of one record


def produced(program):
    """Records that the program's calls make, and their bytes."""
    records = moved = 0
    for done in program.of("done"):
        for direction in ("read", "write"):
            moved += done[direction]["bytes"]
            records += done[direction]["calls"]
    # A call of more than a piece is more than one record; the messages say how many.
    for size in program.sizes:
        records += 2 * program.count * ((size - 1) // PIECE)
    return records, moved


def assert_places(run, program):
    """Every shown byte stands where the lines of loss before it say, and is the right one.

    Returns the bytes that were shown and those that the lines of loss tell of.
    """
    shown = told = 0
    for side, writes, reads in ENDS:
        (done,) = program.of("done", side=side)
        local, remote = endpoint(done["local"]), endpoint(done["remote"])
        for direction, label in (("write", writes), ("read", reads)):
            ends = (local, remote) if direction == "write" else (remote, local)
            said, at = program.says(label), 0
            for event in run.events:
                if (event.direction, event.source, event.destination) != (direction, *ends):
                    continue
                if isinstance(event, Lost):
                    told += event.length
                else:
                    assert event.payload == said[at : at + event.length]
                    shown += event.length
                at += event.length
            assert at <= len(said)
    return shown, told


def assert_accounted(run, program):
    records, moved = produced(program)
    shown, told = assert_places(run, program)
    summary = run.summary
    assert summary["events"] == len(run.shown())
    assert summary["events"] + summary["lost"] == records
    assert summary["bytes"] == shown
    assert summary["bytes"] + summary["lost_bytes"] == moved
    # A loss at the very end has no line, because nothing came after it.
    assert told <= summary["lost_bytes"]


@pytest.mark.parametrize("size, count", [(100, 10000), (16384, 1000)])
def test_nothing_is_lost_at_full_speed(capture, peer, size, count):
    program = peer("pair", "--wait-go", sizes=[size], count=count)
    program.wait_for("ready")
    with capture("--pid", program.pid) as run:
        program.run()
        run.finish()
    assert run.summary["lost"] == run.summary["lost_bytes"] == 0
    assert_exact(run.shown(), program)


@pytest.mark.parametrize("sizes", [[100], [1, 100, 16384, 100000], [1 << 20]], ids=str)
def test_a_starved_reader_loses_but_keeps_count(capture, peer, sizes):
    count = max(1, 2000000 // sum(sizes))
    program = peer("pair", "--wait-go", sizes=sizes, count=count)
    program.wait_for("ready")
    with capture("--pid", program.pid, "--mapsize", "256k") as run:
        run.process.send_signal(signal.SIGSTOP)
        program.run()
        run.process.send_signal(signal.SIGCONT)
        run.finish()
    assert run.summary["lost"] > 0
    assert_accounted(run, program)


def test_losses_in_the_middle_stand_at_their_place(capture, peer):
    program = peer("pair", "--wait-go", "--calls", sizes=[100], count=8000)
    program.wait_for("ready")
    with capture("--pid", program.pid, "--mapsize", "64k") as run:
        run.process.send_signal(signal.SIGSTOP)
        program.go()
        wait_until(lambda: program.reported() > 3000, "calls of the program")
        run.process.send_signal(signal.SIGCONT)
        program.end()
        run.finish()
    lines = [event for event in run.events if isinstance(event, Lost)]
    assert lines
    assert_accounted(run, program)


@pytest.mark.parametrize("size", [100, 16384, 100000])
def test_a_small_buffer_at_full_speed_keeps_count(capture, peer, size):
    program = peer("pair", "--wait-go", sizes=[size], count=max(20, 1500000 // size))
    program.wait_for("ready")
    with capture("--pid", program.pid, "--mapsize", "64k") as run:
        program.run()
        run.finish()
    assert_accounted(run, program)


def test_a_slow_reader_of_the_output_loses_but_keeps_count(capture, peer, tmp_path):
    # A named pipe that is opened late and then read to its end.
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    program = peer("pair", "--wait-go", sizes=[16384], count=1500)
    program.wait_for("ready")
    options = ("--pid", program.pid, "--mapsize", "256k")
    with capture(*options, output=str(tmp_path / "pipe")) as run:
        program.run()
        run.process.send_signal(signal.SIGINT)
        os.set_blocking(reader, True)
        with os.fdopen(reader, "rb") as pipe:
            text = pipe.read()
        run.finish(None, text=text)
    assert run.summary["lost"] > 0
    assert_accounted(run, program)
