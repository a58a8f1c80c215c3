# SPDX-License-Identifier: Apache-2.0
"""Finds out which conversations speak a known protocol, and has those read by a ``Talk``.

In go ``Plaintext`` and ``Gap``; out come messages and exchanges (``talk`` says which and when), and
``Plaintext`` and ``Gap`` unchanged where no protocol is recognised.

1. A conversation is held back while its protocol may still be recognised: for ``_HELD_NS``, for
   ``_HELD_EVENTS`` pieces, and for the look-ahead of ``protocols.detect``. Then it passes as it is.
2. Later pieces of an unknown protocol are looked at once each: one that becomes evident later is
   still read.
3. What is unfinished at the end of a conversation, or of the capture, is given out, marked so.
"""

from __future__ import annotations

import re
from typing import Final

from ecapture.events import ConversationEnd, ConversationKey, Event, Gap, Plaintext
from ecapture.pipeline import _tally
from ecapture.pipeline.talk import READ, WRITE, Allowance, Talk
from ecapture.protocols.body import BODY_LIMIT
from ecapture.protocols.detect import LOOK_AHEAD, NEED_DATA, Protocol, detect, resume

_HELD_NS: Final = 500_000_000
_HELD_EVENTS: Final = 512
_CONCERNED: Final = (Plaintext, Gap, ConversationEnd)
WAITING_LIMIT: Final = 64 << 20
"""How much content (bytes) waits in unfinished messages of all conversations: 64 MiB."""

_STATUS: Final = re.compile(rb"(?:\A|\n)HTTP/1\.[01] [1-5][0-9]{2}[ \r\n]")
_REQUEST: Final = re.compile(rb"(?:\A|\n)[A-Z][A-Z0-9_-]{1,31} [^ \r\n]+ HTTP/1\.[01]\r?\n")


class _Held:
    """The beginning of a conversation whose protocol is not known yet."""

    __slots__ = ("events", "first", "since_ns", "starts")

    def __init__(self, time_ns: int) -> None:
        self.events: list[Plaintext | Gap] = []
        self.starts = {READ: b"", WRITE: b""}
        self.since_ns = time_ns
        self.first: Plaintext | None = None


class Messages:
    """A stage. ``body_limit``: how much of each message's content (bytes) is kept.

    ``whole``: a response that is a stream of events is given out with its content, too, for formats
    that know no messages but requests and responses.
    """

    def __init__(
        self,
        *,
        body_limit: int = BODY_LIMIT,
        waiting_limit: int = WAITING_LIMIT,
        whole: bool = False,
    ) -> None:
        self._body_limit = body_limit
        self._whole = whole
        self._allowance = Allowance(waiting_limit)
        # Every conversation that is open; None where the protocol is unknown.
        self._talks: dict[ConversationKey, Talk | _Held | None] = {}
        self._holding: dict[ConversationKey, _Held] = {}
        self._early: dict[Talk, None] = {}  # oldest first

    def feed(self, events: list[Event]) -> list[Event]:
        """See Stage. Without anything about conversations the very list comes back."""
        if not (self._holding or self._early or _tally.contains(events, _CONCERNED)):
            return events
        out: list[Event] = []
        talks = self._talks
        for event in events:
            kind = type(event)
            if kind is Plaintext:
                key = event.conversation  # type: ignore[union-attr]
                talk = talks.get(key, self)
                if type(talk) is Talk:
                    talk.read(event, out)  # type: ignore[arg-type]
                elif talk is None:
                    self._unknown(event, out)  # type: ignore[arg-type]
                else:
                    self._hold(event, out)  # type: ignore[arg-type]
            elif kind is Gap:
                self._gap(event, out)  # type: ignore[arg-type]
            else:
                if kind is ConversationEnd:
                    self._end(event.conversation, event.time_ns, out, cut=False)  # type: ignore[union-attr]
                out.append(event)
        if events and (self._holding or self._early):
            # A busy capture has no quiet moments, in which it would be asked to flush.
            self._release(events[-1].time_ns, out)
        return out

    def flush(self, now_ns: int) -> list[Event]:
        """See Stage: what was held back long enough passes as it is."""
        out: list[Event] = []
        self._release(now_ns, out)
        return out

    def close(self) -> list[Event]:
        """See Stage: the capture ends in the middle of every conversation."""
        out: list[Event] = []
        for key in list(self._talks):
            self._end(key, 0, out, cut=True)
        return out

    # --- which protocol ---

    def _hold(self, event: Plaintext, out: list[Event]) -> None:
        key = event.conversation
        held = self._holding.get(key)
        if held is None:
            held = self._talks[key] = self._holding[key] = _Held(event.time_ns)
        if held.first is None:
            held.first = event
        held.events.append(event)
        side = WRITE if event.direction == "write" else READ
        starts = held.starts
        if len(starts[side]) < LOOK_AHEAD:
            starts[side] += event.payload
        found = detect(starts)
        if found is NEED_DATA and len(held.events) < _HELD_EVENTS:
            return
        if found is NEED_DATA or found is Protocol.UNKNOWN:
            self._give_up(key, out)
            return
        events = held.events
        del self._holding[key]
        # A library that is told its descriptor under our eyes has said nothing before.
        known = held.first.connection
        from_start = known is not None and known.found_by == "descriptor"
        talk = self._recognise(Protocol(found), held.first, starts, from_start=from_start)
        for kept in events:
            if type(kept) is Gap:
                talk.miss(kept, out)
            else:
                talk.read(kept, out)  # type: ignore[arg-type]

    def _recognise(
        self, protocol: Protocol, first: Plaintext, starts: dict[int, bytes], *, from_start: bool
    ) -> Talk:
        talk = self._talks[first.conversation] = Talk(
            protocol,
            first,
            client_writes=client_writes(starts, WRITE if first.direction == "write" else READ),
            from_start=from_start,
            whole=self._whole,
            body_limit=self._body_limit,
            allowance=self._allowance,
            waiting=self._early,
        )
        return talk

    def _release(self, now_ns: int, out: list[Event]) -> None:
        for key, held in list(self._holding.items()):
            if now_ns - held.since_ns > _HELD_NS:
                self._give_up(key, out)
        for talk in tuple(self._early):
            talk.release(now_ns, out)

    def _give_up(self, key: ConversationKey, out: list[Event]) -> None:
        out += self._holding.pop(key).events
        self._talks[key] = None

    def _unknown(self, event: Plaintext, out: list[Event]) -> None:
        found = resume(event.payload)
        if found is None:
            out.append(event)
            return
        side = WRITE if event.direction == "write" else READ
        starts = {side: event.payload}
        self._recognise(found, event, starts, from_start=False).read(event, out)

    def _gap(self, gap: Gap, out: list[Event]) -> None:
        talk = self._talks.get(gap.conversation)
        if type(talk) is Talk:
            talk.miss(gap, out)
        elif type(talk) is _Held:
            talk.events.append(gap)
        else:
            out.append(gap)

    def _end(self, key: ConversationKey, now_ns: int, out: list[Event], *, cut: bool) -> None:
        if key in self._holding:
            self._give_up(key, out)
        talk = self._talks.pop(key, None)
        if type(talk) is Talk:
            talk.end(now_ns, out, cut=cut)


def client_writes(starts: dict[int, bytes], first: int) -> bool:
    """Tell whether who writes is the client; ``first`` is the side that spoke first.

    A start line at the very beginning counts most, then one further on: content may hold lines
    that look like one.
    """
    for find in (re.Pattern.match, re.Pattern.search):
        for side in sorted(starts, key=lambda side: side != first):
            if find(_STATUS, starts[side]):
                return side != WRITE
            if find(_REQUEST, starts[side]):
                return side == WRITE
    return first == WRITE
