# SPDX-License-Identifier: Apache-2.0
"""One session of a PostgreSQL server: what was asked, and what answers which question.

The server answers in the order of the requests (PostgreSQL 18 documentation, 54.2 "Message Flow"),
so requests wait in a queue and each answer belongs to the first. After an error the server skips
what follows up to Sync; so does this. Rules:

1. A statement is one ``Statement``: of a simple query when the server is ready again, of the
   extended protocol when its Execute is answered; what failed before its Execute is told with it.
2. A Parse that has a name is told as "prepare"; one without is part of its Execute.
3. Answers without a question (joined late, or bytes were lost) are ignored.
4. Behind lost requests answers are given to nobody until all that was asked is answered: a server
   reads again when nothing whole is left to do, so it is when a buffer of which nothing is missing
   comes behind ReadyForQuery.
5. Everything is bounded: requests that wait, prepared statements, portals, texts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import ClassVar, Final, TypeAlias

from ecapture.errors import ProtocolError
from ecapture.events import Event, Served, SessionFacts, StatementKind
from ecapture.pipeline.postgres_parts import (
    NO_PORTAL,
    NO_TEXT,
    STATEMENTS,
    UNKNOWN,
    Identity,
    Parameters,
    Portal,
    Prepared,
    Request,
    Who,
)
from ecapture.protocols import postgres
from ecapture.protocols.postgres import Cursor, Message, MessageReader

_WAITING: Final = 16384
_STATEMENTS: Final = 4096
_PORTALS: Final = 256
_TEXT_BYTES: Final = 8 << 20  # of all prepared statements of one session
_AROUND_TEXT: Final = 4096
_CLOSE, _COMPLETE, _SUSPENDED, _READY = ord("C"), ord("C"), ord("s"), ord("Z")
_UNSYNCED: Final = frozenset(b"PBDEC")
"""Requests whose answers may be kept back until a Sync."""
_MADE_READY: Final = ("sync", "query", "call", "startup")
"""What a server answers with ReadyForQuery at last."""

AtRest: TypeAlias = tuple[Identity, int, int, dict[str, Prepared]]
"""Whose it is; bytes kept of what was read and written; what was prepared, by name."""
_Handler: TypeAlias = "Callable[[Session, Message, int, list[Event]], None]"


class Session:
    """Fed with runs of bytes; ``Statement`` events come out. ``limit`` is that of texts in bytes.

    With ``facts`` it was there before the capture.
    """

    def __init__(self, first: Served, facts: SessionFacts | None, limit: int) -> None:
        self._who = Who(first, facts, limit)
        self._readers = {
            "read": MessageReader(limit + _AROUND_TEXT, self._ASKED),
            "write": MessageReader(limit + _AROUND_TEXT, self._ANSWERED),
        }
        self._expected = {"read": -1, "write": -1}
        self._waiting: deque[Request] = deque()
        self._open = 0  # of those that wait, how many will be statements
        self._statements: dict[str, Prepared] = {}
        self.unnamed = UNKNOWN
        """What was prepared without a name."""
        self._text_bytes = 0
        self._portals: dict[str, Portal] = {}
        # When it began is not known of one that was there before.
        self._session = Request("startup", 0 if facts is not None else first.time_ns)
        self._connected = facts is not None
        self._ended = False
        self._gaps = False
        self._buffer_ns = -1  # when what was read last was, all runs of it at once
        self._rested = self._unsynced = False  # the last answer, the last request
        self._astray = False  # which request an answer belongs to is not known

    def feed(self, event: Served, out: list[Event]) -> None:
        """Reads one run of bytes."""
        direction = event.direction
        reader = self._readers[direction]
        expected = self._expected[direction]
        self._expected[direction] = event.kept_offset + event.length
        self._who.seen(event)
        lost = bool(event.missing) or (expected >= 0 and event.kept_offset != expected)
        if direction == "read":
            self._read_on(event.time_ns, lost=lost)
        if lost:
            self._gap(direction, event.time_ns, out)
            reader.forget()
            if event.missing:
                return
        handlers = self._ASKED if direction == "read" else self._ANSWERED
        for message in reader.feed(event.payload, boundary=event.boundary, cut=event.cut):
            if direction == "read":
                self._unsynced = message.kind in _UNSYNCED
            else:
                self._rested = message.kind == _READY
            try:
                handlers[message.kind](self, message, event.time_ns, out)
            except ProtocolError:
                continue  # it tells nothing, those behind it do
        if self._astray:
            self.abandon(event.time_ns, out)

    def _read_on(self, time_ns: int, *, lost: bool) -> None:
        """Whether it is known from here on which request an answer belongs to."""
        if lost:
            self._astray, self._unsynced = True, False
        elif time_ns != self._buffer_ns and self._rested and not self._unsynced:
            self._astray = False
        self._buffer_ns = time_ns

    def at_rest(self) -> AtRest | None:
        """What a session is in which everything is answered, and nothing is out of the ordinary.

        None: something is open, or not yet known that may be told later.
        """
        readers = self._readers
        if self._waiting or self._ended or not self._connected or self._gaps:
            return None
        if not (readers["read"].at_rest and readers["write"].at_rest):
            return None
        identity = self._who.identity()
        expected = self._expected
        if identity is None or min(expected.values()) < 0:
            return None
        return (identity, expected["read"], expected["write"], self._statements)

    def resume(
        self, read_at: int, written: int, bound: tuple[str, Prepared, Parameters] | None
    ) -> None:
        """Go on, where others told of statements since it was at rest.

        ``read_at`` and ``written`` are bytes kept of both directions, ``bound`` is what the portal
        without a name last had, if any: name and text of the statement, and its parameters.
        """
        self._expected = {"read": read_at, "write": written}
        self._rested = True
        if bound is not None:
            self._bind_portal("", Portal(*bound, cut=False, executed=True))

    def close(self, time_ns: int, out: list[Event]) -> None:
        """The session is over: what waits gets no answer."""
        if self._ended:
            return
        self._ended = True
        self.abandon(time_ns, out)
        if self._connected:
            out.append(self._who.statement("disconnect", self._session, NO_TEXT, time_ns))

    def abandon(self, time_ns: int, out: list[Event], keep: tuple[Request, ...] = ()) -> None:
        """Tells what waits as it is, but for what is to be kept, which is the end of it."""
        waiting, self._waiting = list(self._waiting), deque(keep)
        self._open = sum(request.kind in STATEMENTS for request in keep)
        bound: dict[str, Portal] = {}
        for request in waiting[: len(waiting) - len(keep)]:
            self._skip(request, bound)
            if request.kind in STATEMENTS:
                answered = request.answered_ns if request.error is not None else time_ns
                self._tell(request, answered, out, bound=bound, lost=True)

    # --- what the client asks ---

    def _query(self, message: Message, time_ns: int, out: list[Event]) -> None:
        text = message.body.split(b"\0", 1)[0]
        prepared = self._who.prepared(text, max(message.length - 1, 0))
        self._enqueue(Request("query", time_ns, prepared=prepared), out)

    def _parse(self, message: Message, time_ns: int, out: list[Event]) -> None:
        parse = postgres.read_parse(message)
        prepared = self._who.prepared(parse.text, parse.length, parse.types, cut=parse.cut)
        name = self._who.text(parse.name)
        self._enqueue(Request("parse", time_ns, name, "", prepared), out)

    def _bind(self, message: Message, time_ns: int, out: list[Event]) -> None:
        bind = postgres.read_bind(message.body)
        name, portal = self._who.text(bind.statement), self._who.text(bind.portal)
        self._enqueue(Request("bind", time_ns, name, portal, bind=bind), out)

    def _execute(self, message: Message, time_ns: int, out: list[Event]) -> None:
        portal = self._who.text(Cursor(message.body).text())
        self._enqueue(Request("execute", time_ns, portal=portal), out)

    def _describe(self, message: Message, time_ns: int, out: list[Event]) -> None:
        # or Close: "S" for a statement or "P" for a portal, then a name
        request = Request("close" if message.kind == _CLOSE else "describe", time_ns)
        name = self._who.text(Cursor(message.body[1:]).text())
        if message.body[:1] == b"S":
            request.of_statement, request.name = True, name
        else:
            request.portal = name
        self._enqueue(request, out)

    def _call(self, message: Message, time_ns: int, out: list[Event]) -> None:
        number = Cursor(message.body).number(4) & 0xFFFFFFFF
        self._enqueue(Request("call", time_ns, str(number)), out)

    def _sync(self, _message: Message, time_ns: int, out: list[Event]) -> None:
        self._enqueue(Request("sync", time_ns), out)

    def _copied(self, _message: Message, _time_ns: int, _out: list[Event]) -> None:
        # CopyDone, CopyFail: while it was copying, the server took no notice of Sync (54.2.6).
        self._waiting = deque(request for request in self._waiting if request.kind != "sync")

    def _terminate(self, _message: Message, time_ns: int, out: list[Event]) -> None:
        self.close(time_ns, out)

    def _start(self, message: Message, time_ns: int, out: list[Event]) -> None:
        startup = postgres.read_startup(message.body)
        if startup.code >> 16 != 3:
            return
        self.close(time_ns, out)  # were there one, the number of its process would be used again
        self._ended = self._connected = False
        self._forget_all()
        self._portals.clear()
        self._who.start(startup.parameters)
        self._session = Request("startup", time_ns)
        self._enqueue(self._session, out)

    def _enqueue(self, request: Request, out: list[Event]) -> None:
        if self._ended:
            return
        if len(self._waiting) >= _WAITING:
            self._gap("read", request.time_ns, out)
            self._astray = True
        if request.kind in STATEMENTS:
            if self._open:
                request.pipelined = True
                if self._open == 1:
                    for other in self._waiting:
                        other.pipelined = True
            self._open += 1
        self._waiting.append(request)

    # --- what the server answers ---

    def _parsed(self, _message: Message, time_ns: int, out: list[Event]) -> None:
        request = self._next("parse", time_ns, out)
        if request is not None and request.prepared is not None:
            self._remember(request.name, request.prepared)
            if request.name:
                self._tell(request, time_ns, out)

    def _bound(self, _message: Message, time_ns: int, out: list[Event]) -> None:
        request = self._next("bind", time_ns, out)
        if request is None:
            return
        prepared = self._prepared(request.name)
        self._bind_portal(request.portal, self._who.portal(request, prepared))

    def _bind_portal(self, name: str, portal: Portal) -> None:
        self._portals.pop(name, None)
        self._portals[name] = portal
        if len(self._portals) > _PORTALS:
            del self._portals[next(iter(self._portals))]

    def _closed(self, _message: Message, time_ns: int, out: list[Event]) -> None:
        request = self._next("close", time_ns, out)
        if request is not None and request.of_statement:
            self._forget(request.name)
        elif request is not None:
            self._portals.pop(request.portal, None)

    def _parameter(self, message: Message, _time_ns: int, _out: list[Event]) -> None:
        cursor = Cursor(message.body)
        self._who.parameter(cursor.text(), cursor.text())

    def _returned(self, _message: Message, time_ns: int, _out: list[Event]) -> None:
        if self._waiting:
            self._waiting[0].answered_ns = time_ns

    def _next(self, kind: str, time_ns: int, out: list[Event]) -> Request | None:
        # The first request of a kind, taken out with those before it.
        waiting = self._waiting
        if waiting and waiting[0].kind == kind:
            request = waiting.popleft()
            self._open -= kind in STATEMENTS
            return request
        return self._first_of((kind,), time_ns, out)

    def _first_of(self, kinds: tuple[str, ...], time_ns: int, out: list[Event]) -> Request | None:
        """The first request of these kinds, taken out with those before it.

        These had no answer that we saw: Describe has none that is kept, the others had lost it.
        """
        if not any(request.kind in kinds for request in self._waiting):
            return None
        bound: dict[str, Portal] = {}
        while True:
            request = self._waiting.popleft()
            self._open -= request.kind in STATEMENTS
            if request.kind in kinds:
                return request
            self._skip(request, bound)
            if request.kind in STATEMENTS:
                self._tell(request, time_ns, out, bound=bound, lost=True)

    def _typed(self, message: Message, _time_ns: int, _out: list[Event]) -> None:
        # The answer to the first Describe of a statement that has none yet.
        types = postgres.read_types(message.body)
        for request in self._waiting:
            if request.kind == "describe" and request.of_statement and not request.answered_ns:
                known = self._prepared(request.name)
                if known is not UNKNOWN:
                    known.types = types
                request.answered_ns = 1
                return

    def _complete(self, message: Message, time_ns: int, out: list[Event]) -> None:
        # CommandComplete; EmptyQueryResponse; PortalSuspended: rows are left
        tag = ""
        if message.kind == _COMPLETE:
            tag = message.body.split(b"\0", 1)[0].decode("ascii", "backslashreplace")
        marks = ("suspended",) if message.kind == _SUSPENDED else ()
        for head in self._waiting:
            if head.kind in STATEMENTS:
                break
        else:
            return
        if tag and len(head.tags) < _WAITING:
            head.tags = (*head.tags, tag)
        head.answered_ns = time_ns
        if head.kind == "execute":
            self._next("execute", time_ns, out)
            self._tell(head, time_ns, out, *marks)
        if tag in ("DEALLOCATE ALL", "DISCARD ALL"):
            self._forget_all()

    def _ready(self, _message: Message, time_ns: int, out: list[Event]) -> None:
        head = self._first_of(_MADE_READY, time_ns, out)
        if head is None or head.kind == "sync":
            return
        self._connected = True
        self._tell(head, head.answered_ns or time_ns, out)

    def _failed(self, message: Message, time_ns: int, out: list[Event]) -> None:
        failure = postgres.read_failure(message.body)
        if failure.fatal:
            self._session.error = failure
        waiting = self._waiting
        while len(waiting) > 1 and waiting[0].kind == "describe":
            # a Describe without a Sync, as asyncpg sends, is answered when a query comes behind it
            if not waiting[0].answered_ns and waiting[1].kind not in ("query", "call"):
                break
            waiting.popleft()
        head = waiting[0] if waiting else None
        if head is None or head.kind == "sync":
            return
        head.error, head.answered_ns = failure, time_ns
        if head.kind == "startup":
            self._waiting.clear()
            self._open = 0
            self._tell(head, time_ns, out)
        elif head.kind not in ("query", "call"):  # those are told when the server is ready again
            self._failed_batch(time_ns, out)

    def _failed_batch(self, time_ns: int, out: list[Event]) -> None:
        """Something of the extended protocol failed: all behind it up to Sync is skipped.

        Where it was before its Execute, it is told with that, so that a statement is told once.
        """
        head = self._waiting.popleft()
        bound: dict[str, Portal] = {}
        parsed: dict[str, Prepared] = {}
        told = head.kind in STATEMENTS
        self._skip(head, bound, parsed)
        if told:
            self._open -= 1
            self._tell(head, time_ns, out)
        while self._waiting and self._waiting[0].kind != "sync":
            request = self._waiting.popleft()
            self._skip(request, bound, parsed)
            if request.kind not in STATEMENTS:
                continue
            self._open -= 1
            portal = bound.get(request.portal) or self._portals.get(request.portal, NO_PORTAL)
            by_name = head.kind == "parse" or head.of_statement
            same = portal.name == head.name if by_name else request.portal == head.portal
            if not told and same:
                request.error = head.error
                self._tell(request, time_ns, out, bound=bound)
            elif not told:
                self._tell(head, time_ns, out, bound=bound)
            if told or not same:
                self._tell(request, time_ns, out, "skipped", bound=bound)
            told = True
        if not told:
            self._tell(head, time_ns, out, bound=bound)

    def _skip(
        self, request: Request, bound: dict[str, Portal], parsed: dict[str, Prepared] | None = None
    ) -> None:
        """What a request would have made, for telling those that build on it."""
        if request.kind == "parse" and request.prepared is not None:
            if parsed is None:  # its answer was lost, not refused
                self._remember(request.name, request.prepared)
            else:
                parsed[request.name] = request.prepared
        elif request.kind == "bind":
            known = (parsed or {}).get(request.name) or self._prepared(request.name)
            bound[request.portal] = self._who.portal(request, known)

    # --- what is told ---

    def _tell(
        self,
        request: Request,
        time_ns: int,
        out: list[Event],
        *marks: str,
        bound: dict[str, Portal] | None = None,
        lost: bool = False,
    ) -> None:
        who = self._who
        if self._gaps:
            marks = (*marks, "gap")
            self._gaps = lost
        kind: StatementKind
        if request.kind == "query":
            text = request.prepared or UNKNOWN
            out.append(who.statement("query", request, text, time_ns, *marks, lost=lost))
        elif request.kind == "call":
            out.append(
                who.statement(
                    "call", request, NO_TEXT, time_ns, *marks, name=request.name, lost=lost
                )
            )
        elif request.kind == "startup":
            out.append(who.statement("connect", request, NO_TEXT, time_ns, *marks))
        elif request.kind == "parse" or (request.kind == "describe" and request.of_statement):
            text = request.prepared or self._prepared(request.name)
            out.append(who.statement("prepare", request, text, time_ns, *marks, name=request.name))
        else:
            portal = (bound or {}).get(request.portal) or self._portals.get(
                request.portal, NO_PORTAL
            )
            kind = "fetch" if portal.executed else "execute"
            if request.kind == "execute" and portal is not NO_PORTAL:
                portal.executed = True
            out.append(who.executed(kind, request, portal, time_ns, *marks, lost=lost))

    # --- what is remembered ---

    def _prepared(self, name: str) -> Prepared:
        return self._statements.get(name, UNKNOWN) if name else self.unnamed

    def _remember(self, name: str, prepared: Prepared) -> None:
        if not name:
            self.unnamed = prepared
            return
        self._forget(name)
        self._statements[name] = prepared
        self._text_bytes += len(prepared.text)
        while len(self._statements) > _STATEMENTS or self._text_bytes > _TEXT_BYTES:
            self._forget(next(iter(self._statements)))

    def _forget(self, name: str) -> None:
        if not name:
            self.unnamed = UNKNOWN
        known = self._statements.pop(name, None)
        if known is not None:
            self._text_bytes -= len(known.text)

    def _forget_all(self) -> None:
        self._statements.clear()
        self._text_bytes = 0
        self.unnamed = UNKNOWN

    # --- losses ---

    def _gap(self, direction: str, time_ns: int, out: list[Event]) -> None:
        """Bytes are missing: of those that wait, only the latest can still get its answer."""
        self._gaps = True
        keep: tuple[Request, ...] = ()
        if direction == "write" and self._waiting:
            waiting = list(self._waiting)
            first = len(waiting) - 1
            while first and waiting[first - 1].kind not in ("sync", "query", "call", "startup"):
                first -= 1
            keep = tuple(waiting[first:])
        self.abandon(time_ns, out, keep)

    # --- which message is what ---

    _ASKED: ClassVar[dict[int, _Handler]] = {
        postgres.STARTUP: _start,
        ord("Q"): _query,
        ord("P"): _parse,
        ord("B"): _bind,
        ord("D"): _describe,
        ord("E"): _execute,
        ord("C"): _describe,
        ord("F"): _call,
        ord("S"): _sync,
        ord("X"): _terminate,
        ord("c"): _copied,
        ord("f"): _copied,
    }
    _ANSWERED: ClassVar[dict[int, _Handler]] = {
        ord("1"): _parsed,
        ord("2"): _bound,
        ord("3"): _closed,
        ord("C"): _complete,
        ord("E"): _failed,
        ord("I"): _complete,
        ord("S"): _parameter,
        ord("V"): _returned,
        ord("Z"): _ready,
        ord("s"): _complete,
        ord("t"): _typed,
    }
