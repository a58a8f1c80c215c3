# SPDX-License-Identifier: Apache-2.0
r"""Parameters of PostgreSQL in binary form, as the text that the server itself would show.

A table by the number of the type (pg_type.dat; those below 16384 never change), each with a reader
of its binary form (the ``*recv`` functions of src/backend/utils/adt). What has no reader, or does
not fit its type, is given as ``\x`` and its bytes: no value is better than a wrong one.
"""

from __future__ import annotations

import datetime as dt
import math
import struct
import uuid
from collections.abc import Callable
from decimal import Decimal
from ipaddress import ip_address
from typing import Final

from ecapture.protocols.single import shortest

Reader = Callable[[bytes], str]

_EPOCH: Final = dt.datetime(2000, 1, 1)  # noqa: DTZ001 - a count of microseconds, no time
_MICROSECONDS: Final = 1_000_000
_TEXTS: Final = (18, 19, 25, 114, 142, 705, 1042, 1043)  # "char", name, text, json, xml, unknown, …
_ARRAYS: Final = {
    1000: 16, 1001: 17, 1005: 21, 1007: 23, 1016: 20, 1028: 26, 1021: 700, 1022: 701, 1009: 25,
    1015: 1043, 1014: 1042, 1003: 19, 1231: 1700, 1182: 1082, 1183: 1083, 1115: 1114, 1185: 1184,
    2951: 2950, 199: 114, 3807: 3802, 1041: 869, 1187: 1186,
}  # fmt: skip
_MAXIMUM_DIMENSIONS: Final = 6  # MAXDIM
_MAXIMUM_DIGITS: Final = 40_000
_QUOTED: Final = frozenset('"\\{}, \t\n\r\v\f')
"""Characters for which an element of an array stands in quotes (array_out)."""


def parameter_text(raw: bytes, *, binary: bool, oid: int, codec: str) -> str:
    """One parameter as text. ``oid`` is its type, 0 if not known. Never raises."""
    if not binary:
        return raw.decode(codec, "backslashreplace")
    try:
        return _binary(raw, oid, codec)
    except (ValueError, OverflowError, IndexError, struct.error, RecursionError):
        return f"\\x{raw.hex()}"


def _binary(raw: bytes, oid: int, codec: str) -> str:
    if oid in _TEXTS:
        return raw.decode(codec)
    if oid in _ARRAYS:
        return _array(raw, _ARRAYS[oid], codec)
    if oid == 3802 and raw[:1] == b"\1":  # jsonb: a version, then text
        return raw[1:].decode(codec)
    reader = _READERS.get(oid)
    if reader is None:
        raise ValueError("no reader for this type")
    return reader(raw)


def _number(form: str) -> Reader:
    packed = struct.Struct(form)
    return lambda raw: str(packed.unpack(raw)[0])


def _real(form: str, digits: int) -> Reader:
    # ``digits``: from as many in front of the point on, the server writes an exponent (FLT_DIG and
    # DBL_DIG; to_chars in src/common/f2s.c and d2s.c)
    packed = struct.Struct(form)

    def read(raw: bytes) -> str:
        value = packed.unpack(raw)[0]
        if math.isnan(value):
            return "NaN"
        if math.isinf(value):
            return "Infinity" if value > 0 else "-Infinity"
        number = Decimal(shortest(value) if packed.size == 4 else repr(value)).normalize()
        if not value or -4 <= number.adjusted() < digits:
            return f"{number:f}"
        mantissa = number.scaleb(-number.adjusted())
        return f"{mantissa:f}e{number.adjusted():+03}"

    return read


def _bool(raw: bytes) -> str:
    if raw not in (b"\0", b"\1"):
        raise ValueError("neither true nor false")
    return "t" if raw == b"\1" else "f"


def _bytea(raw: bytes) -> str:
    return f"\\x{raw.hex()}"


def _uuid(raw: bytes) -> str:
    return str(uuid.UUID(bytes=raw))


def _timestamp(raw: bytes) -> str:
    (value,) = struct.unpack(">q", raw)
    if value == (1 << 63) - 1:
        return "infinity"
    if value == -(1 << 63):
        return "-infinity"
    return _fraction(str(_EPOCH + dt.timedelta(microseconds=value)))


def _timestamptz(raw: bytes) -> str:
    shown = _timestamp(raw)
    return shown if shown.endswith("infinity") else f"{shown}+00"


def _fraction(text: str) -> str:
    return text.rstrip("0") if "." in text else text


def _date(raw: bytes) -> str:
    (days,) = struct.unpack(">i", raw)
    if days in ((1 << 31) - 1, -(1 << 31)):
        return "infinity" if days > 0 else "-infinity"
    return str((_EPOCH + dt.timedelta(days=days)).date())


def _clock(microseconds: int) -> str:
    if not 0 <= microseconds <= 86_400 * _MICROSECONDS:
        raise ValueError("no time of day")
    seconds, rest = divmod(microseconds, _MICROSECONDS)
    shown = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return _fraction(f"{shown}.{rest:06}") if rest else shown


def _time(raw: bytes) -> str:
    return _clock(struct.unpack(">q", raw)[0])


def _timetz(raw: bytes) -> str:
    microseconds, west = struct.unpack(">qi", raw)
    east = abs(west)
    shown = f"{_clock(microseconds)}{'-' if west > 0 else '+'}{east // 3600:02}"
    shown += f":{east // 60 % 60:02}" if east % 3600 else ""
    return shown + (f":{east % 60:02}" if east % 60 else "")


def _interval(raw: bytes) -> str:
    microseconds, days, months = struct.unpack(">qii", raw)
    parts = []
    years = int(months / 12)  # towards zero, as the server does
    negative = False  # the part before: then a positive one has its sign, too
    for count, unit in ((years, "year"), (months - years * 12, "mon"), (days, "day")):
        if count:
            sign = "+" if negative and count > 0 else ""
            parts.append(f"{sign}{count} {unit}{'' if count == 1 else 's'}")
            negative = count < 0
    if microseconds or not parts:
        seconds, rest = divmod(abs(microseconds), _MICROSECONDS)
        shown = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        if rest:
            shown = _fraction(f"{shown}.{rest:06}")
        sign = "-" if microseconds < 0 else "+" if negative else ""
        parts.append(sign + shown)
    return " ".join(parts)


def _numeric(raw: bytes) -> str:
    # digits of base 10000, the first of them worth 10000 ** weight (numeric_recv)
    count, weight, sign, scale = struct.unpack_from(">HhHH", raw)
    special = {0xC000: "NaN", 0xD000: "Infinity", 0xF000: "-Infinity"}.get(sign)
    if special is not None:
        return special
    digits = struct.unpack_from(f">{count}H", raw, 8)
    if len(raw) != 8 + 2 * count or sign not in (0, 0x4000) or any(d > 9999 for d in digits):
        raise ValueError("no number")
    if abs(weight) * 4 > _MAXIMUM_DIGITS or scale > _MAXIMUM_DIGITS:
        raise ValueError("too long")

    def digit(place: int) -> str:
        at = weight - place
        return f"{digits[at]:04}" if 0 <= at < count else "0000"

    whole = "".join(digit(place) for place in range(weight, -1, -1)).lstrip("0") or "0"
    fraction = "".join(digit(-place) for place in range(1, (scale + 3) // 4 + 1))[:scale]
    shown = f"{whole}.{fraction}" if scale else whole
    return f"-{shown}" if sign else shown


def _inet(raw: bytes) -> str:
    family, bits, is_cidr, size = raw[0], raw[1], raw[2], raw[3]
    address = raw[4:]
    if len(address) != size or (family, size) not in ((2, 4), (3, 16)):
        raise ValueError("no address")
    shown = str(ip_address(address))
    return shown if bits == size * 8 and not is_cidr else f"{shown}/{bits}"


def _macaddr(raw: bytes) -> str:
    if len(raw) not in (6, 8):
        raise ValueError("no address")
    return raw.hex(":")


def _array(raw: bytes, expected: int, codec: str) -> str:
    dimensions, _nulls, element = struct.unpack_from(">iiI", raw)
    if not 0 <= dimensions <= _MAXIMUM_DIMENSIONS or element != expected:
        raise ValueError("no such array")
    bounds = [struct.unpack_from(">ii", raw, 12 + 8 * i) for i in range(dimensions)]
    sizes = [size for size, _ in bounds]
    at = 12 + 8 * dimensions
    total = math.prod(sizes) if sizes else 0
    if any(size < 0 for size in sizes) or total * 4 > len(raw) - at:
        raise ValueError("no such array")
    values: list[str] = []
    for _ in range(total):
        (size,) = struct.unpack_from(">i", raw, at)
        at += 4
        if size == -1:
            values.append("NULL")
            continue
        if not 0 <= size <= len(raw) - at:
            raise ValueError("no such array")
        values.append(_quoted(_binary(raw[at : at + size], element, codec)))
        at += size
    if at != len(raw):
        raise ValueError("no such array")
    for size in reversed(sizes[1:]):
        values = [f"{{{','.join(values[i : i + size])}}}" for i in range(0, len(values), size or 1)]
    shown = f"{{{','.join(values)}}}"
    if total and any(first != 1 for _, first in bounds):
        shown = "".join(f"[{first}:{first + size - 1}]" for size, first in bounds) + f"={shown}"
    return shown


def _quoted(text: str) -> str:
    if text and _QUOTED.isdisjoint(text) and text.upper() != "NULL":
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


_READERS: Final[dict[int, Reader]] = {
    16: _bool,
    17: _bytea,
    20: _number(">q"),
    21: _number(">h"),
    23: _number(">i"),
    26: _number(">I"),
    28: _number(">I"),
    700: _real(">f", 6),
    701: _real(">d", 15),
    650: _inet,
    774: _macaddr,
    829: _macaddr,
    869: _inet,
    1082: _date,
    1083: _time,
    1114: _timestamp,
    1184: _timestamptz,
    1186: _interval,
    1266: _timetz,
    1700: _numeric,
    2950: _uuid,
}
