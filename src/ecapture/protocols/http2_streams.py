# SPDX-License-Identifier: Apache-2.0
"""The content of HTTP/2 streams: each half is one message, made of pieces of DATA.

A ``Half`` is told its ``Head`` and the pieces that follow it, and says what they mean: content
after its codings (``Body``, and ``ServerEvent`` where it is an event stream), gRPC messages, or
the octets of a tunnel (WebSocket messages, or ``Opaque``). Which of them is settled by the head,
at the first piece.

Invariants: a half gives out at most one ``MessageComplete``, and only after a head; nothing that
was given out is kept. A half without content costs no reader.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from .body import BODY_LIMIT, ContentReader, codings_of
from .grpc import MESSAGE_LIMIT, MessageSplitter, is_grpc, whole_messages
from .messages import (
    Body,
    Direction,
    Fields,
    Head,
    Mark,
    Message,
    MessageComplete,
    Opaque,
    ServerEvent,
)
from .sse import EventStreamParser
from .websocket import WebSocketConnection


class ContentLimits(NamedTuple):
    """What the content of one connection may cost."""

    body: int = BODY_LIMIT
    """How much decoded content of one message is given out."""
    message: int = MESSAGE_LIMIT
    """How much of one gRPC message is given out."""
    decoded: int = 128
    """How many messages may be decoded at the same time; a window of up to 16 MiB each."""


class Readers:
    """How many content codings are being undone on a connection."""

    __slots__ = ("active", "limits")

    def __init__(self, limits: ContentLimits) -> None:
        self.limits = limits
        self.active = 0


_EVENT_STREAM: Final = "text/event-stream"
_LENGTH: Final = re.compile(r"[0-9]{1,18}")
_CUT_SHORT: Final = frozenset((Mark.UNFINISHED, Mark.ABANDONED, Mark.GAP, Mark.LIMITED))
_NO_CONTENT: Final = ContentReader()  # what a message without any is like; never fed


class Half:
    """One direction of a stream."""

    __slots__ = (
        "_content",
        "_decoding",
        "_encoding",
        "_event_stream",
        "_events",
        "_grpc",
        "_late",
        "_length",
        "_marks",
        "_problem",
        "_readers",
        "_splitter",
        "_time_ns",
        "begun",
        "done",
        "trailers",
        "tunnel",
        "websocket",
    )

    def __init__(self, readers: Readers) -> None:
        self._readers = readers
        self.begun = False
        """Whether its head was given out."""
        self.done = False
        """Whether its end was."""
        self.tunnel = False
        """Whether its octets belong to another protocol."""
        self.websocket: WebSocketConnection | None = None
        """What reads the octets of the tunnel; nothing does if it is None."""
        self.trailers: Fields = ()
        self._content: ContentReader | None = None
        self._decoding = False
        self._splitter: MessageSplitter | None = None
        self._encoding = ""  # the coding of all content, or of gRPC messages
        self._event_stream: EventStreamParser | None = None
        self._events: list[ServerEvent] = []
        self._time_ns = 0
        self._grpc = False
        self._late = False
        self._length = 0  # what was announced; answers to HEAD announce what does not come
        self._marks: tuple[Mark, ...] = ()
        self._problem = ""

    @property
    def grpc(self) -> bool:
        """Whether its content is gRPC messages."""
        return self._grpc

    def begin(self, head: Head) -> None:
        """Note the head that was given out."""
        self.begun = True
        self._marks = head.marks
        for name, value in head.fields:
            if name == "content-type":
                self._grpc = is_grpc(value)
                if value.lower().startswith(_EVENT_STREAM) and head.kind == "response":
                    self._event_stream = EventStreamParser(
                        direction=head.direction,
                        stream=head.stream,
                        event_limit=self._readers.limits.body,
                    )
            elif name == "content-length":
                self._length = int(value) if _LENGTH.fullmatch(value) else 0
            elif name == "content-encoding":
                self._encoding = f"{self._encoding},{value}" if self._encoding else value
        if self._grpc:
            self._encoding = head.get("grpc-encoding")

    def begin_late(self, head: Head, *, grpc: bool) -> None:
        """Note a head that stands for one nobody saw; ``grpc`` if the other half is that."""
        self.begun = True
        self._late = True
        self._grpc = grpc
        self._marks = head.marks

    def say(self, mark: Mark, problem: str = "") -> None:
        """Have the end of the message carry ``mark``."""
        if mark not in self._marks:
            self._marks += (mark,)
        if not self._problem:
            self._problem = problem

    def feed(
        self, piece: bytes, direction: Direction, time_ns: int, stream: int, out: list[Message]
    ) -> None:
        """Take the next piece of content."""
        content = self._content
        if content is not None:
            self._time_ns = time_ns
            shown = content.feed(piece)
            if shown:
                out.append(Body(direction, time_ns, stream, data=shown))
            if self._events:
                out += self._events
                self._events = []
        elif self._splitter is not None:
            out += self._splitter.feed(piece, time_ns)
        elif self.websocket is not None:
            out += self.websocket.feed(direction, piece, time_ns)
        elif self.tunnel:
            out.append(Opaque(direction, time_ns, stream, data=piece))
        else:
            self._choose(piece, direction, stream)
            self.feed(piece, direction, time_ns, stream, out)

    def miss(
        self, size: int, direction: Direction, time_ns: int, stream: int, out: list[Message]
    ) -> None:
        """Note ``size`` missing octets of content; 0 is an unknown number."""
        if self.websocket is not None:
            out += self.websocket.feed(direction, b"", time_ns, size or -1)
            return
        if self.tunnel:
            out.append(Opaque(direction, time_ns, stream, gap=size))
            return
        if self._content is None and self._splitter is None:
            self._choose(b"", direction, stream)
        self.say(Mark.GAP, f"{size} bytes missing" if size else "bytes missing")
        if self._content is not None:
            self._content.gap(size)
            if self._event_stream is not None:
                out += self._event_stream.feed(b"", time_ns, gap=1)
        elif self._splitter is not None:
            out += self._splitter.gap(size, time_ns)

    def doubt(
        self, mark: Mark, direction: Direction, time_ns: int, stream: int, out: list[Message]
    ) -> None:
        """Note that frames may be missing, of this stream or of another."""
        if self.tunnel and self.websocket is not None:
            out += self.websocket.feed(direction, b"", time_ns, -1)
        if not self.begun or self.done:
            return
        self.say(mark, "frames may be missing")
        if self._grpc and self._splitter is None:
            self._choose(b"", direction, stream)
        if self._splitter is not None:
            self._splitter.doubt(mark)
        if self._event_stream is not None:
            self._event_stream.doubt()

    def end(self, direction: Direction, time_ns: int, stream: int, out: list[Message]) -> None:
        """Give the end of the message out, unless that was done, or it never began."""
        if self.done or not self.begun:
            self.done = True
            return
        self.done = True
        content = self._content or _NO_CONTENT
        marks = self._marks
        problem = self._problem
        size, decoded_size, kept = content.size, content.decoded_size, content.kept
        came = size or (self._splitter.size if self._splitter is not None else 0)
        if not marks and came and self._length and came != self._length:  # RFC 9113, 8.1.1
            marks = (Mark.MALFORMED,)
            problem = problem or f"{came} bytes, where {self._length} were announced"
        if content is not _NO_CONTENT:
            if _CUT_SHORT.isdisjoint(marks):
                content.finish()
            else:
                content.close()
            marks += tuple(mark for mark in content.marks if mark not in marks)
            problem = problem or content.problem
            self._release()
            if self._event_stream is not None:
                out += self._events
                out += self._event_stream.end(time_ns)
        elif self._splitter is not None:
            splitter = self._splitter
            out += splitter.end(time_ns)
            size, decoded_size, kept = splitter.size, splitter.decoded_size, splitter.kept
            if splitter.passed:
                if not marks:
                    marks = (Mark.MALFORMED,)
                problem = problem or f"{splitter.passed} bytes are of no gRPC message"
        out.append(
            MessageComplete(
                direction,
                time_ns,
                stream,
                size=size,
                decoded_size=decoded_size,
                kept=kept,
                codings=content.codings,
                trailers=self.trailers,
                marks=marks,
                problem=problem,
            )
        )

    def _choose(self, piece: bytes, direction: Direction, stream: int) -> None:
        # Content or gRPC messages? A late half is what its first piece looks like.
        limits = self._readers.limits
        if self._grpc or (self._late and whole_messages(piece)):
            self._grpc = True
            self._splitter = MessageSplitter(
                direction,
                stream,
                encoding=self._encoding,
                message_limit=limits.message,
                joined_late=self._late,
            )
            return
        codings = codings_of((self._encoding,)) if self._encoding else ()
        if codings and self._readers.active >= limits.decoded:
            self.say(Mark.LIMITED, f"{limits.decoded} other messages are being decoded")
            codings = ()
        tap = None if self._event_stream is None else self._tap
        self._content = ContentReader(codings, body_limit=limits.body, tap=tap)
        if self._content.codings:
            self._decoding = True
            self._readers.active += 1

    def _tap(self, piece: bytes) -> None:
        if self._event_stream is not None:
            self._events += self._event_stream.feed(piece, self._time_ns)

    def _release(self) -> None:
        # The decoders of the content are given back with it.
        if self._decoding:
            self._decoding = False
            self._readers.active -= 1
        self._content = None


class Stream:
    """Both halves of a stream, by the number of the direction that was observed."""

    __slots__ = ("halves", "late", "tunnel")

    def __init__(self, readers: Readers, *, late: bool = False) -> None:
        self.halves = (Half(readers), Half(readers))
        self.late = late
        """Whether its beginning was not seen."""
        self.tunnel = ""
        """What a CONNECT request asked for: ``tunnel``, or a protocol (RFC 8441)."""

    @property
    def grpc(self) -> bool:
        """Whether either half is known to carry gRPC messages."""
        return self.halves[0].grpc or self.halves[1].grpc
