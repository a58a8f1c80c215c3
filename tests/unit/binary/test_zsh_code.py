# SPDX-License-Identifier: Apache-2.0
"""What zsh's functions are by their code is what their names say, and nothing is found elsewhere.

Stripped builds of other releases are tried in tests/capture, where what is found is put to use.
"""

from __future__ import annotations

import struct
import sys

import pytest
from shell_searches import (
    assert_all_have_evidence,
    assert_damage_never_leads_elsewhere,
    assert_nothing_found,
    assert_work_is_bounded,
    changed,
    every_bound,
    found_in,
    needs_x86_64,
    program,
)

from ecapture.binary.code_search import CodeSearch
from ecapture.binary.elf import ElfFile
from ecapture.binary.zsh_code import find_zsh
from ecapture.protocols.zsh_program import TOKENS

ZSH = program("zsh")
TYPED = ("hbegin", "hend")
FUNCTIONS = (*TYPED, "execode", "execstring")
OF_TYPED = ("lastval", "chline", "hptr")
VARIABLES = (*OF_TYPED, "scriptfilename")
pytestmark = needs_x86_64


def find(path):
    return found_in(find_zsh, path)


@pytest.mark.needs("program:zsh")
def test_it_agrees_with_the_names_of_a_build_that_has_them():
    found = find(ZSH)
    assert (found.reason, found.unattended) == ("", "")
    with ElfFile(ZSH) as elf:
        assert found.functions == {name: elf.symbol(name).address for name in FUNCTIONS}
        assert found.variables == {
            name: elf.symbol(name, variable=True).address for name in VARIABLES
        }
    assert_all_have_evidence(found, FUNCTIONS, "; starts there by frame-table")


@pytest.mark.parametrize("path", ["/bin/true", sys.executable, "/bin/sh", "/bin/bash"])
def test_other_programs_have_none_of_it(path):
    assert_nothing_found(find(path))


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
    found = find(changed(ZSH, tmp_path, text, b"\0" + text[-2:0:-1] + b"\0"))
    assert (found.functions, found.variables) == ({}, {})
    assert found.reason == f"{lacks} is not to be told from the rest"


@pytest.mark.needs("program:zsh")
def test_of_one_that_keeps_programs_otherwise_only_what_is_typed_is_known(tmp_path):
    found = find(changed(ZSH, tmp_path, TOKENS, TOKENS[::-1]))
    assert (found.reason, found.unattended) == (
        "",
        "it keeps what it parsed in a form of its own",
    )
    assert (set(found.functions), set(found.variables)) == (set(TYPED), set(OF_TYPED))


@pytest.mark.needs("program:zsh")
def test_damage_is_refused_and_never_leads_elsewhere(tmp_path):
    sizes = (1 << 6, 1 << 10, 1 << 12)
    assert_damage_never_leads_elsewhere(find_zsh, ZSH, tmp_path, seed=9, sizes=sizes)


@pytest.mark.needs("program:zsh")
@every_bound
def test_work_is_bounded_and_what_is_half_done_is_not_used(monkeypatch, bound):
    assert_work_is_bounded(find_zsh, ZSH, bound, 1 << 10, monkeypatch)


@pytest.mark.needs("program:zsh")
def test_rows_that_only_look_like_the_table_of_parameters_are_not_read_for_ever(tmp_path):
    """Pointers to the name of HISTCMD fill a part of their own, where PT_NOTE was."""
    whole = bytearray(ZSH.read_bytes())
    with ElfFile(ZSH) as elf:
        [name] = CodeSearch(elf).addresses((b"\0HISTCMD\0",))
        number = next(n for n, part in enumerate(elf.segments) if part.type == 4)
    pointers = (name + 1).to_bytes(8, "little") * (1 << 17)
    part = struct.pack(
        "<IIQQQQQQ", 1, 4, len(whole), 1 << 40, 1 << 40, len(pointers), len(pointers), 8
    )
    at = int.from_bytes(whole[32:40], "little") + number * len(part)
    whole[at : at + len(part)] = part
    path = tmp_path / "zsh"
    path.write_bytes(bytes(whole) + pointers)
    found = find(path)
    assert_nothing_found(found)
    assert found.reason == "it takes too long to be looked through"
