# SPDX-License-Identifier: Apache-2.0
"""What carries out bash's commands is found by two signs each, or not at all.

That it is what the names say is tested with the rest of what is found (test_shell_code.py).
"""

from __future__ import annotations

import pytest
from shell_searches import changed, found_in, needs_x86_64, program

from ecapture.binary.shell_code import find_bash

BASH = program("bash")
pytestmark = needs_x86_64
TYPED = {"parse_command", "reader_loop", "pre_process_line", "readline"}


def find(path):
    return found_in(find_bash, path)


@pytest.mark.needs("program:bash")
def test_each_has_its_evidence():
    found = find(BASH)
    assert found.evidence.keys() == found.functions.keys()
    assert found.functions.keys() - TYPED == {"execute_command_internal", "run_debug_trap"}


@pytest.mark.needs("program:bash")
@pytest.mark.parametrize(
    ("text", "lacks"),
    [
        (b"\0execute_command\0", "what runs a command"),
        (b"\0error trap\0", "what runs the debug trap"),
        (b"BASH_COMMAND\0", "the command that is told"),
        (b"BASH_EXECUTION_STRING\0", "what names the argument of -c"),
        (b"_evalfile\0", "what reads files"),
    ],
)
def test_without_a_sign_of_what_executes_only_what_is_typed_is_known(tmp_path, text, lacks):
    if text not in BASH.read_bytes():
        pytest.skip("is of another release")
    found = find(changed(BASH, tmp_path, text, text[::-1]))
    assert (found.reason, found.unattended) == ("", f"{lacks} is not to be told from the rest")
    assert found.functions.keys() == TYPED
    assert found.variables.keys() == {
        *("last_command_exit_value", "global_command", "interactive", "bash_input")
    }
