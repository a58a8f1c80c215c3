# SPDX-License-Identifier: Apache-2.0
"""What there is in a list of events, found and counted quickly.

Native, because every stage looks at every list, and most have nothing to do with most events: some
nanoseconds each instead of a hundred.
"""

from ecapture.events import Event

def contains(events: list[Event], kinds: tuple[type, ...]) -> bool:
    """Whether the type of one of the events is among the kinds."""

def served(events: list[Event]) -> tuple[int, int, int, int]:
    """Of the runs of a server's messages: how many, their bytes, first ones, unreadable ones."""

def statements(events: list[Event]) -> tuple[int, int, int]:
    """Of the statements: how many, cut ones, unreadable ones."""
