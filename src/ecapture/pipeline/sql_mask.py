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
    (?P<string> [eE]{_ESCAPING}(?:[ \t\f\v\r]*+\n\s*+{_ESCAPING})*+ | (?:[bBxXnN]|[uU]&)?{_PLAIN} )
  | (?P<dollar> \$(?P<tag>[^\W\d]\w*+)?\$ )
  | (?P<keep> \$[0-9]++ | "(?:[^"]|"")*+(?:"|\Z) | --[^\n\r]*+ | [^\W\d][\w$]*+ )
  | (?P<comment> /\* )
  | (?P<number> {_NUMBER} )
    """,
    re.VERBOSE | re.DOTALL,
)
_MYSQL: Final = re.compile(
    rf"""
    (?P<string> [bBxXnN]?{_ESCAPING} | "(?:[^"\\]|""|\\.)*+(?:"|\\?\Z) )
  | (?P<keep> `(?:[^`]|``)*+(?:`|\Z) | --(?=[\x00-\x20\x7f]|\Z)[^\n]*+ | \#[^\n]*+ | @[\w.$@]*+
            | /\*(?![!+M]).*?(?:\*/|\Z) | /\*M?!?[0-9]*+ | [^\W\d][\w$]*+ )
  | (?P<number> {_NUMBER} )
    """,
    re.VERBOSE | re.DOTALL,
)
_NESTING: Final = re.compile(r"/\*|\*/")
# Messages of servers. What they quote are names as well as values, which nothing tells apart; signs
# that close a quotation by what opens it, as translated messages have them, too. Between letters an
# apostrophe is none.
_QUOTE: Final = re.compile(r"""["»«„“\u2018「]|(?<!\w)'|'(?!\w)""")
_CLOSING: Final = {
    quote: re.compile(closing)
    for quote, closing in (
        ('"', '"'),
        ("'", r"(?<!\w)'|'(?!\w)"),
        ("»", "«"),
        ("«", "»"),
        ("„", "[“”]"),
        ("“", "”"),
        ("\u2018", "\u2019"),
        ("「", "」"),
    )
}
_BETWEEN_QUOTES: Final = re.compile(
    r"""[\s.,:;@()=]++(?:(?:(?:a|and|already|as|at|by|cannot|column|command|constraint|contains|
    database|default|denied|does|exist|exists|field|for|foreign|from|function|has|host|in|index|is|
    key|list|member|must|near|not|null|of|on|operator|option|or|parameter|referenced|relation|role|
    row|rows|schema|sequence|server|statement|table|the|to|trigger|type|unique|update|user|using|
    value|values|view|violates|when|with|without)(?!\w)|doesn't|isn't)[\s.,:;@()=]*+)*+""",
    re.VERBOSE | re.IGNORECASE,
)
_NUMBER_ALONE: Final = re.compile(rf"(?<![\w.]){_NUMBER}(?!\w)")
_KEY_VALUES: Final = ")=("


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
    """The text of an error with ``MASK`` in place of what may be a value.

    Servers do not escape what they quote, so a quotation is over only where a message ends with it
    or goes on with words of servers; all else between two signs is taken for a part of it.
    """
    start = text.find(_KEY_VALUES)
    if start < 0:
        return _mask_quoted(text)
    start += len(_KEY_VALUES)
    end = text.rfind(")", start)
    end = len(text) if end < 0 else end
    return _mask_quoted(text[:start]) + MASK + _mask_quoted(text[end:])


def _mask_quoted(text: str) -> str:
    out: list[str] = []
    at = 0
    while (found := _QUOTE.search(text, at)) is not None:
        out += [_NUMBER_ALONE.sub(MASK, text[at : found.start()]), MASK]
        at = _quotation_end(text, found)
    out.append(_NUMBER_ALONE.sub(MASK, text[at:]))
    return "".join(out)


def _quotation_end(text: str, opening: re.Match[str]) -> int:
    closing = _CLOSING[opening[0]]
    end = -1
    at = opening.end()
    while (found := closing.search(text, at)) is not None:
        end = at = found.end()
        following = _QUOTE.search(text, end)
        if following is not None and _BETWEEN_QUOTES.fullmatch(text, end, following.start()):
            break
    return len(text) if end < 0 else end


def _comment_end(text: str, at: int) -> int:
    depth = 1
    while depth and (found := _NESTING.search(text, at)) is not None:
        depth += 1 if found[0] == "/*" else -1
        at = found.end()
    return at if not depth else len(text)
