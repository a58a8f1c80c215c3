# SPDX-License-Identifier: Apache-2.0
"""The turns of PostgreSQL's sessions that are as most are, told of in one go.

A turn is what one read brings and what answers it. Under load nearly all are of two shapes:

    asked                                  answered
    Query                                  … CommandComplete ReadyForQuery
    [Parse] Bind [Describe] Execute Sync   [ParseComplete] BindComplete …
                                           CommandComplete ReadyForQuery

with whole messages, no names but that of the prepared statement, and nothing that fails. They are
read here in C; whatever is otherwise goes message by message through ``postgres_session``, which
alone knows the protocol, and which this must agree with: tests and a fuzzer compare.
"""

from collections.abc import Callable

from typing_extensions import disjoint_base

from ecapture.events import Event, ProcessExit, Served
from ecapture.pipeline.postgres_session import Session

@disjoint_base
class Turn:
    """Stands in front of a session, which is asked for what it does not know itself.

    ``session_ns`` is that of its runs. A request whose answer is not whole yet is held here.
    """

    session: Session
    session_ns: int

    def __init__(self, session: Session, session_ns: int) -> None: ...
    def rest(self) -> None:
        """Take over, if the session is at rest: called after it was fed."""

    def settle(self, out: list[Event]) -> None:
        """Give back to the session, with what is held: called before it is fed, or ended."""

def tell(
    turns: dict[int, Turn],
    events: list[Event],
    out: list[Event],
    slowly: Callable[[Served, list[Event]], None],
    ended: Callable[[ProcessExit, list[Event]], None],
) -> int:
    """Appends to ``out`` what follows from the events. Returns the time of the last run, or 0.

    ``turns`` are those of every process, those that spoke last at the end; a run that none of them
    takes goes to ``slowly``. The end of a process goes to ``ended``, and is passed on like
    everything else.
    """
