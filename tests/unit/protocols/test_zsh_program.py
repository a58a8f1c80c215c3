# SPDX-License-Identifier: Apache-2.0
"""What zsh made of a command becomes its text; damage is refused, and never takes long.

Programs are what real shells made (tests/capture compares the text of each construct with what zsh
prints of it); here two of them stand, and what no shell makes.
"""

from __future__ import annotations

import random
import struct

import pytest

from ecapture._wire import ZSH_EPROG
from ecapture.errors import ProtocolError
from ecapture.protocols import zsh_program
from ecapture.protocols.zsh_program import TOKENS, text_of

END, LIST, SUBLIST, PIPE, SIMPLE, TIMED, FUNCDEF, COND = 0, 1, 2, 3, 6, 10, 11, 18
SYNC, LAST, PLAIN = 2, 16, 32


def word(code, data=0):
    return code | data << 5


def short(text):
    """A string of up to three characters, in a word."""
    raw = text.encode().ljust(3, b"\0")
    return 2 | raw[0] << 3 | raw[1] << 11 | raw[2] << 19


def program(words, strings=b""):
    body = struct.pack(f"<{len(words)}I", *words)
    start = 0x1000
    head = ZSH_EPROG.pack(0, len(body) + len(strings), 0, 1, start, start, start + len(body))
    return head, body + strings


def simple(*strings, kind=SYNC | LAST):
    """A list of one command, which has only arguments."""
    return [
        word(LIST, kind | PLAIN | (2 + len(strings)) << 6),
        1,
        word(SIMPLE, len(strings)),
        *strings,
    ]


def text(words, strings=b""):
    return text_of(*program(words, strings))


def test_a_command():
    assert text([*simple(short("ls"), short("-l")), word(END)]) == b"ls -l"
    assert text([word(END)]) == b""


def test_strings_stand_behind_the_words():
    words = [*simple(0 << 2, 6 << 2, 6), word(END)]
    assert text(words, b"print\0a longer one\0") == b"print a longer one "


def test_several_lines():
    words = [
        *simple(short("a"), kind=SYNC),
        *simple(short("b"), kind=4),  # in the background
        *simple(short("c")),
        word(END),
    ]
    assert text(words) == b"a\nb &\nc"


def test_tokens_are_what_they_were():
    tokens = bytes(range(0x84, 0x84 + len(TOKENS)))
    assert text([*simple(0), word(END)], tokens + b"\xa1\x83\x20\0") == TOKENS + b"\x83\x20"


def test_a_function_has_strings_of_its_own():
    body = [*simple(0 << 2), word(END)]
    for traced in ([], [0], [1]):
        inside = [1, short("f"), 6, 4, 0, *traced, *body]
        words = [
            word(LIST, SYNC | LAST),
            word(SUBLIST, 0),
            word(PIPE, 0),
            word(FUNCDEF, len(inside)),
            *inside,
            word(END),
        ]
        assert text(words, b"outer\0own\0") == b"f () {\n\town\n}"


@pytest.mark.parametrize(
    "words",
    [
        [],
        [word(LIST, SYNC | LAST | PLAIN)],
        [word(LIST, SYNC | LAST | PLAIN), 1, word(31)],
        [word(LIST, SYNC | LAST | PLAIN), 1, word(END)],
        [word(SIMPLE, 1), short("a")],
        simple(short("a"), kind=SYNC),
        simple(1 << 30),
        [word(LIST, SYNC | LAST | PLAIN), 1, word(SIMPLE, 1 << 26), short("a")],
        [word(LIST, SYNC | LAST | PLAIN), 1, word(FUNCDEF, 1 << 20), 1, short("f"), 0, 0, 0, 0],
        [word(LIST, SYNC | LAST | PLAIN), 1, word(COND, 4)],
    ],
)
def test_what_is_no_program_is_refused(words):
    with pytest.raises(ProtocolError, match="zsh program"):
        text(words)


@pytest.mark.parametrize("change", [-40, -1, 1])
def test_a_description_of_another_size_is_refused(change):
    head, body = program([word(END)])
    with pytest.raises(ProtocolError, match="description"):
        text_of((head + b"\0")[: len(head) + change], body)


@pytest.mark.parametrize("strings", [0xFFF, 0x1000, 0x1003, 1 << 40])
def test_strings_elsewhere_are_refused(strings):
    _head, body = program([*simple(short("a")), word(END)])
    head = ZSH_EPROG.pack(0, len(body), 0, 1, 0x1000, 0x1000, strings)
    with pytest.raises(ProtocolError, match="not where it says"):
        text_of(head, body)


def test_depth_is_bounded():
    timed = [word(TIMED, 1), word(PIPE, 0)] * 1000
    with pytest.raises(ProtocolError, match="inside one another"):
        text([word(LIST, SYNC | LAST | PLAIN), 1, *timed, word(SIMPLE, 0)])
    with pytest.raises(ProtocolError, match="inside one another"):
        text([word(LIST, SYNC | LAST | PLAIN), 1, *[word(COND, 0)] * 1000])


def test_the_text_is_bounded(monkeypatch):
    """However often a program uses a string: it would be a gigabyte otherwise."""
    with pytest.raises(ProtocolError, match="too long"):
        text([*simple(*[0] * (1 << 15)), word(END)], b"x" * (1 << 15) + b"\0")
    monkeypatch.setattr(zsh_program, "LONGEST_TEXT", 100)
    lines = [item for _ in range(60) for item in simple(short("a"), kind=SYNC)]
    with pytest.raises(ProtocolError, match="too long"):
        text([*lines, *simple(short("a")), word(END)])


def test_damage_is_refused_or_text():
    numbers = random.Random(5)
    inside = [1, short("f"), 6, 4, 0, 0, *simple(0), word(END)]
    function = [word(FUNCDEF, len(inside)), *inside]
    whole = [word(LIST, SYNC), word(SUBLIST, 0), word(PIPE, 0), *function, *simple(short("a")), 0]
    head, body = program(whole, b"outer\0own\0")
    assert text_of(head, body) == b"f () {\n\town\n}\na"
    refused = 0
    for _ in range(3000):
        damaged = bytearray(body)
        for _ in range(numbers.randrange(1, 4)):
            damaged[numbers.randrange(len(damaged))] = numbers.randrange(256)
        try:
            assert isinstance(text_of(head, bytes(damaged)), bytes)
        except ProtocolError:
            refused += 1
    assert refused > 1000
