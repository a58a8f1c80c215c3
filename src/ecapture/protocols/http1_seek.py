# SPDX-License-Identifier: Apache-2.0
"""Finding the next HTTP/1 message in bytes whose place in the stream is not known.

Content may stand before it without a line end, and content may quote messages, so nothing is
certain. What is believed is a whole start line with ``HTTP/1.0`` or ``HTTP/1.1``, followed by the
name of a field or an empty line; for a request, its method is one of the registered ones, or stands
at the beginning of a line or of all that was fed. Strategy: the literal ``HTTP/1.`` is searched for
at the speed of memory, and only around it regular expressions look.

Invariants: what is kept is one piece and ``_LINE`` bytes before the place reached; each place is
judged once, or again while its line is incomplete.
"""

from __future__ import annotations

import re

_LINE = 8192
"""The longest start line that is looked for."""
_NEXT = 80
_KEPT = 1 << 16
_VERSION = b"HTTP/1."
_TCHAR = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_METHODS = (
    rb"GET|HEAD|POST|PUT|DELETE|CONNECT|OPTIONS|TRACE|PATCH|QUERY|PRI"
    rb"|PROPFIND|PROPPATCH|MKCOL|COPY|MOVE|LOCK|UNLOCK|SEARCH|REPORT|PURGE"
)
_METHOD_ENDS = (
    re.compile(rb"(?<=\n)[A-Z-]{1,32}\Z"),
    re.compile(rb"(?:" + _METHODS + rb")\Z"),
)
_METHOD_BEGINS = re.compile(_TCHAR + rb"{1,32}\Z")
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] [1-5][0-9]{2}(?: [^\r\n]*)?\r?\n")
_VERSION_END = re.compile(rb"HTTP/1\.[01]\r?\n")
_FIELD_NAME = re.compile(_TCHAR + rb"{1,64}:|\r?\n")
_FIELD_BEGUN = re.compile(_TCHAR + rb"{0,64}\r?\Z")
_RESPONSE_HERE = re.compile(_STATUS_LINE.pattern + rb"(?:" + _FIELD_NAME.pattern + rb")")
_REQUEST_HERE = re.compile(
    rb"(?:" + _METHODS + rb") [^ \r\n]+ " + _VERSION_END.pattern
    + rb"(?:" + _FIELD_NAME.pattern + rb")"
)  # fmt: skip

_NO = -1
_MORE = -2


def starts_here(data: bytes, at: int, *, request: bool) -> bool:
    """Say whether a whole start line, and what has to follow it, stands at ``at``."""
    pattern = _REQUEST_HERE if request else _RESPONSE_HERE
    return pattern.match(data, at) is not None


class Seeker:
    """A search in one direction. ``skipped`` counts what was passed over since it was set to 0."""

    __slots__ = ("_from", "_request", "_store", "skipped")

    def __init__(self, *, request: bool) -> None:
        self._request = request
        self._store = bytearray()
        self._from = 0
        self.skipped = 0

    def feed(self, data: bytes) -> bytes | None:
        """Take the next bytes; return those from a start line on, or None while there is none."""
        store = self._store
        store += data
        at = self._from
        while True:
            at = store.find(_VERSION, at)
            if at < 0:
                at = max(len(store) - len(_VERSION) + 1, 0)
                break
            start = self._judge(at)
            if start == _MORE:
                break
            if start >= 0:
                found = bytes(store[start:])
                self.skipped += start
                store.clear()
                self._from = 0
                return found
            at += 1
        if len(store) > _KEPT:
            cut = max(at - _LINE, 0)
            del store[:cut]
            self.skipped += cut
            at -= cut
        self._from = at
        return None

    def forget(self) -> None:
        """Give up what is kept, as after a gap; it counts as passed over."""
        self.skipped += len(self._store)
        self._store.clear()
        self._from = 0

    def _judge(self, at: int) -> int:
        """Return where the message begins whose version is at ``at``, or why that is not known."""
        store = self._store
        start = at
        line = store.find(b"\n", at, at + _LINE)
        if self._request:
            start = self._request_start(at)
            if start == _NO:
                return _NO
        if line < 0:
            return _MORE if len(store) < at + (16 if self._request else _LINE) else _NO
        if (_VERSION_END if self._request else _STATUS_LINE).match(store, at) is None:
            return _NO
        line += 1
        if _FIELD_NAME.match(store, line):
            return start
        begun = len(store) < line + _NEXT and _FIELD_BEGUN.match(store, line)
        return _MORE if begun else _NO

    def _request_start(self, at: int) -> int:
        store = self._store
        if at < 4 or store[at - 1] != 0x20:
            return _NO
        lowest = max(0, at - _LINE)
        target = store.rfind(b" ", lowest, at - 1)
        if target <= 0 or store.find(b"\n", target, at) >= 0:
            return _NO
        lowest = max(0, target - 33)
        window = bytes(store[lowest:target])
        for pattern in _METHOD_ENDS:
            match = pattern.search(window)
            if match is not None:
                return lowest + match.start()
        begins = lowest == 0 and self.skipped == 0 and _METHOD_BEGINS.match(window)
        return 0 if begins else _NO


def begins_later(raw: bytes, method: str, target: str) -> bool:
    """Say whether what was read as a request rather begins within its own start line.

    The end of content may stand before it: then a registered method ends what looks like one, or
    what looks like a target has spaces, and a start line in it.
    """
    match = _METHOD_ENDS[1].search(method.encode("latin-1"))
    if match is not None and match.start() > 0:
        return True
    return " " in target and Seeker(request=True).feed(raw[1:]) is not None
