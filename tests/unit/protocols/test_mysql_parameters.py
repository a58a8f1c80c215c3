# SPDX-License-Identifier: Apache-2.0
"""Values of prepared statements: each type as text, and nothing made of what does not come out."""

from __future__ import annotations

import random
import struct

import pytest

from ecapture.errors import ProtocolError
from ecapture.protocols.mysql_parameters import bound_values

HEAD = b"\0" + (1).to_bytes(4, "little")


def packet(*parameters: tuple[int, int, bytes | None], new: bool = True) -> bytes:
    """The packet of parameters of (type, flags, value); None is NULL."""
    nulls = 0
    for number, (_, _, value) in enumerate(parameters):
        nulls |= (value is None) << number
    types = b"".join(bytes([kind, flags]) for kind, flags, _ in parameters)
    values = b"".join(value for _, _, value in parameters if value is not None)
    bitmap = nulls.to_bytes((len(parameters) + 7) // 8, "little")
    return HEAD + bitmap + bytes([new]) + types * new + values


@pytest.mark.parametrize(
    ("kind", "flags", "value", "text"),
    [
        (1, 0, b"\xff", "-1"),
        (1, 0x80, b"\xff", "255"),
        (2, 0, b"\x00\x80", "-32768"),
        (3, 0, struct.pack("<i", -7), "-7"),
        (9, 0, struct.pack("<i", 7), "7"),
        (8, 0x80, b"\xff" * 8, str(2**64 - 1)),
        (5, 0, struct.pack("<d", 2.5), "2.5"),
        (4, 0, struct.pack("<f", 0.5), "0.5"),
        (4, 0, struct.pack("<f", 1.1), "1.1"),
        (13, 0, b"\xe8\x07", "2024"),
        (253, 0, b"\x04it's", "it's"),
        (246, 0, b"\x041.50", "1.50"),
        (252, 0, b"\x02\xff\x00", "\\xff00"),
        (252, 0, b"\x02\xc3\xa9", "é"),
        (254, 0, b"\xfc\x2c\x01" + b"x" * 300, "x" * 300),
        (10, 0, b"\x04\xe8\x07\x01\x02", "2024-01-02"),
        (12, 0, b"\x07\xe8\x07\x01\x02\x03\x04\x05", "2024-01-02 03:04:05"),
        (
            7,
            0,
            b"\x0b\xe8\x07\x01\x02\x03\x04\x05" + struct.pack("<I", 6),
            "2024-01-02 03:04:05.000006",
        ),
        (12, 0, b"\x00", "0000-00-00"),
        (11, 0, b"\x08\x01" + struct.pack("<I", 1) + b"\x02\x03\x04", "-26:03:04"),
        (11, 0, b"\x00", "00:00:00"),
    ],
)
def test_each_type(kind, flags, value, text):
    bound = bound_values(packet((kind, flags, value), (1, 0, b"\x05")), 2, b"")
    assert bound.values == (text, "5")


def test_nulls_and_types_of_an_earlier_execution():
    first = bound_values(packet((1, 0, b"\x05"), (253, 0, None), (6, 0, b"")), 3, b"")
    assert first.values == ("5", None, None)
    again = packet((1, 0, b"\x06"), (253, 0, b"\x01x"), (6, 0, b""), new=False)
    assert bound_values(again, 3, first.types).values == ("6", "x", None)


def test_without_parameters():
    assert bound_values(HEAD, 0, b"").values == ()


@pytest.mark.parametrize(
    ("content", "count"),
    [
        (HEAD + b"x", 0),
        (b"", 1),
        (HEAD + b"\0", 1),
        (packet((1, 0, b"\x05"), new=False), 1),  # types that were never seen
        (packet((1, 0, b"\x05")) + b"x", 1),
        (packet((3, 0, b"\x05")), 1),
        (packet((99, 0, b"\x05")), 1),
        (packet((253, 0, b"\xffabc")), 1),
        (packet((253, 0, b"\xfe" + b"\xff" * 8)), 1),
        (packet((12, 0, b"\x05aaaaa")), 1),
        (packet((1, 0, b"\x05"), (1, 0, b"\x05")), 1),
        (packet((1, 0, b"\x05")), 2),
        (HEAD + b"\0\2\0\0", 1),
    ],
)
def test_what_does_not_come_out_even(content, count):
    with pytest.raises(ProtocolError):
        bound_values(content, count, b"")


def test_of_what_was_cut_the_values_before_the_cut_are_told():
    whole = packet((3, 0, b"\x05\0\0\0"), (253, 0, None), (253, 0, b"\x03abc"), (8, 0, b"\7" * 8))
    values = ("5", None, "abc")
    for size in range(len(whole)):
        try:
            found = bound_values(whole[:size], 4, b"", cut=True)
        except ProtocolError:
            assert size < len(HEAD) + 10  # before the first value
            continue
        assert found.values == values[: len(found.values)]
        assert len(found.types) == 8
    assert found.values == values
    with pytest.raises(ProtocolError):
        bound_values(whole, 4, b"", cut=True)


def test_nothing_but_the_one_error_escapes():
    source = random.Random(7)
    for _ in range(3000):
        content = HEAD + source.randbytes(source.randrange(40))
        try:
            bound_values(content, source.randrange(9), source.randbytes(2))
        except ProtocolError:
            continue
