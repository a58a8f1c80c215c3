# SPDX-License-Identifier: Apache-2.0
"""Sessions are told apart, begin and end, and what is none of theirs passes."""

from __future__ import annotations

import msgspec
from pgmessages import READY, complete, query, startup

from ecapture.events import Event, ProcessExit, Secret, Served, SessionFacts, Statement
from ecapture.pipeline.postgres import PostgresStatements

FACTS = SessionFacts("old", "db", "local", "psql")


def run(pid: int, direction: str, payload: bytes, at: int, **changes: object) -> Served:
    event = Served(
        at, pid, pid, 107, "postgres", direction, 5, "local", "", 0, len(payload), payload, True
    )  # type: ignore[arg-type] # fmt: skip
    return msgspec.structs.replace(event, **changes)


def stage() -> PostgresStatements:
    return PostgresStatements(facts_of=lambda _: FACTS)


def statements(events: list[Event]) -> list[Statement]:
    return [event for event in events if isinstance(event, Statement)]


def test_what_is_none_of_its_business_passes_as_it_is() -> None:
    events: list[Event] = [Secret(1, 2, 3, 4, "x", (2, 1, 1), "", b"", b"")]
    assert stage().feed(events) is events


def test_two_sessions_at_once() -> None:
    sessions = stage()
    first, second = startup(user="a"), startup(user="b")
    sessions.feed([run(1, "read", first, 1), run(2, "read", second, 2)])
    told = sessions.feed([run(2, "write", READY, 3), run(1, "write", READY, 4)])
    assert [(t.session, t.user) for t in statements(told)] == [(2, "b"), (1, "a")]


def test_the_exit_of_a_process_ends_its_session() -> None:
    sessions = stage()
    sessions.feed([run(1, "read", startup(user="a"), 1), run(1, "write", READY, 2)])
    told = sessions.feed([ProcessExit(9, 1, "postgres")])
    assert isinstance(told[-1], ProcessExit)
    assert [(t.kind, t.duration_ns) for t in statements(told)] == [("disconnect", 8)]
    assert sessions.feed([ProcessExit(9, 1, "postgres")]) == [ProcessExit(9, 1, "postgres")]


def test_facts_of_a_session_that_was_there_before() -> None:
    sessions = stage()
    late = {"late": True}
    events: list[Event] = [
        run(1, "read", query("SELECT 1"), 1, **late),
        run(1, "write", complete("SELECT 1") + READY, 2, **late),
    ]
    (told,) = statements(sessions.feed(events))
    assert (told.user, told.database, told.application) == ("old", "db", "psql")
    (ended,) = statements(sessions.feed([ProcessExit(9, 1, "postgres")]))
    assert (ended.kind, ended.duration_ns, ended.started_ns) == ("disconnect", None, 0)


def test_another_process_of_the_same_number() -> None:
    sessions = stage()
    sessions.feed([run(1, "read", startup(user="a"), 1), run(1, "write", READY, 2)])
    told = sessions.feed([run(1, "read", startup(user="b"), 3, session_ns=6)])
    assert [(t.kind, t.user) for t in statements(told)] == [("disconnect", "a")]


def test_the_end_of_the_capture_tells_what_is_not_answered() -> None:
    sessions = stage()
    sessions.feed([run(1, "read", startup(user="a"), 1), run(1, "write", READY, 2)])
    sessions.feed([run(1, "read", query("SELECT 1"), 3, kept_offset=len(startup(user="a")))])
    (told,) = statements(sessions.close())
    assert (told.kind, told.outcome, told.text) == ("query", "unknown", "SELECT 1")


def test_a_session_that_gives_way_tells_what_is_not_answered() -> None:
    sessions = PostgresStatements(facts_of=lambda _: FACTS, sessions=2)
    for pid in (1, 2):
        begun = startup(user="a")
        sessions.feed([run(pid, "read", begun, 1), run(pid, "write", READY, 2)])
        asked = query(f"SELECT {pid}")
        assert not statements(sessions.feed([run(pid, "read", asked, 3, kept_offset=len(begun))]))
    (told,) = statements(sessions.feed([run(3, "read", startup(user="b"), 4)]))
    assert (told.kind, told.outcome, told.text, told.session) == ("query", "unknown", "SELECT 1", 1)
    late = run(1, "write", complete("SELECT 1") + READY, 5, kept_offset=len(READY), late=True)
    (told,) = statements(sessions.feed([late]))
    assert told.text == "SELECT 2"
