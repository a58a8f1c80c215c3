# SPDX-License-Identifier: Apache-2.0
"""Protocol buffers without their schema: field numbers, and values as far as they can be told.

The wire (protobuf.dev, Encoding) tells numbers, sizes and where things end, but neither names nor
types, so three things are guesses, always the same for the same bytes:

1. Bytes with a length are text, a nested message, or bytes, in this order of preference; bytes
   with control characters in them (a nested message nearly always has some) are tried as a
   message first.
2. A varint is shown as an unsigned number; as a negative one too where it has the 64-bit form
   that ``int32`` and ``int64`` give to negative numbers.
3. Fixed values are kept as their bits; ``render`` shows the float beside the integer.

What is not a message at all is mostly found out within a few octets: ``Decoded.problem`` says so
and ``Decoded.size`` how far it went. Nothing is raised. Bounds: ``_DEPTH`` levels, ``field_limit``
fields in all, ``_SHOWN`` characters of a value and ``lines_limit`` lines in the rendering. Each
octet is looked at once per level at most.
"""

from __future__ import annotations

import json
import math
import struct
from typing import Final, NamedTuple

VARINT: Final = 0
FIXED64: Final = 1
BYTES: Final = 2
GROUP_START: Final = 3
GROUP_END: Final = 4
FIXED32: Final = 5

_DEPTH: Final = 16
_FIELDS: Final = 2000
_SHOWN: Final = 4096
_VARINT_OCTETS: Final = 10
_NUMBER_LIMIT: Final = (1 << 29) - 1  # the greatest field number there is
_ALLOWED_CONTROLS: Final = frozenset("\t\r\n")


class Field(NamedTuple):
    """One field. ``value`` is an integer, text, bytes, or the fields of a message or group."""

    number: int
    wire: int
    value: int | str | bytes | tuple[Field, ...]


class Decoded(NamedTuple):
    """The fields that were there, how many octets they took, and why there are no more."""

    fields: tuple[Field, ...]
    size: int
    problem: str = ""


class _BrokenError(Exception):
    """The bytes are no message, or go on beyond a limit. Never leaves this module."""


class _Reader:
    """One decoding, with what it may still spend."""

    def __init__(self, field_limit: int) -> None:
        self.left = field_limit
        self.reached = 0  # where the last field of the outermost message ended

    def message(self, raw: bytes, depth: int, fields: list[Field]) -> int:
        """Append the fields of ``raw`` to ``fields``; return the size, raise where it is none."""
        return self._fields(raw, 0, depth, fields, group=0)

    def _fields(self, raw: bytes, at: int, depth: int, fields: list[Field], group: int) -> int:
        end = len(raw)
        while at < end:
            key, value_at = _varint(raw, at)
            number, wire = key >> 3, key & 7
            if not 0 < number <= _NUMBER_LIMIT:
                raise _BrokenError(f"field number {number} at byte {at}")
            if wire == GROUP_END and number == group:
                return value_at
            if self.left <= 0:
                raise _BrokenError("too many fields")
            self.left -= 1
            field, at = self._field(raw, value_at, depth, number, wire)
            fields.append(field)
            if depth == _DEPTH:
                self.reached = at
        if group:
            raise _BrokenError(f"group {group} has no end")
        return at

    def _field(self, raw: bytes, at: int, depth: int, number: int, wire: int) -> tuple[Field, int]:
        if wire == VARINT:
            value, at = _varint(raw, at)
            return Field(number, wire, value), at
        if wire == BYTES:
            size, at = _varint(raw, at)
            _need(raw, at, size)
            return Field(number, wire, self._guess(raw[at : at + size], depth)), at + size
        if wire in (FIXED32, FIXED64):
            size = 4 if wire == FIXED32 else 8
            _need(raw, at, size)
            return Field(number, wire, int.from_bytes(raw[at : at + size], "little")), at + size
        if wire == GROUP_START:
            if depth <= 0:
                raise _BrokenError("nested too deep")
            inside: list[Field] = []
            at = self._fields(raw, at, depth - 1, inside, group=number)
            return Field(number, wire, tuple(inside)), at
        raise _BrokenError(f"wire type {wire} before byte {at}")

    def _guess(self, raw: bytes, depth: int) -> str | bytes | tuple[Field, ...]:
        text = _text(raw)
        if text is not None and (not raw or text.isprintable()):
            return text
        if depth > 0:
            before = self.left
            inside: list[Field] = []
            try:
                self.message(raw, depth - 1, inside)
            except _BrokenError:
                self.left = before
            else:
                return tuple(inside)
        return raw if text is None else text


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = 0
    for count, octet in enumerate(raw[at : at + _VARINT_OCTETS]):
        value |= (octet & 0x7F) << (7 * count)
        if octet < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at + count + 1
    raise _BrokenError(f"a varint without an end at byte {at}")


def _need(raw: bytes, at: int, size: int) -> None:
    if size > len(raw) - at:
        raise _BrokenError(f"{size} bytes announced at byte {at}, {len(raw) - at} there")


def _text(raw: bytes) -> str | None:
    """Return the text that ``raw`` is, or None where it is not UTF-8 or has odd controls."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return None
    if text.isprintable() or all(
        character.isprintable() or character in _ALLOWED_CONTROLS for character in text
    ):
        return text
    return None


def decode(raw: bytes, *, field_limit: int = _FIELDS) -> Decoded:
    """Decode one message as far as it is one. Linear in ``raw``; never raises."""
    fields: list[Field] = []
    reader = _Reader(field_limit)
    try:
        size = reader.message(raw, _DEPTH, fields)
    except _BrokenError as error:
        return Decoded(tuple(fields), reader.reached, str(error))
    return Decoded(tuple(fields), size)


def render(decoded: Decoded, *, lines_limit: int = _FIELDS) -> str:
    """Return the fields as lines, nested ones indented, as ``protoc --decode_raw`` does."""
    lines: list[str] = []
    _render(decoded.fields, "", lines, lines_limit)
    if len(lines) > lines_limit:
        del lines[lines_limit:]
        lines.append("... more fields are not shown")
    if decoded.problem:
        lines.append(f"... not read on after {decoded.size} bytes: {decoded.problem}")
    return "\n".join(lines)


def _render(fields: tuple[Field, ...], indent: str, lines: list[str], lines_limit: int) -> None:
    for number, wire, value in fields:
        if len(lines) > lines_limit:
            return
        if isinstance(value, tuple):
            lines.append(f"{indent}{number} {{")
            _render(value, indent + "  ", lines, lines_limit)
            lines.append(indent + "}")
        else:
            lines.append(f"{indent}{number}: {_shown(wire, value)}")


def _shown(wire: int, value: int | str | bytes) -> str:
    if isinstance(value, str):
        more = f" ({len(value)} characters)" if len(value) > _SHOWN else ""
        return json.dumps(value[:_SHOWN], ensure_ascii=False) + more
    if isinstance(value, bytes):
        cut = "..." if len(value) > _SHOWN // 2 else ""
        return f"<{len(value)} bytes> {value[: _SHOWN // 2].hex()}{cut}"
    if wire == VARINT:
        return f"{value} ({value - (1 << 64)})" if value >> 63 else str(value)
    size, form = (4, "<f") if wire == FIXED32 else (8, "<d")
    number: float = struct.unpack(form, value.to_bytes(size, "little"))[0]
    shown = f"{number:.9g}" if wire == FIXED32 else repr(number)
    return f"{value} ({shown})" if math.isfinite(number) else str(value)
