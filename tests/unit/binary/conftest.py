# SPDX-License-Identifier: Apache-2.0
"""Real ELF files, compiled once a session, for tests that must agree with binutils."""

from __future__ import annotations

import subprocess
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
