# SPDX-License-Identifier: Apache-2.0
"""The stage protocol, and a chain of stages.

Rules: a stage is fed a list of events and returns a list; time comes in as an argument; it never
sleeps, reads a clock, opens a file or logs per event. What it cannot understand it passes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ecapture.events import Event


class Stage(Protocol):
    """One step between decoding and output. Lists, not iterators: a batch is the unit of work."""

    def feed(self, events: list[Event]) -> list[Event]:
        """Events that follow from these."""

    def flush(self, now_ns: int) -> list[Event]:
        """What is due by ``now_ns`` (wall clock) though nothing came; called often."""

    def close(self) -> list[Event]:
        """All that is still held back: the capture is over."""


class Chain:
    """Stages one behind the other; itself a stage."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self._stages = tuple(stages)

    def feed(self, events: list[Event]) -> list[Event]:
        """See Stage."""
        for stage in self._stages:
            events = stage.feed(events)
        return events

    def flush(self, now_ns: int) -> list[Event]:
        """See Stage. What an earlier stage lets go passes through the later ones."""
        events: list[Event] = []
        for stage in self._stages:
            events = (stage.feed(events) if events else []) + stage.flush(now_ns)
        return events

    def close(self) -> list[Event]:
        """See Stage."""
        events: list[Event] = []
        for stage in self._stages:
            events = (stage.feed(events) if events else []) + stage.close()
        return events
