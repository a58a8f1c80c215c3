# SPDX-License-Identifier: Apache-2.0
"""Plaintext as text: one header line per event, then the payload as it is.

``--- TIME pid= tid= comm= read|write SOURCE > DESTINATION length=N ...``, a line feed, the payload,
a line feed. In files and pipes the payload is exact: ``captured`` bytes (``length`` where that word
is absent), whatever they are. On a terminal control characters and bytes that are no UTF-8 are
shown escaped, so that captured data cannot drive the terminal.
"""

from __future__ import annotations

from types import ModuleType

from ecapture.events import Event, Gap, Plaintext, Statement
from ecapture.formats import command, statement
from ecapture.formats.header_line import HeaderLine, ends
from ecapture.formats.words import escaped, hex_dump
from ecapture.shell_events import ShellCommand


class TextFormat:
    """Events to bytes.

    ``terminal``: escape what could harm a terminal. ``hexadecimal``: dump instead of payload.
    """

    def __init__(self, *, terminal: bool = False, hexadecimal: bool = False) -> None:
        self._terminal = terminal
        self._hex = hexadecimal
        self._line = HeaderLine()

    def encode(self, events: list[Event]) -> list[bytes]:
        """All events of one batch, in pieces to be written one behind the other.

        Ends of conversations have no line of their own.
        """
        out: list[bytes] = []
        for event in events:
            if type(event) is Plaintext:
                out.append(self._header(event))
                payload = event.payload
                if self._hex:
                    payload = hex_dump(payload)
                elif self._terminal:
                    payload = escaped(payload)
                out.append(payload)
                out.append(b"\n")
            elif type(event) is Gap:
                out.append(self._gap(event))
            elif isinstance(event, Statement | ShellCommand):
                out += self._told(event)
        return out

    def _header(self, event: Plaintext) -> bytes:
        line = f"{self._line.opening(event, event.time_ns)} length={event.length}"
        if event.length != event.call_length:
            line += f" call_length={event.call_length} call_offset={event.call_offset}"
        if event.missing:
            line += f" captured={len(event.payload)} {event.missing}"
        if event.assumed:
            line += " assumed"
        return line.encode() + b"\n"

    def _told(self, event: Statement | ShellCommand) -> list[bytes]:
        form: ModuleType = statement if type(event) is Statement else command
        line = f"{self._beginning(event)} {form.words(event)}{form.remarks(event)}\n"
        body = form.body(event).encode()
        return [line.encode(), escaped(body) if self._terminal else body]

    def _gap(self, event: Gap) -> bytes:
        between = ends(event.connection, event.direction)
        line = f"{self._beginning(event)} {event.direction} {between} lost={event.length}\n"
        return line.encode()

    def _beginning(self, event: Statement | ShellCommand | Gap) -> str:
        line = self._line
        return f"--- {line.time(event.time_ns)} pid={event.pid} comm={line.word(event.comm)}"
