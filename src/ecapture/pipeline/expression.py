# SPDX-License-Identifier: Apache-2.0
"""The language of ``--filter``: text to a tree of comparisons. It knows no event.

::

    any        = all { ("or" | "||") all }
    all        = one { ("and" | "&&") one }
    one        = ("not" | "!") one | "(" any ")" | comparison
    comparison = field ("==" | "!=" | "<" | "<=" | ">" | ">=" | "~") value
    value      = quoted | bare

Words are not case-sensitive. A quoted value stands in ' or "; within it a backslash before that
quote or before a backslash takes its meaning away, and stays itself anywhere else, so that regular
expressions need no doubling. A bare value ends at a blank, at "&&" or "||", or at a parenthesis
that it did not open itself: ``(path ~ ^/(a|b)$)`` is read as one would wish.

By recursive descent, straight on the characters, because what a value is depends on what is before
it. Everything is bounded: the length of the text, its depth, the numbers. Whatever is wrong is a
UsageError with a caret under the place and with what was expected there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal, NoReturn

import msgspec

from ecapture.errors import UsageError
from ecapture.pipeline.pattern import Pattern, PatternError

LENGTH_LIMIT: Final = 4000
"""Characters of an expression."""
DEPTH_LIMIT: Final = 50
"""Parentheses and negations within one another."""

Kind = Literal["text", "number", "size", "duration"]
Operator = Literal["==", "!=", "<", "<=", ">", ">=", "~"]

_BLANKS: Final = re.compile(r"\s*")
_WORD: Final = re.compile(r"[A-Za-z_]+")
_OPERATOR: Final = re.compile(r"[=!]=|[<>]=?|~")
_NUMBER: Final = re.compile(r"\d{1,18}")
_SIZE: Final = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)\s*(?:([kmg])i?)?b?", re.IGNORECASE)
_DURATION: Final = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)\s*(ns|us|µs|ms|s|m|h)")
_NANOSECONDS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_OF_KIND: Final[Mapping[Kind, tuple[str, ...]]] = {
    "text": ("==", "!=", "~"),
    "number": ("==", "!=", "<", "<=", ">", ">="),
    "size": ("==", "!=", "<", "<=", ">", ">="),
    "duration": ("==", "!=", "<", "<=", ">", ">="),
}


class FieldType(msgspec.Struct, frozen=True):
    """What may be said of a field. ``choices`` are all values that it can have, if they are few."""

    kind: Kind
    choices: tuple[str, ...] = ()


class Comparison(msgspec.Struct, frozen=True):
    """``value`` is a text, a number, bytes for a size, nanoseconds for a duration; or a pattern."""

    field: str
    operator: Operator
    value: str | float | Pattern


class All(msgspec.Struct, frozen=True):
    """True if every part is."""

    parts: tuple[Tree, ...]


class Any(msgspec.Struct, frozen=True):
    """True if some part is."""

    parts: tuple[Tree, ...]


class Not(msgspec.Struct, frozen=True):
    """True if its part is not."""

    part: Tree


Tree = Comparison | All | Any | Not


def parse(text: str, fields: Mapping[str, FieldType], *, option: str = "--filter") -> Tree:
    """Parses an expression on ``fields``. Raises UsageError, in the name of ``option``."""
    return _Parser(text, fields, option).whole()


class _Parser:
    def __init__(self, text: str, fields: Mapping[str, FieldType], option: str) -> None:
        self._text = text
        self._fields = fields
        self._option = option
        self._at = 0
        self._depth = 0
        if len(text) > LENGTH_LIMIT:
            raise UsageError(
                option=option, problem=f"the expression has more than {LENGTH_LIMIT} characters"
            )

    def whole(self) -> Tree:
        tree = self._any()
        self._skip()
        if self._at < len(self._text):
            self._fail("expected 'and', 'or' or the end")
        return tree

    def _any(self) -> Tree:
        parts = [self._all()]
        while self._accept("or", "||"):
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else Any(tuple(parts))

    def _all(self) -> Tree:
        parts = [self._one()]
        while self._accept("and", "&&"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _one(self) -> Tree:
        start = self._skip()
        self._depth += 1
        if self._depth > DEPTH_LIMIT:
            self._fail(f"more than {DEPTH_LIMIT} parentheses and negations within one another")
        tree: Tree
        if self._accept("not", "!"):
            tree = Not(self._one())
        elif self._accept("", "("):
            tree = self._any()
            self._skip()
            if not self._accept("", ")"):
                opened = f" for the one at column {start + 1}"
                self._fail(f"expected 'and', 'or' or a closing parenthesis{opened}")
        else:
            tree = self._comparison()
        self._depth -= 1
        return tree

    def _comparison(self) -> Comparison:
        at = self._skip()
        found = _WORD.match(self._text, at)
        name = found[0].lower() if found else ""
        if name not in self._fields:
            expected = f"a field ({', '.join(self._fields)}), 'not' or a parenthesis"
            self._fail(f"expected {expected}")
        self._at += len(name)
        kind = self._fields[name]
        allowed = _OF_KIND[kind.kind]
        operator = _OPERATOR.match(self._text, self._skip())
        if operator is None or operator[0] not in allowed:
            self._fail(f"expected an operator that {name} has: {' '.join(allowed)}")
        self._at = operator.end()
        start = self._skip()
        text, places = self._value()
        value = self._typed(name, kind, operator[0], text, start, places)
        return Comparison(name, operator[0], value)  # type: ignore[arg-type]

    def _typed(
        self, name: str, kind: FieldType, operator: str, text: str, start: int, places: list[int]
    ) -> str | float | Pattern:
        if operator == "~":
            try:
                return Pattern(text)
            except PatternError as error:
                at = places[min(error.at, len(places) - 1)]
                self._fail(f"expected a regular expression: {error}", at)
        if kind.kind == "number" and _NUMBER.fullmatch(text):
            return int(text)
        size = _SIZE.fullmatch(text) if kind.kind == "size" else None
        if size:
            return float(size[1]) * (
                1 << {"": 0, "k": 10, "m": 20, "g": 30}[(size[2] or "").lower()]
            )
        duration = _DURATION.fullmatch(text) if kind.kind == "duration" else None
        if duration:
            return float(duration[1]) * _NANOSECONDS[duration[2]]
        if kind.kind != "text":
            self._fail(f"expected {_EXPECTED[kind.kind]}", start)
        if kind.choices and text.lower() not in kind.choices:
            self._fail(f"expected a value that {name} can have: {', '.join(kind.choices)}", start)
        return text

    def _value(self) -> tuple[str, list[int]]:
        # The value, and where each of its characters (and its end) stands in the expression.
        quote = self._text[self._at : self._at + 1]
        if quote and quote in "'\"":
            return self._quoted(quote)
        start, depth, text = self._at, 0, self._text
        while self._at < len(text):
            char = text[self._at]
            depth += (char == "(") - (char == ")")
            if char.isspace() or depth < 0 or text.startswith(("&&", "||"), self._at):
                break
            self._at += 1
        if self._at == start:
            self._fail("expected a value")
        return text[start : self._at], list(range(start, self._at + 1))

    def _quoted(self, quote: str) -> tuple[str, list[int]]:
        start, text = self._at, self._text
        self._at += 1
        out, places = [], []
        while self._at < len(text) and text[self._at] != quote:
            escaped = text[self._at] == "\\" and text[self._at + 1 : self._at + 2] in {quote, "\\"}
            if escaped:
                self._at += 1
            out.append(text[self._at : self._at + 1])
            places.append(self._at)
            self._at += 1
        if self._at >= len(text):
            self._at = len(text)
            self._fail(f"expected a closing {quote} for the one at column {start + 1}")
        places.append(self._at)
        self._at += 1
        return "".join(out), places

    def _accept(self, word: str, sign: str) -> bool:
        at = self._skip()
        found = _WORD.match(self._text, at)
        if found and found[0].lower() == word:
            self._at = found.end()
            return True
        # "!" is a negation unless it begins "!=", which no field can stand before here.
        if self._text.startswith(sign, at):
            self._at = at + len(sign)
            return True
        return False

    def _skip(self) -> int:
        found = _BLANKS.match(self._text, self._at)
        self._at = found.end() if found else self._at
        return self._at

    def _fail(self, what: str, at: int | None = None) -> NoReturn:
        at = self._at if at is None else at
        shown = "".join(char if char.isprintable() else " " for char in self._text)
        raise UsageError(
            option=self._option,
            problem=f"{what}\n  {shown}\n  {' ' * at}^",
            hint="example: method == POST and (status >= 500 or duration > 250ms)",
        )


_EXPECTED: Final = {
    "number": "a whole number",
    "size": "a size such as 512, 10k or 1.5m",
    "duration": "a duration such as 250ms, 1.5s or 2m",
}
