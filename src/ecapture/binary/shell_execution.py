# SPDX-License-Identifier: Apache-2.0
"""Finds what carries out bash's commands in builds without names: ``shell_code``, continued.

Two signs for each, which do not depend on one another:

- ``execute_command_internal`` names itself where it says that a command is of no known type
  (``command_error``, error.c), and at least two functions call it with no pipe at either end
  (0, -1, -1 behind the command: ``execute_command``, ``parse_and_execute``);
- ``run_debug_trap`` is called by it, and names "debug trap" or leads to a part of its own that
  does; what it then calls with a number is called with the next number by what names "error trap"
  (DEBUG_TRAP and ERROR_TRAP, trap.h);
- ``the_printed_command`` is what several functions copy to the variable that they store to last
  before they call ``run_debug_trap``, and that is all that a function looks at whose address is
  taken where BASH_COMMAND is named (``get_bash_command``, variables.c); and something that is
  called by ``execute_command_internal`` returns it (``make_command_string``, print_cmd.c);
- ``sourcelevel`` is counted up and down and saved for the case of a jump by what reads files
  (evalfile.c), and of all that are, the one that ``execute_command_internal`` compares with 0;
- ``command_execution_string`` is handed on by what names BASH_EXECUTION_STRING (variables.c), and
  is the one of these that the caller of ``reader_loop``, main, stores to and compares with 0;
- ``interactive_shell`` becomes 1 next to ``interactive`` in main (``init_interactive``, shell.c),
  and is the one of these that ``reader_loop``, ``execute_command_internal`` and what names
  BASH_EXECUTION_STRING look at.

Invariant: all are found, or none is returned. Sources: bash 5.1 to 5.3, the files that are named.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from ecapture.binary.code_search import CodeSearch, fixed, only
from ecapture.binary.secrets.operations import Branch, Call, Jump, Load, Return, Set, Store

_EXECUTES, _DEBUG, _ERROR = b"execute_command\0", b"debug trap\0", b"error trap\0"
_COMMAND, _STRING = b"BASH_COMMAND\0", b"BASH_EXECUTION_STRING\0"
_READS_FILES: Final = (b"_evalfile\0", b"evalfile_internal\0")  # until 5.2, since 5.3
_NO_PIPE: Final = 0xFFFFFFFF  # -1, as the low half of a register
_NEAR_NAME: Final = 96  # bytes of code between two arguments of one call
_NEAR_STORE: Final = 8  # instructions between two assignments of one statement
_COPY: Final = 24  # instructions that copy a string
_AGREEING: Final = 2  # functions that do the same


class Execution(NamedTuple):
    """Addresses of functions and variables as linked, by name, and why each function is that."""

    functions: dict[str, int]
    variables: dict[str, int]
    evidence: dict[str, str]


def find_execution(
    search: CodeSearch, functions: Mapping[str, int], variables: Mapping[str, int]
) -> Execution:
    """Go on from what reads commands, by name, to what carries them out.

    Raises:
        NotFoundError: something is not to be told from the rest.
        NotExecutable: the file contradicts itself.
    """
    return _Search(search, functions, variables).run()


class _Search:
    def __init__(
        self, search: CodeSearch, functions: Mapping[str, int], variables: Mapping[str, int]
    ) -> None:
        self._code = search
        self._loop = functions["reader_loop"]
        self._interactive = variables["interactive"]
        texts = (_EXECUTES, _DEBUG, _ERROR, _COMMAND, _STRING, *_READS_FILES)
        self._naming = search.naming(texts)

    def run(self) -> Execution:
        naming = self._naming
        executor = only(filter(self._runs_without_pipe, naming[_EXECUTES]), "what runs a command")
        trap = only(self._traps(executor), "what runs the debug trap")
        main = only(self._code.callers(self._loop), "main")
        names = only(naming[_STRING], "what names the argument of -c")
        reader = only(
            {reader for text in _READS_FILES for reader in naming[text]}, "what reads files"
        )
        kept = only(self._printed(trap) & self._told_as_command(), "the command that is told")
        variables = {
            "the_printed_command": only(
                self._copied(trap, kept) & self._returned_to(executor),
                "the command as it is printed",
            ),
            "sourcelevel": only(
                self._levels(reader) & self._code.compared(executor, 0), "the level of files"
            ),
            "command_execution_string": only(
                self._handed_on(names) & self._code.stored(main, 8) & self._code.compared(main, 0),
                "the argument of -c",
            ),
            "interactive_shell": only(
                self._set_with_interactive(main)
                & self._code.looked_at(self._loop)
                & self._code.looked_at(executor)
                & self._code.looked_at(names),
                "whether somebody types",
            ),
        }
        return Execution(
            {"execute_command_internal": executor, "run_debug_trap": trap},
            variables,
            {
                "execute_command_internal": "tells of a bad type of command; is called without"
                " pipes; starts there by frame-table",
                "run_debug_trap": "called by what executes; leads to 'debug trap', its number one"
                " less than the error trap's; starts there by frame-table",
            },
        )

    # --- functions ---

    def _runs_without_pipe(self, function: int) -> bool:
        wanted = (0, _NO_PIPE, _NO_PIPE)
        registers = self._code.convention.arguments[1:4]
        alike = {
            caller
            for caller in self._code.callers(function) - {function}
            for call in self._code.calls(caller)
            if call.target == function
            and tuple(call.constants.get(r, 1) & _NO_PIPE for r in registers) == wanted
        }
        return len(alike) >= _AGREEING and self._code.functions.is_start(function)

    def _traps(self, executor: int) -> set[int]:
        first = self._code.convention.arguments[0]
        numbers: dict[bytes, set[tuple[int, int]]] = {
            text: {
                (call.target, call.constants[first])
                for function in self._naming[text]
                for call in self._code.calls(function)
                if first in call.constants
            }
            for text in (_DEBUG, _ERROR)
        }
        if not any((target, n + 1) in numbers[_ERROR] for target, n in numbers[_DEBUG]):
            return set()
        called = {call.target for call in self._code.calls(executor)}
        named = self._naming[_DEBUG]
        # What a compiler takes out of a function is jumped to from there.
        return {f for f in called if f in named or self._jumps_from(f) & named} & {
            f for f in called if self._code.functions.is_start(f)
        }

    def _jumps_from(self, function: int) -> set[int]:
        return {
            operation.target
            for operation in self._code.operations(function)
            if isinstance(operation, Jump | Branch) and operation.target is not None
        }

    # --- variables ---

    def _printed(self, trap: int) -> set[int]:
        # What is stored to last before the calls, in several functions.
        storing: dict[int, set[int]] = {}
        for function in self._code.callers(trap):
            last = -1
            for operation in self._code.operations(function):
                if isinstance(operation, Store) and operation.size == 8:
                    last = next(iter(fixed(operation.memory)), last)
                elif isinstance(operation, Call) and operation.target == trap:
                    storing.setdefault(last, set()).add(function)
        return {variable for variable, where in storing.items() if len(where) >= _AGREEING}

    def _copied(self, trap: int, kept: int) -> set[int]:
        # What is loaded before each store to the variable that precedes a call.
        found: set[int] | None = None
        for function in self._code.callers(trap):
            near: deque[set[int]] = deque(maxlen=_COPY)
            for instruction in self._code.body(function).values():
                loaded: set[int] = set()
                for operation in instruction.operations:
                    if isinstance(operation, Load) and operation.size == 8:
                        loaded |= fixed(operation.memory)
                    elif isinstance(operation, Store) and kept in fixed(operation.memory):
                        before = {variable for some in near for variable in some} - {kept}
                        if before:  # else it is emptied
                            found = before if found is None else found & before
                near.append(loaded)
        return found or set()

    def _returned_to(self, function: int) -> set[int]:
        called = {call.target for call in self._code.calls(function)}
        return {variable for f in called for variable in self._code.returned(f, 8)}

    def _told_as_command(self) -> set[int]:
        found: set[int] = set()
        for function in self._naming[_COMMAND]:
            for place in self._code.places[function, _COMMAND]:
                for near in self._addresses_near(function, place):
                    looked_at = self._code.looked_at(near, 8)
                    if len(looked_at) == 1:
                        found |= looked_at
        return found

    def _addresses_near(self, function: int, place: int) -> Iterator[int]:
        for address, instruction in self._code.body(function).items():
            if abs(address - place) <= _NEAR_NAME:
                for operation in instruction.operations:
                    # what is stored at once, in a program that is linked for one address
                    value = operation.value if isinstance(operation, Set | Store) else None
                    if value is not None and self._code.functions.is_start(value):
                        yield value

    def _levels(self, reader: int) -> set[int]:
        counted = {v for v, times in self._code.counted(reader).items() if times >= _AGREEING}
        named = {o.value for o in self._code.operations(reader) if isinstance(o, Set)}
        return counted & named

    def _handed_on(self, function: int) -> set[int]:
        second = self._code.convention.arguments[1]
        return {
            address
            for operation in self._code.operations(function)
            if isinstance(operation, Load) and (operation.target, operation.size) == (second, 8)
            for address in fixed(operation.memory)
        }

    def _set_with_interactive(self, main: int) -> set[int]:
        # What becomes 1 in the same breath: nothing is called and control goes nowhere between.
        found: set[int] = set()
        run: list[set[int]] = []
        quiet = 0
        for instruction in (*self._code.body(main).values(), None):
            operations = instruction.operations if instruction is not None else ()
            ones: set[int] = set()
            for operation in operations:
                if isinstance(operation, Store) and (operation.size, operation.value) == (4, 1):
                    ones |= fixed(operation.memory)
            quiet = 0 if ones else quiet + 1
            ends = instruction is None or any(
                isinstance(operation, Call | Jump | Branch | Return) for operation in operations
            )
            if ones:
                run.append(ones)
            if ends or quiet > _NEAR_STORE:
                together = {address for some in run for address in some}
                if self._interactive in together:
                    found |= together - {self._interactive}
                run = []
        return found
