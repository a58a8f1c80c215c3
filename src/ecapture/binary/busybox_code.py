# SPDX-License-Identifier: Apache-2.0
"""Finds the functions of busybox's sh (ash) by what they do.

Its builds have neither names nor records of the unwinder for their own code. What is called
directly starts there, and ends where control cannot go on; functions that only pointers lead to are
not hooked. Two signs for each, which do not depend on one another:

- ``cmdloop`` names what is said of jobs that keep a shell from ending, and something that names
  "$HOME/.profile" calls it;
- ``parsecmd`` is called by ``cmdloop``, which compares its result with -1 (NODE_EOF), and keeps its
  argument as a byte in a variable (``doprompt``);
- ``evalstring`` is the one other caller of ``parsecmd``; it compares its result likewise, and calls
  ``evaltree`` as ``cmdloop`` does;
- ``preadbuffer`` and ``parsefile`` are found by ``line_code``, from ``parsecmd`` on;
- ``exitstatus`` is a byte behind the pointer in a variable (``ptr_to_globals_misc``), which
  ``evaltree`` returns and stores to.

``minusc`` is what main compares with 0 and loads as an argument where it calls ``evalstring``. The
names of files: ``arg0`` is the one member that is a pointer of what says "line %d: ",
``commandname`` the variable that this looks at and that is stored to just before ``cmdloop`` is
called; they may be missing.

Invariants: those of ``ash_code``. Every function is where a direct call leads to that was met by
decoding the function that calls. Sources: shell/ash.c of busybox 1.30 to 1.37.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

from ecapture.binary.code_search import (
    DECODING,
    Found,
    NotFoundError,
    changes,
    find_shell,
    fixed,
    only,
)
from ecapture.binary.elf import ElfFile
from ecapture.binary.line_code import LineSearch
from ecapture.binary.secrets.functions import ListedFunctions
from ecapture.binary.secrets.image import Image
from ecapture.binary.secrets.labels import find_references
from ecapture.binary.secrets.operations import (
    SCRATCH,
    Branch,
    Call,
    Compare,
    Jump,
    Load,
    Operation,
    Return,
    Store,
)

_STAYS, _PROFILE, _SAYS = b'\nUse "exit" to leave shell.\n\0', b"$HOME/.profile\0", b"line %d: \0"
_ENDS: Final = 0xFFFFFFFF  # the low half of NODE_EOF, -1
_NEAR: Final = 512  # bytes of code between what main does one after the other
_JUST: Final = 48  # bytes of code between an assignment and the next call
_LARGEST: Final = 1 << 14  # bytes of one function
_AT_ONCE: Final = 2  # instructions from a call to the comparison of its result
_PADDING: Final = b"\xc3\xcc\x90"  # ret, int3, nop
_LONG_NOP: Final = b"\x0f\x1f"
_CALL: Final = 5  # bytes; what is at no distance is a zero in another instruction
_MOST: Final = 4096  # instructions
_BY_CALL: Final = "; a direct call leads there"
_EVIDENCE: Final = {
    "cmdloop": "says what keeps a shell from ending; called near $HOME/.profile",
    "parsecmd": "called by cmdloop, which compares its result with -1; keeps its argument",
    "evalstring": "calls parsecmd and evaltree as cmdloop does",
    "preadbuffer.return": "ends by taking a byte of the buffer; parsecmd leads to it",
}


class _Member(NamedTuple):
    # What stands behind the pointer in a variable.
    variable: int
    offset: int


class _CalledFunctions(ListedFunctions):
    """The functions that direct calls lead to."""

    def __init__(
        self,
        elf: ElfFile,
        image: Image,
        sites: Mapping[int, list[int]],
        spend: Callable[[int], None],
    ) -> None:
        super().__init__(elf, image)
        self._image = image
        self._spend = spend
        self._starts = sorted(
            target
            for target, calls in sites.items()
            if any(site + _CALL != target for site in calls) and self._is_behind_an_end(target)
        )
        self._ends: dict[int, int] = {}

    def is_start(self, address: int) -> bool:
        """Tell whether a direct call may lead exactly here."""
        at = bisect_right(self._starts, address)
        return at > 0 and self._starts[at - 1] == address

    def range_of(self, address: int) -> tuple[int, int] | None:
        """Return first and behind-last address of the function around an address, if known."""
        start = self.before(address)
        if start is None:
            return None
        if start not in self._ends:
            self._ends[start] = self._end_of(start)
        return (start, self._ends[start]) if address < self._ends[start] else None

    def before(self, address: int) -> int | None:
        """The last address not behind another that direct calls lead to."""
        at = bisect_right(self._starts, address)
        return self._starts[at - 1] if at else None

    def _is_behind_an_end(self, address: int) -> bool:
        # Bytes in the middle of instructions may look like calls to anywhere: what stands before a
        # function is a return, padding, a jump, or a call that does not return.
        before = self._image.bytes_at(address - 9, 9)
        return len(before) == 9 and (
            before[-1] in _PADDING
            or before[-5] in (0xE8, 0xE9)
            or before[-2] in (0xEB, 0xFF)
            or (before[-1] == 0 and _LONG_NOP in before)
        )

    def _end_of(self, start: int) -> int:
        # Behind the first instruction that does not go on and that no branch before it passes.
        at = bisect_right(self._starts, start)
        limit = self._starts[at] if at < len(self._starts) else start + _LARGEST
        address = passed = start
        for _ in range(_MOST):
            self._spend(DECODING)
            instruction = self._image.instruction(address)
            if instruction.end <= address or instruction.end > limit:
                return address
            address = instruction.end
            stops = False
            for operation in instruction.operations:
                target = operation.target if isinstance(operation, Branch | Jump) else None
                if target is not None and start <= target < limit:
                    passed = max(passed, target)
                stops = stops or isinstance(operation, Jump | Return)
            if stops and address > passed:
                return address
        return address


def find_busybox(elf: ElfFile) -> Found:
    """Look for the functions of busybox's shell in code that nothing names.

    Raises:
        NotExecutable: the file contradicts itself.
    """
    return find_shell(elf, _Search)


def _found(functions: dict[str, int], variables: dict[str, int]) -> Found:
    evidence = {name: _EVIDENCE[name] + _BY_CALL for name in functions}
    return Found(functions, variables, evidence=evidence)


class _Search(LineSearch):
    def __init__(self, elf: ElfFile) -> None:
        super().__init__(elf)
        self._called = _CalledFunctions(elf, self.image, self.sites, self.spend)
        self.functions = self._called
        self._named = self.naming((_STAYS, _SAYS))
        self._loop = only(self._named[_STAYS], "what runs one command after the other")
        profile = self.addresses((_PROFILE,))
        self._main = [r.address for r in find_references(self.image, profile)]  # sorted
        if not any(self._is_near_main(site) for site in self.sites.get(self._loop, ())):
            raise NotFoundError("what reads $HOME/.profile is not to be told from the rest")

    def typed(self) -> Found:
        parses = only(
            (f for f in self._compared_with_end(self._loop) if len(set(self._kept(f))) == 1),
            "what reads a command",
        )
        self._strings = only(self.callers(parses) - {self._loop}, "what runs a text")
        if parses not in self._compared_with_end(self._strings):
            raise NotFoundError("what runs a text is not to be told from the rest")
        self._runs = only(self._run_by_both(parses), "what carries out a command")
        reader = only(self.readers(parses), "what reads a line")
        status = only(self._results(self._runs), "where it keeps $?")
        return _found(
            {"parsecmd": parses, "preadbuffer.return": reader.place},
            {
                "parsefile": reader.file,
                "doprompt": only(self._kept(parses), "whether somebody types"),
                "ptr_to_globals_misc": status.variable,
                "exitstatus.member": status.offset,
            },
        )

    def unattended(self, typed: Found) -> Found:
        misc = typed.variables["ptr_to_globals_misc"]
        string = only(self._handed_on(misc), "the argument of -c")
        span = self._called.range_of(self._loop)
        if span is None:
            raise NotFoundError("where cmdloop ends is not known")
        variables = {"minusc.member": string, "cmdloop.end": span[1]}
        for name, found in self._names(misc).items():
            if len(found) == 1:
                variables[name] = found.pop()
        return _found({"cmdloop": self._loop, "evalstring": self._strings}, variables)

    # --- functions ---

    def _is_near_main(self, site: int) -> bool:
        at = bisect_right(self._main, site - _NEAR)
        return at < len(self._main) and self._main[at] < site + _NEAR

    def _compared_with_end(self, function: int) -> set[int]:
        # What is called, and its result compared with -1 at once.
        found: set[int] = set()
        called: int | None = None
        since = 0
        for instruction in self.body(function).values():
            since += 1
            for operation in instruction.operations:
                match operation:
                    case Call(target):
                        called, since = target, 0
                    case Compare(_, -1, value, False) if called is not None and since <= _AT_ONCE:
                        if value & _ENDS == _ENDS:
                            found.add(called)
        return {target for target in found if self._called.is_start(target)}

    def _run_by_both(self, parses: int) -> set[int]:
        # What is called behind parsecmd with what that returned: by cmdloop with 0 beside it.
        second = self.convention.arguments[1]
        by_loop = {
            call.target for call in self.calls(self._loop) if call.constants.get(second) == 0
        }
        return by_loop & {call.target for call in self.calls(self._strings)} - {parses}

    # --- variables ---

    def _kept(self, function: int) -> Iterator[int]:
        # Variables that a function stores its argument to, as a byte, before that changes.
        first = self.convention.arguments[0]
        for operation in self.operations(function):
            if isinstance(operation, Store) and (operation.source, operation.size) == (first, 1):
                yield from fixed(operation.memory)
            if isinstance(operation, Call) or changes(operation, first):
                return

    def _members(self, function: int) -> Iterator[tuple[_Member, Operation]]:
        # What is loaded or stored behind pointers in variables.
        pointers: dict[int, int] = {}
        for operation in self.operations(function):
            if isinstance(operation, Load | Store) and operation.memory.counter == -1:
                variable = pointers.get(operation.memory.base)
                if variable is not None:
                    yield _Member(variable, operation.memory.displacement), operation
            lost = self.convention.clobbered if isinstance(operation, Call) else pointers.keys()
            for register in set(lost) & pointers.keys():
                if isinstance(operation, Call) or changes(operation, register):
                    del pointers[register]
            if isinstance(operation, Load | Store) and operation.size == 8:
                register = operation.target if isinstance(operation, Load) else operation.source
                for address in fixed(operation.memory) if register >= 0 else ():
                    pointers[register] = address

    def _results(self, function: int) -> set[_Member]:
        # Bytes that are loaded where results are handed over, and stored to.
        result = self.convention.result
        stored = {
            member
            for member, operation in self._members(function)
            if isinstance(operation, Store) and operation.size == 1 and operation.source >= 0
        }
        loaded = {
            operation: member
            for member, operation in self._members(function)
            if isinstance(operation, Load) and (operation.target, operation.size) == (result, 1)
        }
        found: set[_Member] = set()
        last: _Member | None = None
        passed = 0
        for instruction in self.body(function).values():
            for operation in instruction.operations:
                if isinstance(operation, Load) and operation in loaded:
                    last = loaded[operation]
                elif isinstance(operation, Return) and last is not None:
                    found.add(last)
                elif isinstance(operation, Branch):
                    passed = operation.target  # the check of the stack ends such functions
                elif isinstance(operation, Call):
                    last = last if instruction.end == passed else None
                elif changes(operation, result):
                    last = None
        return found & stored

    def _names(self, misc: int) -> dict[str, set[int]]:
        said = self._named[_SAYS]
        members = {
            member.offset
            for function in said
            for member, operation in self._members(function)
            if isinstance(operation, Load) and operation.size == 8 and member.variable == misc
        }
        looked_at = {variable for function in said for variable in self.looked_at(function, 8)}
        stored: set[int] = set()
        for site in self.sites[self._loop]:
            for address, operation in self._operations_to(site, 0):
                if isinstance(operation, Store) and operation.size == 8 and operation.source >= 0:
                    stored |= fixed(operation.memory) if site - address < _JUST else set()
        return {"arg0.member": members, "commandname": stored & looked_at - {misc}}

    def _operations_to(self, site: int, beyond: int) -> Iterator[tuple[int, Operation]]:
        # What is done up to a call, and in so many bytes behind it, in what nothing calls: it is
        # decoded from where the last function before it starts.
        address = self._called.before(site)
        if address is None or site - address > _LARGEST:
            return
        while address < site + beyond:
            self.spend(DECODING)
            instruction = self.image.instruction(address)
            for operation in instruction.operations:
                yield address, operation
            address = max(instruction.end, address + 1)

    def _handed_on(self, variable: int) -> set[int]:
        # Members that main loads as an argument and compares with 0, through a register that holds
        # the variable's pointer now and then.
        first = self.convention.arguments[0]
        through: set[int] = set()
        loaded: dict[int, set[tuple[int, int]]] = {first: set(), SCRATCH: set()}
        for site in self.sites.get(self._strings, ()):
            if not self._is_near_main(site):
                continue
            for address, operation in self._operations_to(site, _NEAR):
                if not isinstance(operation, Load) or operation.size != 8:
                    continue
                target, memory = operation.target, operation.memory
                if variable in fixed(memory):
                    through.add(target)
                elif site - address < _NEAR and target in loaded and memory.counter == -1:
                    loaded[target].add((memory.base, memory.displacement))
        both = loaded[first] & loaded[SCRATCH]
        return {displacement for register, displacement in both if register in through}
