# SPDX-License-Identifier: Apache-2.0
"""From what back-ends of PostgreSQL exchange with their clients to statements.

In go ``Served`` and ``ProcessExit``; out come ``Statement`` events instead of the former. A session
is a process of the server; ``postgres_session`` knows what they say, and ``_turns`` tells quickly
of what most of them say. Sessions are bounded by count; the one that was quiet for longest gives
way, what it had not answered is told without an outcome, and it is joined late if it speaks again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ecapture.events import Event, ProcessExit, Served, SessionFacts
from ecapture.pipeline import _tally, _turns
from ecapture.pipeline.postgres_session import Session

TEXT_LIMIT: Final = 65536
"""Bytes kept of one statement or set of parameters, unless something else is asked for."""
_SESSIONS: Final = 16384
_CONCERNED: Final = (Served, ProcessExit)


class PostgresStatements:
    """The stage. ``facts_of`` is asked once for each session that began before the capture."""

    def __init__(
        self,
        *,
        facts_of: Callable[[int], SessionFacts],
        text_limit: int = TEXT_LIMIT,
        sessions: int = _SESSIONS,
    ) -> None:
        self._facts_of = facts_of
        self._limit = text_limit
        self._most = sessions
        # by process, those that spoke last at the end
        self._turns: dict[int, _turns.Turn] = {}
        self._last_ns = 0

    def feed(self, events: list[Event]) -> list[Event]:
        """See Stage. Without any of its events the very list comes back."""
        if not _tally.contains(events, _CONCERNED):
            return events
        out: list[Event] = []
        self._last_ns = (
            _turns.tell(self._turns, events, out, self._slowly, self._end) or self._last_ns
        )
        return out

    def flush(self, now_ns: int) -> list[Event]:  # noqa: ARG002 - part of the protocol
        """See Stage: a statement takes as long as it takes."""
        return []

    def close(self) -> list[Event]:
        """See Stage: open sessions stay open; what is not answered yet is told so."""
        out: list[Event] = []
        for turn in self._turns.values():
            turn.settle(out)
            turn.session.abandon(self._last_ns, out)
        return out

    def _slowly(self, event: Served, out: list[Event]) -> None:
        # What is not as most is.
        turn = self._turn(event, out)
        turn.settle(out)
        turn.session.feed(event, out)
        turn.rest()

    def _turn(self, event: Served, out: list[Event]) -> _turns.Turn:
        known = self._turns.pop(event.pid, None)
        if known is not None and known.session_ns == event.session_ns:
            self._turns[event.pid] = known
            return known
        if known is not None:
            known.settle(out)
            known.session.close(event.time_ns, out)
        while len(self._turns) >= self._most:
            quiet = self._turns.pop(next(iter(self._turns)))
            quiet.settle(out)
            quiet.session.abandon(event.time_ns, out)
        began = event.late or event.kept_offset > 0
        session = Session(event, self._facts_of(event.pid) if began else None, self._limit)
        turn = self._turns[event.pid] = _turns.Turn(session, event.session_ns)
        return turn

    def _end(self, event: ProcessExit, out: list[Event]) -> None:
        known = self._turns.pop(event.pid, None)
        if known is not None:
            known.settle(out)
            known.session.close(event.time_ns, out)
