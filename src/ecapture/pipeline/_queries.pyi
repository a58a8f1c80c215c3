# SPDX-License-Identifier: Apache-2.0
"""The queries of MySQL's sessions that are as most are, joined without detours.

Such a query is whole already, or has one record for its beginning, one for its whole text and one
for its end, which has no error; under load nearly all are so. Everything else is left to the
methods of ``mysql``, on the same tables, and what comes out is the same: a test compares.
"""

from collections import OrderedDict
from typing import Any, Protocol, TypeAlias, type_check_only

from typing_extensions import disjoint_base

from ecapture.events import Command, CommandEnd, CommandText, Event, ProcessExit, WholeQuery

_Key: TypeAlias = tuple[int, int, int]

@type_check_only
class Session(Protocol):
    """What is used of a session."""

    first_ns: int
    quit: bool
    open: _Key | None

@type_check_only
class Stage(Protocol):
    """Takes what is not as most are."""

    def begin(self, event: Command, out: list[Event]) -> None: ...
    def text(self, event: CommandText) -> None: ...
    def end(self, event: CommandEnd, out: list[Event]) -> None: ...
    def whole(self, event: WholeQuery, out: list[Event]) -> None: ...
    def exit(self, event: ProcessExit, out: list[Event]) -> None: ...

@disjoint_base
class Pending:
    """A query that was begun so, and its text if that is there."""

    begin: Command
    text: CommandText | None

    def __init__(self, begin: Command, session: Session) -> None: ...

def join(
    stage: Stage,
    events: list[Event],
    opened: OrderedDict[_Key, Any],
    sessions: OrderedDict[tuple[int, int], Any],
    most: int,
) -> list[Event]:
    """What follows from the events.

    ``opened`` and ``sessions`` are the stage's; of ``opened`` there are ``most`` at once.
    """
