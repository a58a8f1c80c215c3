# SPDX-License-Identifier: Apache-2.0
"""Plaintext as a capture would deliver it, said by hand: offsets and losses add up."""

from __future__ import annotations

from exchanges import CONNECTION, CONVERSATION

from ecapture.events import ConversationEnd, Gap, Plaintext


class Speech:
    """One conversation of a process; what is said gets its place in the stream by itself."""

    def __init__(self, conversation=CONVERSATION, pid=7):
        self.conversation = conversation
        self.pid = pid
        self.offsets = {"read": 0, "write": 0}
        self.now = 0
        self.last = None

    def say(self, direction, payload, *, length=None, at=None, missing=""):
        """A call; ``length`` beyond that of the payload is missing."""
        length = len(payload) if length is None else length
        self.now = self.now + 1000 if at is None else at
        offset = self.offsets[direction]
        self.offsets[direction] += length
        self.last = Plaintext(
            time_ns=self.now,
            pid=self.pid,
            tid=self.pid,
            uid=1000,
            comm="curl",
            direction=direction,
            conversation=self.conversation,
            connection=CONNECTION,
            no_connection="",
            stream_offset=offset,
            call_length=length,
            call_offset=0,
            length=length,
            payload=payload,
            missing=missing or ("truncated" if length > len(payload) else ""),
        )
        return self.last

    def write(self, payload, **how):
        return self.say("write", payload, **how)

    def read(self, payload, **how):
        return self.say("read", payload, **how)

    def lost(self, direction, size):
        """What the stage that counts bytes puts where some are missing."""
        offset = self.offsets[direction]
        self.offsets[direction] += size
        return Gap(
            self.now, self.pid, "curl", direction, self.conversation, CONNECTION, offset, size
        )

    def end(self):
        return ConversationEnd(self.now, self.pid, "curl", self.conversation, "freed")


def kinds(events):
    return [type(event).__name__ for event in events]


def of(events, kind):
    return [event for event in events if isinstance(event, kind)]


def one(events, kind):
    (found,) = of(events, kind)
    return found
