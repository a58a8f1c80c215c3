# SPDX-License-Identifier: Apache-2.0
"""What is asked of every search for a shell's functions in code without names.

A search is a function that takes an open file and says what it found (``binary.code_search``).
"""

from __future__ import annotations

import contextlib
import platform
import random
import shutil
from collections.abc import Callable, Collection
from pathlib import Path

import pytest

from ecapture.binary import code_search
from ecapture.binary.code_search import Found
from ecapture.binary.elf import ElfFile
from ecapture.errors import NotExecutable

Search = Callable[[ElfFile], Found]

needs_x86_64 = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="only code for x86_64 is looked into"
)
every_bound = pytest.mark.parametrize("bound", ["_MOST_STEPS", "_MOST_CALLS", "_LARGEST"])


def program(name: str) -> Path:
    """Where a shell is; where it would be, if it is not installed."""
    return Path(shutil.which(name) or f"/bin/{name}").resolve()


def found_in(search: Search, path: Path | str) -> Found:
    with ElfFile(path) as elf:
        return search(elf)


def changed(shell: Path, folder: Path, text: bytes, other: bytes) -> Path:
    """A copy in which another text stands wherever this one stood; it must have stood somewhere."""
    whole = shell.read_bytes()
    assert text in whole
    copy = folder / shell.name
    copy.write_bytes(whole.replace(text, other))
    return copy


def assert_nothing_found(found: Found) -> None:
    assert (found.functions, found.variables, found.evidence) == ({}, {}, {})
    assert found.reason


def assert_all_have_evidence(found: Found, names: Collection[str], proof: str) -> None:
    assert set(found.evidence) == set(names)
    assert all(why.endswith(proof) for why in found.evidence.values())


def assert_damage_never_leads_elsewhere(
    search: Search,
    shell: Path,
    folder: Path,
    *,
    seed: int,
    sizes: Collection[int],
    with_variables: bool = False,
) -> None:
    """Whatever bytes are wrong, functions that are still found are where they were."""
    whole = shell.read_bytes()
    expected = found_in(search, shell)
    numbers = random.Random(seed)
    path = folder / shell.name
    for size in sizes:
        damaged = bytearray(whole)
        for _ in range(size):
            damaged[numbers.randrange(64, len(damaged))] = numbers.randrange(256)
        path.write_bytes(damaged)
        try:
            found = found_in(search, path)
        except NotExecutable:
            continue
        for name, address in found.functions.items():
            assert address == expected.functions[name]
        if with_variables:
            assert found.variables in ({}, expected.variables)
    path.write_bytes(whole[: len(whole) // 2])
    with contextlib.suppress(NotExecutable):
        assert found_in(search, path).functions == {}


def assert_work_is_bounded(
    search: Search, shell: Path, bound: str, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With less work than the search takes nothing is found: what is half done is not used."""
    monkeypatch.setattr(code_search, bound, limit)
    found = found_in(search, shell)
    assert_nothing_found(found)
    assert found.reason.endswith("to be looked through")
