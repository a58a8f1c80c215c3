# SPDX-License-Identifier: Apache-2.0
"""Commands become statements: each once, whole, and with what is not known left out."""

from __future__ import annotations

import random
import struct

import pytest
from commands import KNOWN, begin_record, end_record, text_record
from records import exit_record, plaintext_record

from ecapture._wire import CommandFlag, Flag, PseudoCommand, TextRole
from ecapture.events import Plaintext, ProcessExit, Statement
from ecapture.kernel.decode import Decoder
from ecapture.pipeline.mysql import MysqlStatements

ANSWERED = KNOWN | CommandFlag.ANSWERED
OF_STATEMENT = ANSWERED | CommandFlag.HAS_STATEMENT
QUIT, USE, QUERY, CHANGE_USER, PREPARE, EXECUTE, LONG_DATA = 1, 2, 3, 17, 22, 23, 24


class Feed:
    """A stage, and records for it."""

    def __init__(self) -> None:
        self.stage = MysqlStatements()
        self.clock = 1_000

    def __call__(self, *records: bytes) -> list[object]:
        return self.stage.feed(Decoder(0).decode(b"".join(records)))

    def command(self, command: int, text: bytes = b"", **fields: object) -> list[object]:
        """A whole command; fields that both records have are for both."""
        self.clock += 1_000
        shared = {k: v for k, v in fields.items() if k in ("session", "tid", "connection", "pid")}
        shared["started_ns"] = self.clock
        begin = begin_record(command, text_length=len(text), time_ns=self.clock, **shared)
        texts = [text_record(text, **self._of_text(shared))] if text else []
        more = fields.pop("texts", {})
        texts += [text_record(t, role, **self._of_text(shared)) for role, t in more.items()]
        self.clock += 500
        return self(begin, *texts, end_record(command, time_ns=self.clock, **(fields | shared)))

    def _of_text(self, shared: dict[str, object]) -> dict[str, object]:
        return {name: value for name, value in shared.items() if name != "connection"}

    def one(self, command: int, text: bytes = b"", **fields: object) -> Statement:
        (statement,) = self.command(command, text, **fields)
        assert isinstance(statement, Statement)
        return statement


@pytest.fixture
def feed() -> Feed:
    return Feed()


def test_a_query(feed):
    found = feed.one(QUERY, "update t set a = 'é'".encode(), affected=3)
    assert (found.server, found.kind, found.outcome, found.rows) == ("mysql", "query", "ok", 3)
    assert (found.user, found.client, found.database) == ("ada", "localhost", "shop")
    assert (found.session, found.duration_ns, found.length) == (7, 500, len(found.text.encode()))
    assert (found.missing, found.marks, found.no_identity, found.error) == ("", (), "", "")


def test_rows_are_those_affected_or_those_sent(feed):
    assert feed.one(QUERY, b"select 1", told=ANSWERED | CommandFlag.HAS_ROWS, rows=9).rows == 9
    assert feed.one(QUERY, b"select 1", told=ANSWERED).rows is None
    several = {"told": ANSWERED | CommandFlag.HAS_ROWS, "rows": 9, "results": 3}
    assert feed.one(QUERY, b"call p()", **several).rows == 9
    odd = feed.one(QUERY, b"select 1; select 2; select 3", **several)
    assert (odd.rows, odd.marks) == (None, ("3 answers",))


def test_an_error_and_its_message(feed):
    found = feed.one(
        QUERY, b"select x", error=1054, told=ANSWERED, texts={TextRole.MESSAGE: b"Unknown column"}
    )
    assert (found.outcome, found.error, found.message) == ("error", "1054", "Unknown column")
    assert found.rows is None


def test_concurrent_sessions_are_not_mixed_whatever_thread_serves_them(feed):
    records = []
    for n in range(50):
        shared = {"session": 0x7000 + n, "tid": 200 + n % 3, "started_ns": 1_000 + n}
        records.append(
            [
                begin_record(
                    QUERY, text_length=9, connection=n, time_ns=shared["started_ns"], **shared
                ),
                text_record(b"select %02d" % n, **shared),
                end_record(QUERY, connection=n, **shared),
            ]
        )
    source = random.Random(3)
    events, waiting = [], records
    while waiting:
        chosen = source.choice(waiting)
        events += feed(chosen.pop(0))
        waiting = [left for left in waiting if left]
    assert {(e.session, e.text) for e in events} == {(n, f"select {n:02}") for n in range(50)}
    assert len(events) == 50


def test_a_text_in_pieces_and_one_with_a_hole(feed):
    text = bytes(range(97, 123)) * 2000
    pieces = [text[at : at + 16384] for at in range(0, len(text), 16384)]

    def records(without: int) -> list[bytes]:
        return [
            begin_record(text_length=len(text)),
            *(
                text_record(piece, offset=n * 16384, length=len(text), last=n == len(pieces) - 1)
                for n, piece in enumerate(pieces)
                if n != without
            ),
            end_record(),
        ]

    (whole,) = feed(*records(-1))
    assert (whole.text.encode(), whole.missing, whole.marks) == (text, "", ())
    (holed,) = feed(*records(1))
    assert (holed.text.encode(), holed.length) == (text[:16384], len(text))
    assert (holed.missing, holed.marks) == ("truncated", ("gap",))
    (tail,) = feed(*records(len(pieces) - 1))
    assert (tail.missing, tail.marks) == ("truncated", ("gap",))


def test_a_text_that_was_cut(feed):
    record = text_record(b"select", flags=Flag.LAST | Flag.TRUNCATED, length=100)
    (found,) = feed(begin_record(text_length=100), record, end_record())
    assert (found.text, found.length, found.missing, found.marks) == (
        "select",
        100,
        "truncated",
        (),
    )


class TestPrepared:
    PACKET = b"\0" + struct.pack("<I", 1) + b"\0\1\3\0" + struct.pack("<i", 5)

    def prepare(self, feed: Feed, text: bytes = b"select ?", number: int = 4) -> Statement:
        return feed.one(PREPARE, text, statement=number, told=KNOWN | CommandFlag.HAS_STATEMENT)

    def execute(self, feed: Feed, number: int = 4, **texts: bytes) -> Statement:
        roles = {TextRole[name.upper()]: text for name, text in texts.items()}
        return feed.one(EXECUTE, statement=number, told=OF_STATEMENT, texts=roles)

    def test_text_and_parameters_of_an_execution(self, feed):
        prepared = self.prepare(feed)
        assert (prepared.kind, prepared.name, prepared.outcome) == ("prepare", "4", "ok")
        found = self.execute(feed, packet=self.PACKET)
        assert (found.kind, found.name, found.text) == ("execute", "4", "select ?")
        assert found.parameters == ("5",)

    def test_types_are_remembered_for_the_next(self, feed):
        self.prepare(feed)
        self.execute(feed, packet=self.PACKET)
        again = b"\0" + struct.pack("<I", 1) + b"\0\0" + struct.pack("<i", 6)
        assert self.execute(feed, packet=again).parameters == ("6",)

    def test_what_the_server_executes_goes_first(self, feed):
        self.prepare(feed)
        found = self.execute(feed, packet=self.PACKET, executed=b"select 5")
        assert (found.text, found.parameters) == ("select 5", ("5",))

    def test_one_that_the_server_does_not_know(self, feed):
        """MariaDB keeps the number, with a NUL, as the text that it executes."""
        roles = {TextRole.PACKET: b"\0\1\0\0\0", TextRole.EXECUTED: b"99\0"}
        found = feed.one(EXECUTE, statement=99, told=OF_STATEMENT, texts=roles, error=1243)
        assert (found.name, found.text, found.length, found.missing) == ("99", "", 0, "unseen")
        assert (found.outcome, found.error, found.parameters, found.marks) == (
            "error",
            "1243",
            (),
            (),
        )

    def test_one_that_is_older_than_the_capture(self, feed):
        found = self.execute(feed, packet=self.PACKET, executed=b"select ?")
        assert (found.text, found.parameters, found.missing) == ("select ?", ("5",), "")
        found = self.execute(feed, packet=self.PACKET)
        assert (found.text, found.missing, found.parameters) == ("", "unseen", ())
        assert found.marks == ("parameters not seen",)

    def test_the_one_prepared_just_before(self, feed):
        self.prepare(feed, number=9)
        found = self.execute(feed, 0xFFFFFFFF, packet=self.PACKET)
        assert (found.name, found.text) == ("9", "select ?")

    def test_numbers_belong_to_their_session(self, feed):
        self.prepare(feed)
        found = feed.one(EXECUTE, statement=4, told=OF_STATEMENT, session=0x9000)
        assert found.missing == "unseen"

    def test_numbers_belong_to_their_process(self, feed):
        prepared = self.prepare(feed)
        assert [type(event) for event in feed(exit_record())] == [ProcessExit]
        found = feed.one(EXECUTE, statement=4, told=OF_STATEMENT)
        assert (found.missing, found.text) == ("unseen", "")
        assert found.session_ns > prepared.session_ns
        # others are no server's
        events = Decoder(0).decode(exit_record())
        assert MysqlStatements().feed(events) is events

    def test_a_value_that_was_sent_apart(self, feed):
        self.prepare(feed)
        assert feed.command(LONG_DATA, statement=4, told=KNOWN | CommandFlag.HAS_STATEMENT) == []
        found = self.execute(feed, packet=self.PACKET)
        assert (found.parameters, found.marks) == ((), ("parameters sent apart",))

    def test_a_packet_that_does_not_come_out_even(self, feed):
        self.prepare(feed)
        found = self.execute(feed, packet=self.PACKET + b"x")
        assert (found.parameters, found.marks) == ((), ("parameters not understood",))

    def test_a_failed_one_is_not_remembered(self, feed):
        feed.one(PREPARE, b"select x", statement=4, error=1054, told=OF_STATEMENT)
        assert self.execute(feed).missing == "unseen"

    def test_another_user_has_none(self, feed):
        self.prepare(feed)
        assert feed.one(CHANGE_USER).name == "CHANGE_USER"
        assert self.execute(feed).missing == "unseen"


class TestSessions:
    def test_a_log_in_and_its_refusal(self, feed):
        assert feed.one(PseudoCommand.CONNECT, told=KNOWN).outcome == "ok"
        refused = feed.one(
            PseudoCommand.CONNECT, told=KNOWN | CommandFlag.CLOSES, session=1, error=1045
        )
        assert (refused.kind, refused.outcome, refused.error) == ("connect", "error", "1045")
        assert feed.one(PseudoCommand.CONNECT, told=KNOWN | CommandFlag.CLOSES).outcome == "error"

    def test_a_session_ends_once(self, feed):
        connected = feed.one(PseudoCommand.CONNECT, told=KNOWN)
        quitting = feed.one(QUIT, told=KNOWN)
        assert quitting.kind == "disconnect"
        assert quitting.duration_ns == quitting.time_ns - connected.session_ns
        assert feed.command(PseudoCommand.DISCONNECT, told=KNOWN) == []
        # the address is used again
        assert feed.one(QUERY, b"select 1").session_ns > connected.session_ns
        assert feed.one(PseudoCommand.DISCONNECT, told=KNOWN).kind == "disconnect"

    def test_a_command_that_is_no_statement(self, feed):
        assert (feed.one(8).kind, feed.one(8).name) == ("command", "SHUTDOWN")
        assert feed.one(99).name == "command 99"

    def test_use(self, feed):
        assert (feed.one(USE, b"shop").kind, feed.one(USE, b"shop").text) == ("use", "shop")


class TestWithoutAnEnd:
    def test_when_the_capture_ends(self, feed):
        assert feed(begin_record(text_length=8), text_record(b"select 1")) == []
        (found,) = feed.stage.close()
        assert (found.text, found.outcome, found.duration_ns) == ("select 1", "unknown", None)
        assert found.marks == ("running",)
        assert feed.stage.close() == []

    def test_when_the_process_ends(self, feed):
        feed(begin_record(text_length=8), text_record(b"select 1"))
        found, ended = feed(exit_record())
        assert found.marks == ("process ended",)
        assert isinstance(ended, ProcessExit)

    def test_when_the_session_goes_on(self, feed):
        feed(begin_record(text_length=8), text_record(b"select 1"))
        first, second = feed.command(QUERY, b"select 2")
        assert (first.text, first.outcome, first.marks) == ("select 1", "unknown", ("gap",))
        assert (second.text, second.outcome) == ("select 2", "ok")

    def test_an_end_without_a_beginning(self, feed):
        (found,) = feed(text_record(b"select 1"), end_record(affected=2))
        assert (found.text, found.missing, found.rows) == ("", "unseen", 2)
        assert found.marks == ("gap",)
        assert found.no_identity

    def test_a_statement_that_was_not_answered(self, feed):
        assert feed.one(QUERY, b"kill 7", told=KNOWN | CommandFlag.CLOSES).outcome == "unknown"


def test_other_events_pass_in_their_place(feed):
    events = feed(plaintext_record(), begin_record(), plaintext_record(), end_record())
    assert [type(event) for event in events] == [Plaintext, Plaintext, Statement]
    plain = Decoder(0).decode(plaintext_record())
    assert feed.stage.feed(plain) is plain


def test_memory_is_bounded(feed):
    for n in range(700):
        text = b"select ?".ljust(60000)
        feed.command(
            PREPARE, text, statement=n, told=OF_STATEMENT, session=n % 100, connection=n % 100
        )
    stage = feed.stage
    kept = sum(len(p.text) for s in stage._sessions.values() for p in s.prepared.values())
    assert kept == stage._prepared_bytes <= 32 << 20
    for n in range(1100):
        feed.command(PREPARE, b"select ?", statement=n, told=OF_STATEMENT, session=1, connection=1)
    assert len(stage._sessions[100, 1].prepared) == 1024
