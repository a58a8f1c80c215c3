# SPDX-License-Identifier: Apache-2.0
"""Lets the tests here import what they share, and starts the program they observe.

These tests run in guests with old kernels, too: what a test needs is asked of ``kernel.feature``,
never of a version.
"""

import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from speaking import Hooked, Speaker, compiled, settings  # noqa: E402 - found on that path

from ecapture.kernel.feature import feature  # noqa: E402 - after the other


@pytest.fixture(scope="session")
def speaker_path(tmp_path_factory):
    return compiled(tmp_path_factory.mktemp("speaker"))


@pytest.fixture
def speaker(speaker_path):
    with Speaker(speaker_path) as running:
        yield running


@pytest.fixture
def hooked(speaker):
    with Hooked(speaker, settings()) as programs:
        yield programs


@pytest.fixture
def without(monkeypatch):
    """Return a function that makes features answer no, until the test ends."""

    def mask(*names):
        monkeypatch.setenv("ECAPTURE_WITHOUT", ",".join(names))
        feature.cache_clear()

    yield mask
    monkeypatch.undo()
    feature.cache_clear()
