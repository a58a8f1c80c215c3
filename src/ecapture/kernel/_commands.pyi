# SPDX-License-Identifier: Apache-2.0
"""Records about commands to database servers, to events; native: every statement has two or three.

Most statements begin and end within a batch, and nothing is unusual about them: these become one
event. A beginning is held for that until its end, until its thread or its session does something
else, or to the end of the batch; so of each thread and each session the order is kept.
"""

from collections.abc import Callable

from typing_extensions import disjoint_base

from ecapture.events import Event

@disjoint_base
class Commands:
    """``name_of`` decodes a command name; ``unknown_of`` says what of a session is not known.

    The latter is given which fields the server's build shows, and the flags of the record; it is
    asked only where something is missing.
    """

    def __init__(
        self, name_of: Callable[[bytes], str], unknown_of: Callable[[int, int], str]
    ) -> None: ...
    def decode(self, batch: bytes, at: int, events: list[Event], offset_ns: int) -> int:
        """Appends the events of all such records from ``at`` on. Returns where they end.

        That is ``at`` itself if none is there, or none that is as the wire says.
        """
