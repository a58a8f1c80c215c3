# SPDX-License-Identifier: Apache-2.0
"""Joins what a program read and what it wrote where its library keeps the two apart.

rustls has an object for each direction, and nothing that the kernel sees of one leads to the other.
So each is a conversation of its own there. Two of one process that are held over the same socket
are one: the one seen first lends its key to the other. Without addresses nothing is joined. Where a
connection changes its keys, an object takes the place of another, whose bytes it goes on behind.

Invariants: order never changes; what was shown under one key keeps it; the bytes of a direction are
counted through; of two halves that end, the first ends the whole; what is remembered is bounded.
"""

from __future__ import annotations

from collections.abc import Hashable

import msgspec

from ecapture._wire import HOOK_HALF
from ecapture.events import (
    ConversationEnd,
    ConversationKey,
    Direction,
    Event,
    Plaintext,
    ProcessExit,
)
from ecapture.pipeline import _tally

_MAXIMUM_KNOWN = 65536
_PIECES = (Plaintext,)


class _Whole(msgspec.Struct, gc=False):
    # A conversation under the key of its first half; all halves that had it, each with how many
    # bytes of its direction were before it; how many there are; and between whom.
    key: ConversationKey
    members: dict[ConversationKey, int]
    told: dict[Direction, int]
    ends: Hashable = None


class Halves:
    """A stage, before conversations are counted."""

    def __init__(self) -> None:
        self._of_member: dict[ConversationKey, _Whole] = {}
        self._of_ends: dict[Hashable, _Whole] = {}
        self._over: dict[ConversationKey, None] = {}  # whose whole has ended

    def feed(self, events: list[Event]) -> list[Event]:
        """See Stage. Without halves the very list comes back."""
        if not self._of_member:
            if not _tally.contains(events, _PIECES):
                return events
            for event in events:
                if type(event) is Plaintext and event.hook == HOOK_HALF:
                    break
            else:
                return events
        out: list[Event] = []
        for event in events:
            if type(event) is Plaintext:
                out.append(self._joined(event) if event.hook == HOOK_HALF else event)
            elif type(event) is ConversationEnd:
                out += self._ended(event)
            else:
                if type(event) is ProcessExit:
                    self._forget_process(event.pid)
                out.append(event)
        return out

    def flush(self, now_ns: int) -> list[Event]:
        """See Stage: nothing is held back."""
        del now_ns
        return []

    def close(self) -> list[Event]:
        """See Stage."""
        return []

    def _joined(self, event: Plaintext) -> Plaintext:
        whole = self._of_member.get(event.conversation)
        if whole is None:
            whole = self._join(event)
        elif whole.ends is None:
            self._learn_ends(whole, event)
        before = whole.members[event.conversation]
        offset = event.stream_offset + before
        whole.told[event.direction] = offset + event.length
        if whole.key == event.conversation and not before:
            return event
        return msgspec.structs.replace(event, conversation=whole.key, stream_offset=offset)

    def _join(self, event: Plaintext) -> _Whole:
        whole = self._of_ends.get(_ends(event))
        if whole is None:
            while len(self._of_member) >= _MAXIMUM_KNOWN:
                self._forget(self._of_member[next(iter(self._of_member))])
            whole = _Whole(event.conversation, {}, {"read": 0, "write": 0})
            self._learn_ends(whole, event)
        whole.members[event.conversation] = whole.told[event.direction]
        self._of_member[event.conversation] = whole
        return whole

    def _learn_ends(self, whole: _Whole, event: Plaintext) -> None:
        ends = _ends(event)
        if ends is not None and ends not in self._of_ends:
            whole.ends = ends
            self._of_ends[ends] = whole

    def _ended(self, event: ConversationEnd) -> list[Event]:
        whole = self._of_member.get(event.conversation)
        if whole is None:
            # the other half of what has ended, or no half
            if event.conversation not in self._over:
                return [event]
            del self._over[event.conversation]
            return []
        self._forget(whole)
        del whole.members[event.conversation]
        self._over.update(dict.fromkeys(whole.members))
        while len(self._over) > _MAXIMUM_KNOWN:
            del self._over[next(iter(self._over))]
        return [msgspec.structs.replace(event, conversation=whole.key)]

    def _forget(self, whole: _Whole) -> None:
        for member in whole.members:
            self._of_member.pop(member, None)
        if whole.ends is not None and self._of_ends.get(whole.ends) is whole:
            del self._of_ends[whole.ends]

    def _forget_process(self, pid: int) -> None:
        for key in [key for key in self._of_member if key[0] == pid]:
            if (whole := self._of_member.get(key)) is not None:
                self._forget(whole)


def _ends(event: Plaintext) -> Hashable:
    known = event.connection
    if known is None:
        return None
    return event.pid, known.local, known.local_port, known.remote, known.remote_port
