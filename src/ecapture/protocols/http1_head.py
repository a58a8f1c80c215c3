# SPDX-License-Identifier: Apache-2.0
"""The grammar of HTTP/1 heads (RFC 9112): start lines, fields, and where the content ends.

Strategy: a head is decoded and split once, names are judged by a cache (programs use few), and the
dozen fields that matter to framing are picked out on the way. Everything else is left as sent.

Leniency, since both peers may have agreed on more than the RFC does: bare LF ends a line (2.2),
folded lines are joined (5.2), further words around the start line's are let pass, and lines which
are no fields are shown as fields without a value. Each of these but folding gets a mark. What is
refused: a start line that is none, and a first field line that is none, which is how garbage shows.

h11 was considered for this: it insists on seeing both directions from the first byte, lower-cases
names, joins nothing that is malformed and has no way back from an error. It judges in the tests.
"""

from __future__ import annotations

import re
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

from ecapture.errors import ProtocolError

from .body import codings_of
from .messages import Fields, Mark

_TCHAR = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
MAX_LENGTH = (1 << 63) - 1
"""The longest content that is believed. No reader we know takes more."""

# Octets from 0x80 on are no spaces here (two are in latin-1): targets are sent in UTF-8, too.
_REQUEST = re.compile(rf"({_TCHAR}{{1,32}}) (\S+) HTTP/(1\.[0-9])", re.ASCII)
# The target ends in no space, so that a long run of them is looked at once only.
_REQUEST_LOOSE = re.compile(
    rf"({_TCHAR}{{1,32}})[ \t]+(\S(?:.*\S)?)[ \t]+HTTP/(1\.[0-9])[ \t]*", re.ASCII
)
_RESPONSE = re.compile(r"HTTP/(1\.[0-9]) ([1-9][0-9]{2})(?: (.*))?")
_RESPONSE_LOOSE = re.compile(r"HTTP/(1\.[0-9])[ \t]+([1-9][0-9]{2})(?:[ \t]+(.*))?")
_REQUEST_BEGUN = re.compile(rf"{_TCHAR}{{1,32}}(?:[ \t]|\Z)")
_RESPONSE_BEGUN = re.compile(
    r"HTTP/1\.[0-9][ \t]|(?:H(?:T(?:T(?:P(?:/(?:1(?:\.(?:[0-9])?)?)?)?)?)?)?)\Z"
)
_NAME = re.compile(_TCHAR + "+")
_LINE_END = re.compile(r"\r?\n")
_LONG_NAME = 64
_WANTED = frozenset(
    (
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "sec-websocket-extensions",
        "transfer-encoding",
        "upgrade",
    )
)
_FRAMING = frozenset(("content-length", "transfer-encoding"))


class Parsed(NamedTuple):
    """A head. ``wanted`` has the values of the fields that matter here, by name in lower case."""

    method: str
    target: str
    status: int
    reason: str
    version: str
    fields: Fields
    wanted: dict[str, list[str]]
    marks: tuple[Mark, ...]
    problem: str

    def first(self, name: str) -> str:
        """Return the first value of a wanted field, or an empty text."""
        values = self.wanted.get(name)
        return values[0] if values else ""


class Ends(IntEnum):
    """How the end of the content is known."""

    AT_ONCE = 0
    """There is none."""
    BY_LENGTH = 1
    BY_CHUNKS = 2
    BY_CLOSE = 3
    UNKNOWN = 4
    """What the head says about it cannot be followed."""


class Framing(NamedTuple):
    """Where the content ends, and the codings it is in, outermost first."""

    ends: Ends
    length: int = 0
    codings: tuple[str, ...] = ()
    marks: tuple[Mark, ...] = ()
    problem: str = ""


def _judge_name(name: str) -> str | None:
    lower = name.lower()
    if lower in _WANTED:
        return lower
    return "" if _NAME.fullmatch(name) else None


_judge_short_name = lru_cache(maxsize=1024)(_judge_name)


def _judge_odd_name(name: str) -> tuple[str, Mark]:
    """Say what a name that is none stands for: some readers let spaces around one pass."""
    known = name.strip().lower()
    mark = Mark.AMBIGUOUS if known in _FRAMING else Mark.MALFORMED
    return known if known in _WANTED else "", mark


def refuse(reason: str, mark: Mark = Mark.MALFORMED) -> ProtocolError:
    """Return the error for a message that cannot be followed any further."""
    return ProtocolError(protocol="http/1", offset=0, reason=reason, mark=mark)


def parse_head(raw: bytes, *, request: bool, max_fields: int) -> Parsed:
    """Parse a start line and fields, to the empty line or the end of ``raw``.

    Raises ProtocolError if it is no head of that kind.
    """
    text = raw.decode("latin-1")
    lines = text.split("\r\n")
    marks: tuple[Mark, ...] = ()
    problem = ""
    if text.count("\n") != len(lines) - 1:
        lines = _LINE_END.split(text)
        marks, problem = (Mark.MALFORMED,), "a line ends in LF alone"
    line = lines[0]
    method = target = reason = ""
    status = 0
    if request:
        match = _REQUEST.fullmatch(line)
        if match is None:
            match = _REQUEST_LOOSE.fullmatch(line)
            marks, problem = (Mark.MALFORMED,), "spaces in the request line"
        if match is None:
            raise refuse("not a request line")
        method, target, version = match.groups()
    else:
        match = _RESPONSE.fullmatch(line)
        if match is None:
            match = _RESPONSE_LOOSE.fullmatch(line)
            marks, problem = (Mark.MALFORMED,), "spaces in the status line"
        if match is None:
            raise refuse("not a status line")
        version, code, reason = match.groups(default="")
        status = int(code)
    fields, wanted, field_marks, field_problem = parse_fields(lines, 1, max_fields)
    if "\0" in text or text.count("\r") != text.count("\r\n"):
        field_marks, field_problem = _add(field_marks, Mark.MALFORMED), "control characters"
    for mark in field_marks:
        marks = _add(marks, mark)
    problem = problem or field_problem
    return Parsed(method, target, status, reason, version, fields, wanted, marks, problem)


def _add(marks: tuple[Mark, ...], mark: Mark) -> tuple[Mark, ...]:
    return marks if mark in marks else (*marks, mark)


def refuse_partial(raw: bytes, *, request: bool) -> None:
    """Raise ProtocolError if ``raw``, in which no empty line is yet, cannot become a head.

    A whole head with such a beginning is refused by ``parse_head`` too.
    """
    line, ended, rest = raw.decode("latin-1").partition("\n")
    strict, loose = (_REQUEST, _REQUEST_LOOSE) if request else (_RESPONSE, _RESPONSE_LOOSE)
    if not ended:
        begun = _REQUEST_BEGUN if request else _RESPONSE_BEGUN
        if begun.match(line) is None:
            raise refuse("no start line begins like this")
        return
    line = line.removesuffix("\r")
    if strict.fullmatch(line) is None and loose.fullmatch(line) is None:
        raise refuse("not a start line")
    line, ended, _ = rest.partition("\n")
    if ended and ":" not in line:
        raise refuse("no field follows the start line")


def parse_trailers(raw: bytes, max_fields: int) -> tuple[Fields, tuple[Mark, ...]]:
    """Parse the fields behind chunked content. Raises ProtocolError if the first is none."""
    fields, _, marks, _ = parse_fields(_LINE_END.split(raw.decode("latin-1")), 0, max_fields)
    return fields, marks


def parse_fields(
    lines: list[str], at: int, max_fields: int
) -> tuple[Fields, dict[str, list[str]], tuple[Mark, ...], str]:
    """Parse field lines from ``at`` to the first empty one: fields, wanted ones, marks, problem."""
    fields: list[tuple[str, str]] = []
    wanted: dict[str, list[str]] = {}
    marks: tuple[Mark, ...] = ()
    problem = ""
    folds: list[tuple[int, list[str]]] = []
    for number in range(at, len(lines)):
        line = lines[number]
        if not line:
            break
        name, colon, value = line.partition(":")
        known = _judge_short_name(name) if len(name) < _LONG_NAME else _judge_name(name)
        if known is None or not colon:
            if line[0] in " \t" and fields:
                # Joined at the end: a long row of folds is not to be copied once for each.
                if not folds or folds[-1][0] != len(fields) - 1:
                    folds.append((len(fields) - 1, [fields[-1][1]]))
                folds[-1][1].append(line.strip(" \t"))
                continue
            if number == at and not colon:
                raise refuse("no field follows the start line")
            known, mark = _judge_odd_name(name)
            marks = _add(marks, mark)
            problem = problem or f"field line {name[:32]!r}"
        value = value.strip(" \t")
        fields.append((name, value))
        if known:
            wanted.setdefault(known, []).append(value)
    if folds:
        _unfold(fields, wanted, folds)
    if len(fields) > max_fields:
        marks = _add(marks, Mark.LIMITED)
        problem = problem or f"{len(fields)} fields"
        del fields[max_fields:]
    return tuple(fields), wanted, marks, problem


def _unfold(
    fields: list[tuple[str, str]],
    wanted: dict[str, list[str]],
    folds: list[tuple[int, list[str]]],
) -> None:
    """Put together what stood on several lines (RFC 9112, 5.2)."""
    for index, parts in folds:
        fields[index] = (fields[index][0], " ".join(part for part in parts if part))
    wanted.clear()
    for name, value in fields:
        known = name.strip().lower()
        if known in _WANTED:
            wanted.setdefault(known, []).append(value)


def frame_request(head: Parsed) -> Framing:
    """Say where a request's content ends (RFC 9112, 6.3)."""
    wanted = head.wanted
    if head.method == "CONNECT" or not wanted:
        return Framing(Ends.AT_ONCE)
    framing = _frame(head)
    if framing is None:
        return Framing(Ends.AT_ONCE)
    if framing.ends == Ends.BY_CLOSE:
        # A request whose last coding is not chunked has no end (6.3, item 4).
        problem = "no length can be told from Transfer-Encoding"
        return Framing(Ends.UNKNOWN, marks=_add(framing.marks, Mark.AMBIGUOUS), problem=problem)
    return framing


def frame_response(head: Parsed, method: str) -> Framing:
    """Say where the content of a response to ``method`` (empty if unknown) ends."""
    status = head.status
    if status < 200 or status in {204, 304} or method == "HEAD":
        return Framing(Ends.AT_ONCE)
    if method == "CONNECT" and status < 300:
        return Framing(Ends.AT_ONCE)
    framing = _frame(head)
    if framing is None:
        return Framing(Ends.BY_CLOSE, codings=codings_of(head.wanted.get("content-encoding", ())))
    return framing


def _frame(head: Parsed) -> Framing | None:
    """Return what the fields say, or None if they say nothing."""
    wanted = head.wanted
    transfer = wanted.get("transfer-encoding")
    lengths = wanted.get("content-length")
    encoding = wanted.get("content-encoding")
    codings = codings_of(encoding) if encoding else ()
    if transfer is None:
        return None if lengths is None else _by_length(lengths, codings)
    marks: tuple[Mark, ...] = ()
    problem = ""
    if lengths is not None:
        marks, problem = (Mark.AMBIGUOUS,), "both Transfer-Encoding and Content-Length"
    elif head.version == "1.0":
        marks, problem = (Mark.AMBIGUOUS,), "Transfer-Encoding in HTTP/1.0"
    outer = tuple(word.partition(";")[0].strip() for word in codings_of(transfer))
    if not outer:
        if lengths is None:
            return None
        framing = _by_length(lengths, codings)
        return framing._replace(
            marks=_add(framing.marks, Mark.AMBIGUOUS), problem=framing.problem or problem
        )
    if "chunked" in outer[1:]:
        marks, problem = (Mark.AMBIGUOUS,), "chunked is not the last transfer coding"
    if outer[0] == "chunked":
        rest = tuple(word for word in outer if word != "chunked")
        return Framing(Ends.BY_CHUNKS, 0, rest + codings, marks, problem)
    return Framing(Ends.BY_CLOSE, 0, outer + codings, marks, problem)


def _by_length(values: list[str], codings: tuple[str, ...]) -> Framing:
    words = {word.strip(" \t") for value in values for word in value.split(",")}
    if not all(word.isascii() and word.isdigit() for word in words):
        problem = f"Content-Length {', '.join(values)[:32]!r}"
        return Framing(Ends.UNKNOWN, marks=(Mark.MALFORMED,), problem=problem)
    if len(words) > 1:
        problem = f"Content-Length {', '.join(values)[:32]!r}"
        return Framing(Ends.UNKNOWN, marks=(Mark.AMBIGUOUS,), problem=problem)
    (word,) = words
    digits = word.lstrip("0") or "0"
    if len(digits) > 19 or int(digits) > MAX_LENGTH:
        problem = f"Content-Length of {len(digits)} digits"
        return Framing(Ends.UNKNOWN, marks=(Mark.LIMITED,), problem=problem)
    length = int(digits)
    return Framing(Ends.BY_LENGTH if length else Ends.AT_ONCE, length, codings)
