# SPDX-License-Identifier: Apache-2.0
"""Binary parameters as text. That the server would show them so is tested on a server."""

from __future__ import annotations

import random
import struct

import pytest

from ecapture.protocols.postgres_values import parameter_text


def shown(raw: bytes, oid: int) -> str:
    return parameter_text(raw, binary=True, oid=oid, codec="utf-8")


@pytest.mark.parametrize(
    ("oid", "raw", "text"),
    [
        (16, b"\1", "t"),
        (16, b"\0", "f"),
        (17, b"\xde\xad", "\\xdead"),
        (20, struct.pack(">q", -(1 << 62)), "-4611686018427387904"),
        (21, b"\xff\xff", "-1"),
        (23, b"\0\0\1\0", "256"),
        (26, b"\xff\xff\xff\xff", "4294967295"),
        (25, "é".encode(), "é"),
        (1043, b"", ""),
        (3802, b'\1{"a": 1}', '{"a": 1}'),
        (700, struct.pack(">f", 0.1), "0.1"),
        (700, struct.pack(">f", 1e20), "1e+20"),
        (700, struct.pack(">f", 10.0), "10"),
        (700, struct.pack(">f", -123456.0), "-123456"),
        (700, struct.pack(">f", 1234567.0), "1.234567e+06"),
        (700, struct.pack(">f", 0.0001), "0.0001"),
        (700, struct.pack(">f", 0.00001), "1e-05"),
        (701, struct.pack(">d", 2.0), "2"),
        (701, struct.pack(">d", -0.0), "-0"),
        (701, struct.pack(">d", 123456789012345.0), "123456789012345"),
        (701, struct.pack(">d", 1e15), "1e+15"),
        (701, struct.pack(">d", 1234567890123456.0), "1.234567890123456e+15"),
        (701, struct.pack(">d", 5e-324), "5e-324"),
        (701, struct.pack(">d", float("-inf")), "-Infinity"),
        (701, struct.pack(">d", float("nan")), "NaN"),
        (1082, struct.pack(">i", 366), "2001-01-01"),
        (1082, struct.pack(">i", (1 << 31) - 1), "infinity"),
        (1083, struct.pack(">q", 3_723_500_000), "01:02:03.5"),
        (1266, struct.pack(">qi", 0, -7200), "00:00:00+02"),
        (1266, struct.pack(">qi", 0, 12_600), "00:00:00-03:30"),
        (1266, struct.pack(">qi", 0, -3615), "00:00:00+01:00:15"),
        (1114, struct.pack(">q", 1), "2000-01-01 00:00:00.000001"),
        (1114, struct.pack(">q", -(1 << 63)), "-infinity"),
        (1184, struct.pack(">q", 86_400_000_000), "2000-01-02 00:00:00+00"),
        (1186, struct.pack(">qii", 1_500_000, 2, 14), "1 year 2 mons 2 days 00:00:01.5"),
        (1186, struct.pack(">qii", -3_600_000_000, 0, 0), "-01:00:00"),
        (1186, struct.pack(">qii", 0, 0, 0), "00:00:00"),
        (1186, struct.pack(">qii", 1_000_000, -2, 0), "-2 days +00:00:01"),
        (1186, struct.pack(">qii", 0, 3, -13), "-1 years -1 mons +3 days"),
        (1700, struct.pack(">HhHHHH", 2, 0, 0, 2, 12, 3400), "12.34"),
        (1700, struct.pack(">HhHHH", 1, 1, 0x4000, 0, 5), "-50000"),
        (1700, struct.pack(">HhHHH", 1, -1, 0, 4, 1), "0.0001"),
        (1700, struct.pack(">HhHHH", 1, -2, 0, 8, 1), "0.00000001"),
        (1700, struct.pack(">HhHH", 0, 0, 0, 0), "0"),
        (1700, struct.pack(">HhHH", 0, 0, 0xC000, 0), "NaN"),
        (869, b"\2\x20\0\4\x7f\0\0\1", "127.0.0.1"),
        (869, b"\2\x18\0\4\x0a\0\0\1", "10.0.0.1/24"),
        (650, b"\2\x08\1\4\x0a\0\0\0", "10.0.0.0/8"),
        (869, b"\3\x80\0\x10" + bytes(15) + b"\1", "::1"),
        (829, bytes(range(6)), "00:01:02:03:04:05"),
        (2950, bytes(16), "00000000-0000-0000-0000-000000000000"),
        (1007, struct.pack(">iiIiiiiii", 1, 1, 23, 2, 1, 4, 7, -1, 0)[:-4], "{7,NULL}"),
        (1009, struct.pack(">iiIiii", 1, 0, 25, 1, 1, 3) + b'a"b', '{"a\\"b"}'),
        (1009, struct.pack(">iiIiii", 1, 0, 25, 1, 1, 3) + b"a@b", "{a@b}"),
        (1009, struct.pack(">iiIiii", 1, 0, 25, 1, 1, 2) + "é".encode(), "{é}"),
        (1009, struct.pack(">iiIiii", 1, 0, 25, 1, 1, 4) + b"NuLL", '{"NuLL"}'),
        (1005, struct.pack(">iiIiiihih", 1, 0, 21, 2, 0, 2, 7, 2, 8), "[0:1]={7,8}"),
        (1007, struct.pack(">iiI", 0, 0, 23), "{}"),
    ],
)
def test_what_is_known(oid: int, raw: bytes, text: str) -> None:
    assert shown(raw, oid) == text


def test_an_array_of_two_dimensions() -> None:
    raw = struct.pack(">iiIiiii", 2, 0, 23, 2, 1, 2, 1)
    raw += b"".join(struct.pack(">ii", 4, n) for n in range(4))
    assert shown(raw, 1007) == "{{0,1},{2,3}}"


@pytest.mark.parametrize(
    ("oid", "raw"),
    [
        (0, b"abc"),
        (99_999, b"abc"),
        (23, b"abc"),
        (16, b"\2"),
        (25, b"\xff"),
        (1114, struct.pack(">q", (1 << 63) - 2)),
        (1083, struct.pack(">q", -1)),
        (1700, struct.pack(">HhHH", 9, 0, 0, 0)),
        (1700, struct.pack(">HhHHH", 1, 32767, 0, 0, 1)),
        (869, b"\2\x20\0\4"),
        (1007, struct.pack(">iiIii", 1, 0, 23, 1 << 30, 1)),
        (1007, struct.pack(">iiIii", 9, 0, 23, 1, 1)),
        (1007, struct.pack(">iiI", 1, 0, 25)),
    ],
)
def test_what_is_not_is_given_as_bytes(oid: int, raw: bytes) -> None:
    assert shown(raw, oid) == f"\\x{raw.hex()}"


def test_text_is_as_it_came() -> None:
    assert parameter_text(b"4\xe9", binary=False, oid=23, codec="latin1") == "4é"


def test_nothing_escapes_random_bytes() -> None:
    source = random.Random(1)
    oids = [*range(16, 30), 114, 600, 650, 700, 701, 829, 869, 1007, 1009, 1082, 1083, 1114]
    oids += [1184, 1186, 1266, 1700, 2950, 3802, 1231, 1115]
    for _ in range(20_000):
        raw = source.randbytes(source.randrange(40))
        assert isinstance(shown(raw, source.choice(oids)), str)
