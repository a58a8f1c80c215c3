# SPDX-License-Identifier: Apache-2.0
"""Header blocks: the hpack library's encoder writes them, and its decoder judges."""

from __future__ import annotations

import tracemalloc

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecapture.protocols.header_block import UNKNOWN, HeaderDecoder

names = st.sampled_from(["server", "date", "x-one", "x-two", "etag", "cookie", ":status", "x" * 90])
values = st.text(st.characters(max_codepoint=126, min_codepoint=32), max_size=60)
fields = st.tuples(names, values, st.booleans())
blocks = st.lists(
    st.tuples(st.lists(fields, max_size=12), st.none() | st.sampled_from([0, 60, 300, 4096, 9000])),
    min_size=1,
    max_size=12,
)


def encode_all(plan: list) -> list[tuple[bytes, list[tuple[str, str]]]]:
    encoder = hpack.Encoder()
    result = []
    for wanted, size in plan:
        if size is not None:
            encoder.header_table_size = size
        block = encoder.encode([(name, value, secret) for name, value, secret in wanted])
        result.append((block, [(name, value) for name, value, _ in wanted]))
    return result


@given(blocks)
def test_decodes_what_the_library_encodes(plan: list) -> None:
    decoder = HeaderDecoder()
    for block, wanted in encode_all(plan):
        decoded = decoder.decode(block)
        assert decoded == (wanted, 0, False, "")
    assert decoder.complete
    assert decoder.table_size <= 65536


@given(blocks, st.integers(0, 11))
def test_a_late_joiner_is_right_about_all_that_it_tells(plan: list, skipped: int) -> None:
    decoder = HeaderDecoder(complete=False)
    for block, wanted in encode_all(plan)[skipped:]:
        decoded = decoder.decode(block)
        assert not decoded.problem
        assert len(decoded.fields) == len(wanted)
        missing = 0
        for (name, value), (wanted_name, wanted_value) in zip(decoded.fields, wanted, strict=True):
            assert name in (wanted_name, UNKNOWN)
            assert value in (wanted_value, UNKNOWN)
            missing += name == UNKNOWN
        assert decoded.unknown == missing


def test_the_table_refills() -> None:
    encoder = hpack.Encoder()
    encoder.encode([("x-old", "1")])
    late = HeaderDecoder(complete=False)
    both = encoder.encode([("x-old", "1"), ("x-new", "2")])
    assert late.decode(both).fields == [(UNKNOWN, UNKNOWN), ("x-new", "2")]
    again = encoder.encode([("x-old", "1"), ("x-new", "2")])
    assert late.decode(again).fields == [(UNKNOWN, UNKNOWN), ("x-new", "2")]
    named = encoder.encode([("x-old", "3")])  # the name is an index, the value is there
    assert late.decode(named).fields == [(UNKNOWN, "3")]
    assert not late.complete


def test_an_emptied_table_has_nothing_unknown() -> None:
    late = HeaderDecoder(complete=False)
    decoded = late.decode(b"\x20" + b"\xbe")  # size 0, then the newest entry, which is not there
    assert late.complete
    assert decoded.unknown == 1
    assert "outside the table" in decoded.problem


@pytest.mark.parametrize(
    "block",
    [
        b"\x80",  # index 0
        b"\x40",  # ends after the first octet
        b"\x40\x05abc",  # a name longer than the block
        b"\x40\x01a\x7f\xff\xff\xff\xff\xff\xff\x01",  # a length of many octets
        b"\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x00\x01a\x81\xff\xff\xff\xff",  # Huffman: padding of a whole octet
        b"\x00\x01a\x84\xff\xff\xff\xff",  # Huffman: EOS
        b"\x3f",
        b"\x7f",
    ],
)
def test_a_broken_block_costs_the_table_and_nothing_else(block: bytes) -> None:
    decoder = HeaderDecoder()
    good = b"\x82"
    decoded = decoder.decode(good + block)
    assert decoded.fields[0] == (":method", "GET")
    assert decoded.problem
    assert not decoder.complete
    assert decoder.decode(good).fields == [(":method", "GET")]


@given(st.binary(max_size=80), st.booleans())
def test_garbage_raises_nothing(block: bytes, complete: bool) -> None:
    decoder = HeaderDecoder(complete=complete)
    for _ in range(2):
        decoder.decode(block)
    assert decoder.table_size <= 65536


def test_a_bomb_stays_small() -> None:
    """4 KiB in the table, named again by one octet each: 800 MiB if it were written out."""
    decoder = HeaderDecoder()
    value = b"v" * 4000
    bomb = b"\x40\x01a" + b"\x7f" + b"\xa1\x1e" + value + b"\xbe" * 200_000
    tracemalloc.start()
    decoded = decoder.decode(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert decoded.limited
    assert decoded.fields[0] == ("a", value.decode())
    assert sum(len(name) + len(value) for name, value in decoded.fields) <= 1 << 18
    assert peak < 4 << 20


def test_too_many_fields_are_read_on_for_the_table() -> None:
    decoder = HeaderDecoder(count_limit=3)
    decoded = decoder.decode(b"\x82" * 10 + b"\x40\x01b\x01c")
    assert len(decoded.fields) == 3
    assert decoded.limited
    assert decoder.decode(b"\xbe").fields == [("b", "c")]


def test_a_table_of_any_announced_size_is_bounded() -> None:
    decoder = HeaderDecoder(table_limit=1000)
    decoder.decode(b"\x3f\xe1\xff\x03")  # 65536
    for count in range(100):
        decoder.decode(b"\x40\x02" + b"%02d" % count + b"\x0a" + b"v" * 10)
    assert decoder.table_size <= 1000
    newest, oldest = decoder.decode(b"\xbe\xff\x00").fields
    assert newest == ("99", "v" * 10)
    assert oldest == (UNKNOWN, UNKNOWN)


def test_what_is_behind_the_kept_part_of_a_larger_table_is_no_fault() -> None:
    encoder = hpack.Encoder()
    encoder.header_table_size = 1 << 20
    old = [("x-old", "1" * 20)]
    block = encoder.encode(old + [(f"x-{number}", "v" * 1000) for number in range(100)])
    decoder = HeaderDecoder()
    assert decoder.decode(block).unknown == 0
    assert not decoder.complete
    assert decoder.decode(encoder.encode(old)) == ([(UNKNOWN, UNKNOWN)], 1, False, "")
