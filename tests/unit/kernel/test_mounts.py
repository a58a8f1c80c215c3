# SPDX-License-Identifier: Apache-2.0
"""Whatever way a file is hooked by, it is that very file. (That its mount stays free: capture/.)"""

import os
from pathlib import Path

import pytest

from ecapture.kernel.mounts import unheld


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_text("this")
    return path


@pytest.mark.parametrize("name", ["its own", "none", "another's", "gone"])
def test_the_path_leads_to_the_file(file, tmp_path, name):
    another = tmp_path / "another"
    another.write_text("that")
    names = {"its own": str(file), "none": "", "another's": str(another), "gone": "/nonexistent"}
    fd = os.open(file, os.O_RDONLY)
    try:
        with unheld(f"/proc/self/fd/{fd}", names[name]) as path:
            assert Path(path).read_text() == "this"
    finally:
        os.close(fd)


def test_no_descriptor_stays_open(file):
    before = os.listdir("/proc/self/fd")  # noqa: PTH208
    with unheld(str(file)), unheld(str(file), str(file)):
        pass
    assert os.listdir("/proc/self/fd") == before  # noqa: PTH208
