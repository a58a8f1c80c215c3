# SPDX-License-Identifier: Apache-2.0
"""Finds dash's functions by what they do: no build that is distributed has names.

Two signs for each, which do not depend on one another:

- ``cmdloop`` names what is said of jobs that keep a shell from ending, and main, which names
  "$HOME/.profile", calls it;
- ``parsecmd`` is called by ``cmdloop`` with 0 and with 1, keeps its argument in a variable
  (``doprompt``) and empties that whose address ``cmdloop`` takes for the end of the input
  (``tokpushback``, NEOF);
- ``evalstring`` is the one other caller of ``parsecmd``, calls ``evaltree`` as ``cmdloop`` does,
  and is given by main what ``procargs``, which says that -c wants an argument, stored (``minusc``);
- ``preadbuffer`` and ``parsefile`` are found by ``line_code``, from ``parsecmd`` on;
- ``exitstatus`` is what ``evaltree`` returns and stores to, and what becomes 130 where a signal
  interrupts the shell (``onint``) and 2 where it refuses something (``exerror``, error.c).

The names of files (``arg0``, ``commandname``) are what the function of messages ("%s: %d: ") looks
at and ``procargs``, or a caller of ``cmdloop`` that reads files, stores to; they may be missing.

Invariants: nothing is returned unless all that typed commands need is found and
each is the only one; the rest is found as a whole or not at all. Every function starts where the
unwinder's records say that one does, and every place is the start of an instruction of it.
Sources: main.c, parser.c, input.c, eval.c, error.c and options.c of dash 0.5.11 and 0.5.12.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ecapture.binary.code_search import (
    BY_RECORD,
    Found,
    NotFoundError,
    changes,
    find_shell,
    fixed,
    only,
)
from ecapture.binary.elf import ElfFile
from ecapture.binary.line_code import LineSearch
from ecapture.binary.secrets.operations import Call, Compare, Load, Return, Set, Store

_STAYS, _PROFILE = b'\nUse "exit" to leave shell.\n\0', b"$HOME/.profile\0"
_WANTS, _SAYS = b"-c requires an argument\0", b"%s: %d: \0"
_TEXTS: Final = (_STAYS, _PROFILE, _WANTS, _SAYS)
_INTERRUPTED, _REFUSED = 130, 2  # what $? is then
_EVIDENCE: Final = {
    "cmdloop": "says what keeps a shell from ending; called by what names $HOME/.profile",
    "parsecmd": "called by cmdloop with 0 and 1; keeps that and empties what marks the end",
    "evalstring": "calls parsecmd and evaltree; is given the argument of -c by main",
    "preadbuffer.return": "ends by taking a byte of the buffer; parsecmd leads to it",
}


def find_dash(elf: ElfFile) -> Found:
    """Look for dash's functions in code that nothing names.

    Raises:
        NotExecutable: the file contradicts itself.
    """
    return find_shell(elf, _Search)


def _found(functions: dict[str, int], variables: dict[str, int]) -> Found:
    evidence = {name: _EVIDENCE[name] + BY_RECORD for name in functions}
    return Found(functions, variables, evidence=evidence)


class _Search(LineSearch):
    def __init__(self, elf: ElfFile) -> None:
        super().__init__(elf)
        self._named = self.naming(_TEXTS)
        self._loop = only(self._named[_STAYS], "what runs one command after the other")
        self._main = only(
            self._named[_PROFILE] & self.callers(self._loop), "what reads $HOME/.profile"
        )
        self._arguments = only(self._named[_WANTS], "what reads the arguments")

    def typed(self) -> Found:
        first = self.convention.arguments[0]
        given: dict[int, set[int]] = {}
        for call in self.calls(self._loop):
            given.setdefault(call.target, set()).add(call.constants.get(first, -1))
        parses = only(
            (f for f, values in given.items() if {0, 1} <= values and self.functions.is_start(f)),
            "what reads a command",
        )
        prompts = only(self._kept(parses), "whether somebody types")
        taken = {o.value for o in self.operations(self._loop) if isinstance(o, Set)}
        end = only(self.stored(parses, 4, 0) & taken, "the end of the input")
        reader = only(self.readers(parses), "what reads a line")
        self._runs = only(self._run_after(parses), "what carries out a command")
        interrupted, refused = (self._becomes(value) for value in (_INTERRUPTED, _REFUSED))
        status = only(
            self._results(self._runs) & self.stored(self._runs) & interrupted & refused,
            "where it keeps $?",
        )
        return _found(
            {"parsecmd": parses, "preadbuffer.return": reader.place},
            {
                "parsefile": reader.file,
                "doprompt": prompts,
                "tokpushback": end,
                "exitstatus": status,
            },
        )

    def unattended(self, typed: Found) -> Found:
        strings = only(self.callers(typed.functions["parsecmd"]) - {self._loop}, "what runs a text")
        if all(call.target != self._runs for call in self.calls(strings)):
            raise NotFoundError("what runs a text is not to be told from the rest")
        kept = self.stored(self._arguments, 8)
        string = only(self._handed_on(self._main, strings) & kept, "the argument of -c")
        span = self.functions.range_of(self._loop)
        if span is None:
            raise NotFoundError("where cmdloop ends is not known")
        variables = {"minusc": string, "cmdloop.end": span[1]}
        said = {v for function in self._named[_SAYS] for v in self.looked_at(function, 8)}
        readers = self.callers(self._loop) - {self._main}
        names = {
            "arg0": said & kept,
            "commandname": said & {v for function in readers for v in self.stored(function, 8)},
        }
        variables |= {name: found.pop() for name, found in names.items() if len(found) == 1}
        return _found({"cmdloop": self._loop, "evalstring": strings}, variables)

    # --- functions ---

    def _run_after(self, parses: int) -> Iterator[int]:
        # What is called next with 0 behind what was read.
        second = self.convention.arguments[1]
        for call in self.calls(self._loop):
            wanted = call.constants.get(second) == 0 and call.target != parses
            if wanted and self.functions.is_start(call.target):
                yield call.target

    # --- variables ---

    def _kept(self, function: int) -> Iterator[int]:
        # What a function stores its argument to before that changes.
        first = self.convention.arguments[0]
        for operation in self.operations(function):
            if isinstance(operation, Store) and (operation.source, operation.size) == (first, 4):
                yield from fixed(operation.memory)
            if isinstance(operation, Call) or changes(operation, first):
                return

    def _becomes(self, value: int) -> set[int]:
        # Variables that become a constant in functions that are called.
        return {v for function in self.sites for v in self._becomes_in(function, value)}

    def _becomes_in(self, function: int, value: int) -> set[int]:
        return self.stored(function, 4, value) if self.functions.is_start(function) else set()

    def _results(self, function: int) -> set[int]:
        # Variables that are loaded where results are handed over, and neither compared nor lost
        # before the function returns.
        result = self.convention.result
        found: set[int] = set()
        loaded: set[int] = set()
        for operation in self.operations(function):
            match operation:
                case Load(target, memory, 4) if target == result:
                    loaded = fixed(memory)
                case Return():
                    found |= loaded
                case Call():
                    loaded = set()
                case Compare(left) if left == result:
                    loaded = set()
                case _ if changes(operation, result):
                    loaded = set()
        return found

    def _handed_on(self, function: int, target: int) -> set[int]:
        # Variables that are the argument of a call.
        first = self.convention.arguments[0]
        found: set[int] = set()
        loaded: set[int] = set()
        for operation in self.operations(function):
            if isinstance(operation, Call):
                found |= loaded if operation.target == target else set()
                loaded = set()
            elif changes(operation, first):
                loaded = set()
            if isinstance(operation, Load) and (operation.target, operation.size) == (first, 8):
                loaded = fixed(operation.memory)
        return found
