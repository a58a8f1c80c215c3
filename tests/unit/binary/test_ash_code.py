# SPDX-License-Identifier: Apache-2.0
"""dash's functions are found by their code alone, in code that is as its source says, or not.

No build has names to compare with: what was found is checked against what the function must do,
and by captures of real shells (``tests/capture/test_sh.py``).
"""

from __future__ import annotations

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

from ecapture.binary.ash_code import find_dash
from ecapture.binary.code_search import CodeSearch
from ecapture.binary.elf import ElfFile
from ecapture.binary.secrets.operations import Return

DASH = program("dash")
TYPED = {"parsecmd", "preadbuffer.return"}
FUNCTIONS = TYPED | {"cmdloop", "evalstring"}
OF_TYPED = {"parsefile", "doprompt", "tokpushback", "exitstatus"}
VARIABLES = OF_TYPED | {"minusc", "cmdloop.end", "arg0", "commandname"}
pytestmark = [pytest.mark.needs("program:dash"), needs_x86_64]


def find(path):
    return found_in(find_dash, path)


def test_all_is_found_and_stands_where_it_must():
    found = find(DASH)
    assert (found.reason, found.unattended) == ("", "")
    assert (set(found.functions), set(found.variables)) == (FUNCTIONS, VARIABLES)
    assert len({*found.functions.values(), *found.variables.values()}) == 12
    with ElfFile(DASH) as elf:
        code = CodeSearch(elf)
        line = found.functions["preadbuffer.return"]
        for name in FUNCTIONS - {"preadbuffer.return"}:
            assert code.functions.is_start(found.functions[name])
            elf.file_offset(found.functions[name], executable=True)
        assert code.image.instruction(line).operations == (Return(),)
        assert code.functions.range_of(line)[0] != line
    assert_all_have_evidence(found, FUNCTIONS, "; starts there by frame-table")


@pytest.mark.parametrize("path", ["/bin/true", sys.executable, "/bin/bash"])
def test_other_programs_have_none_of_it(path):
    assert_nothing_found(find(path))


@pytest.mark.parametrize(
    ("text", "lacks"),
    [
        (b'\nUse "exit" to leave shell.\n\0', "what runs one command after the other"),
        (b"$HOME/.profile\0", "what reads $HOME/.profile"),
        (b"-c requires an argument\0", "what reads the arguments"),
    ],
)
def test_without_one_of_its_texts_it_is_not_recognised(tmp_path, text, lacks):
    assert DASH.read_bytes().count(text) == 1
    found = find(changed(DASH, tmp_path, text, b"#" * (len(text) - 1) + b"\0"))
    assert (found.functions, found.variables) == ({}, {})
    assert found.reason == f"{lacks} is not to be told from the rest"


def test_without_names_of_files_the_rest_is_found(tmp_path):
    found = find(changed(DASH, tmp_path, b"%s: %d: \0", b"%s: %u: \0"))
    assert (found.reason, found.unattended) == ("", "")
    assert set(found.variables) == VARIABLES - {"arg0", "commandname"}


def test_a_reader_that_counts_elsewhere_is_none(tmp_path):
    """One whose struct parsefile is another: what is stored to must be what the kernel reads."""
    with ElfFile(DASH) as elf:
        code = CodeSearch(elf)
        start, end = code.functions.range_of(find(DASH).functions["preadbuffer.return"])
        offset = elf.file_offset(start, executable=True)
    whole = bytearray(DASH.read_bytes())
    body = bytes(whole[offset : offset + end - start])
    # mov %reg, 0x14(%reg): lleft is stored to another member
    places = [at for at in range(len(body) - 2) if body[at] == 0x89 and body[at + 2] == 0x14]
    assert places
    for at in places:
        whole[offset + at + 2] = 0x44
    path = tmp_path / "dash"
    path.write_bytes(whole)
    found = find(path)
    assert found.functions == {}
    assert found.reason == "what reads a line is not to be told from the rest"


def test_damage_is_refused_and_never_leads_elsewhere(tmp_path):
    sizes = (1 << 4, 1 << 6, 1 << 8, 1 << 10)
    assert_damage_never_leads_elsewhere(find_dash, DASH, tmp_path, seed=9, sizes=sizes)


@every_bound
def test_work_is_bounded_and_what_is_half_done_is_not_used(monkeypatch, bound):
    assert_work_is_bounded(find_dash, DASH, bound, 1 << 8, monkeypatch)
