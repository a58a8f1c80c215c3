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
        ("SELECT 1 -- it's\r, 'x'", "SELECT ? -- it's\r, ?"),
        ("SELECT E'a'\n  '\\'b', 'c'", "SELECT ?, ?"),
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
        ("SELECT 1 --\x01it's\n,'y'", "SELECT ? --\x01it's\n,?"),
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
        ("Key (a)=(say 'x' 7) y) exists.", "Key (a)=(?) exists."),
        ("Key (a)=(hunter2 5' x) exists.", "Key (a)=(?) exists."),
        ("division by zero", "division by zero"),
        # what is quoted has such signs itself
        (
            "You have an error in your SQL syntax; check the manual near '== 'hunter2'' at line 1",
            "You have an error in your SQL syntax; check the manual near ? at line ?",
        ),
        ("near ''hunter2' x' at line 3", "near ? at line ?"),
        ("Duplicate entry 'it's hunter2' for key 'k'", "Duplicate entry ? for key ?"),
        ("Duplicate entry 'a' hunter2' for key 'k'", "Duplicate entry ? for key ?"),
        (
            'invalid input syntax for type integer: "a"b hunter2"',
            "invalid input syntax for type integer: ?",
        ),
        ('no "a" hunter2', "no ? hunter2"),
        ('no "hunter2', "no ?"),
        # apostrophes that quote nothing
        ("Can't find 'hunter2' in x", "Can't find ? in x"),
        ("Table 'a.b' doesn't exist", "Table ? doesn't exist"),
        (
            "Access denied for user 'r'@'h' (using password: YES)",
            "Access denied for user ?@? (using password: YES)",
        ),
        (
            'null value in column "a" of relation "b" violates not-null constraint',
            "null value in column ? of relation ? violates not-null constraint",
        ),
        # translated
        (
            "ungültige Eingabesyntax für Typ integer: »hunter2«",
            "ungültige Eingabesyntax für Typ integer: ?",
        ),
        (
            "syntaxe en entrée invalide pour le type integer : « hunter2 »",
            "syntaxe en entrée invalide pour le type integer : ?",
        ),
        ("la colonne « a » n'existe pas", "la colonne ? n'existe pas"),
        ("„hunter2“ fehlt", "? fehlt"),
        ("“hunter2” nie istnieje", "? nie istnieje"),
        ("\u2018hunter2\u2019 ei ole", "? ei ole"),
        ("「hunter2」は存在しません", "?は存在しません"),
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


@pytest.mark.parametrize("piece", ["'", "\"' ", "» ", "„ ", '" for key ', "' a\" b» ", ")=("])
def test_time_of_a_message_is_linear(piece: str) -> None:
    began = time.monotonic()
    mask_message(piece * 50_000)
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
