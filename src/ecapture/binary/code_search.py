# SPDX-License-Identifier: Apache-2.0
"""Asks a program without names who names a text, who calls what, which variables are used where.

Everything is answered from code that is decoded instruction by instruction within the bounds that
the unwinder's records give a function: tables of jumps hide parts of a function from whoever
follows control flow.

Invariant: work is bounded, whatever the file is; beyond that ``NotFoundError`` is raised.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol, TypeVar

from ecapture.binary.elf import ElfFile
from ecapture.binary.secrets.functions import ListedFunctions
from ecapture.binary.secrets.image import Image
from ecapture.binary.secrets.labels import find_references
from ecapture.binary.secrets.operations import (
    SCRATCH,
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

BY_RECORD: Final = "; starts there by frame-table"
"""Behind the evidence of a function: what proves its start."""

DECODING: Final = 16
"""Steps that an instruction takes when it is first looked at."""

_T = TypeVar("_T")
_SEARCHED: Final = ("x86_64",)  # machines whose code is understood well enough
_LARGEST: Final = 32 << 20  # bytes of code; bash has two million
_MOST_CALLS: Final = 1 << 19
_NODES: Final = 8192  # instructions of one function that are looked at
_MOST_STEPS: Final = 1 << 22  # in all, some two seconds; bash takes less than a million
_SAME_TEXT: Final = 16
_TAIL: Final = 12  # instructions between the load of a result and the return
_CALL: Final = re.compile(rb"\xe8", re.DOTALL)


class Found(NamedTuple):
    """Addresses of functions and variables as linked, by name; ``reason`` if there are none.

    ``unattended`` says why what carries out commands is not among them; ``evidence`` why each
    function is held for what it is.
    """

    functions: dict[str, int]
    variables: dict[str, int]
    reason: str = ""
    unattended: str = ""
    evidence: Mapping[str, str] = MappingProxyType({})


class DirectCall(NamedTuple):
    """A direct call and the constants that stand in registers then."""

    target: int
    constants: dict[int, int]


class NotFoundError(Exception):
    """What is looked for is not to be told from the rest."""


class ShellSearch(Protocol):
    """Looks for the functions of one kind of shell; either method raises NotFoundError."""

    def typed(self) -> Found:
        """What reads the commands that are typed."""

    def unattended(self, typed: Found) -> Found:
        """What carries out all others, beside what reads those that are typed."""


class CodeSearch:
    """The functions of one file, as far as they were asked for.

    Raises:
        NotExecutable: the file contradicts itself.
        NotFoundError: it is larger than what is looked through.
    """

    def __init__(self, elf: ElfFile) -> None:
        self.image = Image(elf)
        self.functions = ListedFunctions(elf, self.image)
        self.convention = self.image.convention
        self._bodies: dict[int, dict[int, Instruction]] = {}
        self._left = _MOST_STEPS
        self.places: dict[tuple[int, bytes], set[int]] = {}
        self.texts: dict[int, bytes] = {}
        self.sites = self._all_calls()

    # --- code ---

    def _all_calls(self) -> dict[int, list[int]]:
        # The sites of all that looks like a direct call, by target. Bytes in the middle of another
        # instruction may look so, too: whoever calls is asked again, instruction by instruction.
        sites: dict[int, list[int]] = {}
        parts = [part for part in self.image.parts if part.executable]
        if sum(part.size for part in parts) > _LARGEST:
            raise NotFoundError("it is too large to be looked through")
        count = 0
        for part in parts:
            for address, block in self.image.scan(part, 4):
                for match in _CALL.finditer(block, 0, max(0, len(block) - 4)):
                    at = match.start()
                    distance = int.from_bytes(block[at + 1 : at + 5], "little", signed=True)
                    target = address + at + 5 + distance
                    if 0 <= target - part.address < part.size:
                        sites.setdefault(target, []).append(address + at)
                        count += 1
                if count > _MOST_CALLS:
                    raise NotFoundError("it has too many calls to be looked through")
        return sites

    def addresses(self, texts: Sequence[bytes]) -> dict[int, bytes]:
        """Where some texts stand; of one that stands in very many places, some of these."""
        found: dict[int, bytes] = {}
        for part in self.image.parts:
            for address, block in self.image.scan(part, max(map(len, texts))):
                for text in texts:
                    at = block.find(text)
                    while at >= 0 and len(found) < _SAME_TEXT * len(texts):
                        found[address + at] = text
                        at = block.find(text, at + 1)
        return found

    def naming(self, texts: Sequence[bytes]) -> dict[bytes, set[int]]:
        """The functions that name each of some texts; a NUL may be the end of one before it.

        Where in their code they do so is in ``places``, where the texts stand in ``texts``.
        """
        found = self.addresses(texts)
        self.texts.update(found)
        naming: dict[bytes, set[int]] = {text: set() for text in texts}
        for reference in find_references(self.image, found):
            span = self.functions.range_of(reference.address)
            if span is not None and reference.address in self.body(span[0]):
                text = found[reference.target]
                naming[text].add(span[0])
                self.places.setdefault((span[0], text), set()).add(reference.address)
        return naming

    def spend(self, steps: int) -> None:
        """Count work; raises NotFoundError when there has been too much of it."""
        self._left -= steps
        if self._left < 0:
            raise NotFoundError("it takes too long to be looked through")

    def callers(self, function: int) -> set[int]:
        """The functions in which an instruction calls this one."""
        found = set()
        sites = self.sites.get(function, ())
        self.spend(len(sites) * DECODING)
        for site in sites:
            span = self.functions.range_of(site)
            if span is not None and site in self.body(span[0]):
                found.add(span[0])
        return found

    def body(self, function: int) -> dict[int, Instruction]:
        """The instructions of a function by address, in order."""
        known = self._bodies.get(function)
        if known is None:
            known = {}
            span = self.functions.range_of(function)
            address, end = span if span is not None else (0, 0)
            while address < end and len(known) < _NODES:
                self.spend(DECODING)
                known[address] = instruction = self.image.instruction(address)
                if instruction.end <= address:
                    break
                address = instruction.end
            self._bodies[function] = known
        return known

    def operations(self, function: int) -> Iterator[Operation]:
        """What the instructions of a function do, in the order of their addresses."""
        body = self.body(function)
        self.spend(len(body))
        for instruction in body.values():
            yield from instruction.operations

    def calls(self, function: int) -> Iterator[DirectCall]:
        """The direct calls in a function."""
        constants: dict[int, int] = {}
        for operation in self.operations(function):
            if isinstance(operation, Set):
                constants[operation.target] = operation.value
            elif isinstance(operation, Call):
                if operation.target is not None:
                    yield DirectCall(operation.target, dict(constants))
                constants.clear()
            else:
                for register in [r for r in constants if changes(operation, r)]:
                    del constants[register]

    # --- variables ---

    def looked_at(self, function: int, size: int = 4) -> set[int]:
        """The variables of so many bytes that a function loads or compares."""
        return {
            address
            for operation in self.operations(function)
            if isinstance(operation, Load) and operation.size == size
            for address in fixed(operation.memory)
        }

    def returned(self, function: int, size: int = 4) -> set[int]:
        """The variables of so many bytes that are loaded for the caller, and the function returns.

        Nothing is called between, and control goes nowhere else.
        """
        result = self.convention.result
        return {
            address
            for start, instruction in self.body(function).items()
            for operation in instruction.operations
            if isinstance(operation, Load) and (operation.target, operation.size) == (result, size)
            if self._comes_to_return(start)
            for address in fixed(operation.memory)
        }

    def _comes_to_return(self, start: int) -> bool:
        address, result = self.image.instruction(start).end, self.convention.result
        for _ in range(_TAIL):
            instruction = self.image.instruction(address)
            for operation in instruction.operations:
                if isinstance(operation, Return):
                    return True
                if isinstance(operation, Call | Jump | Branch) or changes(operation, result):
                    return False
            address = instruction.end
        return False

    def stored(self, function: int, size: int = 4, value: int | None = None) -> set[int]:
        """The variables of so many bytes that a function stores to: that constant, if one is given.

        Counting up or down in memory is not storing.
        """
        return {
            address
            for operation in self.operations(function)
            if isinstance(operation, Store) and operation.size == size
            if (operation.source >= 0 if value is None else operation.value == value)
            for address in fixed(operation.memory)
        }

    def counted(self, function: int) -> dict[int, int]:
        """How often a function changes which variables of four bytes in memory, by adding to it."""
        times: dict[int, int] = {}
        for instruction in self.body(function).values():
            loaded: set[int] = set()
            for operation in instruction.operations:
                match operation:
                    case Load(target, memory, 4) if target == SCRATCH:
                        loaded |= fixed(memory)
                    case Store(memory, _, -1, None):
                        for address in loaded & fixed(memory):
                            times[address] = times.get(address, 0) + 1
        return times

    def compared(self, function: int, value: int) -> set[int]:
        """The variables that are compared with a constant, in memory or as soon as loaded."""
        found: set[int] = set()
        loaded: Load | None = None
        for operation in self.operations(function):
            if isinstance(operation, Load):
                loaded = operation
            elif isinstance(operation, Compare) and loaded is not None:
                same = (operation.left, operation.right) == (loaded.target, -1)
                if same and not operation.test and operation.value == value:
                    found |= fixed(loaded.memory)
        return found


def find_shell(elf: ElfFile, search: Callable[[ElfFile], ShellSearch]) -> Found:
    """Look for a shell's functions in code that nothing names.

    Raises:
        NotExecutable: the file contradicts itself.
    """
    if elf.machine not in _SEARCHED:
        return Found({}, {}, f"in code for {elf.machine} they are not looked for")
    try:
        looking = search(elf)
        typed = looking.typed()
    except NotFoundError as why:
        return Found({}, {}, str(why))
    try:
        others = looking.unattended(typed)
    except NotFoundError as why:
        return typed._replace(unattended=str(why))
    return Found(
        typed.functions | others.functions,
        typed.variables | others.variables,
        evidence={**typed.evidence, **others.evidence},
    )


def only(found: Iterable[_T], what: str) -> _T:
    """The only one of its kind; raises NotFoundError if there is none, or are several."""
    values = set(found)
    if len(values) != 1:
        raise NotFoundError(f"{what} is not to be told from the rest")
    return values.pop()


def fixed(memory: Memory) -> set[int]:
    """The address of a variable, where an operand names one."""
    return {memory.displacement} if (memory.base, memory.counter) == (-1, -1) else set()


def changes(operation: Operation, register: int) -> bool:
    """Whether an operation leaves something else in a register. Of calls nothing is said."""
    if isinstance(operation, Lose):
        return register in operation.registers
    return not isinstance(operation, Call | Jump | Branch) and (
        getattr(operation, "target", None) == register
    )
