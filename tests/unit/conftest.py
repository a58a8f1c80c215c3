# SPDX-License-Identifier: Apache-2.0
"""Lets the tests here and below import what they share (``records``)."""

import sys
from pathlib import Path

import pytest
from hypothesis import settings

from ecapture.kernel.feature import feature

sys.path.insert(0, str(Path(__file__).parent))

# A machine that is busy with something else is slow, not wrong.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture
def without(monkeypatch):
    """Return a function that makes features answer no, until the test ends."""

    def mask(*names):
        monkeypatch.setenv("ECAPTURE_WITHOUT", ",".join(names))
        feature.cache_clear()

    yield mask
    monkeypatch.undo()
    feature.cache_clear()
