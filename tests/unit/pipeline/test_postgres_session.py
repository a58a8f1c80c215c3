# SPDX-License-Identifier: Apache-2.0
"""Who asked what, and which answer is whose."""

from __future__ import annotations

import pytest
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
    failure,
    message,
    parse,
    query,
    startup,
)

from ecapture.events import SessionFacts

SECOND = 1_000_000_000


def test_a_session_begins_and_ends() -> None:
    said = Said(started=False)
    said.client(startup(user="alice", application_name="app"))
    said.server(message("R", b"\0\0\0\0"), message("S", b"client_encoding\0UTF8\0"), READY)
    told = said.one()
    assert (told.kind, told.outcome, told.user, told.database) == (
        "connect",
        "ok",
        "alice",
        "alice",
    )
    assert (told.application, told.client, told.session) == ("app", "127.0.0.1:5000", 7)
    assert told.duration_ns == SECOND
    said.client(message("X"))
    told = said.one()
    assert (told.kind, told.outcome, told.duration_ns) == ("disconnect", "ok", 2 * SECOND)
    said.session.close(said.now, said.told)
    assert said.all() == []


def test_a_login_that_fails() -> None:
    said = Said(started=False)
    said.client(startup(user="eve", database="shop"))
    said.server(failure("28P01", "no", "FATAL"))
    told = said.one()
    assert (told.kind, told.outcome, told.error, told.message) == (
        "connect",
        "error",
        "28P01",
        "no",
    )
    said.session.close(said.now, said.told)
    assert said.all() == []


def test_a_simple_query() -> None:
    said = Said()
    said.client(query("SELECT 'é'"))
    assert said.all() == []
    said.server(complete("SELECT 1"), READY)
    told = said.one()
    assert (told.kind, told.text, told.length, told.missing) == ("query", "SELECT 'é'", 11, "")
    assert (told.tag, told.rows, told.outcome, told.duration_ns) == ("SELECT 1", 1, "ok", SECOND)
    assert (told.user, told.database, told.application) == ("alice", "shop", "app")


def test_several_statements_in_one_text() -> None:
    said = Said()
    said.client(query("SELECT 1; INSERT 2; x"))
    said.server(complete("SELECT 1"), complete("INSERT 0 3"), failure("42601", "x"), READY)
    told = said.one()
    assert (told.tag, told.rows) == ("SELECT 1; INSERT 0 3", 4)
    assert (told.outcome, told.error) == ("error", "42601")


def test_an_empty_query() -> None:
    said = Said()
    said.client(query(""))
    said.server(message("I"), READY)
    assert (said.told[0].tag, said.told[0].rows, said.told[0].outcome) == ("", None, "ok")


def test_the_extended_protocol_has_its_parameters() -> None:
    said = Said()
    said.client(
        parse("", "SELECT $1, $2, $3", (23,)),
        bind("", "", (b"\0\0\0\x05", None, b"x"), (1, 0, 0)),
        describe("P"),
        execute(),
        SYNC,
    )
    said.server(PARSED, BOUND, message("T", b"\0\0"), complete("SELECT 1"), READY)
    told = said.one()
    assert (told.kind, told.text, told.name) == ("execute", "SELECT $1, $2, $3", "")
    assert (told.parameters, told.rows, told.marks) == (("5", None, "x"), 1, ())


def test_a_named_statement_is_prepared_once_and_executed_often() -> None:
    said = Said()
    said.client(parse("s1", "SELECT $1"), describe("S", "s1"), SYNC)
    said.server(PARSED, message("t", b"\0\1\0\0\0\x14"), message("n"), READY)
    told = said.one()
    assert (told.kind, told.name, told.text, told.rows) == ("prepare", "s1", "SELECT $1", None)
    for number in (1, 2):
        said.client(bind("", "s1", (number.to_bytes(8, "big"),), (1,)), execute(), SYNC)
        said.server(BOUND, complete("SELECT 1"), READY)
        told = said.one()
        assert (told.kind, told.name, told.text) == ("execute", "s1", "SELECT $1")
        assert told.parameters == (str(number),)
    said.client(message("C", b"Ss1\0"), SYNC)
    said.server(message("3"), READY)
    said.client(bind("", "s1"), execute(), SYNC)
    said.server(failure("26000", "no such statement"), READY)
    told = said.one()
    assert (told.kind, told.missing, told.error) == ("execute", "unseen", "26000")


def test_what_was_prepared_before_the_capture_has_no_text() -> None:
    said = Said(facts=SessionFacts("bob", "d", "local", "psql"))
    said.client(bind("", "old", (b"v",)), execute(), SYNC)
    said.server(BOUND, complete("SELECT 0"), READY)
    told = said.one()
    assert (told.text, told.missing, told.name, told.parameters) == ("", "unseen", "old", ("v",))
    assert (told.user, told.no_identity) == ("bob", "")


def test_rows_in_portions_are_fetches() -> None:
    said = Said()
    said.client(parse("", "SELECT 1"), bind("c", ""), execute("c", 10), SYNC)
    said.server(PARSED, BOUND, message("s"), READY)
    told = said.one()
    assert (told.kind, told.marks, told.text) == ("execute", ("suspended",), "SELECT 1")
    said.client(execute("c", 10), SYNC)
    said.server(complete("SELECT 3"), READY)
    told = said.one()
    assert (told.kind, told.marks, told.text, told.rows) == ("fetch", (), "SELECT 1", 3)


def test_a_parse_that_fails_is_told_once_with_its_parameters() -> None:
    said = Said()
    said.client(parse("", "SELEC $1"), bind("", "", (b"v",)), execute(), SYNC)
    said.server(failure("42601", "syntax"), READY)
    told = said.one()
    assert (told.kind, told.text, told.parameters) == ("execute", "SELEC $1", ("v",))
    assert (told.outcome, told.error, told.message) == ("error", "42601", "syntax")


def test_a_parse_alone_that_fails() -> None:
    said = Said()
    said.client(parse("n", "SELEC"), describe("S", "n"), SYNC)
    said.server(failure("42601", "syntax"), READY)
    told = said.one()
    assert (told.kind, told.name, told.text, told.error) == ("prepare", "n", "SELEC", "42601")


def test_a_bind_that_fails() -> None:
    said = Said()
    said.client(parse("", "SELECT $1"), bind("", "", (b"v",)), execute(), SYNC)
    said.server(PARSED, failure("22P02", "bad"), READY)
    told = said.one()
    assert (told.kind, told.text, told.parameters) == ("execute", "SELECT $1", ("v",))
    assert told.error == "22P02"


def test_a_pipeline_in_which_one_fails() -> None:
    said = Said()
    unit = [
        part
        for n in range(4)
        for part in (parse("", f"SELECT {n}"), bind("", "", (b"%d" % n,)), execute())
    ]
    said.client(*unit, SYNC, parse("", "SELECT 9"), bind("", ""), execute(), SYNC)
    said.server(PARSED, BOUND, complete("SELECT 1"), PARSED, BOUND, failure("22012", "zero"))
    said.server(READY, PARSED, BOUND, complete("SELECT 1"), READY)
    told = said.all()
    assert [(t.text, t.parameters, t.outcome, t.error) for t in told] == [
        ("SELECT 0", ("0",), "ok", ""),
        ("SELECT 1", ("1",), "error", "22012"),
        ("SELECT 2", ("2",), "unknown", ""),
        ("SELECT 3", ("3",), "unknown", ""),
        ("SELECT 9", (), "ok", ""),
    ]
    assert [t.marks for t in told] == [
        ("pipelined",),
        ("pipelined",),
        ("skipped", "pipelined"),
        ("skipped", "pipelined"),
        ("pipelined",),
    ]
    assert told[2].duration_ns is None


def test_a_function_call() -> None:
    said = Said()
    said.client(message("F", (1299).to_bytes(4, "big") + bytes(6)))
    said.server(message("V", b"\xff\xff\xff\xff"), READY)
    told = said.one()
    assert (told.kind, told.name, told.outcome, told.text) == ("call", "1299", "ok", "")


def test_settings_that_the_server_reports() -> None:
    said = Said()
    said.server(
        message("S", b"client_encoding\0LATIN1\0"),
        message("S", b"application_name\0new\0"),
        message("S", b"session_authorization\0bob\0"),
    )
    said.client(message("Q", b"SELECT '\xe9'\0"))
    said.server(complete("SELECT 1"), READY)
    told = said.one()
    assert (told.text, told.application, told.user) == ("SELECT 'é'", "new", "bob")


@pytest.mark.parametrize("name", ["nonsense", "MULE_INTERNAL", "../x"])
def test_an_encoding_that_is_not_known_is_read_as_utf8(name: str) -> None:
    said = Said()
    said.server(message("S", f"client_encoding\0{name}\0".encode()))
    said.client(message("Q", b"SELECT '\xff'\0"))
    said.server(complete("SELECT 1"), READY)
    assert said.one().text == "SELECT '\\xff'"


def test_a_text_beyond_the_limit_is_cut_between_characters() -> None:
    said = Said(limit=10)
    said.client(query("SELECT 'éééé'"))
    said.server(complete("SELECT 1"), READY)
    told = said.one()
    assert (told.text, told.length, told.missing) == ("SELECT 'é", 17, "truncated")


def test_a_query_without_answer_at_the_end() -> None:
    said = Said()
    said.client(query("SELECT pg_sleep(9)"))
    said.session.close(said.now + SECOND, said.told)
    asked, ended = said.all()
    assert (asked.kind, asked.outcome, asked.duration_ns) == ("query", "unknown", None)
    assert (ended.kind, ended.outcome) == ("disconnect", "ok")


def test_a_session_that_the_server_ends() -> None:
    said = Said()
    said.client(query("SELECT 1"))
    said.server(failure("57P01", "terminated", "FATAL"))
    said.session.close(said.now + SECOND, said.told)
    asked, ended = said.all()
    assert (asked.kind, asked.outcome, asked.error) == ("query", "error", "57P01")
    assert (ended.kind, ended.outcome, ended.error) == ("disconnect", "error", "57P01")


def test_a_lost_answer_is_said_and_not_given_to_another() -> None:
    said = Said()
    said.client(query("SELECT 1"))
    said.lose("write")
    said.client(query("SELECT 2"))
    said.server(complete("SELECT 2"), READY)
    first, second = said.all()
    assert (first.text, first.outcome, first.marks) == ("SELECT 1", "unknown", ("gap", "pipelined"))
    assert (second.text, second.tag) == ("SELECT 2", "SELECT 2")
    assert "gap" in second.marks


def test_a_lost_question_costs_its_answer_and_that_of_the_one_that_shows_it() -> None:
    said = Said()
    said.lose("read", 20)
    said.server(complete("SELECT 1"), READY)
    for number in (2, 3):
        said.client(query(f"SELECT {number}"))
        said.server(complete(f"SELECT {number}"), READY)
    second, third = said.all()  # a part of the second's buffer may be what was lost
    assert (second.text, second.outcome, second.marks) == ("SELECT 2", "unknown", ("gap",))
    assert (third.text, third.tag, third.marks) == ("SELECT 3", "SELECT 3", ("gap",))


def test_no_answer_is_given_by_guess_behind_lost_requests() -> None:
    said = Said()
    said.client(query("SELECT 1"))
    said.lose("read")
    said.client(query("SELECT 3"), time_ns=said.now)  # of the same buffer
    for number in (1, 2, 3):
        said.server(complete(f"SELECT {number}"), READY)
    said.client(query("SELECT 4"))
    said.server(complete("SELECT 4"), READY)
    told = said.all()
    assert [(t.text, t.outcome, t.tag) for t in told] == [
        ("SELECT 1", "unknown", ""),
        ("SELECT 3", "unknown", ""),
        ("SELECT 4", "ok", "SELECT 4"),
    ]
    assert all("gap" in each.marks for each in told)
    said.client(query("SELECT 5"))
    said.server(complete("SELECT 5"), READY)
    assert said.one().marks == ()


def test_nor_where_answers_of_a_batch_that_was_lost_are_kept_back() -> None:
    said = Said()
    said.client(parse("", "SELECT 1"), bind("", ""), execute())
    said.lose("read")
    said.client(parse("", "SELECT 3"), bind("", ""), execute(), SYNC)
    for number in (1, 2, 3):
        said.server(PARSED, BOUND, complete(f"SELECT {number}"))
    said.server(READY)
    said.client(parse("", "SELECT 4"), bind("", ""), execute(), SYNC)
    said.server(PARSED, BOUND, complete("SELECT 4"), READY)
    assert [(t.text, t.tag) for t in said.all()] == [
        ("SELECT 1", ""),
        ("SELECT 3", ""),
        ("SELECT 4", "SELECT 4"),
    ]


def test_unreadable_bytes_are_a_gap() -> None:
    said = Said()
    said.client(missing="unreadable")
    said.server(complete("SELECT 1"), READY)
    assert said.all() == []
    said.client(query("SELECT 2"))
    said.server(complete("SELECT 2"), READY)
    told = said.one()
    assert (told.text, told.tag, told.marks) == ("SELECT 2", "SELECT 2", ("gap",))


def test_joined_late_answers_without_questions_are_ignored() -> None:
    said = Said(facts=SessionFacts(reason="late"))
    said.server(complete("SELECT 1"), PARSED, BOUND, message("3"), message("V"), READY)
    said.server(failure("1", "x"))
    assert said.all() == []


def test_discard_forgets_what_was_prepared() -> None:
    said = Said()
    said.client(parse("s", "SELECT 1"), SYNC)
    said.server(PARSED, READY)
    said.client(query("DISCARD ALL"))
    said.server(complete("DISCARD ALL"), READY)
    said.all()
    said.client(bind("", "s"), execute(), SYNC)
    said.server(failure("26000", "gone"), READY)
    assert said.one().missing == "unseen"


def test_prepared_statements_are_bounded() -> None:
    said = Said(limit=1 << 20)
    for number in range(20):
        said.client(parse(f"s{number}", "x" * (1 << 20)), SYNC)
        said.server(PARSED, READY)
    said.all()
    for number, missing in ((0, "unseen"), (19, "")):
        said.client(bind("", f"s{number}"), execute(), SYNC)
        said.server(BOUND, complete("SELECT 1"), READY)
        assert said.one().missing == missing


def test_waiting_requests_are_bounded() -> None:
    said = Said()
    for _ in range(40_000):
        said.client(query("x"))
    assert 20_000 < len(said.told) <= 40_000
    assert all(told.outcome == "unknown" for told in said.told)


def test_the_number_of_a_process_that_is_used_again() -> None:
    said = Said()
    said.client(startup(user="bob"))
    said.server(READY)
    ended, began = said.all()
    assert (ended.kind, ended.user) == ("disconnect", "alice")
    assert (began.kind, began.user, began.database) == ("connect", "bob", "bob")
