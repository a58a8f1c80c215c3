# SPDX-License-Identifier: Apache-2.0
"""Finds where fish runs what was typed.

fish 3.0 and 3.1 export what they have: ``reader_run_command`` runs what was typed, and
``set_last_statuses`` sets what $status is. Later builds have no names, in C++ (3.2 to 3.7) as in
Rust (4.0 and later). In those it is one call that is looked for, by two signs that do not depend on
one another:

- what reads a terminal (``read_i``, or what that was compiled into) names the events
  "fish_preexec" and "fish_postexec", which it sends around every command; it, or what it calls
  (``reader_run_command``), names CMD_DURATION;
- what is called there to evaluate a text (``parser_t::eval``, ``eval_with``) sets $status to 123
  where that is no command, and returns 123 as wait() would tell it (STATUS_ILLEGAL_CMD): no other
  function has both numbers.

Two numbers of eight bytes are counted up atomically there: before the call, how many lines were
read, and behind it, how many commands had a status. So where the former was done, another line is
going to be read. That may be missing: then it is not known whether a shell ended with a command.

How the text is handed over is taken from the latter: it multiplies its length by four, which is
its fourth argument (a slice of Rust) or a member of what its second points to (``std::wstring``).
So is where the status is left: where the 123 is stored on its way to the caller.

Invariants: nothing is returned unless all of that is found and each is the only one. Functions
start where the unwinder's records say so; the call and what is behind it are instructions of one.
Sources: src/reader.cpp, src/parser.cpp and src/proc.h of fish 3.1.2 and 3.6.0; src/reader.rs,
src/parser.rs and src/proc.rs of fish 4.0.2.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from ecapture._wire import WideStatus, WideText
from ecapture.binary.code_search import (
    BY_RECORD,
    CodeSearch,
    Found,
    NotFoundError,
    changes,
    find_shell,
    fixed,
    only,
)
from ecapture.binary.elf import ElfFile
from ecapture.binary.secrets.operations import (
    Add,
    Branch,
    Call,
    Jump,
    Load,
    Memory,
    Move,
    Operation,
    Point,
    Return,
    Set,
    Stop,
    Store,
)

RUNS: Final = (
    "_Z18reader_run_commandR8parser_tRKNSt7__cxx1112basic_stringIwSt11char_traitsIwESaIwEEE"
)
"""void reader_run_command(parser_t &parser, const wcstring &cmd)"""
SETS: Final = "_ZN11env_stack_t17set_last_statusesE10statuses_t"
"""void env_stack_t::set_last_statuses(statuses_t s), which is handed over by its address."""

_BEFORE, _BEHIND, _LASTED = (
    text.encode("utf-32-le") for text in ("fish_preexec", "fish_postexec", "CMD_DURATION")
)
_CHARACTER: Final = 4  # bytes
_ILLEGAL: Final = 123
_WAITED: Final = _ILLEGAL << 8  # as wait() tells it
_OPTION: Final = _WAITED << 32 | 1  # of Rust, which is there
_PLACES: Final = {_WAITED: WideStatus.PACKED, _OPTION: WideStatus.OPTION}
# as the end of an instruction: the value of either, with what is before it
_CONSTANTS: Final = re.compile(rb"\x00\x7b\x00\x00", re.DOTALL)
_MOST_PLACES: Final = 256
_COUNTS: Final = re.compile(rb"\xf0\x48(?:\x83\x05....\x01|\xff\x05....)", re.DOTALL)
_EVIDENCE: Final = {
    "eval.call": "in what names fish_preexec, fish_postexec and CMD_DURATION; of what sets and"
    " returns 123",
    "eval.returned": "the instruction behind the call",
    "reader.next": "before the call, behind one of the two that count atomically",
}
_NAMES: Final = {"reader_run_command": RUNS, "set_last_statuses": SETS}
_NO_FILES: Final = "what fish reads from files and -c is not looked for"


class _Argument(NamedTuple):
    # What an argument was when the function began.
    number: int


class _Member(NamedTuple):
    # Eight bytes behind the pointer that an argument was.
    number: int
    offset: int


_Origin = _Argument | _Member
_Place = int | Memory  # a register, or eight bytes of the stack


def find_named_fish(elf: ElfFile) -> Found | None:
    """The functions of a fish that exports them; None if it is none."""
    found = {name: elf.symbol(symbol) for name, symbol in _NAMES.items()}
    functions = {name: symbol.address for name, symbol in found.items() if symbol is not None}
    if "reader_run_command" not in functions:
        return None
    variables = {"wide_text": int(WideText.STRING), "wide_status": int(WideStatus.SET)}
    return Found(functions, variables, unattended=_NO_FILES)


def find_fish(elf: ElfFile) -> Found:
    """Look for the call by which fish runs what was typed, in code that nothing names.

    Raises:
        NotExecutable: the file contradicts itself.
    """
    return find_shell(elf, _Search)


class _Search(CodeSearch):
    def typed(self) -> Found:
        runner = only(self._runners(), "what runs what was typed")
        called = {call.target for call in self.calls(runner)}
        evaluates = only(self._refusing() & called, "what evaluates a text")
        site = only(self._sites(runner, evaluates), "where a command is run")
        behind = self.body(runner)[site].end
        if behind not in self.body(runner):
            raise NotFoundError("what is behind the call is not known")
        functions = {"eval.call": site, "eval.returned": behind}
        following = self._next(runner, site)
        if following is not None:
            functions["reader.next"] = following
        variables = {
            "wide_text": int(only(self._texts(evaluates), "how a text is handed over")),
            "wide_status": int(only(self._statuses(evaluates), "where a status is left")),
        }
        evidence = {name: _EVIDENCE[name] + BY_RECORD for name in functions}
        return Found(functions, variables, evidence=evidence)

    def unattended(self, typed: Found) -> Found:  # noqa: ARG002 - whatever was found
        raise NotFoundError(_NO_FILES)

    # --- functions ---

    def _runners(self) -> Iterator[int]:
        places = self.addresses((_BEFORE, _BEHIND))
        for runner in self.naming((_LASTED,))[_LASTED]:
            around = {runner, *self.callers(runner)}
            if any(self._mentioned(reader, places) == {_BEFORE, _BEHIND} for reader in around):
                yield runner

    def _mentioned(self, function: int, places: dict[int, bytes]) -> set[bytes]:
        # Texts whose address is taken, or which are copied by parts.
        found = set()
        for operation in self.operations(function):
            match operation:
                case Set(_, address) | Load(_, Memory(-1, address, -1)):
                    found |= {t for at, t in places.items() if at <= address < at + len(t)}
        return found

    def _refusing(self) -> set[int]:
        near: set[int] = set()
        count = 0
        for part in self.image.parts:
            if not part.executable:
                continue
            for address, block in self.image.scan(part, 3):
                for match in _CONSTANTS.finditer(block):
                    count += 1
                    if count > _MOST_PLACES:
                        raise NotFoundError("too much in it looks like a status")
                    span = self.functions.range_of(address + match.start())
                    near |= {span[0]} if span is not None else set()
        return {function for function in near if self._refuses(function)}

    def _refuses(self, function: int) -> bool:
        sets = returns = False
        for operation in self.operations(function):
            match operation:
                case Store(_, 4, -1, value) if value == _ILLEGAL:
                    sets = True
                case Store(_, _, -1, value) | Set(_, value) if value in (_WAITED, _OPTION):
                    returns = True
        return sets and returns

    def _sites(self, function: int, target: int) -> Iterator[int]:
        for address, instruction in self.body(function).items():
            if any(isinstance(o, Call) and o.target == target for o in instruction.operations):
                yield address

    def _next(self, function: int, site: int) -> int | None:
        counted = list(self._counted(function))
        if [address < site for address in counted] != [True, False]:
            return None
        return None if self._is_led_to(function, counted[0]) else counted[0]

    def _counted(self, function: int) -> Iterator[int]:
        # What is behind lock inc or lock add of one, of eight bytes whose address is fixed: the
        # kernel hooks no instruction with such a prefix.
        for address, instruction in self.body(function).items():
            if any(isinstance(o, Store) and fixed(o.memory) for o in instruction.operations):
                raw = self.image.bytes_at(address, instruction.end - address)
                if _COUNTS.fullmatch(raw):
                    yield instruction.end

    def _is_led_to(self, function: int, address: int) -> bool:
        # From elsewhere than the instruction before.
        return any(
            isinstance(operation, Branch | Jump) and operation.target == address
            for operation in self.operations(function)
        )

    # --- what it is given, and returns ---

    def _texts(self, function: int) -> Iterator[WideText]:
        for operation, origins in self._followed(function):
            match operation:
                case Point(_, Memory(base, 0, counter, scale)) if scale == _CHARACTER:
                    start, length = origins.get(base), origins.get(counter)
                    if base == -1 and length == _Argument(3):
                        yield WideText.SLICE
                    elif (start, length) == (_Member(1, 0), _Member(1, 8)):
                        yield WideText.STRING

    def _statuses(self, function: int) -> Iterator[WideStatus]:
        constants: dict[int, int] = {}
        for operation, known in self._followed(function):
            match operation:
                case Store(Memory(base, 0, -1), 8, source, value):
                    left = constants.get(source) if value is None else value
                    if known.get(base) == _Argument(0) and left in _PLACES:
                        yield _PLACES[left]
            constants = {r: v for r, v in constants.items() if not changes(operation, r)}
            if isinstance(operation, Call):
                constants.clear()
            elif isinstance(operation, Set):
                constants[operation.target] = operation.value
        if self._returns_from_stack(function):
            yield WideStatus.RETURNED

    def _returns_from_stack(self, function: int) -> bool:
        # It is stored on the stack, and loaded to be handed over.
        kept: set[Memory] = set()
        loaded: set[Memory] = set()
        for operation in self.operations(function):
            match operation:
                case Store(memory, 4, -1, value) if value == _WAITED:
                    kept.add(memory)
                case Load(register, memory, 8) if register == self.convention.result:
                    loaded.add(memory)
        return any(memory.base == self.convention.stack for memory in kept & loaded)

    def _followed(self, function: int) -> Iterator[tuple[Operation, dict[_Place, _Origin]]]:
        """What a function does, in the order of addresses, and what registers and stack then hold.

        Where control comes from several places before, what all agree about; loops are not
        followed back.
        """
        known: dict[_Place, _Origin] = {
            register: _Argument(number) for number, register in enumerate(self.convention.arguments)
        }
        coming: dict[int, dict[_Place, _Origin]] = {}
        ended = False
        for address, instruction in self.body(function).items():
            others = coming.pop(address, None)
            if others is not None:
                known = others if ended else dict(known.items() & others.items())
            elif ended:
                known = {}
            ended = False
            for operation in instruction.operations:
                yield operation, known
                known = self._after(operation, known)
                if isinstance(operation, Branch | Jump) and operation.target is not None:
                    met = coming.get(operation.target, known)
                    coming[operation.target] = dict(known.items() & met.items())
                ended = isinstance(operation, Jump | Return | Stop)

    def _after(self, operation: Operation, known: dict[_Place, _Origin]) -> dict[_Place, _Origin]:
        stack = self.convention.stack
        new: _Origin | None = None
        target: _Place = getattr(operation, "target", -1)
        lost: set[_Place] = set()
        match operation:
            case Move(_, source, 8):
                new = known.get(source)
            case Load(_, Memory(base, _, -1) as memory, 8) if base == stack:
                new = known.get(memory)
            case Load(_, Memory(base, offset, -1), 8):
                pointer = known.get(base)
                new = _Member(pointer.number, offset) if isinstance(pointer, _Argument) else None
            case Store(memory, size, source) if memory.base == stack:
                lost = {place for place in known if _overlap(place, memory, size)}
                if (memory.counter, size) == (-1, 8):
                    new, target = known.get(source), memory
            case Add(register) if register == stack:
                lost = {place for place in known if isinstance(place, Memory)}
            case Call():
                lost = set(self.convention.clobbered)
        after = {
            place: origin
            for place, origin in known.items()
            if place not in lost and not (isinstance(place, int) and changes(operation, place))
        }
        return after if new is None else after | {target: new}


def _overlap(place: _Place, memory: Memory, size: int) -> bool:
    # Eight bytes of the stack, and so many that are stored somewhere on it.
    if not isinstance(place, Memory):
        return False
    near = place.displacement - size < memory.displacement < place.displacement + 8
    return near or memory.counter != -1
