# SPDX-License-Identifier: Apache-2.0
"""What zsh's functions are by their code is what their names say, and nothing is found elsewhere.

Stripped builds of other releases are tried in tests/capture, where what is found is put to use.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import sys
from pathlib import Path

import pytest

from ecapture.binary import code_search
from ecapture.binary.elf import ElfFile
from ecapture.binary.zsh_code import find_zsh
from ecapture.errors import NotExecutable
from ecapture.protocols.zsh_program import TOKENS

ZSH = Path(shutil.which("zsh") or "/bin/zsh")
TYPED = ("hbegin", "hend")
FUNCTIONS = (*TYPED, "execode", "execstring")
OF_TYPED = ("lastval", "chline", "hptr")
VARIABLES = (*OF_TYPED, "scriptfilename")


def find(path):
    with ElfFile(path) as elf:
        if elf.machine != "x86_64":
            pytest.skip("only code for x86_64 is looked into")
        return find_zsh(elf)


@pytest.mark.needs("program:zsh")
def test_it_agrees_with_the_names_of_a_build_that_has_them():
    found = find(ZSH)
    assert (found.reason, found.unattended) == ("", "")
    with ElfFile(ZSH) as elf:
        assert found.functions == {name: elf.symbol(name).address for name in FUNCTIONS}
        assert found.variables == {
            name: elf.symbol(name, variable=True).address for name in VARIABLES
        }
    assert set(found.evidence) == set(FUNCTIONS)
    assert all(why.endswith("; starts there by frame-table") for why in found.evidence.values())


@pytest.mark.parametrize("path", ["/bin/true", sys.executable, "/bin/sh", "/bin/bash"])
def test_other_programs_have_none_of_it(path):
    found = find(path)
    assert (found.functions, found.variables, found.evidence) == ({}, {}, {})
    assert found.reason


@pytest.mark.needs("program:zsh")
@pytest.mark.parametrize(
    ("text", "lacks"),
    [
        (b"\0zshaddhistory\0", "what ends a command"),
        (b"\0preexec\0", "what runs one command after the other"),
        (b"\0filecode\0", "what reads files"),
        (b"\0cmdarg\0", "what runs the argument of -c"),
        (b"\0HISTCMD\0", "where it keeps $?"),
    ],
)
def test_without_one_of_its_texts_it_is_not_recognised(tmp_path, text, lacks):
    whole = ZSH.read_bytes()
    assert text in whole
    path = tmp_path / "zsh"
    path.write_bytes(whole.replace(text, b"\0" + text[-2:0:-1] + b"\0"))
    found = find(path)
    assert (found.functions, found.variables) == ({}, {})
    assert found.reason == f"{lacks} is not to be told from the rest"


@pytest.mark.needs("program:zsh")
def test_of_one_that_keeps_programs_otherwise_only_what_is_typed_is_known(tmp_path):
    path = tmp_path / "zsh"
    path.write_bytes(ZSH.read_bytes().replace(TOKENS, TOKENS[::-1]))
    found = find(path)
    assert (found.reason, found.unattended) == (
        "",
        "it keeps what it parsed in a form of its own",
    )
    assert (set(found.functions), set(found.variables)) == (set(TYPED), set(OF_TYPED))


@pytest.mark.needs("program:zsh")
def test_damage_is_refused_and_never_leads_elsewhere(tmp_path):
    """Whatever bytes are wrong, what is still found is what is there."""
    whole = ZSH.read_bytes()
    expected = find(ZSH)
    numbers = random.Random(9)
    path = tmp_path / "zsh"
    for size in (1 << 6, 1 << 10, 1 << 12):
        damaged = bytearray(whole)
        for _ in range(size):
            damaged[numbers.randrange(64, len(damaged))] = numbers.randrange(256)
        path.write_bytes(damaged)
        try:
            found = find(path)
        except NotExecutable:
            continue
        for name, address in found.functions.items():
            assert address == expected.functions[name]
    path.write_bytes(whole[: len(whole) // 2])
    with contextlib.suppress(NotExecutable):
        assert find(path).functions == {}


@pytest.mark.needs("program:zsh")
@pytest.mark.parametrize("bound", ["_MOST_STEPS", "_MOST_CALLS", "_LARGEST"])
def test_work_is_bounded_and_what_is_half_done_is_not_used(monkeypatch, bound):
    monkeypatch.setattr(code_search, bound, 1 << 10)
    found = find(ZSH)
    assert (found.functions, found.variables) == ({}, {})
    assert found.reason.endswith("to be looked through")
