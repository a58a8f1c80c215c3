# SPDX-License-Identifier: Apache-2.0
"""Kernel time becomes wall time."""

import time

from ecapture import clock


def test_boot_time_and_offset_make_wall_time():
    offset = clock.wall_offset_ns()
    before = time.time_ns()
    found = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + offset
    after = time.time_ns()
    slack = 50_000_000  # a clock that is being adjusted, or a sample that was interrupted
    assert before - slack <= found <= after + slack


def test_the_sample_taken_in_the_shortest_time_counts(monkeypatch):
    # (before, wall, after) of three samples: the second was interrupted least
    readings = iter([0, 1_000_500, 1_000, 2_000, 1_002_010, 2_020, 3_000, 1_003_900, 4_000])
    monkeypatch.setattr(time, "clock_gettime_ns", lambda _clock: next(readings))
    assert clock.wall_offset_ns(samples=3) == 1_002_010 - 2_010
