# SPDX-License-Identifier: Apache-2.0
"""Symbolic evaluation of a function: which memory it reaches from its arguments. Nothing is run.

A value is a constant, a ``Pointer`` (walk from an argument: load at each offset of ``path`` in
turn, then add ``offset``), a ``Scalar`` (what 1 to 4 bytes at such a place hold), or None where
nothing is known. The stack is one more root, and remembers what was stored in it.

Assumptions, which pick the path that a working connection takes:

- arguments and pointers found through them are not NULL;
- a 4-byte field at the very start of the first argument is 0 when compared with a small constant:
  since OpenSSL 3.2 that is the type of an SSL object, and 0 says TLS (``SSL_TYPE_SSL_CONNECTION``
  in ssl/ssl_local.h), not QUIC;
- a condition, once decided on a path, stays decided.

At every other conditional branch both ways are followed. On a path each place is jumped back to
once at most unless more is asked for, and paths and steps are limited, so any code ends in bounded
time. ``arrivals`` goes only where one given call can be reached from, which makes large functions
cheap.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from ecapture.binary.secrets.functions import Functions, is_stub
from ecapture.binary.secrets.image import Image
from ecapture.binary.secrets.operations import (
    SCRATCH,
    Add,
    Branch,
    Call,
    Choose,
    Compare,
    Copy,
    Forget,
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

_STACK: Final = -1
_DEEPEST: Final = 4  # loads in a row: no chain of interest is longer
_RETURNS: Final = 1  # times that a path may go back to the same place: loops run twice
_NEAR: Final = 32 << 10
_ARGUMENTS: Final = 6
_MAX_NODES: Final = 20_000  # instructions of one function
_MASK: Final = 0xFFFFFFFF


class Pointer(NamedTuple):
    """An address: from argument ``root`` load at each offset of ``path``, then add ``offset``."""

    root: int
    path: tuple[int, ...]
    offset: int


class Scalar(NamedTuple):
    """What ``size`` bytes (1, 2 or 4) at ``place`` hold."""

    place: Pointer
    size: int


Value = Pointer | Scalar | int | None


class Invocation(NamedTuple):
    """A call, or a jump to another function. ``target`` is None where it is not known."""

    at: int
    target: int | None
    arguments: tuple[Value, ...]


class Read(NamedTuple):
    """``size`` bytes were loaded from ``place``."""

    place: Pointer
    size: int


class Write(NamedTuple):
    """``value`` was stored at ``place``."""

    place: Pointer
    value: Value
    size: int


@dataclass(slots=True)
class Trace:
    """What happened on any path, each thing once, in the order first seen."""

    calls: dict[Invocation, None] = field(default_factory=dict)
    reads: dict[Read, None] = field(default_factory=dict)
    writes: dict[Write, None] = field(default_factory=dict)
    copies: dict[tuple[Value, Value], None] = field(default_factory=dict)
    results: dict[Value, None] = field(default_factory=dict)
    complete: bool = True  # False: a limit cut it short


@dataclass(frozen=True, slots=True)
class Limits:
    """How many paths and steps (instructions) an evaluation may take.

    With ``doubt`` nothing is assumed of pointers: where one is compared with NULL both ways are
    followed, so that what a function does when something is missing is seen as well; and what
    stands in a place on the stack that a call was told of is not known behind that call. A path may
    go back to the same place ``returns`` times.
    """

    paths: int = 200
    steps: int = 3000
    doubt: bool = False
    returns: int = _RETURNS


@dataclass(slots=True)
class _State:
    # One path: where it is and all it knows.
    address: int
    registers: dict[int, Value]
    stack: dict[int, tuple[Value, int]]
    facts: dict[tuple[Value, Value], bool]
    returns: dict[int, int]
    flags: tuple[Value, Value] | None = None

    def fork(self, address: int) -> _State:
        return _State(
            address,
            dict(self.registers),
            dict(self.stack),
            dict(self.facts),
            dict(self.returns),
            self.flags,
        )


class Evaluator:
    """Evaluates functions of one image."""

    def __init__(self, image: Image, functions: Functions) -> None:
        self._image = image
        self._functions = functions
        self._convention = image.convention

    def trace(self, start: int, limits: Limits | None = None) -> Trace:
        """Evaluate the function that starts here along all its paths."""
        trace = Trace()
        walk = _Walk(self._image, self._functions, trace, limits or Limits())
        for _ in walk.run(self._entry(start), None):
            pass
        return trace

    def arrivals(self, start: int, call: int, limits: Limits | None = None) -> Iterator[Invocation]:
        """Yield what the call at this address gets, once for each path that reaches it."""
        useful = self._leading_to(start, call)
        if start not in useful:
            return
        walk = _Walk(self._image, self._functions, Trace(), limits or Limits())
        for state in walk.run(self._entry(start), useful):
            if state.address == call:
                yield walk.invocation(state, call, None)

    def _entry(self, start: int) -> _State:
        registers: dict[int, Value] = {
            register: Pointer(number, (), 0)
            for number, register in enumerate(self._convention.arguments[:_ARGUMENTS])
        }
        registers[self._convention.stack] = Pointer(_STACK, (), -self._convention.return_slot)
        return _State(start, registers, {}, {}, {})

    def _leading_to(self, start: int, call: int) -> set[int]:
        # Instructions of the function from which the call can be reached.
        before: dict[int, list[int]] = {}
        seen, pending = {start}, [start]
        while pending and len(seen) < _MAX_NODES:
            address = pending.pop()
            for following in successors(self._image, address):
                before.setdefault(following, []).append(address)
                if following not in seen:
                    seen.add(following)
                    pending.append(following)
        useful, pending = {call}, [call]
        while pending:
            for address in before.get(pending.pop(), ()):
                if address not in useful:
                    useful.add(address)
                    pending.append(address)
        return useful


def successors(image: Image, address: int) -> Iterator[int]:
    """Yield where control may go from an instruction, within its function."""
    instruction = image.instruction(address)
    for operation in instruction.operations:
        if isinstance(operation, Return | Stop):
            return
        if isinstance(operation, Jump):
            if operation.target is not None and abs(operation.target - address) < _NEAR:
                yield operation.target
            return
        if isinstance(operation, Branch):
            yield operation.target
    yield instruction.end


class _Walk:
    # One evaluation: the paths still to follow, and what is spent.

    def __init__(self, image: Image, functions: Functions, trace: Trace, limits: Limits) -> None:
        self._image = image
        self._functions = functions
        self._convention = image.convention
        self._trace = trace
        self._limits = limits
        self._useful: set[int] | None = None

    def run(self, entry: _State, useful: set[int] | None) -> Iterator[_State]:
        """Follow all paths, yielding the state before each instruction."""
        self._useful = useful
        # The earliest fork first: what is left out at the limits is the details of late ones.
        pending, paths, steps = deque([entry]), 1, 0
        while pending:
            state: _State | None = pending.popleft()
            while state is not None:
                if useful is not None and state.address not in useful:
                    break
                yield state
                steps += 1
                if steps > self._limits.steps:
                    self._trace.complete = False
                    return
                other = self._step(state)
                if other is not None:
                    if paths < self._limits.paths:
                        paths += 1
                        pending.append(other)
                    else:
                        self._trace.complete = False
                if state.address < 0:
                    state = None

    def _step(self, state: _State) -> _State | None:
        # Carry one instruction out; answer the other way of a branch that could go both ways.
        here = state.address
        instruction = self._image.instruction(here)
        state.address = instruction.end
        other = None
        for operation in instruction.operations:
            if isinstance(operation, Branch):
                other = self._branch(state, operation)
            elif isinstance(operation, Choose):
                other = self._choose(state, operation)
            elif isinstance(operation, Call | Jump | Return | Stop):
                self._leave(state, here, operation)
            else:
                self._apply(state, operation)
        if other is not None and not _may_go(other, here, self._limits.returns):
            other = None
        if not _may_go(state, here, self._limits.returns):
            state.address = -1
        return other

    def _leave(self, state: _State, here: int, operation: Call | Jump | Return | Stop) -> None:
        if isinstance(operation, Call):
            self._record_call(state, here, operation.target)
            for register in self._convention.clobbered:
                state.registers.pop(register, None)
            state.flags = None
        elif isinstance(operation, Jump):
            self._jump(state, here, operation.target)
        else:
            if isinstance(operation, Return):
                self._trace.results[state.registers.get(self._convention.result)] = None
            state.address = -1

    def invocation(self, state: _State, at: int, target: int | None) -> Invocation:
        """Return the call at ``at`` with the argument values of this state."""
        registers = self._convention.arguments[:_ARGUMENTS]
        return Invocation(at, target, tuple(state.registers.get(r) for r in registers))

    def _record_call(self, state: _State, at: int, target: int | None) -> None:
        call = self.invocation(state, at, target)
        self._trace.calls[call] = None
        if self._limits.doubt:
            for argument in call.arguments:
                if isinstance(argument, Pointer) and argument.root == _STACK and not argument.path:
                    _forget(state.stack, argument.offset)

    def _jump(self, state: _State, here: int, target: int | None) -> None:
        if target is None:
            self._record_call(state, here, None)
            state.address = -1
            return
        inside = self._functions.range_of(here)
        left = abs(target - here) > _NEAR if inside is None else not inside[0] <= target < inside[1]
        if left:
            self._record_call(state, here, target)
        # A function in two parts jumps to its second one: what comes after counts too.
        state.address = -1 if left and is_stub(self._image, target) else target

    def _branch(self, state: _State, branch: Branch) -> _State | None:
        decided = self._equal(state)
        flags = state.flags
        if branch.taken_if is None:
            decided = None
        if decided is not None:
            ways = (branch.target, state.address)
            likely, unlikely = ways if decided == branch.taken_if else ways[::-1]
            # An assumption that leads away from the goal was wrong: builds with a QUIC method ask
            # for its pointer first.
            assumed = flags is not None and not all(isinstance(value, int) for value in flags)
            astray = assumed and self._useful is not None and likely not in self._useful
            state.address = unlikely if astray else likely
            return None
        other = state.fork(branch.target)
        if branch.taken_if is not None and flags is not None:
            state.facts[flags] = not branch.taken_if
            other.facts[flags] = branch.taken_if
        return other

    def _equal(self, state: _State) -> bool | None:
        # What the last compare is known to have found.
        if state.flags is None:
            return None
        left, right = state.flags
        if isinstance(left, int) and isinstance(right, int):
            return left & _MASK == right & _MASK
        assumed = isinstance(left, Pointer) and left.root != _STACK and not self._limits.doubt
        if assumed and right == 0:
            return False
        if (
            isinstance(left, Scalar)
            and left == Scalar(Pointer(0, (), 0), 4)
            and isinstance(right, int)
            and 0 <= right < 0x100
        ):
            return right == 0
        return state.facts.get(state.flags)

    def _apply(self, state: _State, operation: Operation) -> None:
        match operation:
            case Load():
                self._load(state, operation)
            case Store():
                self._store(state, operation)
            case Compare():
                _compare(state, operation)
            case Forget():
                state.flags = None
            case Copy(target, source):
                pair = (state.registers.get(target), state.registers.get(source))
                self._trace.copies[pair] = None
            case _:
                _move(state.registers, operation)

    def _load(self, state: _State, load: Load) -> None:
        place = _address(state.registers, load.memory)
        value: Value = None
        if isinstance(place, Pointer):
            if place.root == _STACK and not place.path:
                kept, size = state.stack.get(place.offset, (None, 0))
                value = kept if size == load.size else None
            else:
                self._trace.reads[Read(place, load.size)] = None
                value = _content(place, load.size)
        if load.target >= 0:
            state.registers[load.target] = value

    def _store(self, state: _State, store: Store) -> None:
        place = _address(state.registers, store.memory)
        if not isinstance(place, Pointer):
            return
        value = store.value if store.source < 0 else state.registers.get(store.source)
        if place.root == _STACK and not place.path:
            for step in range(0, store.size, 4):
                state.stack.pop(place.offset + step, None)
            state.stack.pop(place.offset - 4, None)
            state.stack[place.offset] = (value, store.size)
        self._trace.writes[Write(place, value, store.size)] = None

    def _choose(self, state: _State, choose: Choose) -> _State | None:
        # Of two different fields (or distances to them) either may be meant: that is a branch in
        # disguise.
        first, second = state.registers.get(choose.first), state.registers.get(choose.second)
        decided = None if choose.first_if is None else self._equal(state)
        if decided is not None:
            value = first if decided == choose.first_if else second
        elif first == 0 and isinstance(second, Pointer):
            value = second
        elif second == 0 and isinstance(first, Pointer):
            value = first
        elif first != second and type(first) is type(second) and isinstance(first, Pointer | int):
            other = state.fork(state.address)
            other.registers[choose.target] = second
            state.registers[choose.target] = first
            return other
        else:
            value = first if first == second else None
        state.registers[choose.target] = value
        return None


def _forget(stack: dict[int, tuple[Value, int]], place: int) -> None:
    # A call may fill the place, and the word behind it where that was merely made empty before: a
    # pointer and a length. What else is there is what the function keeps for itself.
    stack.pop(place, None)
    if isinstance(stack.get(place + 8, (None, 0))[0], int):
        del stack[place + 8]


def _move(registers: dict[int, Value], operation: Operation) -> None:
    match operation:
        case Move(target, source, size):
            value = registers.get(source)
            registers[target] = _narrow(value) if size < 8 else value
        case Set(target, number):
            registers[target] = number
        case Add(target, source, amount):
            registers[target] = _moved(registers.get(source), amount)
        case Point(target, memory):
            registers[target] = _address(registers, memory)
        case Lose(lost):
            for register in lost:
                registers.pop(register, None)
        case _:  # control, which the caller has dealt with
            pass


def _may_go(state: _State, here: int, returns: int) -> bool:
    # Only going backwards can make a loop.
    if not 0 <= state.address <= here:
        return True
    count = state.returns.get(state.address, 0)
    state.returns[state.address] = count + 1
    return count < returns


def _narrow(value: Value) -> Value:
    if isinstance(value, int):
        return value & _MASK
    return value if isinstance(value, Scalar) else None


def _moved(value: Value, amount: int) -> Value:
    if isinstance(value, Pointer):
        return value._replace(offset=value.offset + amount)
    return value + amount if isinstance(value, int) else None


def _address(registers: dict[int, Value], memory: Memory) -> Value:
    base: Value = 0 if memory.base == -1 else registers.get(memory.base)
    if memory.counter != -1:
        index = registers.get(memory.counter)
        if not isinstance(index, int):
            return None
        base = _moved(base, index * memory.scale)
    return _moved(base, memory.displacement)


def _content(place: Pointer, size: int) -> Value:
    if size == 8:
        if len(place.path) >= _DEEPEST:
            return None
        return Pointer(place.root, (*place.path, place.offset), 0)
    return Scalar(place, size) if size in (1, 2, 4) else None


def _compare(state: _State, compare: Compare) -> None:
    left = state.registers.get(compare.left)
    right: Value = compare.value if compare.right < 0 else state.registers.get(compare.right)
    if compare.test:
        right = 0
    # Half of an address says nothing: such an argument is a number, which may well be 0.
    halved = compare.size < 8 and (isinstance(left, Pointer) or isinstance(right, Pointer))
    if left is None or right is None or halved:
        state.flags = None
    elif isinstance(left, int) and not isinstance(right, int):
        state.flags = (right, left)
    else:
        state.flags = (left, right)
    state.registers.pop(SCRATCH, None)
