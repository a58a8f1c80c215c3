# SPDX-License-Identifier: Apache-2.0
"""A recording shows what the live run showed, to anybody; a damaged one as far as it goes."""

from __future__ import annotations

import random
import shutil
import signal
import threading
from pathlib import Path

import pytest
from harness import CAPTURES, DEADLINE, ECAPTURE, parse_text, run_ecapture
from peers import assert_exact

from ecapture.config import CaptureConfig, Limits, Scope
from ecapture.errors import ECaptureError
from ecapture.formats.text import TextFormat
from ecapture.outputs import FormatOutput, RecordOutput
from ecapture.session import Capture, Replay, run

pytestmark = CAPTURES
NOBODY = 65534


@pytest.fixture
def both_ways(peer, tmp_path):
    """One capture, written as text and as a recording at once."""

    def play(limits=Limits(), **how):  # noqa: B008 - frozen
        program = peer("pair", "--wait-go", **how)
        program.wait_for("ready")
        text, recording = tmp_path / "text", tmp_path / "recording"
        outputs = [
            FormatOutput(TextFormat(), str(text)),
            RecordOutput(str(recording), lambda _pid: ""),
        ]
        summaries = []
        config = CaptureConfig(scope=Scope(pids=(program.pid,)), limits=limits)
        with Capture(config) as capture:
            capture.ready()
            pump = threading.Thread(target=lambda: summaries.append(run(capture, outputs)))
            pump.start()
            program.run()
            capture.stop()
            pump.join(DEADLINE)
        (summary,) = summaries
        return program, text, recording, str(summary)

    return play


def summary_of(done):
    return done.stderr.decode().splitlines()[-1]


def test_a_replay_is_the_live_run_byte_for_byte(both_ways, tmp_path):
    program, text, recording, summary = both_ways()
    done = run_ecapture("replay", "--raw", recording, "-w", tmp_path / "again")
    assert done.returncode == 0
    assert done.stdout == b""
    assert (tmp_path / "again").read_bytes() == text.read_bytes()
    assert summary_of(done) == summary
    assert_exact(parse_text(text.read_bytes()), program)


def test_a_replay_tells_of_losses_as_the_live_run_did(both_ways):
    _, text, recording, summary = both_ways(
        Limits(ring=1 << 16, payload=20000), sizes=[100000, 16384], count=300
    )
    done = run_ecapture("replay", "--raw", recording)
    assert done.stdout == text.read_bytes()
    assert summary_of(done) == summary


def test_a_recording_of_the_command_line(capture, peer):
    program = peer("pair", "--wait-go")
    program.wait_for("ready")
    with capture("--pid", program.pid, mode="record") as live:
        program.run()
        live.finish()
    done = run_ecapture("replay", "--raw", live.path)
    assert_exact(parse_text(done.stdout), program)
    assert done.stderr.decode().splitlines()[-1] == live.stderr.splitlines()[-1]
    assert live.path.stat().st_mode & 0o777 == 0o600


def test_a_recording_is_good_up_to_where_its_capture_was_killed(capture, peer):
    program = peer("pair", "--wait-go", sizes=[100], count=10_000_000)
    program.wait_for("ready")
    with capture("--pid", program.pid, mode="record") as live:
        program.go()
        live.wait_written(100_000)
        live.process.send_signal(signal.SIGKILL)
        live.process.wait(DEADLINE)
    done = run_ecapture("replay", "--raw", live.path)
    assert done.returncode == 0
    events = parse_text(done.stdout)
    assert len(events) > 100
    assert b"Traceback" not in done.stderr


def test_anybody_may_replay(both_ways, open_folder):
    if not all(place.stat().st_mode & 1 for place in ECAPTURE.parents):
        pytest.skip("the environment of these tests is closed to other users")
    _, text, recording, _ = both_ways()
    public = Path(shutil.copy(recording, open_folder / "recording"))
    public.chmod(0o644)
    env = {"HOME": "/nonexistent"}
    done = run_ecapture(
        "replay", "--raw", public, env=env, user=NOBODY, group=NOBODY, extra_groups=()
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == text.read_bytes()


def test_nobody_else_may_read_a_recording(both_ways, open_folder):
    _, _, recording, _ = both_ways()
    private = Path(shutil.copy(recording, open_folder / "private"))
    private.chmod(0o600)
    done = run_ecapture("replay", private, user=NOBODY, group=NOBODY, extra_groups=())
    assert done.returncode == 4
    assert b"Traceback" not in done.stderr


def replayed(path):
    """Events of a recording, or none where it is refused; any other error is a failure."""
    try:
        with Replay(str(path)) as replay:
            events = list(replay)
            return events, replay.summary.malformed
    except ECaptureError:
        return [], 1


def test_a_recording_cut_anywhere_gives_a_beginning_of_its_events(both_ways, tmp_path):
    _, _, recording, _ = both_ways(sizes=[1, 100, 3000])
    content, whole = recording.read_bytes(), replayed(recording)[0]
    damaged = tmp_path / "damaged"
    for end in range(0, len(content), 53):
        damaged.write_bytes(content[:end])
        events, _ = replayed(damaged)
        assert events == whole[: len(events)]
    assert len(whole) > 10


def test_a_recording_with_flipped_bits_is_read_as_far_as_it_goes(both_ways, tmp_path):
    _, _, recording, _ = both_ways(sizes=[1, 100, 3000])
    content = recording.read_bytes()
    damaged, chance = tmp_path / "damaged", random.Random(4711)
    for _ in range(500):
        wrong = bytearray(content)
        for _ in range(chance.randint(1, 8)):
            wrong[chance.randrange(len(wrong))] ^= 1 << chance.randrange(8)
        damaged.write_bytes(wrong)
        replayed(damaged)


@pytest.mark.parametrize("content", [b"", b"ecapture recording 1\n", b"\x7fELF", bytes(1000)])
def test_what_is_no_recording_is_refused(tmp_path, content):
    (tmp_path / "odd").write_bytes(content)
    done = run_ecapture("replay", tmp_path / "odd")
    assert done.returncode == 2
    assert b"is not a recording" in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_recording_that_is_not_there_is_named(tmp_path):
    done = run_ecapture("replay", tmp_path / "none")
    assert done.returncode == 4
    assert str(tmp_path / "none") in done.stderr.decode()
