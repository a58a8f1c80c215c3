# SPDX-License-Identifier: Apache-2.0
"""What counts as text, and in which charset."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spoken import response_head

from ecapture.formats.content import (
    _CHARSETS,
    ContentType,
    content_type,
    field_text,
    has_grpc_status,
    is_text,
    printable,
    text_of,
)


def kind_of(value: str) -> ContentType:
    return content_type(response_head(fields=(("CONTENT-type", value),)))


@pytest.mark.parametrize(
    "value, expected",
    [
        ("", ContentType("", "utf-8", None)),
        ('Text/HTML; Charset="ISO-8859-1"', ContentType("text/html", "iso-8859-1", True)),
        ("application/problem+json", ContentType("application/problem+json", "utf-8", True)),
        ("image/svg+xml", ContentType("image/svg+xml", "utf-8", True)),
        ("image/png", ContentType("image/png", "utf-8", False)),
        ("application/x-protobuf", ContentType("application/x-protobuf", "utf-8", False)),
        ("application/octet-stream", ContentType("application/octet-stream", "utf-8", None)),
        ("text/plain; charset=zlib_codec", ContentType("text/plain", "utf-8", True)),
        ("text/plain; charset=punycode", ContentType("text/plain", "utf-8", True)),
    ],
)
def test_content_type(value: str, expected: ContentType) -> None:
    assert kind_of(value) == expected


def test_every_charset_that_is_looked_up_is_one() -> None:
    # ISO 8859-12 was given up; a server may name it all the same.
    for name in [*sorted(_CHARSETS), "iso-8859-12", "iso-8859-17", "windows-1259"]:
        kind = kind_of(f"text/plain; charset={name}")
        assert text_of("abcd".encode(kind.charset), kind, cut=False) == "abcd"
        assert printable("abcd".encode(kind.charset), kind) == b"abcd"
    assert kind.charset == "utf-8"


def test_a_content_type_without_end_is_cut() -> None:
    assert kind_of("text/plain" + " " * 300 + "; charset=gbk").charset == "utf-8"


@pytest.mark.parametrize(
    "content, expected",
    [
        (b"", True),
        (b"plain\r\n\ttext", True),
        ("Grüße".encode(), True),
        ("Grüße".encode()[:3], True),  # cut within a character
        (b"\xff\xfe", False),
        (b"a\x00b", False),
        (b"\x1b[1mbold", True),
        (b"a" * 5000 + b"\xff!", False),
    ],
)
def test_is_text(content: bytes, expected: bool) -> None:
    assert is_text(content) is expected


def test_text_may_begin_within_a_character_where_it_is_the_middle() -> None:
    assert not is_text("é!".encode()[1:])
    assert is_text("é!".encode()[1:], middle=True)
    assert is_text(b"", middle=True)


def test_text_of() -> None:
    assert text_of("é".encode(), kind_of("text/plain"), cut=False) == "é"
    assert text_of("é".encode("latin-1"), kind_of("text/plain"), cut=False) is None
    assert text_of(b"\xe9", kind_of("text/plain; charset=iso-8859-1"), cut=False) == "é"
    assert text_of("é".encode("utf-16"), kind_of("text/plain; charset=utf-16"), cut=False) == "é"
    assert text_of(b"abc", kind_of("image/png"), cut=False) is None
    assert text_of(b"a\x00b", kind_of(""), cut=False) is None
    assert text_of(b"a\x00b", kind_of("text/plain"), cut=False) == "a\x00b"


def test_text_of_drops_a_character_cut_off_at_the_limit_only() -> None:
    cut = "aé".encode()[:2]
    assert text_of(cut, kind_of("text/plain"), cut=True) == "a"
    assert text_of(cut, kind_of("text/plain"), cut=False) is None
    cut = "あい".encode("shift_jis")[:3]
    assert text_of(cut, kind_of("text/plain; charset=shift_jis"), cut=True) == "あ"
    assert text_of(cut, kind_of("text/plain; charset=shift_jis"), cut=False) is None


def test_printable() -> None:
    assert printable(b"\xe9", kind_of("text/html")) == b"\xe9"
    assert printable(b"\xe9!", kind_of("")) is None
    assert printable(b"\x1f\x8b\x00", kind_of("text/html")) is None
    assert printable(b"\x1f\x8b\x01", kind_of("text/html")) is None
    assert printable(b"\x01\x07caf\xc3\xa9", kind_of("text/html")) == b"\x01\x07caf\xc3\xa9"
    assert printable(b"\x01\x07caf\xc3", kind_of("application/json")) == b"\x01\x07caf\xc3"
    assert printable(b"\x01\x07caf", kind_of("")) is None
    assert printable(b"\x1f\x8b\x00", kind_of("text/html; charset=gbk")) is None
    assert printable(b"\xe9", kind_of("text/html; charset=iso-8859-1")) == "é".encode()
    assert printable("é".encode("utf-16"), kind_of("x/y; charset=utf-16")) == "é".encode()
    assert printable(b"<svg/>", kind_of("image/svg+xml")) == b"<svg/>"
    assert printable(b"abc", kind_of("image/png")) is None


def test_field_text() -> None:
    assert field_text("plain") == "plain"
    assert field_text("é".encode().decode("latin-1")) == "é"
    assert field_text("\xe9") == "\xe9"


def test_has_grpc_status() -> None:
    assert has_grpc_status((("a", "b"), ("grpc-status", "0")))
    assert not has_grpc_status((("a", "b"),))


@settings(deadline=None)
@given(st.binary(max_size=200), st.text(max_size=60), st.booleans())
def test_no_content_and_no_type_raises(content: bytes, value: str, cut: bool) -> None:
    kind = kind_of(f"text/plain; charset={value}")
    text = text_of(content, kind, cut=cut)
    if kind.charset == "utf-8" and not cut:
        assert (text or "").encode() in (content, b"")
    printable(content, kind)
