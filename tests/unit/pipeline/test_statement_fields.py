# SPDX-License-Identifier: Apache-2.0
"""``--filter`` on statements to databases."""

from __future__ import annotations

import pytest

from ecapture.errors import UsageError
from ecapture.events import Statement
from ecapture.pipeline.filter import Filter
from ecapture.pipeline.filter_fields import FIELDS
from ecapture.pipeline.statement_fields import STATEMENT_FIELDS

STATEMENT = Statement(
    2_000_000_000,
    1_000_000_000,
    10,
    10,
    107,
    "postgres",
    "postgresql",
    "execute",
    10,
    user="Alice",
    database="shop",
    client="127.0.0.1:5000",
    name="s1",
    text="SELECT 1",
    length=8,
    duration_ns=5_000_000,
    tag="SELECT 1",
    rows=1,
)


@pytest.mark.parametrize(
    "expression",
    [
        'sql ~ "SELECT"',
        "statement == execute",
        "user == Alice",
        "database == shop and client ~ 127",
        "session == 10",
        "name == s1",
        "rows >= 1",
        'tag == "SELECT 1"',
        "outcome == ok",
        "duration > 4ms and duration < 6ms",
        "size == 8",
        "pid == 10 and uid == 107 and comm == postgres",
        "role == server",
        "protocol == sql and protocol == postgresql",
    ],
)
def test_what_is_true_of_a_statement(expression: str) -> None:
    assert Filter(expression).matches(STATEMENT)


@pytest.mark.parametrize(
    "expression",
    [
        "user == alice",
        "application != psql",  # there is none to be compared
        "error != 42P01",
        "status == 200",
        "method == GET",
        "direction == read",
        "rows > 1",
    ],
)
def test_what_is_not(expression: str) -> None:
    assert not Filter(expression).matches(STATEMENT)


def test_a_kind_that_there_is_not_is_refused() -> None:
    with pytest.raises(UsageError, match="execute"):
        Filter("statement == run")


def test_every_field_of_the_table_is_an_attribute_and_can_be_named() -> None:
    for field in STATEMENT_FIELDS:
        assert field.attribute in Statement.__struct_fields__
        assert FIELDS[field.name].summary == field.summary
