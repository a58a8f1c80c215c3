# SPDX-License-Identifier: Apache-2.0
"""The beginning that header lines share, and the parts of it: time, names, addresses, marks.

``--- TIME pid= tid= comm= read|write SOURCE > DESTINATION``, as in ``text``. Times share their
second, events their command and connection: what repeats is kept as text, within bounds.
"""

from __future__ import annotations

import time
from typing import Final

from ecapture.events import Connection, Direction, HttpMessage, Plaintext, Said
from ecapture.formats.words import endpoint, phrase, word
from ecapture.protocols.messages import Mark

_MAXIMUM_CACHED: Final = 65536


def all_marks(message: HttpMessage) -> tuple[Mark, ...]:
    """The marks of a message and of its head, each once."""
    if not message.head.marks:
        return message.marks
    return tuple(dict.fromkeys(message.head.marks + message.marks))


def remark(marks: tuple[Mark, ...], problem: str) -> str:
    """What is not as it should be, to end a line with: `` [gap, malformed: why]`` or nothing."""
    if marks:
        why = f": {phrase(problem)}" if problem else ""
        return f" [{', '.join(marks)}{why}]"
    return f" [{phrase(problem)}]" if problem else ""


class HeaderLine:
    """Makes the beginnings of header lines."""

    def __init__(self) -> None:
        self._second = -1
        self._second_text = ""
        self._words: dict[str, str] = {}
        self._who: dict[tuple[int, int, str, Direction, Connection | None], str] = {}

    def opening(self, event: Plaintext | HttpMessage | Said, time_ns: int) -> str:
        """Everything up to the addresses."""
        key = (event.pid, event.tid, event.comm, event.direction, event.connection)
        who = self._who.get(key)
        if who is None:
            if len(self._who) >= _MAXIMUM_CACHED:
                self._who.clear()
            between = ends(event.connection, event.direction)
            who = (
                f" pid={event.pid} tid={event.tid} comm={word(event.comm)}"
                f" {event.direction} {between}"
            )
            self._who[key] = who
        return f"--- {self.time(time_ns)}{who}"

    def time(self, time_ns: int) -> str:
        """RFC 3339 in UTC, nine digits behind the point."""
        second, rest = divmod(time_ns, 1_000_000_000)
        if second != self._second:
            self._second = second
            self._second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._second_text}.{rest:09d}Z"

    def word(self, text: str) -> str:
        """``words.word``, remembered."""
        known = self._words.get(text)
        if known is None:
            if len(self._words) >= _MAXIMUM_CACHED:
                self._words.clear()
            known = self._words[text] = word(text)
        return known


def ends(connection: Connection | None, direction: Direction) -> str:
    """From where to where: ``SOURCE > DESTINATION``, as far as it is known."""
    if connection is None:
        return "? > ?"
    local = endpoint(connection.local, connection.local_port)
    remote = endpoint(connection.remote, connection.remote_port)
    return f"{local} > {remote}" if direction == "write" else f"{remote} > {local}"
