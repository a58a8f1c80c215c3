# SPDX-License-Identifier: Apache-2.0
"""The content of one HTTP/1 message on its way from slices of pieces to messages.

What a piece of the stream has of it is gathered and decoded at once when the piece ends, so that
many small chunks cost one ``Body``, and content beyond the limit costs nothing but counting. A
``text/event-stream`` is read for its events on the way.
"""

from __future__ import annotations

from .body import ContentReader
from .http1_head import Framing
from .messages import Body, Direction, Fields, Mark, Message, MessageComplete
from .sse import EventStreamParser


class Delivery:
    """One message's content. ``time_ns`` is set by its owner as pieces come."""

    __slots__ = (
        "_events",
        "_found",
        "_pieces",
        "_reader",
        "_who",
        "marks",
        "problem",
        "time_ns",
        "trailers",
    )

    def __init__(
        self,
        direction: Direction,
        exchange: int,
        framing: Framing,
        *,
        body_limit: int,
        event_stream: bool,
    ) -> None:
        self._who = (direction, exchange)
        self._pieces: list[bytes] = []
        self._found: list[Message] = []
        self._events: EventStreamParser | None = None
        tap = None
        if event_stream:
            self._events = EventStreamParser(
                direction=direction, exchange=exchange, event_limit=body_limit
            )
            tap = self._tap
        self._reader = ContentReader(framing.codings, body_limit=body_limit, tap=tap)
        self.time_ns = 0
        self.marks: tuple[Mark, ...] = ()
        self.problem = ""
        self.trailers: Fields = ()

    @property
    def begun(self) -> bool:
        """Whether any content came."""
        return bool(self._pieces) or self._reader.size > 0

    def _tap(self, piece: bytes) -> None:
        if self._events is not None:
            self._found += self._events.feed(piece, self.time_ns)

    def take(self, data: bytes, at: int, stop: int) -> None:
        """Take the content from ``at`` to ``stop`` of a piece."""
        reader = self._reader
        if reader.counting:
            reader.count(stop - at)
        else:
            self._pieces.append(data if stop - at == len(data) else data[at:stop])

    def gap(self, size: int, out: list[Message]) -> None:
        """Note ``size`` bytes missing here."""
        self.flush(out)
        self._reader.gap(size)
        if self._events is not None:
            self._events.feed(b"", self.time_ns, gap=1)

    def doubt(self, problem: str) -> None:
        """Note that two readers could see different content."""
        self.marks = joined(self.marks, (Mark.AMBIGUOUS,))
        self.problem = self.problem or problem

    def flush(self, out: list[Message]) -> None:
        """Give out what was taken."""
        pieces = self._pieces
        if not pieces:
            return
        content = self._reader.feed(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        pieces.clear()
        if content:
            direction, exchange = self._who
            out.append(Body(direction, self.time_ns, 0, exchange, content))
        if self._found:
            out += self._found
            self._found.clear()

    def finish(self, out: list[Message], marks: tuple[Mark, ...], problem: str) -> None:
        """Give out the rest, and that this was all."""
        self.flush(out)
        reader = self._reader
        if Mark.UNFINISHED in marks:
            reader.close()
        else:
            reader.finish()
        if self._events is not None:
            out += self._events.end(self.time_ns)
        direction, exchange = self._who
        out.append(
            MessageComplete(
                direction,
                self.time_ns,
                0,
                exchange,
                reader.size,
                reader.decoded_size,
                reader.kept,
                reader.codings,
                self.trailers,
                joined(self.marks, reader.marks, marks),
                problem or self.problem or reader.problem,
            )
        )


def joined(*marks: tuple[Mark, ...]) -> tuple[Mark, ...]:
    """Return all marks, each once."""
    found = [group for group in marks if group]
    if len(found) < 2:
        return found[0] if found else ()
    return tuple(dict.fromkeys(mark for group in found for mark in group))
