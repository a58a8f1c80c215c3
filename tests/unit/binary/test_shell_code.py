# SPDX-License-Identifier: Apache-2.0
"""What bash's functions are by their code is what their names say, and nothing is found elsewhere.

Stripped builds of other releases are tried in tests/capture, where what is found is put to use.
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

from ecapture.binary.elf import ElfFile
from ecapture.binary.shell_code import find_bash

BASH = program("bash")


def find(path):
    return found_in(find_bash, path)


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


@needs_x86_64
@pytest.mark.needs("program:bash")
def test_it_agrees_with_the_names_of_a_build_that_has_them():
    found = find(BASH)
    assert (found.reason, found.unattended) == ("", "")
    assert (found.functions, found.variables) == by_name(BASH)
    assert_all_have_evidence(found, FUNCTIONS, "; starts there by frame-table")


@pytest.mark.parametrize("path", ["/bin/true", sys.executable, "/bin/sh"])
def test_other_programs_have_none_of_it(path):
    assert_nothing_found(find(path))


@needs_x86_64
@pytest.mark.needs("program:bash")
@pytest.mark.parametrize("text", [b"PROMPT_COMMAND\0", b"TMOUT\0", b"shell-expand-line\0"])
def test_without_one_of_its_texts_it_is_not_recognised(tmp_path, text):
    found = find(changed(BASH, tmp_path, text, text[::-1]))
    assert (found.functions, found.variables) == ({}, {})
    assert repr(text[:-1].decode()) in found.reason


@pytest.mark.needs("program:bash")
def test_damage_is_refused_and_never_leads_elsewhere(tmp_path):
    sizes = (1 << 6, 1 << 12)
    assert_damage_never_leads_elsewhere(find_bash, BASH, tmp_path, seed=7, sizes=sizes)


@needs_x86_64
@pytest.mark.needs("program:bash")
@every_bound
def test_work_is_bounded_and_what_is_half_done_is_not_used(monkeypatch, bound):
    assert_work_is_bounded(find_bash, BASH, bound, 1 << 12, monkeypatch)
