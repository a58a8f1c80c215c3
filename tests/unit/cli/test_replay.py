# SPDX-License-Identifier: Apache-2.0
"""A recording is shown as the live run would have; nothing of it reaches the diagnostics."""

import subprocess
import sys

import pytest
from records import end_record, exit_record, plaintext_record, recording

from ecapture.errors import SinkError

TOKEN = b"correct-horse-battery-staple"


def replay(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "ecapture", "replay", *map(str, arguments)],
        capture_output=True,
        check=False,
    )


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "recording"
    path.write_bytes(
        recording(
            plaintext_record(TOKEN, comm=b"curl"),
            plaintext_record(b"tail", stream_offset=len(TOKEN) + 3) + end_record() + exit_record(),
            plaintext_record(kind=77),
        )
    )
    return path


def test_data_on_standard_output_and_the_summary_on_standard_error(saved):
    shown = replay(saved)
    assert shown.returncode == 0
    assert shown.stdout.count(TOKEN) == 1
    assert b" lost=3\n" in shown.stdout
    summary = shown.stderr.decode().strip()
    assert summary.startswith(
        f"summary: events=2 bytes={len(TOKEN) + 4} flows=1 lost=1 truncated=0"
    )
    assert "malformed=1" in summary.split()


def test_the_debug_log_contains_nothing_of_the_payload(saved):
    for mode in ("text", "record"):
        shown = replay("-d", saved, "-m", mode, "-w", saved.with_name(mode))
        assert shown.returncode == 0
        assert TOKEN in saved.with_name(mode).read_bytes()
        assert TOKEN not in shown.stderr + shown.stdout
        assert TOKEN[:10] not in shown.stderr


def test_a_replayed_recording_can_be_recorded_again(saved):
    again = saved.with_name("again")
    assert replay(saved, "-m", "record", "-w", again).returncode == 0
    assert replay(again).stdout == replay(saved).stdout


def test_hexadecimal(saved):
    assert b"63 6f 72 72 65 63 74 2d" in replay(saved, "--hex").stdout


def test_a_reader_that_goes_away_is_no_failure(tmp_path):
    path = tmp_path / "large"
    path.write_bytes(recording(*[plaintext_record(b"x" * 16384) * 20] * 20))
    with subprocess.Popen(
        [sys.executable, "-m", "ecapture", "replay", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdout.read(1000)
        process.stdout.close()
        told = process.stderr.read()
    assert process.returncode == 0
    assert told.startswith(b"summary: ")


def test_a_full_disk_is_told_with_the_summary(saved):
    shown = replay(saved, "-w", "/dev/full")
    assert shown.returncode == 6
    assert b"summary: " in shown.stderr
    assert b"No space left" in shown.stderr


def test_packets_are_not_in_a_recording(saved):
    refused = replay(saved, "-m", "pcap", "-w", "x")
    assert refused.returncode == 2
    assert b"-m keylog" in refused.stderr


def test_a_file_that_cannot_be_set_aside_is_told(saved):
    old = saved.with_name("x" * 250)  # a dated name is too long
    old.write_text("old")
    shown = replay(saved, "-w", old, "--eventrotatesize", "1")
    assert shown.returncode == SinkError.exit_code
    told = shown.stderr.decode().splitlines()
    assert told[0].startswith("summary: events=0 ")
    assert told[1].startswith(f"ecapture: {old}: ")
    assert old.read_text() == "old"
