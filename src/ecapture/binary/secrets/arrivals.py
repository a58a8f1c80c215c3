# SPDX-License-Identifier: Apache-2.0
"""Follows code from any instruction to the next call through a pointer, in terms of registers.

``evaluate`` begins where a function does and speaks of its arguments. Here the beginning is in the
middle of a function, so every register stands for itself: a value is a constant, or a register and
a walk through memory. Direct calls are followed, one deep, because an accessor that a compiler left
out of line may lie between; everything else that is not understood ends a path.

Invariants: what a path stored is what a later load of the same word gets, and a word that was
stored in part is unknown; every loop is bounded, and no path passes an instruction twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from ecapture.binary.secrets.evaluate import Pointer
from ecapture.binary.secrets.image import Image
from ecapture.binary.secrets.operations import (
    SCRATCH,
    UNKNOWN_INDEX,
    Add,
    Branch,
    Call,
    Choose,
    Copy,
    Jump,
    Load,
    Lose,
    Memory,
    Move,
    Operation,
    Point,
    Return,
    Set,
    Stop,
    Store,
)

_STEPS: Final = 600  # instructions of all paths together
_PATHS: Final = 24
_DEEPEST: Final = 3  # loads in a row
_MASK: Final = 0xFFFFFFFF


class Entry(NamedTuple):
    """What the instruction ``at`` loaded from a table at a constant address, at some index."""

    at: int
    table: int


Value = Pointer | Entry | int | None


@dataclass(slots=True)
class State:
    """One path: the instruction it has come to, and what is known there."""

    address: int
    registers: dict[int, Value]
    memory: dict[Pointer, tuple[Value, int]]
    passed: set[int]
    back: tuple[int, ...]  # where direct calls return to

    def fork(self, address: int) -> State:
        """Return a second path that goes on elsewhere."""
        return State(address, dict(self.registers), dict(self.memory), set(self.passed), self.back)

    def word(self, place: Pointer) -> Value:
        """Return what eight bytes of memory hold."""
        beside = [
            other
            for other, (_value, size) in self.memory.items()
            if other[:2] == place[:2] and place.offset - size < other.offset < place.offset + 8
        ]
        if not beside:
            if len(place.path) >= _DEEPEST:
                return None
            return Pointer(place.root, (*place.path, place.offset), 0)
        value, size = self.memory[beside[0]]
        return value if beside == [place] and size == 8 else None


def arrivals(image: Image, start: int) -> Iterator[State]:
    """Yield the state at the first call through a pointer, for each path that comes to one."""
    numbers = range(SCRATCH)
    begin = State(start, {n: Pointer(n, (), 0) for n in numbers}, {}, set(), ())
    pending, paths, steps = [begin], 1, 0
    while pending:
        state = pending.pop()
        while state.address not in state.passed and steps < _STEPS:
            steps += 1
            state.passed.add(state.address)
            here, instruction = state.address, image.instruction(state.address)
            if instruction.end <= here:
                break
            state.address = instruction.end
            outcome = _run(state, instruction.operations, image, instruction.end)
            if isinstance(outcome, State):
                if paths < _PATHS:
                    paths += 1
                    pending.append(outcome)
            elif outcome:
                if outcome == "arrived" and not state.back:
                    state.address = here
                    yield state
                break


def _run(state: State, operations: tuple[Operation, ...], image: Image, end: int) -> State | str:
    # Another path, the reason why this one ends, or "" to go on.
    for operation in operations:
        match operation:
            case Call() | Return() | Jump() | Branch():
                return _leave(state, operation, image, end)
            case Stop() | Copy():
                return "lost"
            case Store():
                if not _store(state, operation):
                    return "lost"
            case _:
                _apply(state, operation)
    return ""


def _leave(state: State, operation: Operation, image: Image, end: int) -> State | str:
    match operation:
        case Call(None):
            return "arrived"
        case Call(int(target)) if not state.back:
            _move_stack(state, image, -image.convention.return_slot)
            state.back, state.address = (end,), target
        case Return() if state.back:
            _move_stack(state, image, image.convention.return_slot)
            state.address, state.back = state.back[0], ()
        case Jump(int(target)):
            state.address = target
        case Branch(target, _):
            return state.fork(target)
        case _:
            return "lost"
    return ""


def _move_stack(state: State, image: Image, amount: int) -> None:
    stack = image.convention.stack
    state.registers[stack] = moved(state.registers.get(stack), amount)


def _apply(state: State, operation: Operation) -> None:
    registers = state.registers
    match operation:
        case Set(target, number):
            registers[target] = number
        case Move(target, source, size):
            registers[target] = _narrow(registers.get(source), size)
        case Add(target, source, amount):
            registers[target] = moved(registers.get(source), amount)
        case Point(target, memory):
            place = _place(registers, memory)
            registers[target] = None if isinstance(place, Entry) else place
        case Load(target, memory, size):
            if target >= 0:
                registers[target] = _load(state, memory, size)
        case Choose(target, first, second, _):
            one, other = registers.get(first), registers.get(second)
            registers[target] = one if one == other else None
        case Lose(lost):
            for register in lost:
                registers[register] = None
        case _:  # compares: both ways of every branch are followed
            pass


def _narrow(value: Value, size: int) -> Value:
    if size == 8:
        return value
    return value & _MASK if isinstance(value, int) else None


def moved(value: Value, amount: int) -> Value:
    """Return a value with a number added."""
    if isinstance(value, Pointer):
        return value._replace(offset=value.offset + amount)
    return value + amount if isinstance(value, int) else None


def _place(registers: dict[int, Value], memory: Memory) -> Value:
    # A constant with something unknown added is an entry of the table there.
    base: Value = 0 if memory.base == -1 else registers.get(memory.base)
    if memory.counter == -1:
        return moved(base, memory.displacement)
    index = None if memory.counter == UNKNOWN_INDEX else registers.get(memory.counter)
    if isinstance(index, int) and isinstance(base, int | Pointer):
        if isinstance(base, int) or memory.scale != 1 or abs(index) < 1 << 12:
            return moved(moved(base, index * memory.scale), memory.displacement)
        return Entry(0, index)
    if isinstance(base, int):
        return Entry(0, base)
    if isinstance(index, int) and memory.scale == 1:
        return Entry(0, index)
    return None


def _load(state: State, memory: Memory, size: int) -> Value:
    place = _place(state.registers, memory)
    if isinstance(place, Entry):
        return place._replace(at=state.address) if size == 8 else None
    return state.word(place) if isinstance(place, Pointer) and size == 8 else None


def _store(state: State, store: Store) -> bool:
    # False: it could have gone anywhere.
    place = _place(state.registers, store.memory)
    if not isinstance(place, Pointer):
        return isinstance(place, int | Entry)  # constants of the program, not of a thread
    value: Value = store.value if store.source < 0 else state.registers.get(store.source)
    for other, (_value, size) in list(state.memory.items()):
        if (
            other[:2] == place[:2]
            and place.offset - size < other.offset < place.offset + store.size
        ):
            if other.offset >= place.offset and other.offset + size <= place.offset + store.size:
                del state.memory[other]
            else:
                state.memory[other] = (None, size)
    state.memory[place] = (value, store.size)
    return True
