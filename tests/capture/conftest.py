# SPDX-License-Identifier: Apache-2.0
"""Real probes on real programs: fixtures that every capture test starts from."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from harness import Captured, Watched
from peers import Peer, programs


@pytest.fixture(scope="session")
def open_folder() -> Iterator[Path]:
    """A directory that every user can read, which pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="ecapture-tests-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="session")
def tlspeer(open_folder: Path) -> Path:
    """The program that says one known thing, linked to the distribution's libssl."""
    return programs.build("tlspeer", open_folder)


@pytest.fixture
def peer(tlspeer: Path) -> Iterator[Callable[..., Peer]]:
    """``peer("pair", ...)`` starts tlspeer; what still runs at the end of the test is killed."""
    with ExitStack() as stack:
        yield lambda *words, **how: stack.enter_context(
            Peer(how.pop("program", tlspeer), *words, **how)
        )


@pytest.fixture
def capture(tmp_path: Path) -> Iterator[Callable[..., Captured]]:
    """``capture("--pid", "1", ...)`` starts ``ecapture tls`` and waits for its probes."""
    with ExitStack() as stack:
        yield lambda *options, **how: stack.enter_context(Captured(tmp_path, *options, **how))


@pytest.fixture
def watch() -> Iterator[Callable[..., Watched]]:
    """``watch(CaptureConfig(...), stages)`` captures in this process, through the library."""
    with ExitStack() as stack:
        yield lambda config, stages=(): stack.enter_context(Watched(config, stages))
