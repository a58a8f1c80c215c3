# SPDX-License-Identifier: Apache-2.0
"""Plaintext as text: one header line per event, then the payload as it is.

``--- TIME pid= tid= comm= read|write SOURCE > DESTINATION length=N ...``, a line feed, the payload,
a line feed. In files and pipes the payload is exact: ``captured`` bytes (``length`` where that word
is absent), whatever they are. On a terminal control characters and bytes that are no UTF-8 are
shown escaped, so that captured data cannot drive the terminal.
"""

from __future__ import annotations

import re
import time
from types import ModuleType

from ecapture.events import Connection, Event, Gap, Plaintext, Statement
from ecapture.shell_events import ShellCommand

_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_UNSAFE_WORD = re.compile(r"[^\x21-\x7e]|\\")
_MAXIMUM_CACHED = 65536


def escaped(payload: bytes) -> bytes:
    r"""The payload for a terminal: UTF-8 with \xNN for what is not, and for control characters."""
    text = payload.decode("utf-8", "backslashreplace").replace("\r\n", "\n")
    return _UNSAFE.sub(_escape, text).encode()


def word(text: str) -> str:
    r"""A word of a header line: printable ASCII as it is, blanks and the rest as \xNN or \uNNNN."""
    return _UNSAFE_WORD.sub(_escape, text) or "-"


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def endpoint(address: str, port: int) -> str:
    """address:port, an IPv6 address in brackets (RFC 5952, 6)."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def hex_dump(payload: bytes) -> bytes:
    """Sixteen bytes a line: offset, hexadecimal, printable ASCII."""
    lines = []
    for at in range(0, len(payload), 16):
        row = payload[at : at + 16]
        shown = "".join(chr(b) if 32 <= b < 127 else "." for b in row)
        lines.append(f"{at:08x}  {row[:8].hex(' '):<23}  {row[8:].hex(' '):<23}  |{shown}|")
    return "\n".join(lines).encode()


class TextFormat:
    """Events to bytes.

    ``terminal``: escape what could harm a terminal. ``hexadecimal``: dump instead of payload.
    """

    def __init__(self, *, terminal: bool = False, hexadecimal: bool = False) -> None:
        self._terminal = terminal
        self._hex = hexadecimal
        self._second = -1
        self._second_text = ""
        self._words: dict[str, str] = {}
        self._ends: dict[tuple[Connection | None, str], str] = {}

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
        line = (
            f"--- {self._time(event.time_ns)} pid={event.pid} tid={event.tid}"
            f" comm={self._word(event.comm)} {event.direction}"
            f" {self._between(event.connection, event.direction)} length={event.length}"
        )
        if event.length != event.call_length:
            line += f" call_length={event.call_length} call_offset={event.call_offset}"
        if event.missing:
            line += f" captured={len(event.payload)} {event.missing}"
        if event.assumed:
            line += " assumed"
        return line.encode() + b"\n"

    def _told(self, event: Statement | ShellCommand) -> list[bytes]:
        from ecapture.formats import command, statement  # noqa: PLC0415 - they build on this module

        form: ModuleType = statement if type(event) is Statement else command
        line = (
            f"--- {self._time(event.time_ns)} pid={event.pid} comm={self._word(event.comm)}"
            f" {form.words(event)}{form.remarks(event)}\n"
        )
        body = form.body(event).encode()
        return [line.encode(), escaped(body) if self._terminal else body]

    def _gap(self, event: Gap) -> bytes:
        return (
            f"--- {self._time(event.time_ns)} pid={event.pid} comm={self._word(event.comm)}"
            f" {event.direction} {self._between(event.connection, event.direction)}"
            f" lost={event.length}\n"
        ).encode()

    # Times share their second, events their command and connection: what repeats is kept as text.

    def _time(self, time_ns: int) -> str:
        second, rest = divmod(time_ns, 1_000_000_000)
        if second != self._second:
            self._second = second
            self._second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._second_text}.{rest:09d}Z"

    def _word(self, text: str) -> str:
        known = self._words.get(text)
        if known is None:
            if len(self._words) >= _MAXIMUM_CACHED:
                self._words.clear()
            known = self._words[text] = word(text)
        return known

    def _between(self, connection: Connection | None, direction: str) -> str:
        if connection is None:
            return "? > ?"
        key = (connection, direction)
        known = self._ends.get(key)
        if known is None:
            local = endpoint(connection.local, connection.local_port)
            remote = endpoint(connection.remote, connection.remote_port)
            known = f"{local} > {remote}" if direction == "write" else f"{remote} > {local}"
            if len(self._ends) >= _MAXIMUM_CACHED:
                self._ends.clear()
            self._ends[key] = known
        return known
