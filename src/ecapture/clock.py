# SPDX-License-Identifier: Apache-2.0
"""Kernel time to wall time.

Records carry CLOCK_BOOTTIME, which runs on while the machine sleeps. The distance to wall time is
sampled once per session, so that times of one capture never jump against each other.
"""

from __future__ import annotations

import time


def wall_offset_ns(samples: int = 5) -> int:
    """Nanoseconds to add to CLOCK_BOOTTIME to get nanoseconds since 1970.

    Of several samples the one taken in the shortest time is the most exact.
    """
    best_width, best = 1 << 62, 0
    for _ in range(samples):
        before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        wall = time.clock_gettime_ns(time.CLOCK_REALTIME)
        after = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        if after - before < best_width:
            best_width, best = after - before, wall - (before + after) // 2
    return best
