# SPDX-License-Identifier: Apache-2.0
"""Joins what a MySQL server's commands leave in the ring to statements.

A command is a ``Command``, its texts and a ``CommandEnd``; (pid, thread, time) names it, so
concurrent sessions cannot be mixed, whatever thread serves them. Rules:

1. Every command becomes exactly one ``Statement``, when it ends; or, without an outcome, when its
   session goes on without it, its process is gone, or the capture ends.
2. What was lost is said: a text with a hole is cut there and marked "gap"; an end without a
   beginning still tells what it knows.
3. The text of an execution is what the server says that it executes; where it does not say, what
   was prepared under that number in that session; else it is "unseen".
4. Memory is bounded: sessions, prepared texts and open commands that are too many are forgotten,
   the oldest first, and a command that is forgotten comes out without its end.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Literal

import msgspec

from ecapture._wire import PseudoCommand, TextRole
from ecapture.errors import ProtocolError
from ecapture.events import (
    Command,
    CommandEnd,
    CommandText,
    Event,
    ProcessExit,
    Statement,
    StatementKind,
    WholeQuery,
)
from ecapture.pipeline import _queries, _tally
from ecapture.pipeline.sql_mask import count_placeholders, count_statements
from ecapture.protocols.mysql_parameters import bound_values

_QUIT: Final = 1
_QUERY: Final = 3
_CHANGE_USER: Final = 17
_PREPARE: Final = 22
_EXECUTE: Final = 23
_LONG_DATA: Final = 24
_BULK: Final = 250
_EXECUTIONS: Final = (_EXECUTE, _BULK)
_KINDS: Final[dict[int, StatementKind]] = {
    _QUIT: "disconnect",
    2: "use",
    3: "query",
    _CHANGE_USER: "connect",
    _PREPARE: "prepare",
    _EXECUTE: "execute",
    _BULK: "execute",
    28: "fetch",
    PseudoCommand.CONNECT: "connect",
    PseudoCommand.DISCONNECT: "disconnect",
}
# enum_server_command of include/my_command.h (MySQL 9) and include/mysql_com.h (MariaDB 12)
_NAMES: Final = {
    4: "FIELD_LIST",
    5: "CREATE_DB",
    6: "DROP_DB",
    7: "REFRESH",
    8: "SHUTDOWN",
    10: "PROCESS_INFO",
    12: "PROCESS_KILL",
    13: "DEBUG",
    18: "BINLOG_DUMP",
    19: "TABLE_DUMP",
    21: "REGISTER_REPLICA",
    29: "DAEMON",
    30: "BINLOG_DUMP_GTID",
    31: "RESET_CONNECTION",
    32: "CLONE",
    33: "SUBSCRIBE_GROUP_REPLICATION_STREAM",
    254: "MULTI",
}
_ANSWERED_ALWAYS: Final = ("connect", "query", "prepare", "execute", "fetch", "use")
_NO_SUCH_STATEMENT: Final = 1243  # ER_UNKNOWN_STMT_HANDLER
_LAST_PREPARED: Final = 0xFFFFFFFF  # MariaDB: the one that was prepared just before
_MAXIMUM_OPEN: Final = 65536
_MAXIMUM_SESSIONS: Final = 65536
_MAXIMUM_PREPARED: Final = 1024  # of one session
_MAXIMUM_PREPARED_BYTES: Final = 32 << 20  # of all
_LOST_BEGINNING: Final = "the record of its beginning was lost"


class _Prepared(msgspec.Struct, gc=False):
    text: str
    length: int
    missing: str
    parameters: int | None = None  # how many; counted when it is asked for
    types: bytes = b""
    long_data: bool = False


class _Session(msgspec.Struct):
    first_ns: int
    prepared: OrderedDict[int, _Prepared]
    quit: bool = False
    open: tuple[int, int, int] | None = None
    last: int = 0


class _Text(msgspec.Struct, gc=False):
    # One text of a command as far as it came.
    length: int
    content: bytearray
    missing: str = ""
    gap: bool = False
    complete: bool = False

    def add(self, piece: CommandText) -> None:
        if piece.offset == len(self.content) and not self.gap:
            self.content += piece.payload
        else:
            self.gap = True
        self.missing = self.missing or piece.missing
        self.complete = self.complete or piece.last


class _Open(msgspec.Struct):
    begin: Command
    texts: dict[int, _Text]


class MysqlStatements:
    """A stage. Takes the events about commands out and puts statements in."""

    def __init__(self) -> None:
        self._open: OrderedDict[tuple[int, int, int], _Open | _queries.Pending] = OrderedDict()
        self._sessions: OrderedDict[tuple[int, int], _Session] = OrderedDict()
        self._servers: set[int] = set()  # processes that have had sessions
        self._prepared_bytes = 0

    def feed(self, events: list[Event]) -> list[Event]:
        """See Stage. Without commands the very list comes back."""
        if not self._open:
            mine = _MINE_AND_EXITS if self._servers else _MINE
            if not _tally.contains(events, mine):
                return events
        return _queries.join(self, events, self._open, self._sessions, _MAXIMUM_OPEN)

    def flush(self, now_ns: int) -> list[Event]:  # noqa: ARG002 - the protocol's signature
        """See Stage: nothing is due by time, since a statement may run for days."""
        return []

    def close(self) -> list[Event]:
        """See Stage: what still runs comes out without an outcome."""
        return [self._unfinished(key, "running") for key in list(self._open)]

    # --- one command; called for each record that is not taken on the way ---

    def begin(self, event: Command, out: list[Event]) -> None:
        """A command begins."""
        session = self._session(event.pid, event.session, event.time_ns)
        if session.open is not None and session.open in self._open:
            out.append(self._unfinished(session.open, "gap"))
        if len(self._open) >= _MAXIMUM_OPEN:
            out.append(self._unfinished(next(iter(self._open)), "gap"))
        session.open = event.key
        self._open[event.key] = _Open(event, _sent_with(event))

    def text(self, event: CommandText) -> None:
        """Bytes of a command."""
        known = self._opened(event.key)
        if known is None:
            return  # its beginning was lost, and its end will say so
        text = known.texts.get(event.role)
        if text is None:
            text = known.texts[event.role] = _Text(event.length, bytearray())
        text.add(event)

    def end(self, event: CommandEnd, out: list[Event]) -> None:
        """A command ends."""
        known = self._opened(event.key)
        self._open.pop(event.key, None)
        session = self._session(event.pid, event.session, event.time_ns)
        if session.open == event.key:
            session.open = None
        if event.command == _LONG_DATA:
            self._long_data(session, event)
            return
        if event.command == PseudoCommand.DISCONNECT:
            self._forget_session((event.pid, event.session))
            if session.quit:
                return
        session.quit = event.command == _QUIT
        if event.command == _CHANGE_USER:
            self._forget_prepared(session)
        texts = known.texts if known is not None else {}
        begin = known.begin if known is not None else None
        out.append(self._statement(event, begin, texts, session))

    def whole(self, event: WholeQuery, out: list[Event]) -> None:
        """A command that began and ended, as two events."""
        who = event.pid, event.tid, event.uid, event.comm, event.session
        key = (event.pid, event.tid, event.started_ns)
        begin = Command(
            event.started_ns,
            *who,
            key,
            _QUERY,
            event.connection,
            None,
            len(event.sent),
            event.user,
            event.host,
            event.database,
            event.unknown,
            TextRole.STATEMENT,
            event.sent,
        )
        end = CommandEnd(
            event.time_ns,
            *who,
            key,
            _QUERY,
            event.connection,
            None,
            0,
            1,
            None,
            event.rows,
            answered=True,
            closes=False,
        )
        self.begin(begin, out)
        self.end(end, out)

    def _opened(self, key: tuple[int, int, int]) -> _Open | None:
        # The command of that name, as this module keeps it.
        known = self._open.get(key)
        if isinstance(known, _queries.Pending):
            begin, text = known.begin, known.text
            known = self._open[key] = _Open(begin, _sent_with(begin))
            if text is not None:
                self.text(text)
        return known

    def _unfinished(self, key: tuple[int, int, int], mark: str) -> Statement:
        known = self._opened(key)
        if known is None:
            raise KeyError(key)
        del self._open[key]
        begin = known.begin
        session = self._session(begin.pid, begin.session, begin.time_ns)
        if session.open == key:
            session.open = None
        end = CommandEnd(
            begin.time_ns,
            begin.pid,
            begin.tid,
            begin.uid,
            begin.comm,
            begin.session,
            begin.key,
            begin.command,
            begin.connection,
            begin.statement,
            0,
            0,
            None,
            None,
            answered=False,
            closes=False,
        )
        made = self._statement(end, begin, known.texts, session)
        return msgspec.structs.replace(
            made, outcome="unknown", duration_ns=None, marks=(*made.marks, mark)
        )

    def _statement(
        self,
        end: CommandEnd,
        begin: Command | None,
        texts: dict[int, _Text],
        session: _Session,
    ) -> Statement:
        kind = _KINDS.get(end.command, "command")
        text, length, missing = _sent(begin, texts)
        marks = ["gap"] if begin is None or any(part.gap for part in texts.values()) else []
        number = end.statement
        parameters: tuple[str | None, ...] = ()
        if end.command == _PREPARE and number is not None and not end.error:
            self._remember(session, number, _Prepared(text, length, missing))
        elif end.command in _EXECUTIONS:
            if number == _LAST_PREPARED:
                number = session.last
            prepared = session.prepared.get(number or 0)
            text, length, missing = _executed(texts, prepared)
            if end.error == _NO_SUCH_STATEMENT:  # what MariaDB executes then is its number
                text, length, missing = "", 0, "unseen"
            elif end.command == _EXECUTE:
                parameters = _parameters(texts, prepared, text, missing, marks)
        if end.results > 1:
            marks.append(f"{end.results} answers")
        message = texts.get(TextRole.MESSAGE)
        duration = end.time_ns - begin.time_ns if begin is not None else None
        if kind == "disconnect":
            duration = end.time_ns - session.first_ns if session.first_ns < end.time_ns else None
        return Statement(
            end.time_ns,
            begin.time_ns if begin is not None else 0,
            end.pid,
            end.tid,
            end.uid,
            end.comm,
            "mysql",
            kind,
            end.connection if end.connection is not None else end.session,
            session.first_ns,
            begin.user if begin is not None else "",
            begin.database if begin is not None else "",
            begin.host if begin is not None else "",
            "",
            begin.unknown if begin is not None else _LOST_BEGINNING,
            _name(end, number),
            text,
            length,
            missing,
            parameters,
            duration,
            _outcome(end, kind),
            "",
            _rows(end, text),
            str(end.error) if end.error else "",
            message.content.decode("utf-8", "backslashreplace") if message is not None else "",
            tuple(dict.fromkeys(marks)),
        )

    # --- sessions ---

    def _session(self, pid: int, handle: int, now_ns: int) -> _Session:
        key = (pid, handle)
        known = self._sessions.get(key)
        if known is None:
            if len(self._sessions) >= _MAXIMUM_SESSIONS:
                self._forget_session(next(iter(self._sessions)))
            known = self._sessions[key] = _Session(now_ns, OrderedDict())
            self._servers.add(pid)
        self._sessions.move_to_end(key)
        return known

    def _forget_session(self, key: tuple[int, int]) -> None:
        self._forget_prepared(self._sessions.pop(key))

    def _forget_prepared(self, session: _Session) -> None:
        self._prepared_bytes -= sum(len(p.text) for p in session.prepared.values())
        session.prepared.clear()

    def _remember(self, session: _Session, number: int, prepared: _Prepared) -> None:
        session.last = number
        self._drop(session, number)
        session.prepared[number] = prepared
        self._prepared_bytes += len(prepared.text)
        if len(session.prepared) > _MAXIMUM_PREPARED:
            self._drop(session, next(iter(session.prepared)))
        sessions = iter(self._sessions.values())
        while self._prepared_bytes > _MAXIMUM_PREPARED_BYTES:
            self._forget_prepared(next(sessions))

    def _drop(self, session: _Session, number: int) -> None:
        old = session.prepared.pop(number, None)
        if old is not None:
            self._prepared_bytes -= len(old.text)

    def _long_data(self, session: _Session, event: CommandEnd) -> None:
        # A value that came in a packet of its own is not in the packet that executes.
        prepared = session.prepared.get(event.statement or 0)
        if prepared is not None:
            prepared.long_data = True

    def exit(self, event: ProcessExit, out: list[Event]) -> None:
        """A process is gone: what it had begun has no end, and its sessions mean nothing more."""
        if event.pid not in self._servers:
            return
        gone = [key for key in self._open if key[0] == event.pid]
        out += [self._unfinished(key, "process ended") for key in gone]
        for session in [key for key in self._sessions if key[0] == event.pid]:
            self._forget_session(session)
        self._servers.discard(event.pid)


_MINE: Final = (WholeQuery, Command, CommandText, CommandEnd)
_MINE_AND_EXITS: Final = (*_MINE, ProcessExit)


def _sent_with(begin: Command) -> dict[int, _Text]:
    sent = begin.sent
    return {begin.role: _Text(len(sent), bytearray(sent), complete=True)} if sent else {}


def _sent(begin: Command | None, texts: dict[int, _Text]) -> tuple[str, int, str]:
    # What the client sent as the command's text: (text, length, why there is less).
    part = texts.get(TextRole.STATEMENT)
    if part is None:
        length = begin.length if begin is not None else 0
        return "", length, "unreadable" if length else "" if begin is not None else "unseen"
    return _shown(part)


def _shown(part: _Text) -> tuple[str, int, str]:
    missing = part.missing
    if not missing and (part.gap or len(part.content) < part.length):
        missing = "truncated"  # by a loss, which a mark tells
        part.gap = True
    return part.content.decode("utf-8", "backslashreplace"), part.length, missing


def _executed(texts: dict[int, _Text], prepared: _Prepared | None) -> tuple[str, int, str]:
    part = texts.get(TextRole.EXECUTED)
    if part is not None and part.content:
        return _shown(part)
    if prepared is not None:
        return prepared.text, prepared.length, prepared.missing
    return "", 0, "unseen"


def _count(text: str, missing: str) -> int:
    return -1 if missing else count_placeholders(text, "mysql")


def _parameters(
    texts: dict[int, _Text],
    prepared: _Prepared | None,
    text: str,
    missing: str,
    marks: list[str],
) -> tuple[str | None, ...]:
    packet = texts.get(TextRole.PACKET)
    if packet is None:
        return ()
    if prepared is None:
        count = _count(text, missing)
    else:
        if prepared.parameters is None:
            prepared.parameters = _count(prepared.text, prepared.missing)
        count = prepared.parameters
        if prepared.long_data:
            prepared.long_data = False
            marks.append("parameters sent apart")
            return ()
    cut = packet.missing == "truncated" and packet.complete and not packet.gap
    short = packet.missing or packet.gap or len(packet.content) < packet.length
    if (short and not cut) or count < 0:
        marks.append("parameters not seen")
        return ()
    types = prepared.types if prepared else b""
    try:
        bound = bound_values(bytes(packet.content), count, types, cut=cut)
    except ProtocolError:
        marks.append("parameters not understood")
        return ()
    if prepared is not None:
        prepared.types = bound.types
    if cut:
        marks.append("parameters truncated")
    return bound.values


def _name(end: CommandEnd, number: int | None) -> str:
    if end.command == _CHANGE_USER:
        return "CHANGE_USER"
    if end.command not in _KINDS:
        return _NAMES.get(end.command, f"command {end.command}")
    return "" if number is None else str(number)


def _outcome(end: CommandEnd, kind: StatementKind) -> Literal["ok", "error", "unknown"]:
    if end.error:
        return "error"
    if kind == "connect" and end.closes:
        return "error"
    if kind in _ANSWERED_ALWAYS and kind != "prepare" and not end.answered:
        return "ok" if kind == "connect" else "unknown"
    return "ok"


def _rows(end: CommandEnd, text: str) -> int | None:
    """Affected where the answer tells, else sent.

    Of several answers to one statement (a procedure's) the session counts all rows; of several
    statements only those of the last, which would be the wrong number.
    """
    if end.error or not end.answered:
        return None
    if end.results <= 1:
        return end.affected if end.affected is not None else end.rows
    return None if count_statements(text, "mysql") > 1 else end.rows
