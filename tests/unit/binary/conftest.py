# SPDX-License-Identifier: Apache-2.0
"""Real ELF files, compiled once a session, for tests that must agree with binutils."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Compile = Callable[..., Path]


@pytest.fixture(scope="session")
def compile_c(tmp_path_factory: pytest.TempPathFactory) -> Compile:
    """Return a function that compiles C text with gcc's options to a file and returns its path."""
    folder = tmp_path_factory.mktemp("built")

    def build(text: str, *options: str, name: str = "built") -> Path:
        place = folder / str(len(list(folder.iterdir())))
        place.mkdir()
        (place / "source.c").write_text(text)
        result = place / name
        subprocess.run(
            ["gcc", "-O1", "-w", "-o", str(result), str(place / "source.c"), *options],
            check=True,
            capture_output=True,
        )
        return result

    return build


@pytest.fixture
def run_with(request: pytest.FixtureRequest) -> Callable[[Path], int]:
    """Return a function that starts a process which has loaded a library, and returns its pid."""

    def start(library: Path) -> int:
        program = (
            "import ctypes, sys; ctypes.CDLL(sys.argv[1]); print(flush=True); sys.stdin.read()"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(library)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

        def stop() -> None:
            process.communicate()

        request.addfinalizer(stop)
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n", "the library is loaded"
        return process.pid

    return start
