# SPDX-License-Identifier: Apache-2.0
"""Finds where dash and its relatives have read a line, and who runs what was read.

``preadbuffer``, or what it was compiled into, ends by taking a byte where a member of what a
variable points to (``parsefile``) points, and moving that on; the members that count what is left
are stored by it, that which points to the buffer is looked at; and ``parsecmd`` leads to it.

Of that function it is the return behind that which is taken, the only one: a shell that waits for a
line is inside. Source: input.c of dash 0.5.11 and 0.5.12, shell/ash.c of busybox 1.30 to 1.37.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from ecapture.binary.code_search import CodeSearch, changes, fixed
from ecapture.binary.secrets.operations import (
    Branch,
    Call,
    Jump,
    Load,
    Memory,
    Operation,
    Return,
    Store,
)

_FARTHEST: Final = 6  # calls from parsecmd to preadbuffer
_LAST: Final = 20  # instructions of preadbuffer's end that are looked at
# struct parsefile (input.h), which bpf/ash.bpf.c reads: nleft, lleft, nextc, buf
_LEFT, _LEFT_IN_BUFFER, _NEXT, _BUFFER = 16, 20, 24, 32


class Reader(NamedTuple):
    """What reads lines: where it returns, and the variable that points to what is read."""

    place: int
    file: int


class LineSearch(CodeSearch):
    """See CodeSearch."""

    def readers(self, parses: int) -> set[Reader]:
        """What reads lines, of what is called on behalf of a function."""
        seen, found = {parses}, set()
        near = {parses}
        for _ in range(_FARTHEST):
            near = {target for f in near for target in self._leads_to(f)} - seen
            near = {function for function in near if self.functions.is_start(function)}
            seen |= near
            found |= {reader for function in near for reader in self._reader(function)}
        return found

    def _leads_to(self, function: int) -> Iterator[int]:
        for operation in self.operations(function):
            if isinstance(operation, Call | Jump) and operation.target is not None:
                yield operation.target

    def _reader(self, function: int) -> Iterator[Reader]:
        last: deque[tuple[Operation, ...]] = deque(maxlen=_LAST)
        found: set[Reader] = set()
        for address, instruction in self.body(function).items():
            last.append(instruction.operations)
            if any(isinstance(operation, Return) for operation in instruction.operations):
                end = [operation for operations in last for operation in operations]
                found |= {Reader(address, file) for file in _taken_from(end)}
                last.clear()
        if len({reader.place for reader in found}) == 1:
            yield from (reader for reader in found if self._reads_through(function, reader.file))

    def _reads_through(self, function: int, file: int) -> bool:
        # What is stored to and looked at of what the variable points to.
        stored: set[tuple[int, int]] = set()
        loaded: set[tuple[int, int]] = set()
        pointers: set[int] = set()
        for operation in self.operations(function):
            memory = getattr(operation, "memory", None)
            if isinstance(memory, Memory) and memory.base in pointers and memory.counter == -1:
                where = (memory.displacement, getattr(operation, "size", 0))
                (stored if isinstance(operation, Store) else loaded).add(where)
            pointers = {register for register in pointers if not changes(operation, register)}
            if isinstance(operation, Call):
                pointers -= self.convention.clobbered
            elif isinstance(operation, Load) and file in fixed(operation.memory):
                pointers.add(operation.target)
        counts = {(_LEFT, 4), (_LEFT_IN_BUFFER, 4), (_NEXT, 8)}
        return counts <= stored and {(_NEXT, 8), (_BUFFER, 8)} <= loaded


def _taken_from(operations: Sequence[Operation]) -> Iterator[int]:
    # The variables that point to what a byte is taken from and returned, in one run.
    for number, operation in enumerate(operations):
        match operation:
            case Load(target, memory, 8) if _takes_a_byte(operations[number + 1 :], target):
                yield from fixed(memory)


def _takes_a_byte(operations: Iterable[Operation], pointer: int) -> bool:
    # Loads the member that points to what is next, moves that on, and loads what it pointed to.
    member = Memory(pointer, _NEXT)
    at, moved, taken = -1, False, False
    for operation in operations:
        match operation:
            case Call() | Jump() | Branch():
                return False
            case Return():
                return taken
            case Store(memory, 8) if memory == member:
                moved = at >= 0
            case Load(_, memory, 1) if moved and memory == Memory(at, 0):
                taken = True
            case Load(target, memory, 8) if memory == member:
                at = target
            case _ if not taken and (changes(operation, pointer) or changes(operation, at)):
                return False
    return False
