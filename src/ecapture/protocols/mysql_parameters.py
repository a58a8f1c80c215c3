# SPDX-License-Identifier: Apache-2.0
"""Values that a client binds to a prepared statement of MySQL, as text.

The packet of COM_STMT_EXECUTE has no lengths and no number of parameters, so it is read strictly:
every byte must have a meaning, and none may be left. What does not come out even is a
``ProtocolError``, never a guess.

Source: MariaDB knowledge base, "COM_STMT_EXECUTE" and "Result Set Packets, binary"; MySQL 9 source
documentation, "Binary Protocol Resultset Row".
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from ecapture.errors import ProtocolError
from ecapture.protocols.single import shortest

_PROTOCOL: Final = "mysql"
_HEAD: Final = 5  # flags and the number of iterations, which is always 1
_UNSIGNED: Final = 0x80
_NULL_TYPE: Final = 6
_FIXED: Final = {1: "bB", 2: "hH", 13: "hH", 3: "iI", 9: "iI", 8: "qQ", 4: "ff", 5: "dd"}
_TEXTS: Final = {0, 15, 245, 246, 247, 248, 253, 254}
_BYTES: Final = {16, 249, 250, 251, 252, 255}
_DATES: Final = {7, 10, 12}
_TIME: Final = 11
_FLOAT: Final = 4
_ENDS: Final = "ends within a value"


class Bound(NamedTuple):
    """``values`` in order, None for NULL; ``types`` are those of the next execution, too."""

    values: tuple[str | None, ...]
    types: bytes


def bound_values(packet: bytes, count: int, types: bytes, *, cut: bool = False) -> Bound:
    """Read the packet behind the statement's id.

    ``count`` is how many parameters the statement has; ``types`` are those that were sent with an
    earlier execution, for a packet that has none. Of one that was ``cut`` the values are told that
    come before the cut, and there are fewer than ``count``.

    Raises:
        ProtocolError: the packet does not come out even, or has types that are not known.
    """
    if not count:
        if len(packet) not in (_HEAD, 1):
            raise _error(len(packet), "bytes where there are no parameters")
        return Bound((), b"")
    at = _HEAD + (count + 7) // 8
    nulls = packet[_HEAD:at]
    if len(packet) <= at:
        raise _error(len(packet), "too short for its parameters")
    if packet[at] == 1:
        types = packet[at + 1 : at + 1 + 2 * count]
        at += 2 * count
    elif packet[at] != 0:
        raise _error(at, "neither new types nor none")
    at += 1
    if len(types) != 2 * count:
        raise _error(at, "the types of its parameters were not seen")
    values, at = _values(packet, at, nulls, types, cut=cut)
    if len(values) == count and (cut or at != len(packet)):
        raise _error(at, "does not end behind its last value")
    return Bound(values, types)


def _values(
    packet: bytes, at: int, nulls: bytes, types: bytes, *, cut: bool
) -> tuple[tuple[str | None, ...], int]:
    # And where they end; fewer where the packet was cut.
    values: list[str | None] = []
    for number in range(len(types) // 2):
        kind, flags = types[2 * number], types[2 * number + 1]
        if nulls[number >> 3] >> (number & 7) & 1 or kind == _NULL_TYPE:
            values.append(None)
            continue
        try:
            value, at = _value(packet, at, kind, unsigned=bool(flags & _UNSIGNED))
        except ProtocolError as error:
            if cut and error.fields["reason"] == _ENDS:
                break
            raise
        values.append(value)
    return tuple(values), at


def _value(packet: bytes, at: int, kind: int, *, unsigned: bool) -> tuple[str, int]:
    if kind in _FIXED:
        code = "<" + _FIXED[kind][unsigned]
        end = at + struct.calcsize(code)
        number = struct.unpack(code, _taken(packet, at, end))[0]
        return shortest(number) if kind == _FLOAT else str(number), end
    if kind in _DATES or kind == _TIME:
        length = _taken(packet, at, at + 1)[0]
        fields = _taken(packet, at + 1, at + 1 + length)
        return (_time(fields) if kind == _TIME else _date(fields)), at + 1 + length
    if kind not in _TEXTS and kind not in _BYTES:
        raise _error(at, f"a value of type {kind}")
    length, at = _length(packet, at)
    raw = _taken(packet, at, at + length)
    if kind in _TEXTS:
        return raw.decode("utf-8", "backslashreplace"), at + length
    try:
        return raw.decode("utf-8"), at + length  # drivers bind text as blobs, too
    except UnicodeDecodeError:
        return "\\x" + raw.hex(), at + length


def _taken(packet: bytes, at: int, end: int) -> bytes:
    if end > len(packet):
        raise _error(at, _ENDS)
    return packet[at:end]


def _length(packet: bytes, at: int) -> tuple[int, int]:
    # A length-encoded integer.
    first = _taken(packet, at, at + 1)[0]
    if first < 0xFB:
        return first, at + 1
    size = {0xFC: 2, 0xFD: 3, 0xFE: 8}.get(first)
    if size is None:
        raise _error(at, "no length")
    return int.from_bytes(_taken(packet, at + 1, at + 1 + size), "little"), at + 1 + size


def _date(fields: bytes) -> str:
    if len(fields) not in (0, 4, 7, 11):
        raise _error(0, f"a date of {len(fields)} bytes")
    year, month, day, hour, minute, second, micro = struct.unpack(
        "<HBBBBBI", fields.ljust(11, b"\0")
    )
    text = f"{year:04}-{month:02}-{day:02}"
    if len(fields) > 4:
        text += f" {hour:02}:{minute:02}:{second:02}"
    return text + (f".{micro:06}" if len(fields) > 7 else "")


def _time(fields: bytes) -> str:
    if len(fields) not in (0, 8, 12):
        raise _error(0, f"a time of {len(fields)} bytes")
    negative, days, hours, minute, second, micro = struct.unpack("<BIBBBI", fields.ljust(12, b"\0"))
    text = f"{'-' if negative else ''}{days * 24 + hours:02}:{minute:02}:{second:02}"
    return text + (f".{micro:06}" if len(fields) > 8 else "")


def _error(offset: int, reason: str) -> ProtocolError:
    return ProtocolError(protocol=_PROTOCOL, offset=offset, reason=reason)
