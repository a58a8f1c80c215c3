# SPDX-License-Identifier: Apache-2.0
"""What was captured does not drive terminals, and breaks no lines."""

import json
import unicodedata

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecapture.formats.words import endpoint, escaped, escaped_json, hex_dump, word

BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


@pytest.mark.parametrize(
    ("comm", "shown"),
    [
        ("curl", "curl"),
        ("a b", "a\\x20b"),
        ("a\nb", "a\\x0ab"),
        ("\x1b[2J", "\\x1b[2J"),
        ("back\\slash", "back\\x5cslash"),
        ("ä\u202e", "\\xe4\\u202e"),
        ("\U0001f600", "\\U0001f600"),
        ("\u1f600", "\\u1f600"),  # two characters
        ("", "-"),
    ],
)
def test_names_are_one_word(comm, shown):
    assert word(comm) == shown


@given(st.text())
def test_any_name_is_one_printable_word(name):
    shown = word(name)
    assert shown.isascii()
    assert shown.isprintable()
    assert len(shown.split()) == 1


@pytest.mark.parametrize(
    ("payload", "shown"),
    [
        (b"plain text\tand\nlines\n", b"plain text\tand\nlines\n"),
        (b"crlf\r\n", b"crlf\n"),
        (b"lone\rreturn", b"lone\\x0dreturn"),
        (b"\x1b[31mred\x1b]0;title\x07", b"\\x1b[31mred\\x1b]0;title\\x07"),
        ("ä€\N{GRINNING FACE}".encode(), "ä€\N{GRINNING FACE}".encode()),
        (b"\xff\xfe", b"\\xff\\xfe"),
        (b"\x9b2J", b"\\x9b2J"),  # CSI as one byte is no UTF-8
        ("\x9b2J".encode(), b"\\x9b2J"),  # and in UTF-8 it is C1
        (b"\x7f\x08\x00", b"\\x7f\\x08\\x00"),
        ("a\u202eb".encode(), b"a\\u202eb"),
        (b"\xed\xa0\x80", b"\\xed\\xa0\\x80"),  # a surrogate
    ],
)
def test_terminals_get_escapes(payload, shown):
    assert escaped(payload) == shown


@given(st.one_of(st.binary(), st.text().map(str.encode), st.text(alphabet=BIDI).map(str.encode)))
def test_nothing_reaches_a_terminal_that_could_drive_it(payload):
    shown = escaped(payload).decode()
    for character in shown:
        category = unicodedata.category(character)
        assert category != "Cc" or character in "\n\t"
        assert character not in BIDI
        assert category not in ("Zl", "Zp", "Cs")


@given(st.one_of(st.text(), st.text(alphabet=f'\x1b\x7f\x85\x9b{BIDI}\\"a')))
def test_json_for_a_terminal_means_the_same(text):
    encoded = msgspec.json.encode([text])
    shown = escaped_json(encoded)
    assert json.loads(shown) == [text]
    assert not any(
        unicodedata.category(character) == "Cc" or character in BIDI for character in shown.decode()
    )


@pytest.mark.parametrize(
    ("payload", "shown"),
    [
        (b"", b""),
        (b"A", b"00000000  41                                                |A|"),
        (
            bytes(range(0x1A, 0x2B)),
            (
                b"00000000  1a 1b 1c 1d 1e 1f 20 21  22 23 24 25 26 27 28 29  |...... !\"#$%&'()|\n"
                b"00000010  2a                                                |*|"
            ),
        ),
    ],
)
def test_hex_dumps(payload, shown):
    assert hex_dump(payload) == shown


@given(st.binary(max_size=100))
def test_a_hex_dump_has_every_byte(payload):
    lines = hex_dump(payload).decode().splitlines()
    assert b"".join(bytes.fromhex(line[10:58]) for line in lines) == payload
    assert all(line.isprintable() for line in lines)


def test_endpoints():
    assert endpoint("10.0.0.1", 1) == "10.0.0.1:1"
    assert endpoint("::1", 443) == "[::1]:443"
