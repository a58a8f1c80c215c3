# SPDX-License-Identifier: Apache-2.0
"""Records of what PostgreSQL servers exchange, to events; native: every statement has two."""

from collections.abc import Callable

from typing_extensions import disjoint_base

from ecapture.events import Event

@disjoint_base
class Runs:
    """``name_of`` decodes a command name, ``ends_of`` the ends of a connection.

    The latter returns the client as text, or else why it is not known. Both are asked again only
    where a record has others than the one before it.
    """

    def __init__(
        self, name_of: Callable[[bytes], str], ends_of: Callable[[bytes], tuple[str, str]]
    ) -> None: ...
    def decode(self, batch: bytes, at: int, events: list[Event], offset_ns: int) -> int:
        """Appends the events of all such records from ``at`` on. Returns where they end.

        That is ``at`` itself if none is there, or none that is as the wire says.
        """
