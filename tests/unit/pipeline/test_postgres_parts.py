# SPDX-License-Identifier: Apache-2.0
"""Encodings by the names that the server has for them."""

from __future__ import annotations

import codecs

import pytest
from pgmessages import Said

from ecapture.pipeline.postgres_parts import _CODECS, Who


@pytest.mark.parametrize("name", sorted(_CODECS))
def test_every_encoding_of_the_table_is_one_of_pythons(name: str) -> None:
    assert codecs.lookup(_CODECS[name]) is not None


@pytest.mark.parametrize(
    ("name", "raw", "text"),
    [
        ("UTF8", "é".encode(), "é"),
        ("LATIN9", b"\xa4", "€"),
        ("WIN1252", b"\x80", "€"),
        ("EUC_JP", "日".encode("euc_jp"), "日"),
        ("SJIS", "日".encode("shift_jis"), "日"),
        ("GB18030", "日".encode("gb18030"), "日"),
        ("BIG5", "日".encode("big5"), "日"),
        ("UHC", "가".encode("cp949"), "가"),
        ("KOI8R", "я".encode("koi8_r"), "я"),
    ],
)
def test_texts_are_read_in_the_clients_encoding(name: str, raw: bytes, text: str) -> None:
    said = Said()
    who = Who(said._run("read", b""), None, 1000)
    who.parameter(b"client_encoding", name.encode())
    assert who.text(raw) == text
    assert who.prepared(raw, len(raw)).text == text


@pytest.mark.parametrize(
    "name", ["hex", "rot13", "undefined", "idna", "utf-7", "MULE_INTERNAL", ""]
)
def test_what_is_no_encoding_of_the_servers_is_taken_for_utf_8(name: str) -> None:
    who = Who(Said()._run("read", b""), None, 1000)
    who.parameter(b"client_encoding", name.encode())
    assert who.text("é".encode()) == "é"
    assert who.prepared(b"\xff", 1).text == "\\xff"
