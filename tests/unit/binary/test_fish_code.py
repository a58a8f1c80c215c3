# SPDX-License-Identifier: Apache-2.0
"""The call by which fish runs what is typed is found by code alone, or not.

No build has names to compare with: what was found is checked against what it must be, and by
captures of real shells (``tests/capture/test_fish.py``).
"""

from __future__ import annotations

import contextlib
import random
import shutil
import sys
from pathlib import Path

import pytest

from ecapture._wire import WideStatus, WideText
from ecapture.binary import code_search
from ecapture.binary.code_search import CodeSearch
from ecapture.binary.elf import ElfFile
from ecapture.binary.fish_code import find_fish, find_named_fish
from ecapture.binary.secrets.operations import Call
from ecapture.errors import NotExecutable

FISH = Path(shutil.which("fish") or "/bin/fish").resolve()
FUNCTIONS = {"eval.call", "eval.returned", "reader.next"}
pytestmark = pytest.mark.needs("program:fish")


def find(path):
    with ElfFile(path) as elf:
        if elf.machine != "x86_64":
            pytest.skip("only code for x86_64 is looked into")
        return find_fish(elf)


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
    assert set(found.evidence) == FUNCTIONS
    assert all(why.endswith("; starts there by frame-table") for why in found.evidence.values())


@pytest.mark.parametrize("path", ["/bin/true", sys.executable, "/bin/bash"])
def test_other_programs_have_none_of_it(path):
    found = find(path)
    assert (found.functions, found.variables, found.evidence) == ({}, {}, {})
    assert found.reason


@pytest.mark.parametrize("text", ["fish_preexec", "fish_postexec", "CMD_DURATION"])
def test_without_one_of_its_texts_it_is_not_recognised(tmp_path, text):
    wide = text.encode("utf-32-le")
    whole = FISH.read_bytes()
    assert whole.count(wide)
    path = tmp_path / "fish"
    path.write_bytes(whole.replace(wide, b"#\0\0\0" * len(text)))
    found = find(path)
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
    """Whatever bytes are wrong, what is still found is what is there."""
    whole = FISH.read_bytes()
    expected = find(FISH)
    numbers = random.Random(9)
    path = tmp_path / "fish"
    for size in (1 << 4, 1 << 8, 1 << 12):
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
        assert found.variables in ({}, expected.variables)
    path.write_bytes(whole[: len(whole) // 2])
    with contextlib.suppress(NotExecutable):
        assert find(path).functions == {}


@pytest.mark.parametrize("bound", ["_MOST_STEPS", "_MOST_CALLS", "_LARGEST"])
def test_work_is_bounded_and_what_is_half_done_is_not_used(monkeypatch, bound):
    monkeypatch.setattr(code_search, bound, 1 << 6)
    found = find(FISH)
    assert (found.functions, found.variables) == ({}, {})
    assert found.reason.endswith("to be looked through")
