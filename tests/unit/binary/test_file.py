# SPDX-License-Identifier: Apache-2.0
"""Reading foreign files: exact bytes or one of three errors, also when the file changes."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecapture.binary import file as module
from ecapture.binary.file import CHUNK, ForeignFile, ranges_within
from ecapture.errors import NotExecutable, PermissionMissing, TargetNotFound


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    path = tmp_path / "plain"
    path.write_bytes(bytes(range(256)) * 16)
    return path


def test_reads_exactly_what_is_asked(plain: Path) -> None:
    with ForeignFile(plain) as file:
        assert file.read(3, 4) == b"\x03\x04\x05\x06"
        assert file.read(4096, 0) == b""


@pytest.mark.parametrize(("offset", "length"), [(-1, 2), (4095, 2), (1 << 63, 1), (0, CHUNK + 1)])
def test_refuses_bytes_that_are_not_there(plain: Path, offset: int, length: int) -> None:
    with ForeignFile(plain) as file, pytest.raises(NotExecutable):
        file.read(offset, length)


def test_survives_a_file_that_shrinks(plain: Path) -> None:
    with ForeignFile(plain) as file:
        os.truncate(plain, 10)
        with pytest.raises(NotExecutable, match="while it was read"):
            file.read(0, 4096)


def test_takes_a_descriptor_without_owning_it(plain: Path) -> None:
    fd = os.open(plain, os.O_RDONLY)
    try:
        ForeignFile(fd).close()
        assert os.pread(fd, 2, 0) == b"\x00\x01"
    finally:
        os.close(fd)


def test_closes_its_descriptor(plain: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with ForeignFile(plain):
        pass
    with pytest.raises(NotExecutable):
        ForeignFile(plain.parent)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_says_what_is_wrong_with_a_path(plain: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for refused in (tmp_path, tmp_path / "fifo", "/dev/null", "/etc/pass\0wd"):
        with pytest.raises(NotExecutable):
            ForeignFile(refused)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(NotExecutable):
        ForeignFile(tmp_path / "loop")
    for missing in (tmp_path / "none", plain / "none"):
        with pytest.raises(TargetNotFound):
            ForeignFile(missing)


def test_says_that_a_right_is_missing(plain: Path) -> None:
    plain.chmod(0)
    user = os.geteuid()
    if user == 0:  # whom no mode stops
        os.seteuid(65534)
    try:
        with pytest.raises(PermissionMissing):
            ForeignFile(plain)
    finally:
        os.seteuid(user)


def test_reads_strings(plain: Path) -> None:
    plain.write_bytes(b"one\0two")
    with ForeignFile(plain) as file:
        assert file.text(0, 100) == "one"
        for offset, limit in ((4, 100), (0, 3), (7, 100), (99, 1)):
            with pytest.raises(NotExecutable):
                file.text(offset, limit)


@given(
    length=st.integers(0, 400),
    chunk=st.integers(8, 64),
    overlap=st.integers(0, 7),
    start=st.integers(0, 50),
)
def test_blocks_cover_the_range_and_overlap(
    tmp_path_factory: pytest.TempPathFactory, length: int, chunk: int, overlap: int, start: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "blocks"
    content = bytes(i * 7 % 251 for i in range(300))
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch, ForeignFile(path) as file:
        patch.setattr(module, "CHUNK", chunk)
        rebuilt, last = b"", start
        for offset, block in file.blocks(start, length, overlap):
            assert offset == last
            rebuilt = rebuilt[: offset - start] + block
            last = offset + len(block) - overlap
        assert rebuilt == content[start : start + length]


def test_finds_markers_across_block_borders(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain.write_bytes(b"." * 61 + b"needle" + b"." * 61 + b"pin-1.2.3" + b"." * 9)
    monkeypatch.setattr(module, "CHUNK", 64)
    with ForeignFile(plain) as file:
        assert file.search(((0, file.size),), b"needle", b"pin", b"none") == {
            b"needle": 61,
            b"pin": 128,
        }
        assert file.search(((0, 66),), b"needle") == {}
    monkeypatch.setattr(module, "CHUNK", 300)
    with ForeignFile(plain) as file:
        found = list(file.matches(((0, file.size),), b"pin-", re.compile(rb"pin-([\d.]{5})")))
        assert [match[1] for match in found] == [b"1.2.3"]


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=12))
def test_ranges_hold_the_same_bytes_once(parts: list[tuple[int, int]]) -> None:
    ranges = ranges_within(50, parts)
    wanted = {at for start, length in parts for at in range(start, start + length) if at < 50}
    covered = [at for start, length in ranges for at in range(start, start + length)]
    assert covered == sorted(wanted)
