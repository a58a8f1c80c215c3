# SPDX-License-Identifier: Apache-2.0
"""Protocol buffers without a schema: what is certain is right, what is guessed is stable."""

from __future__ import annotations

import struct
import time

import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet
from hypothesis import given
from hypothesis import strategies as st

from ecapture.protocols.protobuf import (
    BYTES,
    FIXED32,
    FIXED64,
    GROUP_START,
    VARINT,
    Decoded,
    Field,
    decode,
    render,
)


def varint(value: int) -> bytes:
    """Write a varint, independently of the reader."""
    out = []
    while True:
        out.append(value & 0x7F | (0x80 if value > 0x7F else 0))
        value >>= 7
        if not value:
            return bytes(out)


def write(number: int, wire: int, value: object) -> bytes:
    key = varint(number << 3 | wire)
    if wire == VARINT:
        return key + varint(value)  # type: ignore[arg-type]
    if wire == FIXED32:
        return key + struct.pack("<I", value)
    if wire == FIXED64:
        return key + struct.pack("<Q", value)
    if wire == GROUP_START:
        return key + write_all(value) + varint(number << 3 | 4)  # type: ignore[arg-type]
    raw = value.encode() if isinstance(value, str) else write_all(value)  # type: ignore[arg-type]
    return key + varint(len(raw)) + raw


def write_all(fields: list[tuple[int, int, object]]) -> bytes:
    return b"".join(write(*field) for field in fields)


numbers = st.integers(1, (1 << 29) - 1)
words = st.text(st.characters(categories=("L", "N")), min_size=0, max_size=20)
plain = st.one_of(
    st.tuples(numbers, st.just(VARINT), st.integers(0, 2**64 - 1)),
    st.tuples(numbers, st.just(FIXED32), st.integers(0, 2**32 - 1)),
    st.tuples(numbers, st.just(FIXED64), st.integers(0, 2**64 - 1)),
    st.tuples(numbers, st.just(BYTES), words),
)
messages = st.recursive(
    st.lists(plain, max_size=5),
    lambda inner: st.lists(
        st.one_of(plain, st.tuples(numbers, st.just(GROUP_START), inner)), max_size=5
    ),
    max_leaves=10,
)


def expected(fields: list) -> tuple[Field, ...]:
    return tuple(
        Field(number, wire, expected(value) if isinstance(value, list) else value)
        for number, wire, value in fields
    )


@given(messages)
def test_what_is_certain_is_right(fields: list) -> None:
    raw = write_all(fields)
    assert decode(raw) == Decoded(expected(fields), len(raw))


def outline(fields: UnknownFieldSet) -> list[tuple[int, int, object]]:
    """Numbers, wire types and certain values, as the library of protocol buffers tells them."""
    told: list[tuple[int, int, object]] = []
    for field in fields:
        value = outline(field.data) if field.wire_type == GROUP_START else field.data
        told.append(
            (field.field_number, field.wire_type, None if field.wire_type == BYTES else value)
        )
    return told


def ours(fields: tuple[Field, ...]) -> list[tuple[int, int, object]]:
    told: list[tuple[int, int, object]] = []
    for number, wire, value in fields:
        if wire == GROUP_START:
            told.append((number, wire, ours(value)))  # type: ignore[arg-type]
        elif wire == BYTES:
            told.append((number, wire, None))  # what they hold is a guess
        else:
            told.append((number, wire, value))
    return told


@given(
    st.one_of(
        st.binary(max_size=40),
        messages.map(write_all),
        st.tuples(messages.map(write_all), st.integers(0, 40)).map(lambda t: t[0][: t[1]]),
    )
)
def test_agrees_with_the_library_of_protocol_buffers(raw: bytes) -> None:
    decoded = decode(raw)
    message = Empty()
    try:
        message.ParseFromString(raw)
    except DecodeError:
        assert decoded.problem
        return
    # That library lets pass the field number 0, which the specification does not have.
    assert not decoded.problem or decoded.problem.startswith("field number 0 ")
    if not decoded.problem:
        assert ours(decoded.fields) == outline(UnknownFieldSet(message))


def test_nested_messages_are_guessed() -> None:
    inner = [(1, VARINT, 150), (2, BYTES, "inside")]
    outer = [(3, BYTES, inner), (4, BYTES, "line\nline"), (5, BYTES, "")]
    assert decode(write_all(outer)).fields == (
        Field(3, BYTES, (Field(1, VARINT, 150), Field(2, BYTES, "inside"))),
        Field(4, BYTES, "line\nline"),
        Field(5, BYTES, ""),
    )
    raw = b"\x0a\x03\xff\xfe\x00"
    assert decode(raw).fields == (Field(1, BYTES, b"\xff\xfe\x00"),)


@pytest.mark.parametrize(
    ("raw", "size", "problem"),
    [
        (b"\x08\x01\x07", 2, "field number 0 at byte 2"),
        (b"\x08\x01\x0f", 2, "wire type 7 before byte 3"),
        (b"\x08\x01\x0a\x05ab", 2, "5 bytes announced at byte 4, 2 there"),
        (b"\x08\x01\x0d\x00", 2, "4 bytes announced at byte 3, 1 there"),
        (b"\x08\x01\x08" + b"\xff" * 11, 2, "a varint without an end at byte 3"),
        (b"\x08\x01\x0b\x08\x01", 2, "group 1 has no end"),
        (b"\x08\x01\x14", 2, "wire type 4 before byte 3"),
        (b"\x08", 0, "a varint without an end at byte 1"),
    ],
)
def test_what_is_no_message_is_told(raw: bytes, size: int, problem: str) -> None:
    decoded = decode(raw)
    assert (decoded.size, decoded.problem) == (size, problem)
    assert decoded.fields[:1] == ((Field(1, VARINT, 1),) if size else ())
    assert render(decoded).endswith(f"... not read on after {size} bytes: {problem}")


@given(st.binary(max_size=200))
def test_garbage_raises_nothing(raw: bytes) -> None:
    decoded = decode(raw)
    assert decoded.size <= len(raw)
    render(decoded)


def test_limits() -> None:
    assert decode(b"\x08\x01" * 50, field_limit=10).problem == "too many fields"
    assert len(decode(b"\x08\x01" * 50, field_limit=10).fields) == 10
    assert "nested too deep" in decode(b"\x0b" * 5000).problem
    lines = render(decode(b"\x08\x01" * 50), lines_limit=5).splitlines()
    assert lines == ["1: 1"] * 5 + ["... more fields are not shown"]
    assert render(decode(b"\x08\x01" * 5), lines_limit=5).splitlines() == ["1: 1"] * 5


def test_time_is_linear() -> None:
    """Lengths within lengths, none of which is a message in the end: each level looks once."""
    raw = b"\xff"
    for _ in range(19):
        raw = (b"\x0a" + varint(len(raw)) + raw) * 2 + b"\x07"
    assert len(raw) > 1 << 20
    began = time.perf_counter()
    decode(raw)
    assert time.perf_counter() - began < 20  # one second on a slow machine


def test_rendering() -> None:
    raw = write_all(
        [
            (1, VARINT, 150),
            (2, VARINT, 2**64 - 1),
            (3, BYTES, 'say "h\u00e9"'),
            (4, BYTES, [(1, VARINT, 1)]),
            (5, FIXED32, struct.unpack("<I", struct.pack("<f", 2.5))[0]),
            (6, FIXED64, struct.unpack("<Q", struct.pack("<d", -1e300))[0]),
            (7, FIXED64, 0x7FF8000000000000),
        ]
    )
    raw += b"\x42\x03\xff\xfe\x00"
    assert render(decode(raw)).splitlines() == [
        "1: 150",
        "2: 18446744073709551615 (-1)",
        '3: "say \\"h\u00e9\\""',
        "4 {",
        "  1: 1",
        "}",
        "5: 1075838976 (2.5)",
        "6: 18318360957983683996 (-1e+300)",
        "7: 9221120237041090560",
        "8: <3 bytes> fffe00",
    ]
    long = render(decode(write(1, BYTES, "x" * 5000)))
    assert long == '1: "' + "x" * 4096 + '" (5000 characters)'
