# SPDX-License-Identifier: Apache-2.0
"""Finds zsh's functions by what they do, in builds that were linked statically and stripped.

Two signs for each, which do not depend on one another:

- ``hend`` names the hook "zshaddhistory", and what names "preexec" and "toplevel" (``loop``,
  init.c) calls it with 0;
- ``hbegin`` is called by ``loop`` with 1, and puts addresses of functions into several variables;
- ``execode`` is called by ``loop`` with "toplevel" behind 0 and 0, and with "filecode" behind 1 and
  0 by what names that (``source``, init.c);
- ``execstring`` is called with "cmdarg" behind 0 and 1 by what names that, and calls ``execode``;
- ``hptr`` and ``chline`` are stored to by ``hbegin`` and ``hend``; through the one ``hend`` writes
  the byte that ends the text, and through the other it reads the first one;
- ``lastval`` is the variable of the parameter "?", which stands before HISTCMD in the table of
  parameters (params.c; that of HISTCMD is used by ``hend``), and ``source`` stores to it;
- ``scriptfilename`` is saved, changed and put back by ``source``, where it becomes what another
  variable becomes, and the caller of what names "cmdarg" (zsh_main) stores to it.

Invariants: nothing is returned unless all that typed commands need is found and each is the only
one; the rest is found as a whole or not at all. Every function starts where the unwinder's records
say that one does. Sources: hist.c, init.c, exec.c and params.c of zsh 5.8 to 5.9.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from ecapture.binary.code_search import (
    BY_RECORD,
    DECODING,
    CodeSearch,
    Found,
    NotFoundError,
    find_shell,
    fixed,
    only,
)
from ecapture.binary.elf import ElfFile
from ecapture.binary.secrets.operations import Call, Load, Operation, Set, Store
from ecapture.protocols.zsh_program import TOKENS

_ADDS, _BEFORE, _TOP = b"zshaddhistory\0", b"preexec\0", b"toplevel\0"
_COMPILED, _STRING, _NUMBER = b"filecode\0", b"cmdarg\0", b"HISTCMD\0"
_TEXTS: Final = (_ADDS, _BEFORE, _TOP, _COMPILED, _STRING, _NUMBER)
_SEVERAL: Final = 4  # variables with addresses of functions; hbegin has seven
_NEAR: Final = 4  # instructions between two assignments of one statement
_ROWS: Final = range(64, 120, 8)  # bytes of a row of the table of parameters; 5.8 and 5.9: 80
# struct param (zsh.h): next, name, flags, the variable, the functions that read it
_FLAGS, _VARIABLE, _READ_BY = 8, 16, 24  # from the name
_EVIDENCE: Final = {
    "hbegin": "called by loop with 1; sets functions that handle history",
    "hend": "names zshaddhistory; called by loop with 0",
    "execode": "called for 'toplevel' by loop and for 'filecode' by source",
    "execstring": "called for 'cmdarg'; calls execode",
}


class _Where(NamedTuple):
    # Functions that are not hooked.
    loop: int
    source: int
    strings: int


def find_zsh(elf: ElfFile) -> Found:
    """Look for zsh's functions in code that nothing names.

    Raises:
        NotExecutable: the file contradicts itself.
    """
    return find_shell(elf, _Search)


def _found(functions: dict[str, int], variables: dict[str, int]) -> Found:
    evidence = {name: _EVIDENCE[name] + BY_RECORD for name in functions}
    return Found(functions, variables, evidence=evidence)


class _Search(CodeSearch):
    def __init__(self, elf: ElfFile) -> None:
        super().__init__(elf)
        self._named = self.naming(_TEXTS)
        self._where = _Where(
            only(self._named[_TOP] & self._named[_BEFORE], "what runs one command after the other"),
            only(self._named[_COMPILED], "what reads files"),
            only(self._named[_STRING], "what runs the argument of -c"),
        )

    def typed(self) -> Found:
        first = self.convention.arguments[0]
        called = [
            (call.target, call.constants[first])
            for call in self.calls(self._where.loop)
            if first in call.constants and self.functions.is_start(call.target)
        ]
        ends = only(
            self._named[_ADDS] & {target for target, given in called if given == 0},
            "what ends a command",
        )
        begins = only(
            {
                target
                for target, given in called
                if given == 1 and len(self._holding_functions(target)) >= _SEVERAL
            },
            "what begins a command",
        )
        both = self._stored(begins) & self._stored(ends)
        end = only(both & self._through(ends, Store), "the end of the text")
        number, status = only(self._parameters(), "where it keeps $?")
        if number not in self.looked_at(ends, 8) or status not in self._stored(self._where.source):
            raise NotFoundError("where it keeps $? is not to be told from the rest")
        return _found(
            {"hbegin": begins, "hend": ends},
            {
                "hptr": end,
                "chline": only((both & self._through(ends, Load)) - {end}, "the text"),
                "lastval": status,
            },
        )

    def unattended(self, typed: Found) -> Found:
        if not self.addresses((TOKENS + b"\0",)):
            raise NotFoundError("it keeps what it parsed in a form of its own")
        source = self._where.source
        executes = only(
            self._called_for(self._where.loop, _TOP, 0, 0)
            & self._called_for(source, _COMPILED, 1, 0),
            "what runs what was parsed",
        )
        strings = only(
            (
                function
                for function in self._called_for(self._where.strings, _STRING, 0, 1)
                if any(call.target == executes for call in self.calls(function))
            ),
            "what runs a text",
        )
        main = only(self.callers(self._where.strings), "main")
        file = only(
            self._alike(source)
            & self.looked_at(source, 8)
            & self._stored(main) - set(typed.variables.values()),
            "the name of the file",
        )
        return _found({"execode": executes, "execstring": strings}, {"scriptfilename": file})

    # --- functions ---

    def _called_for(self, function: int, text: bytes, second: int, third: int) -> set[int]:
        # What is called with a text as its last argument.
        registers = self.convention.arguments
        return {
            call.target
            for call in self.calls(function)
            if self.texts.get(call.constants.get(registers[3], -1)) == text
            and [call.constants.get(register) for register in registers[1:3]] == [second, third]
            and self.functions.is_start(call.target)
        }

    # --- variables ---

    def _stored(self, function: int) -> set[int]:
        return self.stored(function, 8) | self.stored(function, 8, 0)

    def _holding_functions(self, function: int) -> set[int]:
        # Variables that a function stores addresses of functions to.
        found: set[int] = set()
        values: dict[int, int] = {}
        for operation in self.operations(function):
            if isinstance(operation, Set):
                values[operation.target] = operation.value
            elif isinstance(operation, Call):
                values.clear()
            elif isinstance(operation, Store) and operation.size == 8:
                value = operation.value
                if value is None:
                    value = values.get(operation.source, -1)
                if self.functions.is_start(value):
                    found |= fixed(operation.memory)
        return found

    def _through(self, function: int, kind: type[Load | Store]) -> set[int]:
        # Pointers through which a function reads, or writes, the very byte that they point to.
        found: set[int] = set()
        pointers: dict[int, int] = {}
        for operation in self.operations(function):
            if isinstance(operation, kind) and operation.size == 1:
                memory = operation.memory
                if memory.base in pointers and (memory.displacement, memory.counter) == (0, -1):
                    found.add(pointers[memory.base])
            if isinstance(operation, Call):
                pointers.clear()
                continue
            target = _target(operation)
            pointers.pop(target, None)
            if isinstance(operation, Load) and operation.size == 8:
                for address in fixed(operation.memory):
                    pointers[target] = address
        return found

    def _alike(self, function: int) -> set[int]:
        # Variables that become what another one becomes at once.
        found: set[int] = set()
        last: dict[int, tuple[int, set[int]]] = {}
        for number, instruction in enumerate(self.body(function).values()):
            for operation in instruction.operations:
                if isinstance(operation, Store) and operation.size == 8 and operation.source >= 0:
                    variables = fixed(operation.memory)
                    before, others = last.get(operation.source, (-_NEAR, set()))
                    if variables and number - before <= _NEAR and others != variables:
                        found |= variables | others
                    if variables:
                        last[operation.source] = (number, variables)
                elif isinstance(operation, Call):
                    last.clear()
                else:
                    last.pop(_target(operation), None)
        return found

    def _parameters(self) -> Iterator[tuple[int, int]]:
        # The variables of HISTCMD and of "?", which stands one row before it.
        names = [address for address, text in self.texts.items() if text == _NUMBER]
        for name in names:
            wanted = name.to_bytes(8, "little")
            for part in self.image.parts:
                for address, block in self.image.scan(part, len(wanted)):
                    at = block.find(wanted)
                    while at >= 0:
                        yield from self._rows_at(address + at)
                        at = block.find(wanted, at + 1)

    def _rows_at(self, name: int) -> Iterator[tuple[int, int]]:
        self.spend(len(_ROWS) * DECODING)
        for size in _ROWS:
            before = name - size
            text = self.image.bytes_at(self._pointer(before), 2)
            same = all(
                self._pointer(name + member) == self._pointer(before + member)
                for member in (_FLAGS, _READ_BY)
            )
            if text == b"?\0" and same:
                yield self._pointer(name + _VARIABLE), self._pointer(before + _VARIABLE)

    def _pointer(self, address: int) -> int:
        return int.from_bytes(self.image.bytes_at(address, 8), "little")


def _target(operation: Operation) -> int:
    target = getattr(operation, "target", None)
    return target if isinstance(target, int) else -1
