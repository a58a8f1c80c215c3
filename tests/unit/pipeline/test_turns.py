# SPDX-License-Identifier: Apache-2.0
"""The quick way tells what the long way tells, of every conversation."""

from __future__ import annotations

import random

import msgspec
import pytest
from pgconversations import FACTS, conversation, mixed, plainly
from pgmessages import (
    BOUND,
    PARSED,
    READY,
    SYNC,
    Said,
    bind,
    complete,
    describe,
    execute,
    message,
    parse,
    query,
)

from ecapture.events import Event, Served, Statement
from ecapture.pipeline._turns import Turn, tell
from ecapture.pipeline.postgres import PostgresStatements


def of(events: list[Event], pid: int) -> list[Event]:
    """What was told of one process: processes are independent of each other."""
    return [event for event in events if event.pid == pid]  # type: ignore[union-attr]


@pytest.mark.parametrize("mess", [0.0, 0.02, 0.2])
@pytest.mark.parametrize("seed", range(150))
def test_random_conversations(seed: int, mess: float) -> None:
    source = random.Random(f"{seed} {mess}")
    events = mixed(source, *(conversation(source, pid, mess) for pid in (11, 12, 13)))
    stage = PostgresStatements(facts_of=lambda _: FACTS, text_limit=200)
    told: list[Event] = []
    while events[:1]:
        size = source.randrange(1, 20)
        told += stage.feed(events[:size])
        del events[:size]
    told += stage.close()
    source = random.Random(f"{seed} {mess}")
    again = mixed(source, *(conversation(source, pid, mess) for pid in (11, 12, 13)))
    expected = plainly(again, lambda _: FACTS)
    for pid in (11, 12, 13):
        assert of(told, pid) == of(expected, pid)


class Quick(Said):
    """A session of which ``slow`` lists the runs that went the long way."""

    def __init__(self) -> None:
        self.slow: list[Served] = []
        self.turns: dict[int, Turn] = {}
        super().__init__()
        self.turn = self.turns[7] = Turn(self.session, 5)
        self.turn.rest()

    def client(self, *messages: bytes, **changes: object) -> None:
        self._say(self._run("read", b"".join(messages), **changes))

    def server(self, *messages: bytes, **changes: object) -> None:
        self._say(self._run("write", b"".join(messages), **changes))

    def _say(self, event: Served) -> None:
        if self.turns:
            out: list[Event] = []
            assert tell(self.turns, [event], out, self._slowly, lambda *_: None) == event.time_ns
            self.told += [one for one in out if isinstance(one, Statement)]
        else:
            self.session.feed(event, self.told)  # type: ignore[arg-type]

    def _slowly(self, event: Served, out: list[Event]) -> None:
        self.slow.append(event)
        self.turn.settle(out)
        self.session.feed(event, out)
        self.turn.rest()


ROW = message("T", bytes(20)) + message("D", bytes(9))


@pytest.mark.parametrize(
    ("asked", "answered", "told"),
    [
        (query("SELECT 1"), ROW + complete("SELECT 1") + READY, ("query", "", "SELECT 1", ())),
        (
            parse("", "SELECT $1, $2")
            + bind("", "", (b"x", None))
            + (describe("P") + execute() + SYNC),
            PARSED + BOUND + ROW + complete("SELECT 1") + READY,
            ("execute", "", "SELECT $1, $2", ("x", None)),
        ),
        (
            bind("", "s", (b"\0\0\0\5",), (1,)) + execute() + SYNC,
            BOUND + ROW + complete("SELECT 1") + READY,
            ("execute", "s", "SELECT $1", ("5",)),
        ),
        (
            bind("", "s", (b"5",)) + describe("P") + execute() + SYNC,
            BOUND + message("n") + complete("SELECT 1") + READY,
            ("execute", "s", "SELECT $1", ("5",)),
        ),
    ],
    ids=["query", "parsed", "binary", "prepared"],
)  # fmt: skip
def test_what_most_say_goes_the_quick_way(
    asked: bytes, answered: bytes, told: tuple[object, ...]
) -> None:
    said = Quick()
    said.client(parse("s", "SELECT $1", (23,)), SYNC)
    said.server(PARSED, READY)
    assert said.one().kind == "prepare"
    said.slow.clear()
    for _ in range(3):
        said.client(asked)
        said.server(answered)
        one = said.one()
        assert (one.kind, one.name, one.text, one.parameters) == told
        assert (one.tag, one.rows, one.user, one.outcome) == ("SELECT 1", 1, "alice", "ok")
        assert one.duration_ns == 1_000_000_000
    assert said.slow == []


def test_an_answer_in_several_runs_is_one_and_has_the_time_of_its_end() -> None:
    said = Quick()
    said.slow.clear()
    said.client(query("SELECT 1"))
    for _ in range(3):
        said.server(message("T", bytes(200)))
    said.server(complete("SELECT 1"))
    at = said.now
    said.server(READY)
    assert said.one().time_ns == at
    assert said.slow == []


def test_an_answer_in_many_runs_is_not_held_for_ever() -> None:
    said = Quick()
    said.client(query("SELECT 1"))
    for _ in range(30):
        said.server(message("T", bytes(200)))
    assert said.slow
    said.server(complete("SELECT 1"), READY)
    assert said.one().tag == "SELECT 1"


def test_what_is_held_is_given_back_and_told_at_the_end() -> None:
    said = Quick()
    said.slow.clear()
    said.client(query("SELECT 1"))
    out: list[Event] = []
    said.turn.settle(out)
    said.turn.settle(out)
    assert out == []
    said.session.abandon(said.now, out)
    (one,) = out
    assert isinstance(one, Statement)
    assert (one.text, one.outcome) == ("SELECT 1", "unknown")


def test_a_portal_that_is_executed_again_is_fetched_from() -> None:
    said = Quick()
    said.client(parse("", "SELECT 1"), bind("", ""), execute(), SYNC)
    said.server(PARSED, BOUND, complete("SELECT 1"), READY)
    said.client(execute(), SYNC)
    said.server(complete("SELECT 1"), READY)
    assert [(one.kind, one.text) for one in said.all()] == [
        ("execute", "SELECT 1"),
        ("fetch", "SELECT 1"),
    ]


def test_types_that_become_known_are_those_of_that_text_alone() -> None:
    said = Quick()
    asked = parse("", "SELECT $1") + bind("", "", (b"\0\0\0\5",), (1,)) + execute() + SYNC
    answered = PARSED + BOUND + complete("SELECT 1") + READY
    for _ in range(2):
        said.client(asked)
        said.server(answered)
        said.client(describe("S"), SYNC)
        said.server(message("t", b"\0\1\0\0\0\x17"), READY)
    assert [one.parameters for one in said.all()] == [("\\x00000005",)] * 2


def test_a_run_of_another_session_is_not_taken() -> None:
    said = Quick()
    said.slow.clear()
    said._say(msgspec.structs.replace(said._run("read", query("SELECT 1")), session_ns=6))
    assert len(said.slow) == 1
