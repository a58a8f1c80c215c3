# SPDX-License-Identifier: Apache-2.0
"""Which processes run a file. That they are hooked is tested with a server."""

from __future__ import annotations

import os
from pathlib import Path

from ecapture.kernel.latecomers import processes_of


def test_processes_are_found_by_the_file_itself() -> None:
    assert os.getpid() in processes_of(Path("/proc/self/exe").stat())


def test_a_file_that_nobody_runs(tmp_path: Path) -> None:
    assert processes_of(tmp_path.stat()) == []
