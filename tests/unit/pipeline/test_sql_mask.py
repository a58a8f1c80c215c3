# SPDX-License-Identifier: Apache-2.0
"""Literals in SQL are masked, and nothing else is."""

from __future__ import annotations

import time

import pytest

from ecapture.events import Statement
from ecapture.pipeline.redact import Redacted
from ecapture.pipeline.sql_mask import Dialect, mask_message, mask_sql


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("SELECT * FROM t1 WHERE a = 'x' AND b=3", "SELECT * FROM t1 WHERE a = ? AND b=?"),
        ("SELECT 'it''s', E'a\\'b', U&'\\0041', B'01', x'ff'", "SELECT ?, ?, ?, ?, ?"),
        (r"SELECT 'a\', 'b'", "SELECT ?, ?"),
        ('SELECT "col 1" FROM "T""2"', 'SELECT "col 1" FROM "T""2"'),
        ("SELECT $1, $2::int, t.c3", "SELECT $1, $2::int, t.c3"),
        ("SELECT 1.5e-3, .5, 0xFF, 1_000, -7", "SELECT ?, ?, ?, ?, -?"),
        ("DO $$ SELECT 'a' $$; SELECT $f$ $$x$$ $f$", "DO ?; SELECT ?"),
        ("SELECT 1 -- it's\n, 'x'", "SELECT ? -- it's\n, ?"),
        ("SELECT /* 'a /* b */ 'c */ 'd'", "SELECT /* 'a /* b */ 'c */ ?"),
        ("CREATE ROLE x PASSWORD 'geheim", "CREATE ROLE x PASSWORD ?"),
        ("SELECT $$open", "SELECT ?"),
        ("SELECT a$b, é1 FROM t", "SELECT a$b, é1 FROM t"),
        ("", ""),
    ],
)
def test_postgresql(text: str, masked: str) -> None:
    assert mask_sql(text, "postgresql") == masked


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("SELECT 'a\\'b', \"c\\\"d\", 'it''s'", "SELECT ?, ?, ?"),
        (
            "SELECT `a'b`, @v1, @@x.y FROM t # it's\nWHERE a=1",
            "SELECT `a'b`, @v1, @@x.y FROM t # it's\nWHERE a=?",
        ),
        ("SELECT 1--1", "SELECT ?--?"),
        ("SELECT 1 -- 'x'\n,'y'", "SELECT ? -- 'x'\n,?"),
        ("SELECT /* 'a */ 'b' /*!50000 , 'c' */", "SELECT /* 'a */ ? /*!50000 , ? */"),
        ("SELECT ?, N'x', 0b01, x'4D'", "SELECT ?, ?, ?, ?"),
        ("SELECT 'open\\", "SELECT ?"),
    ],
)
def test_mysql(text: str, masked: str) -> None:
    assert mask_sql(text, "mysql") == masked


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (
            'invalid input syntax for type integer: "hunter2"',
            "invalid input syntax for type integer: ?",
        ),
        ("Key (id)=(secret, 7) already exists.", "Key (id)=(?) already exists."),
        ("Duplicate entry 'bob' for key 'PRIMARY'", "Duplicate entry ? for key ?"),
        ("division by zero", "division by zero"),
    ],
)
def test_messages(text: str, masked: str) -> None:
    assert mask_message(text) == masked


@pytest.mark.parametrize("dialect", ["postgresql", "mysql"])
@pytest.mark.parametrize(
    "piece", ["'", '"', "$a$", "/*", "/* */", "\\'", "E'", "0x", "1.", "$1", "`"]
)
def test_time_is_linear(piece: str, dialect: Dialect) -> None:
    began = time.monotonic()
    mask_sql(piece * 100_000, dialect)
    assert time.monotonic() - began < 20


def test_a_statement_is_masked_whole() -> None:
    event = Statement(
        2, 1, 3, 3, 0, "postgres", "postgresql", "query", 3,
        text="SELECT 'x', $1", length=14, parameters=("secret", None), message='no "secret"',
    )  # fmt: skip
    (masked,) = Redacted().feed([event])
    assert isinstance(masked, Statement)
    assert (masked.text, masked.parameters, masked.message) == ("SELECT ?, $1", ("?", None), "no ?")
    assert masked.length == 14


def test_a_statement_without_literals_stays_the_same_object() -> None:
    event = Statement(2, 1, 3, 3, 0, "mysqld", "mysql", "query", 3, text="SELECT a FROM t")
    assert Redacted().feed([event])[0] is event
