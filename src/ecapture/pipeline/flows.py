# SPDX-License-Identifier: Apache-2.0
"""Which bytes belong to which conversation, and where some are missing.

The kernel counts the bytes of each direction (``stream_offset``), lost ones included. So a piece
that begins later than the last one ended proves a loss, its size and its place: a ``Gap`` is put
before it. Conversations end by their library, by the exit of their process, or by idleness; one
that wakes up again goes on where it was.
"""

from __future__ import annotations

import msgspec

from ecapture.events import (
    ConversationEnd,
    ConversationKey,
    Event,
    Gap,
    Plaintext,
    ProcessExit,
    Secret,
    Served,
    Summary,
)
from ecapture.pipeline import _tally

_CONCERNED = (Plaintext, ConversationEnd, Secret, ProcessExit)
_SERVED = (Served,)
_IDLE_NS = 3600 * 1_000_000_000
_SWEEP_NS = 60 * 1_000_000_000
_MAXIMUM_ASLEEP = 65536


class _Conversation(msgspec.Struct, gc=False):
    # next expected offset, by direction
    read: int
    write: int
    last_ns: int
    comm: str


class Flows:
    """A stage. Counts into ``summary`` what passes."""

    def __init__(
        self,
        summary: Summary,
        *,
        idle_ns: int = _IDLE_NS,
        most_asleep: int = _MAXIMUM_ASLEEP,
    ) -> None:
        self.summary = summary
        self._idle_ns = idle_ns
        self._most_asleep = most_asleep
        self._swept_ns = 0
        self._conversations: dict[ConversationKey, _Conversation] = {}
        self._of_process: dict[int, set[ConversationKey]] = {}
        # ended by idleness: should they wake up, their offsets say that nothing was lost
        self._asleep: dict[ConversationKey, _Conversation] = {}

    def feed(self, events: list[Event]) -> list[Event]:
        """See Stage. Without gaps or exits the very list comes back."""
        if _tally.contains(events, _SERVED):
            self._count_served(events)
        return self._follow(events) if _tally.contains(events, _CONCERNED) else events

    def _follow(self, events: list[Event]) -> list[Event]:
        conversations, summary = self._conversations, self.summary
        extra: list[tuple[int, list[Event]]] = []
        shown = size = 0
        for index, event in enumerate(events):
            if type(event) is not Plaintext:
                ended = self._other(event)
                if ended is not None:
                    extra.append((index, ended))
                continue
            shown += 1
            size += len(event.payload)
            known = conversations.get(event.conversation)
            if known is None:
                known = self._begin(event)
            offset = event.stream_offset
            if event.direction == "read":
                expected, known.read = known.read, offset + event.length
            else:
                expected, known.write = known.write, offset + event.length
            known.last_ns = event.time_ns
            if offset > expected:
                extra.append((index, [_gap(event, expected)]))
            if event.missing == "truncated":
                summary.truncated += 1
            elif event.missing == "unreadable":
                summary.unreadable += 1
        summary.events += shown
        summary.bytes += size
        if not extra:
            return events
        return _spliced(events, extra)

    def flush(self, now_ns: int) -> list[Event]:
        """See Stage: ends conversations that were idle for long."""
        if now_ns - self._swept_ns < _SWEEP_NS:
            return []
        self._swept_ns = now_ns
        idle = {k: c for k, c in self._conversations.items() if now_ns - c.last_ns > self._idle_ns}
        self._asleep |= idle
        while len(self._asleep) > self._most_asleep:
            del self._asleep[next(iter(self._asleep))]
        return [self._forget(key, now_ns, "idle") for key in idle]

    def close(self) -> list[Event]:
        """See Stage: open conversations stay open, nothing is held back."""
        return []

    def _begin(self, event: Plaintext) -> _Conversation:
        known = self._asleep.pop(event.conversation, None)
        if known is None:
            self.summary.flows += 1
            known = _Conversation(0, 0, event.time_ns, event.comm)
        self._conversations[event.conversation] = known
        self._of_process.setdefault(event.pid, set()).add(event.conversation)
        return known

    def _count(self, event: Secret) -> None:
        self.summary.events += 1
        self.summary.bytes += len(event.secret)
        if event.missing:
            self.summary.unreadable += 1

    def _count_served(self, events: list[Event]) -> None:
        summary = self.summary
        shown, size, sessions, unreadable = _tally.served(events)
        summary.events += shown
        summary.bytes += size
        summary.flows += sessions
        summary.unreadable += unreadable

    def _other(self, event: Event) -> list[Event] | None:
        # The events that take the place of this one; None: it stays as it is.
        if type(event) is ConversationEnd:
            if event.conversation in self._conversations:
                self._forget(event.conversation, event.time_ns, event.reason)
            self._asleep.pop(event.conversation, None)
            return None
        if type(event) is Secret:
            self._count(event)
        elif type(event) is ProcessExit:
            keys = sorted(self._of_process.get(event.pid, ()))
            return [self._forget(key, event.time_ns, "exit") for key in keys]
        return None

    def _forget(self, key: ConversationKey, time_ns: int, reason: str) -> ConversationEnd:
        known = self._conversations.pop(key)
        of_process = self._of_process[key[0]]
        of_process.discard(key)
        if not of_process:
            del self._of_process[key[0]]
        return ConversationEnd(time_ns, key[0], known.comm, key, reason)


def _gap(event: Plaintext, expected: int) -> Gap:
    return Gap(
        event.time_ns,
        event.pid,
        event.comm,
        event.direction,
        event.conversation,
        event.connection,
        expected,
        event.stream_offset - expected,
    )


def _spliced(events: list[Event], extra: list[tuple[int, list[Event]]]) -> list[Event]:
    # A gap stands before its event; the ends of a process's conversations before its exit.
    out: list[Event] = []
    at = 0
    for index, more in extra:
        out += events[at:index]
        out += more
        at = index
    return out + events[at:]
