# SPDX-License-Identifier: Apache-2.0
"""From what back-ends of PostgreSQL exchange with their clients to statements.

In go ``Served`` and ``ProcessExit``; out come ``Statement`` events instead of the former. A session
is a process of the server; ``postgres_session`` knows what they say. Sessions are bounded by count;
the one that was quiet for longest gives way, and is joined late if it speaks again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ecapture.events import Event, ProcessExit, Served, SessionFacts, Statement
from ecapture.pipeline.postgres_session import Session

TEXT_LIMIT: Final = 65536
"""Bytes kept of one statement or set of parameters, unless something else is asked for."""
_SESSIONS: Final = 16384


class PostgresStatements:
    """The stage. ``facts_of`` is asked once for each session that began before the capture."""

    def __init__(
        self,
        *,
        facts_of: Callable[[int], SessionFacts],
        text_limit: int = TEXT_LIMIT,
    ) -> None:
        self._facts_of = facts_of
        self._limit = text_limit
        # by process, those that spoke last at the end
        self._sessions: dict[int, tuple[int, Session]] = {}
        self._last_ns = 0

    def feed(self, events: list[Event]) -> list[Event]:
        """See Stage. Without any of its events the very list comes back."""
        if not any(type(event) is Served or type(event) is ProcessExit for event in events):
            return events
        out: list[Event] = []
        for event in events:
            if type(event) is Served:
                found: list[Statement] = []
                self._last_ns = event.time_ns
                self._session(event, found).feed(event, found)
                out += found
            else:
                if type(event) is ProcessExit:
                    self._end(event.pid, event.time_ns, out)
                out.append(event)
        return out

    def flush(self, now_ns: int) -> list[Event]:  # noqa: ARG002 - part of the protocol
        """See Stage: a statement takes as long as it takes."""
        return []

    def close(self) -> list[Event]:
        """See Stage: open sessions stay open; what is not answered yet is told so."""
        out: list[Statement] = []
        for _since, session in self._sessions.values():
            session.abandon(self._last_ns, out)
        return list(out)

    def _session(self, event: Served, out: list[Statement]) -> Session:
        known = self._sessions.pop(event.pid, None)
        if known is not None and known[0] == event.session_ns:
            self._sessions[event.pid] = known
            return known[1]
        if known is not None:
            known[1].close(event.time_ns, out)
        while len(self._sessions) >= _SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        began = event.late or event.kept_offset > 0
        session = Session(event, self._facts_of(event.pid) if began else None, self._limit)
        self._sessions[event.pid] = (event.session_ns, session)
        return session

    def _end(self, pid: int, time_ns: int, out: list[Event]) -> None:
        known = self._sessions.pop(pid, None)
        if known is not None:
            found: list[Statement] = []
            known[1].close(time_ns, found)
            out += found
