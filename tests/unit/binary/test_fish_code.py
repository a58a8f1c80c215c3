# SPDX-License-Identifier: Apache-2.0
"""The call by which fish runs what is typed is found by code alone, or not.

No build has names to compare with: what was found is checked against what it must be, and by
captures of real shells (``tests/capture/test_fish.py``).
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

from ecapture._wire import WideStatus, WideText
from ecapture.binary.code_search import CodeSearch
from ecapture.binary.elf import ElfFile
from ecapture.binary.fish_code import find_fish, find_named_fish
from ecapture.binary.secrets.operations import Call

FISH = program("fish")
FUNCTIONS = {"eval.call", "eval.returned", "reader.next"}
pytestmark = [pytest.mark.needs("program:fish"), needs_x86_64]


def find(path):
    return found_in(find_fish, path)


def test_all_is_found_and_stands_where_it_must():
    found = find(FISH)
    assert (found.reason, set(found.functions)) == ("", FUNCTIONS)
    assert found.variables == {"wide_text": WideText.STRING, "wide_status": WideStatus.RETURNED}
    assert "-c is not looked for" in found.unattended
    with ElfFile(FISH) as elf:
        code = CodeSearch(elf)
        call = code.image.instruction(found.functions["eval.call"])
        assert isinstance(call.operations[0], Call)
        assert code.functions.is_start(call.operations[0].target)
        assert call.end == found.functions["eval.returned"]
        runner, end = code.functions.range_of(found.functions["eval.call"])
        assert runner < found.functions["eval.call"] < end
        assert found.functions["eval.call"] in code.body(runner)
        assert find_named_fish(elf) is None
    assert_all_have_evidence(found, FUNCTIONS, "; starts there by frame-table")


@pytest.mark.parametrize("path", ["/bin/true", sys.executable, "/bin/bash"])
def test_other_programs_have_none_of_it(path):
    assert_nothing_found(find(path))


@pytest.mark.parametrize("text", ["fish_preexec", "fish_postexec", "CMD_DURATION"])
def test_without_one_of_its_texts_it_is_not_recognised(tmp_path, text):
    wide = text.encode("utf-32-le")
    found = find(changed(FISH, tmp_path, wide, b"#\0\0\0" * len(text)))
    assert (found.functions, found.variables) == ({}, {})
    assert found.reason == "what runs what was typed is not to be told from the rest"


@pytest.mark.parametrize(
    ("number", "other", "lacks"),
    [
        # movl $0x7b00, (stack): what a text that is no command returns
        (b"\x00\x7b\x00\x00", b"\x00\x7c\x00\x00", "what evaluates a text"),
        # movl $0x7b, (%rax): what $status becomes then
        (b"\xc7\x00\x7b\x00\x00\x00", b"\xc7\x00\x7c\x00\x00\x00", "what evaluates a text"),
        # lea (%rsi,%rdx,4), %rdx: the end of a text
        (b"\x48\x8d\x14\x96", b"\x48\x8d\x14\x56", "how a text is handed over"),
    ],
)
def test_what_evaluates_texts_otherwise_is_not_it(tmp_path, number, other, lacks):
    with ElfFile(FISH) as elf:
        code = CodeSearch(elf)
        call = code.image.instruction(find(FISH).functions["eval.call"])
        start, end = code.functions.range_of(call.operations[0].target)
        offset = elf.file_offset(start, executable=True)
    whole = bytearray(FISH.read_bytes())
    body = bytes(whole[offset : offset + end - start])
    assert number in body
    whole[offset : offset + end - start] = body.replace(number, other)
    path = tmp_path / "fish"
    path.write_bytes(whole)
    found = find(path)
    assert found.functions == {}
    assert found.reason == f"{lacks} is not to be told from the rest"


def test_without_a_count_of_lines_the_rest_is_found(tmp_path):
    expected = find(FISH)
    with ElfFile(FISH) as elf:
        offset = elf.file_offset(expected.functions["reader.next"], executable=True) - 9
    whole = bytearray(FISH.read_bytes())
    assert whole[offset : offset + 2] == b"\xf0\x48"  # lock add, whose prefix becomes a nop
    whole[offset] = 0x90
    path = tmp_path / "fish"
    path.write_bytes(whole)
    found = find(path)
    assert found.functions.items() == expected.functions.items() - {
        ("reader.next", expected.functions["reader.next"])
    }
    assert found.variables == expected.variables


def test_damage_is_refused_and_never_leads_elsewhere(tmp_path):
    sizes = (1 << 4, 1 << 8, 1 << 12)
    assert_damage_never_leads_elsewhere(
        find_fish, FISH, tmp_path, seed=9, sizes=sizes, with_variables=True
    )


@every_bound
def test_work_is_bounded_and_what_is_half_done_is_not_used(monkeypatch, bound):
    assert_work_is_bounded(find_fish, FISH, bound, 1 << 6, monkeypatch)
