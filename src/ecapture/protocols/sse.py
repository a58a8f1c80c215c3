# SPDX-License-Identifier: Apache-2.0
"""Server-sent events: a text/event-stream body into events (HTML standard, 9.2.5 and 9.2.6).

Strategy: complete lines are cut off each piece at once, the unfinished one waits in a bounded
tail; fields gather until an empty line dispatches them. No parser of the field's libraries fits:
those known read from a client's socket and reconnect.

Joined late, the first line or event may be a fragment: what it still has is shown, marked. A gap is
treated the same way. The identifier of the last event, which later events inherit, is then unknown.

Invariants: no input raises; at most ``event_limit`` bytes of a line and of an event's data are
kept, the rest is counted in ``size`` and the event marked limited.
"""

from __future__ import annotations

from .messages import Direction, Mark, ServerEvent

EVENT_LIMIT = 1 << 20
"""How much of one event is kept, unless told otherwise: 1 MiB."""
_MAX_RETRY_DIGITS = 15
_BOM = b"\xef\xbb\xbf"


class EventStreamParser:
    """One event stream. ``feed`` takes decoded content as it comes and returns whole events."""

    def __init__(
        self,
        *,
        direction: Direction = Direction.TO_CLIENT,
        stream: int = 0,
        exchange: int = 0,
        event_limit: int = EVENT_LIMIT,
        joined_late: bool = False,
    ) -> None:
        self._who = (direction, stream, exchange)
        self._limit = event_limit
        self._tail = bytearray()
        self._after_cr = False
        self._begun = joined_late
        self._last_id = ""
        self._clear()
        if joined_late:
            self._mark(Mark.JOINED_LATE)

    def _clear(self) -> None:
        self._event = ""
        self._lines: list[str] = []
        self._room = self._limit
        self._retry = -1
        self._size = 0
        self._marks: tuple[Mark, ...] = ()

    def _mark(self, mark: Mark) -> None:
        if mark not in self._marks:
            self._marks += (mark,)

    def feed(self, data: bytes, time_ns: int, *, gap: int = 0) -> list[ServerEvent]:
        """Take the next bytes, before which ``gap`` are missing, and return the events they end."""
        events: list[ServerEvent] = []
        if gap:
            self._tail.clear()
            self._after_cr = False
            self._begun = True
            self._last_id = ""
            self._mark(Mark.GAP)
        if self._after_cr and data:
            self._after_cr = False
            if data[0] == 0x0A:
                data = data[1:]
        if not data:
            return events
        self._after_cr = data[-1] == 0x0D
        # For bytes, the only line ends are those of the standard: LF, CR, and CR LF.
        for line in data.splitlines(keepends=True):
            text = line.rstrip(b"\r\n")
            self._size += len(text)
            if len(text) == len(line):
                self._keep(text)
                break
            if self._tail:
                self._keep(text)
                text = bytes(self._tail)
                self._tail.clear()
            if text:
                self._field(text)
            else:
                event = self._dispatch(time_ns)
                if event is not None:
                    events.append(event)
        return events

    def doubt(self) -> None:
        """Note that bytes may be missing here."""
        self._mark(Mark.GAP)

    def _keep(self, line: bytes) -> None:
        room = self._limit - len(self._tail)
        if len(line) > room:
            self._mark(Mark.LIMITED)
            line = line[: max(room, 0)]
        self._tail += line

    def _field(self, line: bytes) -> None:
        if not self._begun:
            self._begun = True
            line = line.removeprefix(_BOM)
        try:
            text = line.decode()
        except UnicodeDecodeError:
            text = line.decode(errors="replace")
            # A gap or a limit may go through a character, which then is no fault of the sender's.
            if not self._marks:
                self._mark(Mark.MALFORMED)
        name, _, value = text.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            if len(value) > self._room:
                self._mark(Mark.LIMITED)
                value = value[: max(self._room, 0)]
            if self._room > 0:
                self._lines.append(value)
            # A line counts as one character more, so that empty ones are bounded too.
            self._room -= len(value) + 1
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._last_id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self._wait(value)

    def _wait(self, digits: str) -> None:
        if len(digits) > _MAX_RETRY_DIGITS:
            self._mark(Mark.LIMITED)
        else:
            self._retry = int(digits)

    def _dispatch(self, time_ns: int) -> ServerEvent | None:
        event = None
        # The standard drops an event without data; one that sets the retry time is worth showing.
        if self._lines or self._retry >= 0 or self._marks:
            direction, stream, exchange = self._who
            event = ServerEvent(
                direction,
                time_ns,
                stream,
                exchange,
                event=self._event or "message",
                data="\n".join(self._lines),
                last_id=self._last_id,
                retry_ms=self._retry,
                size=self._size,
                marks=self._marks,
            )
        self._clear()
        return event

    def end(self, time_ns: int) -> list[ServerEvent]:
        """Say that the stream ended; an event without its empty line is returned, marked so."""
        self._mark(Mark.UNFINISHED)
        if self._tail:
            line = bytes(self._tail)
            self._tail.clear()
            self._field(line)
        if not self._lines:
            self._clear()
            return []
        event = self._dispatch(time_ns)
        return [event] if event is not None else []
