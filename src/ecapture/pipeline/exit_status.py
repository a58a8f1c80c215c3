# SPDX-License-Identifier: Apache-2.0
"""``--errnumber``: only commands that ended with this status."""

from __future__ import annotations

from ecapture.events import Event
from ecapture.shell_events import ShellCommand


class OnlyStatus:
    """A stage that lets through commands of shells with one exit status, and all other events."""

    def __init__(self, status: int) -> None:
        self._status = status

    def feed(self, events: list[Event]) -> list[Event]:
        """See Stage."""
        return [e for e in events if type(e) is not ShellCommand or e.status == self._status]

    def flush(self, now_ns: int) -> list[Event]:  # noqa: ARG002 - part of the protocol
        """See Stage."""
        return []

    def close(self) -> list[Event]:
        """See Stage."""
        return []
