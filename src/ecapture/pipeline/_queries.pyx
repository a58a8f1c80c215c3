# SPDX-License-Identifier: Apache-2.0
# cython: language_level=3, boundscheck=False, wraparound=False, binding=True, embedsignature=False
"""The queries of MySQL's sessions that are as most are, joined without detours. Documented in _queries.pyi."""

from cpython.bytes cimport PyBytes_GET_SIZE

import msgspec

from ecapture.events import Command, CommandEnd, CommandText, ProcessExit, Statement, WholeQuery

cdef object astuple = msgspec.structs.astuple

cdef enum:
    QUERY = 3
    STATEMENT_TEXT = 0  # TextRole.STATEMENT


cdef class Pending:
    cdef readonly object begin, text
    cdef object _session
    cdef bytes _payload  # None: not there yet

    def __init__(self, begin, session):
        cdef bytes sent = begin.sent
        self.begin, self._session, self.text = begin, session, None
        self._payload = sent if PyBytes_GET_SIZE(sent) and begin.role == STATEMENT_TEXT else None

    cdef bint take(self, text) except -1:
        # Whether this is its whole text, and there was none before.
        cdef bytes payload = text.payload
        if self._payload is not None or text.role != STATEMENT_TEXT or text.offset or not text.last or text.missing:
            return False
        if PyBytes_GET_SIZE(payload) != text.length:
            return False
        self.text, self._payload = text, payload
        return True

    cdef bint ends(self, end, sessions) except -1:
        # Whether it ends as most do, in the session in which it began.
        if self._payload is None or end.command != QUERY or end.error or end.results > 1 or not end.answered:
            return False
        if end.statement is not None:
            return False
        return sessions.get((end.pid, end.session)) is self._session

    cdef told(self, end):
        begin, session = self.begin, self._session
        key, time_ns, started_ns = end.key, end.time_ns, begin.time_ns
        connection, rows = end.connection, end.affected
        if session.open == key:
            session.open = None
        session.quit = False
        return Statement(
            time_ns, started_ns, end.pid, end.tid, end.uid, end.comm, "mysql", "query",
            end.session if connection is None else connection, session.first_ns,
            begin.user, begin.database, begin.host, "", begin.unknown, "",
            self._payload.decode("utf-8", "backslashreplace"), PyBytes_GET_SIZE(self._payload), "", (),
            time_ns - started_ns, "ok", "", end.rows if rows is None else rows, "", "", (),
        )


def join(stage, list events not None, opened not None, sessions not None, Py_ssize_t most):
    """See the stub."""
    cdef list out = []
    for event in events:
        kind = type(event)
        if kind is WholeQuery:
            (time_ns, started_ns, pid, tid, uid, comm, handle, connection, user, database, host, unknown, sent,
             rows) = astuple(event)
            whose = (pid, handle)
            session = sessions.get(whose)
            if session is None or session.open is not None and session.open in opened:
                stage.whole(event, out)
                continue
            sessions.move_to_end(whose)
            session.open, session.quit = None, False
            out.append(Statement(
                time_ns, started_ns, pid, tid, uid, comm, "mysql", "query",
                handle if connection is None else connection, session.first_ns, user, database, host, "", unknown, "",
                (<bytes>sent).decode("utf-8", "backslashreplace"), PyBytes_GET_SIZE(sent), "", (),
                time_ns - started_ns, "ok", "", rows, "", "", (),
            ))
        elif kind is Command:
            if event.command == QUERY:
                whose = (event.pid, event.session)
                session = sessions.get(whose)
                if (
                    session is not None and len(opened) < most
                    and (session.open is None or session.open not in opened)
                ):
                    sessions.move_to_end(whose)
                    key = event.key
                    session.open = key
                    opened[key] = Pending(event, session)
                    continue
            stage.begin(event, out)
        elif kind is CommandText:
            known = opened.get(event.key)
            if type(known) is not Pending or not (<Pending>known).take(event):
                stage.text(event)
        elif kind is CommandEnd:
            key = event.key
            known = opened.get(key)
            if type(known) is Pending and (<Pending>known).ends(event, sessions):
                del opened[key]
                out.append((<Pending>known).told(event))
            else:
                stage.end(event, out)
        else:
            if kind is ProcessExit:
                stage.exit(event, out)
            out.append(event)
    return out
