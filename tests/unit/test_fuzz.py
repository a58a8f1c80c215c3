# SPDX-License-Identifier: Apache-2.0
"""Every fuzz script runs and finds nothing in its first inputs; `make fuzz` gives it many."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parent.parent / "fuzz").glob("fuzz_*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_its_invariant_holds(script):
    words = [sys.executable, script, "--inputs", "300"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("300 inputs in ")


def test_there_are_some():
    assert len(SCRIPTS) >= 10
