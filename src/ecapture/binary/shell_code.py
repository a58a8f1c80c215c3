# SPDX-License-Identifier: Apache-2.0
"""Finds bash's functions by what they do, in builds that were linked statically and stripped.

Strategy: texts lead to the functions that name them, direct calls from there to those wanted, and
each of these must have two signs that do not depend on one another:

- ``parse_command`` comes to PROMPT_COMMAND, and is called by what asks for TMOUT
  (``read_command``, eval.c);
- ``reader_loop`` calls ``read_command``, takes the one command that was read out of a variable
  (``global_command``), and returns a variable (``last_command_exit_value``) that a function which
  it calls with 1 keeps its argument in (``set_exit_status``; bash before 5.0 writes the 1 itself);
- ``pre_process_line`` calls a function (``history_expand``) that nothing else calls but what says
  that an expansion failed (builtins/history.def), and is itself called with 1 and 1 behind the line
  (``shell_getc``, parse.y);
- ``readline`` is called by exactly two functions: one asks for TMOUT (builtins/read.def), both call
  what defines "shell-expand-line" (``initialize_readline``, bashline.c), and it calls two functions
  through variables (rl_prep_term_function and its counterpart, readline.c).

``parse_command`` compares ``bash_input.type`` with 3 (a string) and 1 (standard input), and is the
other that looks at ``interactive`` beside ``reader_loop``.

Invariants: nothing is returned unless all are found and each is the only one; each starts where the
unwinder's records say that a function does; work is bounded, whatever the file is.

Sources: eval.c, input.h, parse.y, bashhist.c, bashline.c, builtins/history.def, builtins/read.def
and lib/readline/readline.c of bash 4.4 to 5.3.
"""

from __future__ import annotations

from typing import Final

from ecapture.binary.code_search import (
    BY_RECORD,
    CodeSearch,
    Found,
    NotFoundError,
    find_shell,
    fixed,
    only,
)
from ecapture.binary.elf import ElfFile
from ecapture.binary.secrets.operations import Call, Store
from ecapture.binary.shell_execution import find_execution

_PROMPTS, _WAITS = b"PROMPT_COMMAND\0", b"TMOUT\0"
_FAILED, _DEFINES = b"%s: history expansion failed\0", b"shell-expand-line\0"
_TEXTS: Final = (_PROMPTS, _WAITS, _FAILED, _DEFINES)
_FEW: Final = 8  # places that something is called from which has two callers
_ST_STDIN, _ST_STRING = 1, 3  # input.h, enum stream_type
_EVIDENCE: Final = {
    "parse_command": "comes to PROMPT_COMMAND; called by what asks for TMOUT",
    "reader_loop": "calls what calls parse_command; returns what it sets to 1; takes a command",
    "pre_process_line": "alone with the history builtin calls one function; called with 1 and 1",
    "readline": "called by read and by what initializes it alone; calls two functions by variables",
}


def find_bash(elf: ElfFile) -> Found:
    """Look for bash's functions in code that nothing names.

    Raises:
        NotExecutable: the file contradicts itself.
    """
    return find_shell(elf, _Search)


class _Search(CodeSearch):
    def typed(self) -> Found:
        naming = self.naming(_TEXTS)
        for text, named in naming.items():
            if not named:
                raise NotFoundError(f"nothing in it names {text[:-1].decode()!r}")
        parser, reader = only(
            self._parsers(naming[_PROMPTS], naming[_WAITS]), "what parses a command"
        )
        loop, status, parsed = only(
            (
                (loop, status, parsed)
                for loop in self.callers(reader)
                for status in self._statuses(loop)
                for parsed in self._taken(loop)
            ),
            "where it keeps $?",
        )
        functions = {
            "parse_command": parser,
            "reader_loop": loop,
            "pre_process_line": only(self._expanders(naming[_FAILED]), "what expands history"),
            "readline": only(
                self._line_readers(naming[_DEFINES], naming[_WAITS]), "what reads a line"
            ),
        }
        variables = {
            "last_command_exit_value": status,
            "global_command": parsed,
            "interactive": only(
                self.looked_at(parser) & self.looked_at(loop), "whether it is interactive"
            ),
            "bash_input": only(
                self.compared(parser, _ST_STRING) & self.compared(parser, _ST_STDIN),
                "where it reads from",
            ),
        }
        evidence = {name: _EVIDENCE[name] + BY_RECORD for name in functions}
        return Found(functions, variables, evidence=evidence)

    def unattended(self, typed: Found) -> Found:
        found = find_execution(self, typed.functions, typed.variables)
        return Found(found.functions, found.variables, evidence=found.evidence)

    # --- functions and variables ---

    def _parsers(self, prompting: set[int], waiting: set[int]) -> set[tuple[int, int]]:
        # What prompts may be a function of its own that parse_command calls.
        candidates = {*prompting, *(caller for f in prompting for caller in self.callers(f))}
        return {
            (parser, reader)
            for parser in candidates - waiting
            for reader in self.callers(parser) & waiting
        }

    def _statuses(self, loop: int) -> set[int]:
        returned = self.returned(loop)
        kept: set[int] = set()
        first = self.convention.arguments[0]
        for operation in self.operations(loop):
            if isinstance(operation, Store) and (operation.size, operation.value) == (4, 1):
                kept |= fixed(operation.memory)
        for call in self.calls(loop):
            if call.constants.get(first) == 1:
                for operation in self.operations(call.target):
                    match operation:
                        case Store(memory, 4, source) if source == first:
                            kept |= fixed(memory)
        return returned & kept

    def _taken(self, function: int) -> set[int]:
        return self.looked_at(function, 8) & self.stored(function, 8, 0)

    def _expanders(self, failing: set[int]) -> set[int]:
        found = set()
        for called in {call.target for function in failing for call in self.calls(function)}:
            if len(self.sites.get(called, ())) > _FEW:
                continue
            others = self.callers(called) - failing
            if len(others) == 1 and self._is_given_ones(function := others.pop()):
                found.add(function)
        return found

    def _is_given_ones(self, function: int) -> bool:
        second, third = self.convention.arguments[1:3]
        return any(
            (call.constants.get(second), call.constants.get(third)) == (1, 1)
            for caller in self.callers(function)
            for call in self.calls(caller)
            if call.target == function
        )

    def _line_readers(self, defining: set[int], waiting: set[int]) -> set[int]:
        initializing = {caller for function in defining for caller in self.callers(function)}
        return {
            call.target
            for function in initializing & waiting
            for call in self.calls(function)
            if len(self.sites.get(call.target, ())) <= _FEW
            and len(callers := self.callers(call.target)) == 2
            and callers <= initializing
            and self.functions.is_start(call.target)
            and self.calls_through_variables(call.target) == 2
        }

    def calls_through_variables(self, function: int) -> int:
        return sum(
            isinstance(operation, Call) and operation.target is None
            for operation in self.operations(function)
        )
