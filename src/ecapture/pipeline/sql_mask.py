# SPDX-License-Identifier: Apache-2.0
"""Masks literals in SQL, so that what was asked can be shown without the values.

Strings, numbers and bit strings become ``?``; names, keywords, placeholders and comments stay. It
is a reader of tokens, not a parser: it masks what is cut, wrong or unfinished, too. Rules:

1. Where the dialects differ, each is read in its own way: in MySQL a backslash escapes and double
   quotes hold strings (unless a session asks otherwise, when a name is masked needlessly); in
   PostgreSQL a backslash escapes only behind ``E``, double quotes hold names, ``$tag$`` quotes, and
   comments nest.
2. A literal without end is masked to the end of the text.
3. Time is linear in the length of the text.

Sources: PostgreSQL 18 documentation, 4.1 "Lexical Structure"; MySQL 8.4 Reference Manual, 11.1
"Literal Values" and 11.7 "Comments".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, Literal

MASK: Final = "?"
"""What stands for a value."""

Dialect = Literal["postgresql", "mysql"]

_NUMBER: Final = (
    r"(?:0[xX][0-9a-fA-F_]++|0[bB][01_]++|0[oO][0-7_]++"
    r"|(?:[0-9][0-9_]*+(?:\.[0-9_]*+)?|\.[0-9][0-9_]*+)(?:[eE][+-]?[0-9]++)?)"
)
_PLAIN: Final = r"'(?:[^']|'')*+(?:'|\Z)"
_ESCAPING: Final = r"'(?:[^'\\]|''|\\.)*+(?:'|\\?\Z)"

_POSTGRESQL: Final = re.compile(
    rf"""
    (?P<string> [eE]{_ESCAPING} | (?:[bBxXnN]|[uU]&)?{_PLAIN} )
  | (?P<dollar> \$(?P<tag>[^\W\d]\w*+)?\$ )
  | (?P<keep> \$[0-9]++ | "(?:[^"]|"")*+(?:"|\Z) | --[^\n]*+ | [^\W\d][\w$]*+ )
  | (?P<comment> /\* )
  | (?P<number> {_NUMBER} )
    """,
    re.VERBOSE | re.DOTALL,
)
_MYSQL: Final = re.compile(
    rf"""
    (?P<string> [bBxXnN]?{_ESCAPING} | "(?:[^"\\]|""|\\.)*+(?:"|\\?\Z) )
  | (?P<keep> `(?:[^`]|``)*+(?:`|\Z) | --(?=\s|\Z)[^\n]*+ | \#[^\n]*+ | @[\w.$@]*+
            | /\*(?![!+M]).*?(?:\*/|\Z) | /\*M?!?[0-9]*+ | [^\W\d][\w$]*+ )
  | (?P<number> {_NUMBER} )
    """,
    re.VERBOSE | re.DOTALL,
)
_NESTING: Final = re.compile(r"/\*|\*/")
# What servers quote in messages: names as well as values, which nothing tells apart.
_IN_MESSAGE: Final = re.compile(
    r""" "(?:[^"]|"")*+(?:"|\Z) | '(?:[^'\\]|''|\\.)*+(?:'|\\?\Z) | (?<=\)=\().*(?=\))
       | (?<![\w.]){NUMBER}(?!\w) """.replace("{NUMBER}", _NUMBER),
    re.VERBOSE | re.DOTALL,
)


def mask_sql(text: str, dialect: Dialect) -> str:
    """The text with ``MASK`` in place of every literal."""
    tokens = _POSTGRESQL if dialect == "postgresql" else _MYSQL
    out: list[str] = []
    at = 0
    while (found := tokens.search(text, at)) is not None:
        out.append(text[at : found.start()])
        at = found.end()
        kind = found.lastgroup
        if kind == "comment":
            at = _comment_end(text, at)
            out.append(text[found.start() : at])
        elif kind == "dollar":
            end = text.find(found[0], at)
            at = len(text) if end < 0 else end + len(found[0])
            out.append(MASK)
        elif kind == "keep":
            out.append(found[0])
        else:
            out.append(MASK)
    out.append(text[at:])
    return "".join(out)


def count_placeholders(text: str, dialect: Dialect) -> int:
    """How many question marks of the text stand for parameters."""
    return sum(part.count("?") for part in _between(text, dialect))


def count_statements(text: str, dialect: Dialect) -> int:
    """How many statements the text has; a semicolon at its end begins no other."""
    count, empty = 0, True
    at = 0
    tokens = _POSTGRESQL if dialect == "postgresql" else _MYSQL
    while at < len(text):
        found = tokens.search(text, at)
        between = text[at : found.start() if found is not None else len(text)]
        for part in between.split(";")[:-1]:
            count += not (empty and not part.strip())
            empty = True
        empty = empty and not between.rsplit(";", 1)[-1].strip()
        if found is None:
            break
        empty = empty and found[0].startswith(("--", "#", "/*"))
        at = found.end()
    return count + (not empty)


def _between(text: str, dialect: Dialect) -> Iterator[str]:
    # What stands between literals, names and comments: punctuation.
    tokens = _POSTGRESQL if dialect == "postgresql" else _MYSQL
    at = 0
    while (found := tokens.search(text, at)) is not None:
        yield text[at : found.start()]
        at = found.end()
    yield text[at:]


def mask_message(text: str) -> str:
    """The text of an error with ``MASK`` in place of what may be a value."""
    return _IN_MESSAGE.sub(MASK, text)


def _comment_end(text: str, at: int) -> int:
    depth = 1
    while depth and (found := _NESTING.search(text, at)) is not None:
        depth += 1 if found[0] == "/*" else -1
        at = found.end()
    return at if not depth else len(text)
