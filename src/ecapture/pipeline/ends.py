# SPDX-License-Identifier: Apache-2.0
"""Gives bytes the addresses that were learned just after them.

A program that does its library's socket work itself sends what a TLS call made only after that
call; so the first bytes it writes are told before anything tells between whom. What comes of a
conversation without addresses is held, and with it everything behind, until they are known: by a
record of their own, by later bytes of the conversation, or not at all within 60 ms: the socket
call follows at once, and what is shown must not be late.

Invariants: order never changes; a conversation is waited for once; what is held is bounded.
"""

from __future__ import annotations

from collections import deque

import msgspec

from ecapture.events import (
    UNKNOWN_ENDS,
    Connection,
    ConversationEnd,
    ConversationKey,
    Ends,
    Event,
    Plaintext,
)
from ecapture.pipeline import _tally

_PATIENCE_NS = 60_000_000
_MAXIMUM_HELD = 4096
_MAXIMUM_BYTES = 8 << 20
_MAXIMUM_KNOWN = 65536
_CONCERNED = (Plaintext, Ends)
_NOT_ASKED = Connection("ipv4", "", 0, "", 0, "")


class LateEnds:
    """A stage, the first one: ``Ends`` stop here."""

    def __init__(self) -> None:
        self._held: deque[Event] = deque()
        self._bytes = 0
        # conversations that are waited for, and until when; those that were waited for, and what
        # came of it
        self._waiting: dict[ConversationKey, int] = {}
        self._known: dict[ConversationKey, Connection | None] = {}

    def feed(self, events: list[Event]) -> list[Event]:
        """See Stage. Where nothing about addresses can change the very list comes back."""
        if not self._held:
            if not _tally.contains(events, _CONCERNED):
                return events
            for event in events:
                if type(event) is Plaintext:
                    if event.connection is None and self._may_change(event):
                        break
                elif type(event) is Ends:
                    break
            else:
                return events
        for event in events:
            if not self._settle(event):
                self._hold(event)
        return self._released(events[-1].time_ns if events else 0)

    def _may_change(self, event: Plaintext) -> bool:
        # Not where there never will be addresses, nor where they were waited for in vain.
        if event.no_connection != UNKNOWN_ENDS:
            return False
        return self._known.get(event.conversation, _NOT_ASKED) is not None

    def flush(self, now_ns: int) -> list[Event]:
        """See Stage."""
        return self._released(now_ns) if self._held else []

    def close(self) -> list[Event]:
        """See Stage."""
        self._waiting.clear()
        return self._released(0)

    def _settle(self, event: Event) -> bool:
        # What this event says about addresses; true if it says nothing else.
        if type(event) is Ends:
            self._remember(event.conversation, event.connection)
            return True
        if type(event) is Plaintext:
            if event.connection is not None and event.conversation in self._waiting:
                self._remember(event.conversation, event.connection)
        elif type(event) is ConversationEnd:
            self._waiting.pop(event.conversation, None)
        return False

    def _remember(self, conversation: ConversationKey, connection: Connection | None) -> None:
        self._waiting.pop(conversation, None)
        if len(self._known) >= _MAXIMUM_KNOWN:
            del self._known[next(iter(self._known))]
        self._known[conversation] = connection

    def _hold(self, event: Event) -> None:
        self._held.append(event)
        if type(event) is Plaintext:
            self._bytes += len(event.payload)
            if event.no_connection == UNKNOWN_ENDS and event.conversation not in self._known:
                self._waiting.setdefault(event.conversation, event.time_ns + _PATIENCE_NS)

    def _released(self, now_ns: int) -> list[Event]:
        for conversation in [key for key, due_ns in self._waiting.items() if due_ns <= now_ns]:
            self._remember(conversation, None)
        if len(self._held) > _MAXIMUM_HELD or self._bytes > _MAXIMUM_BYTES:
            for conversation in list(self._waiting):
                self._remember(conversation, None)
        out: list[Event] = []
        while self._held:
            event = self._held[0]
            if type(event) is Plaintext:
                if event.connection is None:
                    if event.conversation in self._waiting:
                        break
                    event = self._completed(event)
                self._bytes -= len(event.payload)
            self._held.popleft()
            out.append(event)
        return out

    def _completed(self, event: Plaintext) -> Plaintext:
        connection = self._known.get(event.conversation)
        if connection is None or event.no_connection != UNKNOWN_ENDS:
            return event
        return msgspec.structs.replace(event, connection=connection, no_connection="")
