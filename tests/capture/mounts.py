# SPDX-License-Identifier: Apache-2.0
"""File systems that come and go, and overlays, as containers of one image have them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(place: Path) -> Iterator[Path]:
    """A file system of its own, in memory."""
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=False, capture_output=True)


@contextmanager
def overlaid(below: Path, place: Path) -> Iterator[Path]:
    """A directory once more, as a file system of its own with the same files."""
    with mounted(place):
        for part in ("upper", "work", "whole"):
            (place / part).mkdir()
        parts = f"lowerdir={below},upperdir={place}/upper,workdir={place}/work"
        whole = place / "whole"
        done = subprocess.run(
            ["mount", "-t", "overlay", "overlay", "-o", parts, whole],
            capture_output=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"no overlay can be mounted here: {done.stderr.decode()}")
        try:
            yield whole
        finally:
            subprocess.run(["umount", "-l", whole], check=False, capture_output=True)
