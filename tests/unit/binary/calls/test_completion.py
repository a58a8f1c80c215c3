# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os

import msgspec

from ecapture.binary.calls.completion import CallsCache, Completion, is_open
from ecapture.binary.library import NAMELESS, Library

OPEN = Library(
    kind="openssl",
    linkage="static-hidden",
    how="content",
    visible=False,
    reason=NAMELESS,
    machine="x86_64",
)


def test_only_what_might_be_found_is_looked_for():
    assert is_open(OPEN)
    assert not is_open(msgspec.structs.replace(OPEN, reason="made for another machine"))
    assert not is_open(msgspec.structs.replace(OPEN, kind="gnutls"))
    assert not is_open(msgspec.structs.replace(OPEN, machine="riscv64"))


def test_a_judgement_is_remembered(nameless, tmp_path, monkeypatch):
    library = nameless("named")
    os.utime(library.path)
    status = library.path.stat()
    monkeypatch.setattr("time.time_ns", lambda: status.st_ctime_ns + 10_000_000_000)
    first = Completion(CallsCache(tmp_path / "cache"))
    found = first.of(str(library.path), OPEN)
    first.save()
    second = Completion(CallsCache(tmp_path / "cache"))
    monkeypatch.setattr("ecapture.binary.calls.locate.complete", None)
    assert second.of(str(library.path), OPEN) == found
    assert second.quick(library.path.stat(), OPEN)


def test_large_files_wait_unless_they_are_known(tmp_path):
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 30)
        status = os.fstat(file.fileno())
    completion = Completion(CallsCache(None))
    assert not completion.quick(status, OPEN)
    assert completion.quick(status, msgspec.structs.replace(OPEN, visible=True, reason=""))
