# SPDX-License-Identifier: Apache-2.0
"""What is remembered is found again; what anybody else could have written is not believed."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

import msgspec
import pytest

from ecapture.binary import cache as module
from ecapture.binary.cache import Cache, rules
from ecapture.binary.library import Library

LIBRARY = Library(
    kind="openssl",
    linkage="shared",
    how="dynsym",
    visible=True,
    version="OpenSSL 3.0.1",
    functions={"SSL_read": 4096},
)
SETTLED = Path("/bin/bash").stat()
OTHER = Path("/etc/passwd").stat()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "caches" / "ecapture"


def test_remembers_from_run_to_run(folder: Path) -> None:
    with Cache(folder) as cache:
        assert cache.lookup(SETTLED) == (False, None)
        cache.remember(SETTLED, LIBRARY)
        cache.remember(OTHER, None)
    again = Cache(folder)
    assert again.lookup(SETTLED) == (True, LIBRARY)
    assert again.lookup(OTHER) == (True, None)
    assert stat.S_IMODE((folder / "binaries.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [path.name for path in folder.iterdir()] == ["binaries.json"]


def test_knows_a_changed_file_for_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SETTLED_NS", 0)
    path = tmp_path / "file"
    path.write_bytes(b"one")
    before = path.stat()
    cache = Cache(None)
    cache.remember(before, LIBRARY)
    assert cache.lookup(path.stat())[0]
    path.write_bytes(b"two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a forger would
    if path.stat().st_ctime_ns != before.st_ctime_ns:
        assert not cache.lookup(path.stat())[0]
    path.write_bytes(b"three")
    assert not cache.lookup(path.stat())[0]


def test_does_not_trust_a_file_that_just_changed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = Cache(None)
    cache.remember((tmp_path / "file").stat(), LIBRARY)
    assert not cache.lookup((tmp_path / "file").stat())[0]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b'{"schema":1}',
        b"\xff\xfe",
        b'{"schema":1,"rules":1,"libraries":3}',
    ],
    ids=["empty", "cut", "deep", "short", "binary", "wrong type"],
)
def test_ignores_damage_and_repairs_it(folder: Path, content: bytes) -> None:
    folder.mkdir(parents=True, mode=0o700)
    (folder / "binaries.json").write_bytes(content)
    with Cache(folder) as cache:
        assert cache.lookup(SETTLED) == (False, None)
        cache.remember(SETTLED, LIBRARY)
    assert Cache(folder).lookup(SETTLED) == (True, LIBRARY)


@pytest.mark.parametrize("field", ["schema", "rules"])
def test_forgets_what_older_rules_said(folder: Path, field: str) -> None:
    with Cache(folder) as cache:
        cache.remember(SETTLED, LIBRARY)
    file = folder / "binaries.json"
    stored = msgspec.json.decode(file.read_bytes())
    stored[field] -= 1
    file.write_bytes(msgspec.json.encode(stored))
    assert Cache(folder).lookup(SETTLED) == (False, None)


def test_forgets_what_other_code_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Cache(folder) as cache:
        cache.remember(SETTLED, LIBRARY)
    other = folder.parent / "cache.py"
    other.write_text("another way to judge")
    rules.cache_clear()
    monkeypatch.setattr("ecapture.binary.cache.__file__", str(other))
    try:
        assert Cache(folder).lookup(SETTLED) == (False, None)
    finally:
        rules.cache_clear()


def test_never_follows_a_link(folder: Path, tmp_path: Path) -> None:
    with Cache(folder) as cache:
        cache.remember(SETTLED, LIBRARY)
    victim = tmp_path / "victim"
    (folder / "binaries.json").rename(victim)
    content = victim.read_bytes()
    (folder / "binaries.json").symlink_to(victim)
    with Cache(folder) as cache:
        assert cache.lookup(SETTLED) == (False, None)
        cache.remember(OTHER, None)
    assert victim.read_bytes() == content
    assert not (folder / "binaries.json").is_symlink()
    link = tmp_path / "link"
    link.symlink_to(folder)
    with Cache(link) as cache:
        assert cache.lookup(OTHER) == (False, None)
        cache.remember(SETTLED, LIBRARY)
    assert Cache(folder).lookup(SETTLED) == (False, None)


def test_believes_nothing_that_others_may_write(folder: Path) -> None:
    with Cache(folder) as cache:
        cache.remember(SETTLED, LIBRARY)
    for path, mode, good in ((folder, 0o777, 0o700), (folder / "binaries.json", 0o666, 0o600)):
        path.chmod(mode)
        assert Cache(folder).lookup(SETTLED) == (False, None)
        path.chmod(good)
    assert Cache(folder).lookup(SETTLED) == (True, LIBRARY)


def test_survives_places_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for folder in (tmp_path / "file" / "x", tmp_path / "file", Path("/proc/none"), None):
        with Cache(folder) as cache:
            assert cache.lookup(SETTLED) == (False, None)
            cache.remember(SETTLED, LIBRARY)
            assert cache.lookup(SETTLED) == (True, LIBRARY)


def test_keeps_the_entries_used_last(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_ENTRIES", 1)
    with Cache(folder) as cache:
        cache.remember(SETTLED, LIBRARY)
        cache.remember(OTHER, None)
    assert Cache(folder).lookup(OTHER) == (True, None)
    assert Cache(folder).lookup(SETTLED) == (False, None)


def test_belongs_to_the_user_it_runs_as(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SUDO_UID", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Cache.of_user().folder == tmp_path / "ecapture"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    own = Path(pwd.getpwuid(os.geteuid()).pw_dir)
    assert Cache.of_user().folder == own / ".cache" / "ecapture"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("SUDO_UID", "1000")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert Cache.of_user().folder == Path("/root/.cache/ecapture")


def test_what_is_no_text_costs_nobody_the_rest(folder: Path) -> None:
    with Cache(folder) as cache:
        cache.remember(SETTLED, LIBRARY)
        cache.remember(OTHER, msgspec.structs.replace(LIBRARY, soname="lib\udcff.so"))
    assert Cache(folder).lookup(OTHER) == (False, None)
    assert Cache(folder).lookup(SETTLED) == (True, LIBRARY)
