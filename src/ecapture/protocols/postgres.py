# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL's protocol, version 3: bytes to messages, and what messages say.

``MessageReader`` takes one direction in runs of bytes. A run may begin in the middle of the message
before, or with ``boundary`` at a new one. A run that is ``cut`` ends in the middle of a message of
which no more was kept; it tells its full length all the same.

Joined late: everything is skipped up to the first run that has ``boundary``. Missing bytes:
``forget``, and go on with the next ``boundary``. Whatever does not fit is a ProtocolError in the
readers of content; the reader of messages has no errors, it only skips.

Source: PostgreSQL 18 documentation, 54.7 "Message Formats" (the same since 7.4 for what is read
here). All integers are in network byte order, texts end with a zero byte.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, NamedTuple

import msgspec

from ecapture.errors import ProtocolError

STARTUP: Final = 0
"""The kind of a start-up packet, which has no type byte."""
CANCEL_REQUEST: Final = 80877102
_ENCRYPTION_REQUESTS: Final = (80877103, 80877104)
_NOTHING: Final = b""
_NULL: Final = 0xFFFFFFFF


class Message(msgspec.Struct, frozen=True, gc=False):
    """``kind`` is the type byte. ``body`` has fewer bytes than ``length`` if it was cut."""

    kind: int
    body: bytes
    length: int


class MessageReader:
    """Messages of one direction, of these ``kinds``. At most ``limit`` bytes of each are kept."""

    def __init__(self, limit: int, kinds: Collection[int] = frozenset(range(256))) -> None:
        self._limit = limit
        self._kinds = kinds
        self._waiting = b""
        self._full = False  # more came of what waits than is kept
        self._lost = True  # until the first boundary

    @property
    def at_rest(self) -> bool:
        """Whether a message begins with the next byte."""
        return not (self._waiting or self._lost)

    def feed(self, data: bytes, *, boundary: bool, cut: bool = False) -> list[Message]:
        """The messages that these bytes complete; with ``cut`` also that which goes on."""
        found: list[Message] = []
        data = self._joined(data, found, boundary=boundary)
        at, size, kinds = 0, len(data), self._kinds
        while at < size:
            kind = data[at]
            content = at + 5 if kind else at + 4
            if content > size:
                break
            length = int.from_bytes(data[content - 4 : content], "big") - 4
            if length < 0:
                self._lost = True
                return found
            end = content + length
            if end > size:
                break
            if kind in kinds:
                found.append(Message(kind, data[content:end], length))
            at = end
        if at < size:
            # what exceeds the limit is not waited for: the message ends at the next boundary
            self._waiting = data[at : at + self._limit]
            self._full = size - at > self._limit
            if cut:
                self._cut(found)
                self._lost = True
        return found

    def _joined(self, data: bytes, found: list[Message], *, boundary: bool) -> bytes:
        # What waits, with what has come; nothing while everything is skipped.
        if boundary:
            self._cut(found)
            self._lost = False
        elif self._full:
            return _NOTHING
        elif self._waiting:
            data = self._waiting + data
            self._waiting = _NOTHING
        return _NOTHING if self._lost else data

    def forget(self) -> None:
        """Bytes are missing: skip what follows up to the next boundary."""
        self._waiting = _NOTHING
        self._full = False
        self._lost = True

    def _cut(self, found: list[Message]) -> None:
        waiting, self._waiting = self._waiting, _NOTHING
        self._full = False
        head = 5 if waiting[:1] > b"\0" else 4
        if len(waiting) >= head and waiting[0] in self._kinds:
            length = int.from_bytes(waiting[head - 4 : head], "big") - 4
            found.append(Message(waiting[0], waiting[head:], length))


class Cursor:
    """Reads content from its beginning. What is not there raises ProtocolError."""

    __slots__ = ("at", "data")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, size: int) -> bytes:
        """So many bytes."""
        end = self.at + size
        if size < 0 or end > len(self.data):
            raise ProtocolError(protocol="postgresql", offset=self.at, reason="content is cut")
        found = self.data[self.at : end]
        self.at = end
        return found

    def number(self, size: int = 2) -> int:
        """A signed integer."""
        return int.from_bytes(self.take(size), "big", signed=True)

    def count(self) -> int:
        """A count of things of at least two bytes each, all of which must be there."""
        found = int.from_bytes(self.take(2), "big")
        if found > (len(self.data) - self.at) // 2:
            raise ProtocolError(protocol="postgresql", offset=self.at, reason="content is cut")
        return found

    def text(self) -> bytes:
        """Up to a zero byte, which is skipped."""
        end = self.data.find(b"\0", self.at)
        if end < 0:
            raise ProtocolError(protocol="postgresql", offset=self.at, reason="text without end")
        found = self.data[self.at : end]
        self.at = end + 1
        return found


class Startup(NamedTuple):
    """A start-up packet: its code (0 for requests for encryption), and its parameters."""

    code: int
    parameters: dict[bytes, bytes]


def read_startup(body: bytes) -> Startup:
    """Raises ProtocolError."""
    cursor = Cursor(body)
    code = cursor.number(4)
    if code in _ENCRYPTION_REQUESTS:
        return Startup(0, {})
    parameters: dict[bytes, bytes] = {}
    if code >> 16 == 3:
        while cursor.at < len(body) and body[cursor.at]:
            name = cursor.text()
            parameters[name] = cursor.text()
    return Startup(code, parameters)


class Parse(NamedTuple):
    """``length`` is that of the whole text; 0 if it was ``cut``. ``types`` are OIDs."""

    name: bytes
    text: bytes
    length: int
    types: tuple[int, ...]
    cut: bool = False


def read_parse(message: Message) -> Parse:
    """Raises ProtocolError where not even the name is there."""
    cursor = Cursor(message.body)
    name = cursor.text()
    if len(message.body) < message.length:
        text = message.body[cursor.at :]
        if b"\0" not in text:
            # Behind it come types, and how many is not known.
            return Parse(name, text, 0, (), cut=True)
    text = cursor.text()
    try:
        types = tuple(cursor.number(4) & 0xFFFFFFFF for _ in range(cursor.count()))
    except ProtocolError:
        types = ()
    return Parse(name, text, len(text), types)


class Bind(msgspec.Struct, frozen=True):
    """``values`` in their formats (0 text, 1 binary), None for NULL; ``cut``: there were more."""

    portal: bytes
    statement: bytes
    values: tuple[bytes | None, ...]
    formats: tuple[int, ...]
    cut: bool


def read_bind(body: bytes) -> Bind:
    """Raises ProtocolError where not even the names are there."""
    cursor = Cursor(body)
    portal, statement = cursor.text(), cursor.text()
    values: list[bytes | None] = []
    formats: list[int] = []
    try:
        formats = [cursor.number() for _ in range(cursor.count())]
        wanted = cursor.count()
    except ProtocolError:
        return Bind(portal, statement, (), (), cut=True)
    at, size = cursor.at, len(body)
    # as in Cursor, but quicker: this is most of what an execution costs
    while len(values) < wanted and at + 4 <= size:
        length = int.from_bytes(body[at : at + 4], "big")
        at += 4
        if length == _NULL:
            values.append(None)
        elif length > size - at:  # the message was cut: what there is of it counts
            break
        else:
            values.append(body[at : at + length])
            at += length
    if len(formats) != wanted:
        formats = [formats[0] if len(formats) == 1 else 0] * wanted
    return Bind(portal, statement, tuple(values), tuple(formats), cut=len(values) < wanted)


def read_types(body: bytes) -> tuple[int, ...]:
    """The types of a ParameterDescription. Raises ProtocolError."""
    cursor = Cursor(body)
    return tuple(cursor.number(4) & 0xFFFFFFFF for _ in range(cursor.count()))


class Failure(NamedTuple):
    """An ErrorResponse: SQLSTATE, message, and whether the session ends with it."""

    code: str
    message: bytes
    fatal: bool


def read_failure(body: bytes) -> Failure:
    """Never raises: what is missing is empty."""
    fields: dict[int, bytes] = {}
    for part in body.split(b"\0"):
        if part:
            fields.setdefault(part[0], part[1:])
    # V is the severity untranslated (9.6)
    severity = fields.get(ord("V")) or fields.get(ord("S"), b"")
    code = fields.get(ord("C"), b"").decode("ascii", "backslashreplace")
    return Failure(code, fields.get(ord("M"), b""), severity in (b"FATAL", b"PANIC"))


def rows_of(tag: str) -> int | None:
    """How many rows a command tag tells of ("INSERT 0 5": 5); None if it tells of none."""
    word = tag.rpartition(" ")[2]
    return int(word) if word.isascii() and word.isdecimal() and len(word) < 20 else None
