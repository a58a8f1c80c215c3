# SPDX-License-Identifier: Apache-2.0
"""Lines of statements are, byte by byte, what the schema's own type would make of them."""

from __future__ import annotations

import random

import msgspec
import pytest

from ecapture.events import Event, Statement
from ecapture.formats import jsonl_types as types
from ecapture.formats._statements import Lines
from ecapture.formats.header_line import HeaderLine
from ecapture.formats.jsonl import JsonLinesFormat

TEXTS = ("", "select 1", 'a "b" \\ c', "a\nb\t\x00\x1f", "é", "日本", "\x7f", "😀", "x" * 10_000)
NUMBERS = (0, 1, 9, 10, 1_700_000_000_123_456_789, 2**63 - 1, 2**63, 2**64 - 1, -1)


def statement(source: random.Random) -> Statement:
    """One with anything in it."""

    def text() -> str:
        return source.choice(TEXTS)

    def number() -> int:
        return source.choice(NUMBERS)

    return Statement(
        source.choice((0, 1, 1_700_000_000_123_456_789)), number(), number(), number(), number(),
        text(), source.choice(("postgresql", "mysql")), "query", number(), number(), text(),
        text(), text(), text(), text(), text(), text(), number(), text(),
        tuple(source.choice((None, text())) for _ in range(source.randrange(4))),
        source.choice((None, number())), "ok", text(), source.choice((None, number())), text(),
        text(), tuple(text() for _ in range(source.randrange(3))),
    )  # fmt: skip


def by_type(event: Statement, container: str) -> bytes:
    """The line as ``msgspec`` makes it."""
    values = {name: getattr(event, name) for name in event.__struct_fields__}
    values |= {
        "time": HeaderLine().time(event.time_ns),
        "container": container,
        "parameters": list(event.parameters),
        "marks": list(event.marks),
        "started_ns": event.started_ns or None,
    }
    names = types.StatementLine.__struct_fields__
    line = types.StatementLine(**{name: values[name] for name in names})
    return msgspec.json.encode(line) + b"\n"


@pytest.mark.parametrize("seed", range(50))
def test_random_statements(seed: int) -> None:
    source = random.Random(seed)
    events: list[Event] = [statement(source) for _ in range(20)]
    lines = Lines(lambda pid: f'"{pid}"', HeaderLine().time)
    for _ in range(2):
        found = lines.encode(events, lambda _: None)
        expected = [by_type(event, f'"{event.pid}"') for event in events]  # type: ignore[arg-type, union-attr]
        assert found == b"".join(expected)


def test_other_events_keep_their_places() -> None:
    first, second = (statement(random.Random(seed)) for seed in (1, 2))
    made = Lines(lambda _: "", HeaderLine().time)
    others = iter([types.EndLine("", 0, 1, "", "", "", "freed"), None])  # type: ignore[call-arg]
    found = made.encode([first, None, second, None], lambda _: next(others))  # type: ignore[list-item]
    kinds = [msgspec.json.decode(line)["type"] for line in found.splitlines()]
    assert kinds == ["statement", "end", "statement"]


def test_nothing_is_nothing() -> None:
    assert Lines(lambda _: "", HeaderLine().time).encode([], lambda _: None) == b""


def test_what_cannot_be_told_is_an_error_and_leaves_no_half_a_line() -> None:
    made = Lines(lambda _: "", HeaderLine().time)
    whole = statement(random.Random(3))
    broken = msgspec.structs.replace(whole, message="\ud800")
    with pytest.raises(UnicodeEncodeError):
        made.encode([broken], lambda _: None)
    assert made.encode([whole], lambda _: None) == by_type(whole, "")


def test_the_format_uses_them() -> None:
    event = statement(random.Random(4))
    (found,) = JsonLinesFormat().encode([event])
    assert found == by_type(event, "")
