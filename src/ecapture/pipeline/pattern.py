# SPDX-License-Identifier: Apache-2.0
r"""Regular expressions whose cost is bounded, for text that strangers send.

``re`` backtracks: on a pattern such as ``(a+)+$`` a hostile path of forty characters keeps it busy
for years, and ``.*a.*b.*c`` is cubic. Whoever writes a filter should not have to know. So patterns
are parsed by ``re`` itself, which keeps their syntax and meaning, but are then run as a finite
automaton, whose states are made as they are first needed (Thompson's construction; R. Cox,
"Regular Expression Matching Can Be Simple And Fast", 2007).

1. ``search`` takes time linear in its subject and answers yes or no: no groups, so lazy and greedy
   are the same.
2. What an automaton cannot do is refused when the pattern is made: backreferences, looking ahead
   or behind, atomic groups and possessive repeats, conditionals.
3. Memory is bounded: a pattern has at most ``_NODES`` nodes after its repeats were written out,
   and what was learnt is forgotten after ``_LEARNT`` steps.
"""

from __future__ import annotations

import importlib
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

LENGTH_LIMIT: Final = 500
"""Characters of a pattern."""
SUBJECT_LIMIT: Final = 8192
"""Characters of a subject that are looked at."""

_NODES: Final = 1000
_LEARNT: Final = 20_000

# Private by name, but the one way to have the very syntax of ``re``; its tree has kept this shape
# since Python 1.6. Its own tests compare us with ``re`` on each version.
_parser: Any = importlib.import_module("re._parser")

_Test = Callable[[str], bool]
_START: Final = ""  # what stands before the first character
_END: Final = ""  # the symbol after the last one
_LAST_NEWLINE: Final = "\n$"  # a line feed that is the last character: $ matches before it

# A node is (test, next) to pass one character, (assertion, next), or a fork to several nodes.
_Node = tuple[str, Any, tuple[int, ...]]


class PatternError(ValueError):
    """The pattern cannot be used; the text says why. ``at`` is where in it (characters)."""

    def __init__(self, reason: str, at: int = 0) -> None:
        super().__init__(reason)
        self.at = at


class _State(dict[str, "_State | bool"]):
    # Learnt: what each symbol leads to; True is a match, False a dead end.
    __slots__ = ("before", "nodes")

    def __init__(self, nodes: frozenset[int], before: str) -> None:
        super().__init__()
        self.nodes = nodes
        self.before = before


class Pattern:
    """One pattern, in the syntax of ``re``. Making it raises PatternError."""

    def __init__(self, text: str) -> None:
        if len(text) > LENGTH_LIMIT:
            raise PatternError(f"longer than {LENGTH_LIMIT} characters", LENGTH_LIMIT)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = _parser.parse(text)
        except re.error as error:
            raise PatternError(error.msg, error.pos or 0) from None
        except (OverflowError, RecursionError):
            raise PatternError("too large") from None
        self.text = text
        nodes = _Program()
        self._first = nodes.sequence(tree, tree.state.flags, nodes.add("accept", None, ()))
        self._nodes = nodes.nodes
        self._forget()

    def search(self, subject: str) -> bool:
        """Whether it matches anywhere in the subject's first ``SUBJECT_LIMIT`` characters."""
        subject = subject[:SUBJECT_LIMIT]
        state = self._start
        for symbol in _symbols(subject):
            found = state.get(symbol)
            if found is None:
                found = self._step(state, symbol)
            if found is True:
                return True
            if found is False:
                return False
            state = found
        return False

    def _forget(self) -> None:
        self._states: dict[tuple[frozenset[int], str], _State] = {}
        self._learnt = 0
        self._start = self._state(frozenset(), _START)

    def _state(self, nodes: frozenset[int], before: str) -> _State:
        kind = before if before == _START else ("w" if _is_word(before) else " ")
        key = (nodes, kind)
        state = self._states.get(key)
        if state is None:
            state = self._states[key] = _State(nodes, kind)
        return state

    def _step(self, state: _State, symbol: str) -> _State | bool:
        # A match may begin anywhere, so the first node is always among those to go on from.
        if self._learnt >= _LEARNT:
            self._forget()
        after: set[int] = set()
        result: _State | bool | None = None
        char = symbol[:1]
        for node in self._reachable((*state.nodes, self._first), state.before, symbol):
            kind, test, following = self._nodes[node]
            if kind == "accept":
                result = True
                break
            if kind == "test" and char and test(char):
                after.update(following)
        if result is None:
            result = self._state(frozenset(after), char) if char else False
        state[symbol] = result
        self._learnt += 1
        return result

    def _reachable(self, nodes: Iterable[int], before: str, symbol: str) -> Iterator[int]:
        seen: set[int] = set()
        todo = list(nodes)
        while todo:
            node = todo.pop()
            if node in seen:
                continue
            seen.add(node)
            kind, code, following = self._nodes[node]
            if kind == "fork" or (kind == "assert" and _holds(code, before, symbol)):
                todo.extend(following)
            elif kind != "assert":
                yield node


class _Program:
    # Nodes are made from the end of the pattern to its beginning: each knows what follows it.

    def __init__(self) -> None:
        self.nodes: list[_Node] = []

    def add(self, kind: str, what: Any, following: tuple[int, ...]) -> int:
        if len(self.nodes) >= _NODES:
            raise PatternError("too large once its repeats are written out")
        self.nodes.append((kind, what, following))
        return len(self.nodes) - 1

    def sequence(self, tree: Any, flags: int, following: int) -> int:
        for op, argument in reversed(list(tree)):
            following = self._item(str(op), argument, flags, following)
        return following

    def _item(self, op: str, argument: Any, flags: int, following: int) -> int:
        if op in {"LITERAL", "NOT_LITERAL", "ANY", "IN"}:
            return self.add("test", _test(op, argument, flags), (following,))
        if op == "BRANCH":
            ways = tuple(self.sequence(way, flags, following) for way in argument[1])
            return self.add("fork", None, ways)
        if op == "SUBPATTERN":
            _group, added, removed, tree = argument
            return self.sequence(tree, (flags | added) & ~removed, following)
        if op in {"MAX_REPEAT", "MIN_REPEAT"}:
            return self._repeat(argument, flags, following)
        if op == "AT":
            return self.add("assert", _assertion(str(argument), flags), (following,))
        raise PatternError(f"{_REFUSED.get(op, op.lower())} cannot be used here")

    def _repeat(self, argument: Any, flags: int, following: int) -> int:
        least, most, tree = argument
        if most == _parser.MAXREPEAT:
            loop = self.add("fork", None, (following,))
            again = self.sequence(tree, flags, loop)
            self.nodes[loop] = ("fork", None, (again, following))
            following = loop
        else:
            end = following
            for _ in range(most - least):
                way = self.sequence(tree, flags, following)
                following = self.add("fork", None, (way, end))
        for _ in range(least):
            size = len(self.nodes)
            following = self.sequence(tree, flags, following)
            if len(self.nodes) == size:
                break  # an empty body: once is as good as a thousand times
        return following


_REFUSED: Final = {
    "GROUPREF": "a backreference",
    "GROUPREF_EXISTS": "a conditional",
    "ASSERT": "looking ahead or behind",
    "ASSERT_NOT": "looking ahead or behind",
    "ATOMIC_GROUP": "an atomic group",
    "POSSESSIVE_REPEAT": "a possessive repeat",
}


def _symbols(subject: str) -> Iterator[str]:
    if subject.endswith("\n"):
        yield from subject[:-1]
        yield _LAST_NEWLINE
    else:
        yield from subject
    yield _END


def _assertion(code: str, flags: int) -> str:
    if flags & re.MULTILINE and code in {"AT_BEGINNING", "AT_END"}:
        raise PatternError("the flag m cannot be used here")
    if flags & re.ASCII and "BOUNDARY" in code:
        raise PatternError("a boundary with the flag a cannot be used here")
    return code


def _holds(code: str, before: str, symbol: str) -> bool:
    # ``before`` is "" at the start, else "w" or " " for a word character or another.
    if code in {"AT_BEGINNING", "AT_BEGINNING_STRING"}:
        return before == _START
    if code == "AT_END":
        return symbol in {_END, _LAST_NEWLINE}
    if code == "AT_END_STRING":
        return symbol == _END
    boundary = (before == "w") != (symbol != _END and _is_word(symbol[0]))
    return boundary == (code == "AT_BOUNDARY")


def _is_word(char: str) -> bool:
    return char.isalnum() or char == "_"


_CATEGORIES: Final[dict[str, _Test]] = {
    "DIGIT": str.isdecimal,
    "SPACE": str.isspace,
    "WORD": _is_word,
}


def _test(op: str, argument: Any, flags: int) -> _Test:
    if op == "ANY":
        return (lambda _: True) if flags & re.DOTALL else (lambda char: char != "\n")
    if op == "LITERAL":
        items: list[tuple[Any, Any]] = [("LITERAL", argument)]
        negated = False
    elif op == "NOT_LITERAL":
        items, negated = [("LITERAL", argument)], True
    else:
        negated = str(argument[0][0]) == "NEGATE"
        items = argument[1:] if negated else argument
    tests = [_member(str(kind), value, flags) for kind, value in items]
    fold = bool(flags & re.IGNORECASE)

    def test(char: str) -> bool:
        forms = {char, *_single(char.lower()), *_single(char.upper())} if fold else {char}
        return any(member(form) for member in tests for form in forms) != negated

    return test


def _single(text: str) -> tuple[str, ...]:
    return (text,) if len(text) == 1 else ()


def _member(kind: str, value: Any, flags: int) -> _Test:
    if kind == "LITERAL":
        return chr(value).__eq__
    if kind == "RANGE":
        low, high = chr(value[0]), chr(value[1])
        return lambda char: low <= char <= high
    _, _, name = str(value).partition("_")
    wanted = not name.startswith("NOT_")
    category = _CATEGORIES[name.removeprefix("NOT_")]
    if flags & re.ASCII:
        return lambda char: (char.isascii() and category(char)) == wanted
    return lambda char: category(char) == wanted
