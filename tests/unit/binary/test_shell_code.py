# SPDX-License-Identifier: Apache-2.0
"""What bash's functions are by their code is what their names say, and nothing is found elsewhere.

Stripped builds of other releases are tried in tests/capture, where what is found is put to use.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import sys
from pathlib import Path

import pytest

from ecapture.binary.elf import ElfFile
from ecapture.binary.shell_code import find_bash
from ecapture.errors import NotExecutable

BASH = Path(shutil.which("bash") or "/bin/bash")


def find(path):
    with ElfFile(path) as elf:
        return find_bash(elf)


def by_name(path):
    with ElfFile(path) as elf:
        return (
            {name: elf.symbol(name).address for name in FUNCTIONS},
            {name: elf.symbol(name, variable=True).address for name in VARIABLES},
        )


TYPED = ("parse_command", "reader_loop", "pre_process_line", "readline")
FUNCTIONS = (*TYPED, "execute_command_internal", "run_debug_trap")
VARIABLES = (
    *("last_command_exit_value", "global_command", "interactive", "bash_input"),
    *("the_printed_command", "sourcelevel", "command_execution_string"),
    "interactive_shell",
)


@pytest.mark.needs("program:bash")
def test_it_agrees_with_the_names_of_a_build_that_has_them():
    with ElfFile(BASH) as elf:
        if elf.machine != "x86_64":
            pytest.skip("only code for x86_64 is looked into")
    found = find(BASH)
    assert (found.reason, found.unattended) == ("", "")
    assert (found.functions, found.variables) == by_name(BASH)
    assert set(found.evidence) == set(FUNCTIONS)
    assert all(why.endswith("; starts there by frame-table") for why in found.evidence.values())


@pytest.mark.parametrize("path", ["/bin/true", sys.executable, "/bin/sh"])
def test_other_programs_have_none_of_it(path):
    found = find(path)
    assert (found.functions, found.variables, found.evidence) == ({}, {}, {})
    assert found.reason


@pytest.mark.needs("program:bash")
@pytest.mark.parametrize("text", [b"PROMPT_COMMAND\0", b"TMOUT\0", b"shell-expand-line\0"])
def test_without_one_of_its_texts_it_is_not_recognised(tmp_path, text):
    path = tmp_path / "bash"
    path.write_bytes(BASH.read_bytes().replace(text, text[::-1]))
    found = find(path)
    assert (found.functions, found.variables) == ({}, {})
    assert repr(text[:-1].decode()) in found.reason


@pytest.mark.needs("program:bash")
def test_damage_is_refused_and_never_leads_elsewhere(tmp_path):
    """Whatever bytes are wrong, what is still found is what is there."""
    whole = BASH.read_bytes()
    expected = find(BASH)
    numbers = random.Random(7)
    path = tmp_path / "bash"
    for size in (1 << 6, 1 << 12):
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
