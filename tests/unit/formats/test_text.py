# SPDX-License-Identifier: Apache-2.0
"""Plaintext as text: exact where a program reads it, harmless where a terminal does."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from records import CONVERSATION, ended, exited, plaintext

from ecapture.events import Connection, Gap
from ecapture.formats.text import TextFormat
from ecapture.formats.words import hex_dump

IPV4 = Connection("ipv4", "127.0.0.1", 40000, "10.0.0.2", 443, "descriptor")
IPV6 = Connection("ipv6", "::1", 40000, "2001:db8::2", 443, "descriptor")
BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def text(*events, **how):
    return b"".join(TextFormat(**how).encode(list(events)))


def header(event):
    return text(event).split(b"\n", 1)[0].decode()


def test_the_whole_form():
    event = plaintext(b"GET /\r\n\r\n", time_ns=1_700_000_000_000_000_042, connection=IPV4)
    assert text(event) == (
        b"--- 2023-11-14T22:13:20.000000042Z pid=100 tid=101 comm=curl write"
        b" 127.0.0.1:40000 > 10.0.0.2:443 length=9\n"
        b"GET /\r\n\r\n\n"
    )


def test_what_is_read_comes_from_the_other_end():
    line = header(plaintext(direction="read", connection=IPV6))
    assert " read [2001:db8::2]:443 > [::1]:40000 length=5" in line


def test_without_addresses_there_are_question_marks():
    assert " write ? > ? length=5" in header(plaintext())


def test_a_piece_says_where_in_its_call_it_stands():
    line = header(plaintext(b"abc", call_length=20000, call_offset=19997))
    assert line.endswith("length=3 call_length=20000 call_offset=19997")


@pytest.mark.parametrize("missing", ["truncated", "unreadable", "sendfile"])
def test_missing_bytes_are_told(missing):
    event = plaintext(b"ab", length=9, call_length=9, missing=missing)
    assert header(event).endswith(f"length=9 captured=2 {missing}")


def test_what_was_taken_at_entry_is_marked():
    assert header(plaintext(assumed=True)).endswith("length=5 assumed")


def test_a_gap_is_a_line_of_its_own():
    gap = Gap(1, 100, "curl", "read", CONVERSATION, IPV4, 10, 77)
    assert text(gap) == (
        b"--- 1970-01-01T00:00:00.000000001Z pid=100 comm=curl read"
        b" 10.0.0.2:443 > 127.0.0.1:40000 lost=77\n"
    )


def test_ends_have_no_line():
    assert text(ended(), exited()) == b""


@given(st.lists(st.binary(max_size=200), max_size=8))
@example([b"", b"\n", b"--- looks like a header\n", bytes(range(256))])
def test_payloads_are_exact_and_can_be_cut_out_by_their_length(payloads):
    rest = text(*(plaintext(payload) for payload in payloads))
    found = []
    while rest:
        line, rest = rest.split(b"\n", 1)
        length = int(re.search(rb" length=(\d+)", line)[1])
        found.append(rest[:length])
        assert rest[length : length + 1] == b"\n"
        rest = rest[length + 1 :]
    assert found == payloads


def test_names_are_one_word():
    assert " comm=a\\x20b\\x1b write " in header(plaintext(comm="a b\x1b"))


def test_terminals_get_escapes():
    assert text(plaintext(b"\x1b[2J\xff"), terminal=True).endswith(b"\n\\x1b[2J\\xff\n")


def test_hex_replaces_the_payload_and_keeps_the_header():
    shown = text(plaintext(b"\x1b"), hexadecimal=True, terminal=True)
    assert shown.endswith(b"length=1\n" + hex_dump(b"\x1b") + b"\n")


def test_seconds_change_with_time():
    format_ = TextFormat()
    shown = [
        b"".join(format_.encode([plaintext(b"", time_ns=ns)]))[4:34].decode()
        for ns in (999_999_999, 1_000_000_000, 999_999_999)
    ]
    assert shown == [
        "1970-01-01T00:00:00.999999999Z",
        "1970-01-01T00:00:01.000000000Z",
        "1970-01-01T00:00:00.999999999Z",
    ]


def test_memory_stays_bounded_over_endless_names_and_connections():
    format_ = TextFormat()
    for n in range(66_000):
        link = Connection("ipv4", "127.0.0.1", n % 60_000, f"h{n}", 443, "descriptor")
        format_.encode([plaintext(b"", comm=f"c{n}", connection=link)])
    assert len(format_._line._words) <= 65536
    assert len(format_._line._who) <= 65536
