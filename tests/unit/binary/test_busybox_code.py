# SPDX-License-Identifier: Apache-2.0
"""The functions of busybox's sh are found by their code alone, or not at all.

No build has names to compare with: what was found is checked against what the function must do,
and by captures of real shells (``tests/capture/test_sh.py``).
"""

from __future__ import annotations

import contextlib
import random
import shutil
import sys
from pathlib import Path

import pytest

from ecapture.binary import code_search
from ecapture.binary.busybox_code import find_busybox
from ecapture.binary.code_search import CodeSearch
from ecapture.binary.elf import ElfFile
from ecapture.binary.secrets.operations import Call, Return
from ecapture.errors import NotExecutable

BUSYBOX = Path(shutil.which("busybox") or "/bin/busybox").resolve()
TYPED = {"parsecmd", "preadbuffer.return"}
FUNCTIONS = TYPED | {"cmdloop", "evalstring"}
VARIABLES = {
    *("parsefile", "doprompt", "ptr_to_globals_misc", "exitstatus.member"),
    *("minusc.member", "cmdloop.end", "arg0.member", "commandname"),
}
pytestmark = pytest.mark.needs("program:busybox")


def find(path):
    with ElfFile(path) as elf:
        if elf.machine != "x86_64":
            pytest.skip("only code for x86_64 is looked into")
        return find_busybox(elf)


def test_all_is_found_and_stands_where_it_must():
    found = find(BUSYBOX)
    assert (found.reason, found.unattended) == ("", "")
    assert (set(found.functions), set(found.variables)) == (FUNCTIONS, VARIABLES)
    with ElfFile(BUSYBOX) as elf:
        code = CodeSearch(elf)
        line = found.functions["preadbuffer.return"]
        assert code.image.instruction(line).operations == (Return(),)
        for name in FUNCTIONS - {"preadbuffer.return"}:
            start = found.functions[name]
            called_from = code.sites[start]
            assert any(Call(start) in code.image.instruction(at).operations for at in called_from)
            elf.file_offset(start, executable=True)
        # both call what reads a command, within what they are held for
        calls = code.sites[found.functions["parsecmd"]]
        loop, end = found.functions["cmdloop"], found.variables["cmdloop.end"]
        assert sum(loop < at < end for at in calls) == 1
        assert sum(found.functions["evalstring"] < at for at in calls) >= 1
    assert set(found.evidence) == FUNCTIONS
    assert all(why.endswith("; a direct call leads there") for why in found.evidence.values())


@pytest.mark.parametrize("path", ["/bin/true", sys.executable, "/bin/bash", "/bin/sh"])
def test_other_programs_have_none_of_it(path):
    found = find(path)
    assert (found.functions, found.variables, found.evidence) == ({}, {}, {})
    assert found.reason


@pytest.mark.parametrize(
    ("text", "lacks"),
    [
        (b'\nUse "exit" to leave shell.\n\0', "what runs one command after the other"),
        (b"$HOME/.profile\0", "what reads $HOME/.profile"),
    ],
)
def test_without_one_of_its_texts_it_is_not_recognised(tmp_path, text, lacks):
    whole = BUSYBOX.read_bytes()
    assert whole.count(text) == 1
    path = tmp_path / "busybox"
    path.write_bytes(whole.replace(text, b"#" * (len(text) - 1) + b"\0"))
    found = find(path)
    assert (found.functions, found.variables) == ({}, {})
    assert found.reason == f"{lacks} is not to be told from the rest"


def test_without_names_of_files_the_rest_is_found(tmp_path):
    path = tmp_path / "busybox"
    path.write_bytes(BUSYBOX.read_bytes().replace(b"\0line %d: \0", b"\0line %u: \0"))
    found = find(path)
    assert (found.reason, found.unattended) == ("", "")
    assert set(found.variables) == VARIABLES - {"arg0.member", "commandname"}


def test_damage_is_refused_and_never_leads_elsewhere(tmp_path):
    """Whatever bytes are wrong, what is still found is what is there."""
    whole = BUSYBOX.read_bytes()
    expected = find(BUSYBOX)
    numbers = random.Random(9)
    path = tmp_path / "busybox"
    for size in (1 << 8, 1 << 10, 1 << 12):
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


@pytest.mark.parametrize("bound", ["_MOST_STEPS", "_MOST_CALLS", "_LARGEST"])
def test_work_is_bounded_and_what_is_half_done_is_not_used(monkeypatch, bound):
    monkeypatch.setattr(code_search, bound, 1 << 8)
    found = find(BUSYBOX)
    assert (found.functions, found.variables) == ({}, {})
    assert found.reason.endswith("to be looked through")
