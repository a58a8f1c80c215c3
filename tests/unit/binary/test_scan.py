# SPDX-License-Identifier: Apache-2.0
"""Every library in use is found once, by a path that leads to it and to nothing else."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ecapture.binary import cache as remembered
from ecapture.binary.cache import Cache
from ecapture.binary.elf import ElfFile
from ecapture.binary.process import mapped_files
from ecapture.binary.scan import Found, Skipped, paths_to, pinned, scan, scan_files
from ecapture.errors import TargetNotFound

RunWith = Callable[[Path], int]
LIBSSL = Path("/usr/lib/x86_64-linux-gnu/libssl.so.3")


def may_follow_map_files() -> bool:
    try:
        return Path(mapped_files(os.getpid())[0].map_files).exists()
    except PermissionError:
        return False


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copy(LIBSSL, tmp_path / "libssl.so.3"))


def only(found: list[Found], status: os.stat_result) -> Found:
    same = [one for one in found if (one.device, one.inode) == (status.st_dev, status.st_ino)]
    assert len(same) == 1
    return same[0]


def test_finds_a_library_once_with_all_its_processes(copy: Path, run_with: RunWith) -> None:
    (copy.parent / "other").hardlink_to(copy)
    pids = [run_with(copy), run_with(copy), run_with(copy.parent / "other")]
    found = only(list(scan(Cache(None))), copy.stat())
    assert found.pids == tuple(sorted(pids))
    assert found.path in (str(copy), str(copy.parent / "other"))
    assert found.name == found.path
    assert found.library.kind == "openssl"
    assert found.library.visible
    with ElfFile(LIBSSL) as elf:
        symbol = elf.symbol("SSL_read")
        assert symbol is not None
        assert found.library.functions["SSL_read"] == elf.file_offset(symbol.address)


def test_looks_only_at_the_processes_asked_for(copy: Path, run_with: RunWith) -> None:
    pid, other = run_with(copy), run_with(LIBSSL)
    found = list(scan(Cache(None), [pid]))
    assert only(found, copy.stat()).pids == (pid,)
    assert all(one.pids == (pid,) for one in found)
    both = list(scan(Cache(None), [pid, other, 2**22 + 1]))
    assert only(both, LIBSSL.stat()).pids == (other,)


def test_finds_what_nobody_maps_yet() -> None:
    found = only(list(scan(Cache(None))), LIBSSL.stat())
    assert found.library.kind == "openssl"


def test_finds_a_library_whose_name_is_gone(copy: Path, run_with: RunWith) -> None:
    pid = run_with(copy)
    status = copy.stat()
    copy.unlink()
    skipped: list[Skipped] = []
    found = list(scan(Cache(None), [pid], skipped))
    if not may_follow_map_files():
        assert any(one.subject == f"{copy} (deleted)" for one in skipped)
        return
    one = only(found, status)
    assert one.name == f"{copy} (deleted)"
    assert one.path.startswith(f"/proc/{pid}/map_files/")
    assert one.library.visible


def test_is_not_led_astray_by_a_file_of_the_same_name(copy: Path, run_with: RunWith) -> None:
    pid = run_with(copy)
    status = copy.stat()
    copy.unlink()
    shutil.copy("/usr/lib/x86_64-linux-gnu/libgnutls.so.30", copy)
    found = list(scan(Cache(None), [pid]))
    assert all(one.inode != copy.stat().st_ino for one in found)
    if may_follow_map_files():
        assert only(found, status).library.kind == "openssl"


def test_pins_the_file_that_was_judged(copy: Path, run_with: RunWith) -> None:
    found = only(list(scan(Cache(None), [run_with(copy)])), copy.stat())
    with pinned(found) as path:
        copy.rename(copy.with_name("moved"))
        shutil.copy("/bin/true", copy)
        assert Path(path).stat().st_ino == found.inode
    with pytest.raises(TargetNotFound), pinned(found):
        pass
    copy.unlink()
    with pytest.raises(TargetNotFound), pinned(found):
        pass


def test_prefers_paths_that_last(copy: Path, run_with: RunWith) -> None:
    pid = run_with(copy)
    file = next(one for one in mapped_files(pid) if one.name == str(copy))
    assert list(paths_to(file)) == [str(copy), f"/proc/{pid}/root{copy}", file.map_files]
    copy.unlink()
    file = next(one for one in mapped_files(pid) if one.name == str(copy))
    assert list(paths_to(file)) == [file.map_files]


def test_uses_what_the_cache_knows(tmp_path: Path) -> None:
    with Cache(tmp_path / "cache") as cache:
        first = list(scan_files(cache, [str(LIBSSL), str(LIBSSL), "/bin/ls", "/none"]))
    assert len(first) == 1
    again = Cache(tmp_path / "cache")
    assert again.lookup(LIBSSL.stat()) == (True, first[0].library)
    assert again.lookup(Path("/bin/ls").stat()) == (True, None)
    assert list(scan_files(again, [str(LIBSSL)])) == first


def test_lists_what_may_not_be_read(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy.chmod(0)
    user = os.geteuid()
    skipped: list[Skipped] = []
    if user == 0:
        os.seteuid(65534)
    try:
        assert list(scan_files(Cache(None), [str(copy)], skipped)) == []
    finally:
        os.seteuid(user)
    assert [one.subject for one in skipped] == [str(copy)]


def test_scans_the_host_fast(tmp_path: Path) -> None:
    with Cache(tmp_path / "cache") as cache:
        list(scan(cache))
    start = time.perf_counter()
    found = list(scan(Cache(tmp_path / "cache")))
    assert time.perf_counter() - start < 20, "25 ms for 230 processes on a quiet machine"
    assert len({(one.device, one.inode) for one in found}) == len(found)


def test_a_library_whose_name_is_no_text_is_remembered(
    compile_c: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "_SETTLED_NS", 0)
    source = "int SSL_read(void *s) { return 1; } int SSL_write(void *s) { return 2; }"
    soname = os.fsdecode(b"-Wl,-soname,lib\xff.so")
    library = compile_c(source, "-shared", "-fPIC", soname, name=os.fsdecode(b"lib\xff.so"))
    with Cache(tmp_path / "cache") as cache:
        (found,) = scan_files(cache, [str(library)])
    assert found.path == str(library)
    assert found.library.soname == r"lib\xff.so"
    assert Cache(tmp_path / "cache").lookup(library.stat()) == (True, found.library)
