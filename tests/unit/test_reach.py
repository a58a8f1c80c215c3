# SPDX-License-Identifier: Apache-2.0
"""Whether anybody can still get at a file, of real processes and files."""

import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from ecapture.reach import Reach, is_here, out_of_reach

MAPS = """
import mmap, sys
with open(sys.argv[1], "rb") as file:
    held = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_EXEC)
print("mapped", flush=True)
sys.stdin.read()
"""


@contextmanager
def mapping(path, *prefix):
    """A process that has the file mapped to be executed; its number."""
    words = [*prefix, sys.executable, "-c", MAPS, str(path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"mapped\n"
            yield process.pid
        finally:
            process.stdin.close()
            process.wait()


@pytest.fixture
def file(tmp_path):
    return Path(shutil.copy("/bin/true", tmp_path / "file"))


def reach_of(file, pid=0, **how):
    return Reach(str(file), how.pop("name", str(file)), pid, **how)


def test_a_name_is_enough_and_goes_when_another_file_has_it(file, tmp_path):
    reach = reach_of(file)
    assert out_of_reach([reach]) == []
    shutil.copy(file, tmp_path / "new")
    (tmp_path / "new").rename(file)
    assert out_of_reach([reach]) == [reach]


def test_a_mapping_is_enough_also_if_another_process_has_it(file):
    with mapping(file) as second:
        with mapping(file) as first:
            reach = reach_of(file, first)
            file.unlink()
            assert out_of_reach([reach]) == []
        assert out_of_reach([reach]) == []
        assert reach.pid == second
        assert [path for path in reach.paths() if path.startswith(f"/proc/{second}/map_files/")]
    assert out_of_reach([reach]) == [reach]


def test_a_file_that_had_no_name_when_it_was_seen(file):
    with mapping(file) as pid:
        file.unlink()
        (mapped,) = [
            f"/proc/{pid}/map_files/{line.split()[0]}"
            for line in Path(f"/proc/{pid}/maps").read_text().splitlines()
            if f"{file} (deleted)" in line and " r-xp " in line
        ]
        reach = Reach(mapped, f"{file} (deleted)", pid)
        assert out_of_reach([reach]) == []
    assert out_of_reach([reach]) == [reach]


def test_of_a_name_that_leads_elsewhere_from_here_nothing_is_known(file):
    with mapping(file) as pid:
        reach = reach_of(file, pid, name="/in/its/root")
    assert out_of_reach([reach]) == []


def test_of_one_process_only_that_counts(file):
    with mapping(file) as pid:
        reach = reach_of(file, pid, only=pid)
        assert out_of_reach([reach]) == []
    assert out_of_reach([reach]) == [reach]


def test_a_file_is_here_by_its_name_only(file, tmp_path):
    status = file.stat()
    assert is_here(str(file), status.st_dev, status.st_ino)
    assert not is_here(str(tmp_path), status.st_dev, status.st_ino)
    file.rename(tmp_path / "renamed")
    assert not is_here(str(file), status.st_dev, status.st_ino)
    assert not is_here("with\0zero", status.st_dev, status.st_ino)
