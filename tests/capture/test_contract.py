# SPDX-License-Identifier: Apache-2.0
"""What scripts and traced programs may rely on, however a capture ends."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import subprocess
import termios
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import CAPTURES, DEADLINE, parse_text, run_ecapture, wait_until
from peers import assert_exact
from probed import is_probed

from ecapture.config import CaptureConfig, Scope
from ecapture.session import Capture

pytestmark = CAPTURES
ENDLESS = 10_000_000  # messages: more than any test waits for


@pytest.fixture
def talking(peer):
    """A pair that talks all the time."""
    lasting = ("--deadline", round(20 * DEADLINE))  # seconds
    program = peer("pair", "--wait-go", *lasting, sizes=[100], count=ENDLESS)
    program.wait_for("ready")
    return program


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_capture_after_everything_in_flight(capture, peer, number):
    program = peer("pair", "--wait-go")
    program.wait_for("ready")
    with capture("--pid", program.pid) as run:
        program.run()
        run.finish(number)
    assert_exact(run.shown(), program)
    assert run.summary["lost"] == 0
    assert run.stderr.splitlines()[-1].startswith("summary: ")


def test_a_second_signal_ends_it_at_once(capture, talking):
    # Its output goes where nobody reads, so that the first signal's orderly end cannot come.
    with capture("--pid", talking.pid, output=None) as run:
        talking.go()

        def ended():
            run.process.send_signal(signal.SIGINT)
            return run.process.poll() is not None

        wait_until(lambda: full(run.process.stdout), "a full pipe")
        wait_until(ended, "the end by the second signal")
        assert run.process.returncode == 128 + signal.SIGINT


def full(pipe):
    """Whether a pipe holds as much as its writer wanted to write at once."""
    size = bytearray(4)
    fcntl.ioctl(pipe, termios.FIONREAD, size)
    return int.from_bytes(size, "little") >= 60000


def test_a_reader_that_goes_away_is_no_failure(capture, talking):
    with capture("--pid", talking.pid, output=None) as run:
        talking.go()
        assert os.read(run.process.stdout.fileno(), 100).startswith(b"--- ")
        run.process.stdout.close()
        run.finish(None)
    assert talking.process.poll() is None


@pytest.fixture
def tiny_disk(tmp_path):
    place = tmp_path / "tiny"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("mode", ["text", "record"])
def test_a_full_disk_ends_the_capture_with_a_summary(capture, talking, tiny_disk, mode):
    output = tiny_disk / "output"
    with capture("--pid", talking.pid, output=str(output), mode=mode) as run:
        talking.go()
        run.finish(None, status=6)
    assert str(output) in run.stderr
    assert "No space left on device" in run.stderr
    assert talking.process.poll() is None
    # what is there is whole: no event or frame was cut by the end of the disk
    assert 0 < output.stat().st_size <= 4 << 20
    if mode == "record":
        done = run_ecapture("replay", "--raw", output)
        assert done.returncode == 0
        assert b" malformed=0" in done.stderr
        assert parse_text(done.stdout)
    else:
        assert parse_text(output.read_bytes())


def test_a_device_that_is_always_full(capture, talking):
    with capture("--pid", talking.pid, output="/dev/full") as run:
        talking.go()
        run.finish(None, status=6)


def test_killing_the_tool_leaves_no_probe_and_hurts_nobody(capture, talking):
    with capture() as run:
        assert is_probed(talking.pid)
        talking.go()
        wait_until(lambda: b"\n--- " in run.path.read_bytes(), "a second event, so a whole one")
        run.process.kill()
        run.process.wait(30)
    wait_until(lambda: not is_probed(talking.pid), "the end of the probes")
    # It checks every byte it reads and would end at the first wrong one: see that it still talks.
    with Capture(CaptureConfig(scope=Scope(pids=(talking.pid,)))) as again:
        assert next(iter(again)).pid == talking.pid
    assert talking.process.poll() is None
    # What had been written by then is whole up to the last event.
    text = run.path.read_bytes()
    assert parse_text(text[: text.rindex(b"\n--- ") + 1])


def test_a_capture_after_a_killed_one_starts_clean(capture, peer):
    program = peer("pair", "--wait-go")
    program.wait_for("ready")
    with capture() as run:
        run.process.kill()
        run.process.wait(30)
    with capture("--pid", program.pid) as run:
        program.run()
        run.finish()
    assert_exact(run.shown(), program)


def descriptors(pid="self"):
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def maps(pid):
    return len(Path(f"/proc/{pid}/maps").read_text().splitlines())


@contextmanager
def stopped_in_time(capture):
    """Stops a capture that nothing comes from, which would be waited for without end."""
    timer = threading.Timer(DEADLINE, capture.stop)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@pytest.mark.parametrize("scope", ["process", "host"])
def test_starting_and_stopping_under_load_leaks_nothing(talking, scope):
    config = CaptureConfig(scope=Scope(pids=(talking.pid,) if scope == "process" else ()))
    talking.go()
    mine = theirs = 0
    for cycle in range(100 if scope == "process" else 20):
        events = 0
        with Capture(config) as capture, stopped_in_time(capture):
            for event in capture:
                events += event.pid == talking.pid
                if events == 100:
                    break
        assert events == 100
        assert not is_probed(talking.pid)
        if cycle == 2:  # the first ones fill caches and map the area for displaced instructions
            mine, theirs = descriptors(), (descriptors(talking.pid), maps(talking.pid))
    # Fewer is no leak: what an earlier test left is closed when it is collected.
    wait_until(lambda: descriptors() <= mine, "descriptors that are closed")
    assert (descriptors(talking.pid), maps(talking.pid)) == theirs
    assert talking.process.poll() is None


def test_two_captures_of_one_program_see_the_same(capture, peer):
    program = peer("pair", "--wait-go")
    program.wait_for("ready")
    with capture("--pid", program.pid) as one, capture() as other:
        program.run()
        one.finish()
        other.finish()
    assert_exact(one.shown(), program)
    assert_exact(other.shown(), program)


def test_nohup_outlives_its_terminal(capture, peer):
    program = peer("pair", "--wait-go")
    program.wait_for("ready")
    with capture("--pid", program.pid, prefix=["nohup"]) as run:
        run.process.send_signal(signal.SIGHUP)
        program.run()
        run.finish()
    assert_exact(run.shown(), program)


def test_output_is_readable_by_its_owner_only(capture):
    with capture() as run:
        run.finish()
    assert stat.S_IMODE(run.path.stat().st_mode) == 0o600
