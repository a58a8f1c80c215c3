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

import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple, TypeVar

from ecapture.binary.elf import ElfFile
from ecapture.binary.secrets.functions import ListedFunctions
from ecapture.binary.secrets.image import Image
from ecapture.binary.secrets.labels import find_references
from ecapture.binary.secrets.operations import (
    Branch,
    Call,
    Compare,
    Instruction,
    Jump,
    Load,
    Lose,
    Memory,
    Operation,
    Return,
    Set,
    Store,
)

_T = TypeVar("_T")
_PROMPTS, _WAITS = b"PROMPT_COMMAND\0", b"TMOUT\0"
_FAILED, _DEFINES = b"%s: history expansion failed\0", b"shell-expand-line\0"
_TEXTS: Final = (_PROMPTS, _WAITS, _FAILED, _DEFINES)
_MACHINES: Final = ("x86_64",)
_LARGEST: Final = 32 << 20  # bytes of code; bash has two million
_MOST_CALLS: Final = 1 << 19
_NODES: Final = 8192  # instructions of one function that are looked at
_MOST_STEPS: Final = 1 << 22  # in all, some two seconds; bash takes half a million
_DECODING: Final = 16  # steps that an instruction takes when it is first looked at
_SAME_TEXT: Final = 16
_FEW: Final = 8  # places that something is called from which has two callers
_TAIL: Final = 12  # instructions between the load of a result and the return
_ST_STDIN, _ST_STRING = 1, 3  # input.h, enum stream_type
_CALL: Final = re.compile(rb"\xe8", re.DOTALL)
_BY_RECORD: Final = "; starts there by frame-table"
_EVIDENCE: Final = {
    "parse_command": "comes to PROMPT_COMMAND; called by what asks for TMOUT",
    "reader_loop": "calls what calls parse_command; returns what it sets to 1; takes a command",
    "pre_process_line": "alone with the history builtin calls one function; called with 1 and 1",
    "readline": "called by read and by what initializes it alone; calls two functions by variables",
}


class Found(NamedTuple):
    """Addresses of functions and variables as linked, by name; ``reason`` if there are none."""

    functions: dict[str, int]
    variables: dict[str, int]
    reason: str = ""

    @property
    def evidence(self) -> dict[str, str]:
        """Why each function is held for what it is."""
        return {name: _EVIDENCE[name] + _BY_RECORD for name in self.functions}


class _Call(NamedTuple):
    # A direct call and the constants that stand in registers then.
    target: int
    constants: dict[int, int]


class _NotFoundError(Exception):
    # What is not to be told from the rest.
    pass


def find_bash(elf: ElfFile) -> Found:
    """Look for bash's functions in code that nothing names.

    Raises:
        NotExecutable: the file contradicts itself.
    """
    if elf.machine not in _MACHINES:
        return Found({}, {}, f"in code for {elf.machine} they are not looked for")
    try:
        return _Search(elf).run()
    except _NotFoundError as why:
        return Found({}, {}, str(why))


class _Search:
    def __init__(self, elf: ElfFile) -> None:
        self._image = Image(elf)
        self._functions = ListedFunctions(elf, self._image)
        self._convention = self._image.convention
        self._bodies: dict[int, dict[int, Instruction]] = {}
        self._left = _MOST_STEPS
        self._sites = self._all_calls()

    def run(self) -> Found:
        naming = self._naming()
        for text, named in naming.items():
            if not named:
                raise _NotFoundError(f"nothing in it names {text[:-1].decode()!r}")
        parser, reader = _only(
            self._parsers(naming[_PROMPTS], naming[_WAITS]), "what parses a command"
        )
        loop, status, parsed = _only(
            (
                (loop, status, parsed)
                for loop in self._callers(reader)
                for status in self._statuses(loop)
                for parsed in self._taken(loop)
            ),
            "where it keeps $?",
        )
        functions = {
            "parse_command": parser,
            "reader_loop": loop,
            "pre_process_line": _only(self._expanders(naming[_FAILED]), "what expands history"),
            "readline": _only(
                self._line_readers(naming[_DEFINES], naming[_WAITS]), "what reads a line"
            ),
        }
        variables = {
            "last_command_exit_value": status,
            "global_command": parsed,
            "interactive": _only(
                self._looked_at(parser) & self._looked_at(loop), "whether it is interactive"
            ),
            "bash_input": _only(
                self._compared(parser, _ST_STRING) & self._compared(parser, _ST_STDIN),
                "where it reads from",
            ),
        }
        return Found(functions, variables)

    # --- functions and variables ---

    def _parsers(self, prompting: set[int], waiting: set[int]) -> set[tuple[int, int]]:
        # What prompts may be a function of its own that parse_command calls.
        candidates = {*prompting, *(caller for f in prompting for caller in self._callers(f))}
        return {
            (parser, reader)
            for parser in candidates - waiting
            for reader in self._callers(parser) & waiting
        }

    def _statuses(self, loop: int) -> set[int]:
        returned = set(self._returned(loop))
        kept: set[int] = set()
        first = self._convention.arguments[0]
        for operation in self._operations(loop):
            if isinstance(operation, Store) and (operation.size, operation.value) == (4, 1):
                kept |= _fixed(operation.memory)
        for call in self._calls(loop):
            if call.constants.get(first) == 1:
                for operation in self._operations(call.target):
                    if isinstance(operation, Store) and (operation.size, operation.source) == (
                        *(4, first),
                    ):
                        kept |= _fixed(operation.memory)
        return returned & kept

    def _returned(self, function: int) -> Iterator[int]:
        # Variables that are loaded for the caller and not touched before the return.
        result = self._convention.result
        for start, instruction in self._body(function).items():
            for operation in instruction.operations:
                if (
                    isinstance(operation, Load)
                    and (operation.target, operation.size) == (result, 4)
                    and self._comes_to_return(start)
                ):
                    yield from _fixed(operation.memory)

    def _comes_to_return(self, start: int) -> bool:
        address, result = self._image.instruction(start).end, self._convention.result
        for _ in range(_TAIL):
            instruction = self._image.instruction(address)
            for operation in instruction.operations:
                if isinstance(operation, Return):
                    return True
                if isinstance(operation, Call | Jump | Branch) or _changes(operation, result):
                    return False
            address = instruction.end
        return False

    def _taken(self, function: int) -> set[int]:
        loaded, emptied = set(), set()
        for operation in self._operations(function):
            if isinstance(operation, Load) and operation.size == 8:
                loaded |= _fixed(operation.memory)
            elif isinstance(operation, Store) and (operation.size, operation.value) == (8, 0):
                emptied |= _fixed(operation.memory)
        return loaded & emptied

    def _expanders(self, failing: set[int]) -> set[int]:
        found = set()
        for called in {call.target for function in failing for call in self._calls(function)}:
            if len(self._sites.get(called, ())) > _FEW:
                continue
            others = self._callers(called) - failing
            if len(others) == 1 and self._is_given_ones(function := others.pop()):
                found.add(function)
        return found

    def _is_given_ones(self, function: int) -> bool:
        second, third = self._convention.arguments[1:3]
        return any(
            (call.constants.get(second), call.constants.get(third)) == (1, 1)
            for caller in self._callers(function)
            for call in self._calls(caller)
            if call.target == function
        )

    def _line_readers(self, defining: set[int], waiting: set[int]) -> set[int]:
        initializing = {caller for function in defining for caller in self._callers(function)}
        return {
            call.target
            for function in initializing & waiting
            for call in self._calls(function)
            if len(self._sites.get(call.target, ())) <= _FEW
            and len(callers := self._callers(call.target)) == 2
            and callers <= initializing
            and self._functions.is_start(call.target)
            and self._calls_through_variables(call.target) == 2
        }

    def _calls_through_variables(self, function: int) -> int:
        return sum(
            isinstance(operation, Call) and operation.target is None
            for operation in self._operations(function)
        )

    def _looked_at(self, function: int) -> set[int]:
        return {
            address
            for operation in self._operations(function)
            if isinstance(operation, Load) and operation.size == 4
            for address in _fixed(operation.memory)
        }

    def _compared(self, function: int, value: int) -> set[int]:
        # Variables that are compared with a constant, in memory or as soon as they are loaded.
        found: set[int] = set()
        loaded: Load | None = None
        for operation in self._operations(function):
            if isinstance(operation, Load):
                loaded = operation
            elif isinstance(operation, Compare) and loaded is not None:
                same = (operation.left, operation.right) == (loaded.target, -1)
                if same and not operation.test and operation.value == value:
                    found |= _fixed(loaded.memory)
        return found

    # --- code ---

    def _all_calls(self) -> dict[int, list[int]]:
        # The sites of all that looks like a direct call, by target. Bytes in the middle of another
        # instruction may look so, too: whoever calls is asked again, instruction by instruction.
        sites: dict[int, list[int]] = {}
        parts = [part for part in self._image.parts if part.executable]
        if sum(part.size for part in parts) > _LARGEST:
            raise _NotFoundError("it is too large to be looked through")
        count = 0
        for part in parts:
            for address, block in self._image.scan(part, 4):
                for match in _CALL.finditer(block, 0, max(0, len(block) - 4)):
                    at = match.start()
                    distance = int.from_bytes(block[at + 1 : at + 5], "little", signed=True)
                    target = address + at + 5 + distance
                    if 0 <= target - part.address < part.size:
                        sites.setdefault(target, []).append(address + at)
                        count += 1
                if count > _MOST_CALLS:
                    raise _NotFoundError("it has too many calls to be looked through")
        return sites

    def _naming(self) -> dict[bytes, set[int]]:
        # The functions that name each of the texts.
        places: dict[int, bytes] = {}
        for part in self._image.parts:
            for address, block in self._image.scan(part, max(map(len, _TEXTS))):
                for text in _TEXTS:
                    at = block.find(text)
                    while at >= 0 and len(places) < _SAME_TEXT * len(_TEXTS):
                        places[address + at] = text
                        at = block.find(text, at + 1)
        naming: dict[bytes, set[int]] = {text: set() for text in _TEXTS}
        for reference in find_references(self._image, places):
            span = self._functions.range_of(reference.address)
            if span is not None and reference.address in self._body(span[0]):
                naming[places[reference.target]].add(span[0])
        return naming

    def _spend(self, steps: int) -> None:
        self._left -= steps
        if self._left < 0:
            raise _NotFoundError("it takes too long to be looked through")

    def _callers(self, function: int) -> set[int]:
        # The functions in which an instruction calls this one.
        found = set()
        sites = self._sites.get(function, ())
        self._spend(len(sites) * _DECODING)
        for site in sites:
            span = self._functions.range_of(site)
            if span is not None and site in self._body(span[0]):
                found.add(span[0])
        return found

    def _body(self, function: int) -> dict[int, Instruction]:
        # The instructions of a function by address, in order: tables of jumps hide some of them
        # from whoever follows control flow.
        known = self._bodies.get(function)
        if known is None:
            known = {}
            span = self._functions.range_of(function)
            address, end = span if span is not None else (0, 0)
            while address < end and len(known) < _NODES:
                self._spend(_DECODING)
                known[address] = instruction = self._image.instruction(address)
                if instruction.end <= address:
                    break
                address = instruction.end
            self._bodies[function] = known
        return known

    def _operations(self, function: int) -> Iterator[Operation]:
        body = self._body(function)
        self._spend(len(body))
        for instruction in body.values():
            yield from instruction.operations

    def _calls(self, function: int) -> Iterator[_Call]:
        constants: dict[int, int] = {}
        for operation in self._operations(function):
            if isinstance(operation, Set):
                constants[operation.target] = operation.value
            elif isinstance(operation, Call):
                if operation.target is not None:
                    yield _Call(operation.target, dict(constants))
                constants.clear()
            else:
                for register in [r for r in constants if _changes(operation, r)]:
                    del constants[register]


def _only(found: Iterable[_T], what: str) -> _T:
    # What is the only one of its kind.
    values = set(found)
    if len(values) != 1:
        raise _NotFoundError(f"{what} is not to be told from the rest")
    return values.pop()


def _fixed(memory: Memory) -> set[int]:
    # The address of a variable, where an operand names one.
    return {memory.displacement} if (memory.base, memory.counter) == (-1, -1) else set()


def _changes(operation: Operation, register: int) -> bool:
    if isinstance(operation, Lose):
        return register in operation.registers
    return not isinstance(operation, Call | Jump | Branch) and (
        getattr(operation, "target", None) == register
    )
