# SPDX-License-Identifier: Apache-2.0
"""WebSocket frames (RFC 6455) with permessage-deflate (RFC 7692) into messages.

``WebSocketParser`` reads one direction, ``WebSocketConnection`` both. Fragments are put together,
unmasked and inflated; control frames are messages of their own, also between fragments.

wsproto's frame decoder was considered: it stops for good at the first violation, must have seen the
handshake, and inflates without a bound, so here it only serves as the judge in the tests.

Rules:

1. What ``websocket_frames`` calls implausible means that the parser lost its place; a place is then
   sought as described there, and what was passed over is a ``Note``.
2. Other violations (mask on the wrong side, a length longer than need be, a continuation of
   nothing, invalid UTF-8) mark the message and are otherwise let pass: both peers may do so too.
3. Joined late, frames are sought from the start, and compression is taken for agreed upon where a
   frame says so. ``websocket_deflate`` says what becomes of a history that was not seen.

Invariants: only ProtocolError is raised within and none leaves; at most ``message_limit`` bytes of
a message, one control frame, one header and, while seeking, ``_SEEK_KEPT`` bytes are kept.
"""

from __future__ import annotations

from typing import Literal

from ecapture.errors import ProtocolError

from .body import EXPANSION_FLOOR, EXPANSION_RATIO
from .messages import Direction, Mark, Message, Note, WebSocketMessage
from .websocket_deflate import FLUSH, UNKNOWN, Deflate, Inflater
from .websocket_frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    HEADER_SIZE,
    PING,
    PONG,
    TEXT,
    FrameHeader,
    find_frame,
    read_header,
    unmask,
)

MESSAGE_LIMIT = 1 << 20
"""How much of one message is kept, unless told otherwise: 1 MiB."""
_SEEK_KEPT = 4096
_SEEK_EDGES = 64
_MAX_LOSSES = 8
"""How often in one piece a place is sought before the rest of the piece is passed over."""

_NOT_ALL = frozenset((Mark.GAP, Mark.JOINED_LATE, Mark.UNFINISHED))
"""Where bytes of a message are not there, or made up, its text is not judged."""

Kind = Literal["text", "binary", "close", "ping", "pong", "unknown"]
_KINDS: dict[int, Kind] = {
    CONTINUATION: "unknown",
    TEXT: "text",
    BINARY: "binary",
    CLOSE: "close",
    PING: "ping",
    PONG: "pong",
}


class _Gathering:
    """A message whose frames are coming in."""

    __slots__ = (
        "compressed",
        "data",
        "decoded",
        "fragments",
        "kind",
        "marks",
        "problem",
        "size",
        "stopped",
    )

    def __init__(self, kind: Kind, *, compressed: bool) -> None:
        self.kind = kind
        self.compressed = compressed
        self.data: bytes | bytearray = b""
        self.size = 0
        self.decoded = 0
        self.fragments = 0
        self.marks: tuple[Mark, ...] = ()
        self.problem = ""
        self.stopped = False
        """Whether inflating had to end: what else comes is counted only."""

    def say(self, mark: Mark, problem: str = "") -> None:
        if mark not in self.marks:
            self.marks += (mark,)
        if not self.problem:
            self.problem = problem

    def keep(self, piece: bytes, limit: int) -> None:
        self.decoded += len(piece)
        had = len(self.data)
        if had + len(piece) > limit:
            piece = piece[: max(limit - had, 0)]
        if not had:
            self.data = piece
        elif piece:
            if isinstance(self.data, bytes):
                self.data = bytearray(self.data)
            self.data += piece


class WebSocketParser:
    """One direction of a connection after its handshake.

    ``deflate`` is what the handshake agreed on, None for no compression. With ``joined_late`` a
    frame is sought first, and compression is assumed where a frame says so.
    """

    def __init__(
        self,
        direction: Direction,
        *,
        deflate: Deflate | None = None,
        joined_late: bool = False,
        message_limit: int = MESSAGE_LIMIT,
        stream: int = 0,
        exchange: int = 0,
    ) -> None:
        self._who = (direction, stream, exchange)
        self._masked = direction is Direction.TO_SERVER
        self._limit = message_limit
        self._inflater: Inflater | None = None
        if deflate is not None or joined_late:
            agreed = deflate or Deflate()
            fresh = agreed[0] if direction is Direction.TO_SERVER else agreed[1]
            self._inflater = Inflater(takeover=not fresh, seen=not joined_late)
        self._pending = bytearray()
        self._edges: set[int] = set()
        self._seeking: Mark | None = Mark.JOINED_LATE if joined_late else None
        self._skipped = 0
        self._why = ""
        self._orphan = self._seeking
        self._message: _Gathering | None = None
        self._control: _Gathering | None = None
        self._header: FrameHeader | None = None
        self._left = 0

    def feed(self, data: bytes, time_ns: int, *, gap: int = 0) -> list[Message]:
        """Take the next bytes, before which ``gap`` are missing (-1: some), and read messages."""
        out: list[Message] = []
        if gap:
            self._gap(gap, time_ns, out)
        if self._seeking is not None:
            data = self._seek(data, time_ns, out, edge=True)
        at = losses = 0
        end = len(data)
        while at < end:
            try:
                at = self._step(data, at, end, time_ns, out)
            except ProtocolError as error:
                self._lose(Mark.MALFORMED, str(error.fields["reason"]), time_ns, out)
                rest = bytes(self._pending) + data[at:]
                self._pending.clear()
                losses += 1
                if losses > _MAX_LOSSES:
                    self._skipped += len(rest)
                    break
                # The byte that was refused cannot be where frames begin.
                self._skipped += 1
                data = self._seek(rest[1:], time_ns, out, edge=False)
                at, end = 0, len(data)
        return out

    def end(self, time_ns: int) -> list[Message]:
        """Say that no more comes; what is unfinished is returned, marked so."""
        out: list[Message] = []
        if self._seeking is not None:
            self._skipped += len(self._pending)
            self._pending.clear()
            if self._skipped:
                out.append(self._note(time_ns))
                self._skipped = 0
        elif self._pending:
            direction, stream, exchange = self._who
            size = len(self._pending)
            self._pending.clear()
            detail = "the header of a frame is not complete"
            out.append(Note(direction, time_ns, stream, exchange, Mark.UNFINISHED, detail, size))
        self._abandon(time_ns, out, Mark.UNFINISHED, "")
        return out

    def _note(self, time_ns: int) -> Note:
        direction, stream, exchange = self._who
        detail = self._why or "frames are sought"
        mark = self._seeking or Mark.MALFORMED
        return Note(direction, time_ns, stream, exchange, mark, detail, self._skipped)

    def _gap(self, gap: int, time_ns: int, out: list[Message]) -> None:
        header = self._header
        if header is not None and 0 < gap <= self._left and header.opcode < CLOSE:
            message = self._message
            if message is not None:
                message.say(Mark.GAP, f"{gap} bytes missing")
                message.size += gap
                if not message.compressed:
                    message.decoded += gap
                message.stopped = message.compressed
            if message is not None and message.compressed and self._inflater is not None:
                self._inflater.forget(seen=False)
            self._left -= gap
            if not self._left:
                self._end_frame(header, time_ns, out)
            return
        self._lose(Mark.GAP, "frames are missing", time_ns, out)
        self._skipped += max(gap, 0)

    def _lose(self, mark: Mark, why: str, time_ns: int, out: list[Message]) -> None:
        """Forget the place; whatever was being gathered is given out as it is."""
        self._abandon(time_ns, out, mark, why)
        self._seeking = self._orphan = mark
        self._why = why
        self._edges.clear()
        if mark is not Mark.MALFORMED:
            self._skipped += len(self._pending)
            self._pending.clear()
        if self._inflater is not None:
            self._inflater.forget(seen=False)

    def _abandon(self, time_ns: int, out: list[Message], mark: Mark, why: str) -> None:
        for message in (self._message, self._control):
            if message is not None:
                message.say(mark, why)
                message.say(Mark.UNFINISHED)
                out.append(self._finished(message, time_ns))
        self._message = self._control = self._header = None

    def _seek(self, data: bytes, time_ns: int, out: list[Message], *, edge: bool) -> bytes:
        """Return the bytes from the first frame on, or nothing as long as there is none."""
        pending = self._pending
        if edge:
            self._edges.add(len(pending))
        pending += data
        at = find_frame(pending, masked=self._masked, edges=self._edges)
        if at < 0:
            if len(pending) > _SEEK_KEPT or len(self._edges) > _SEEK_EDGES:
                # Most frames end where a piece ends; one that does not is found with the next.
                self._skipped += len(pending)
                pending.clear()
                self._edges.clear()
            return b""
        self._skipped += at
        rest = bytes(pending[at:])
        pending.clear()
        self._edges.clear()
        if self._skipped:
            out.append(self._note(time_ns))
        self._seeking = None
        self._skipped = 0
        return rest

    def _step(self, data: bytes, at: int, end: int, time_ns: int, out: list[Message]) -> int:
        """Read one header or piece of payload, and return where the next one begins."""
        if self._header is None:
            pending = self._pending
            if not pending:
                header = read_header(data, at, end)
                if header is None:
                    pending += data[at:end]
                    return end
                at += header.size
            else:
                had = len(pending)
                pending += data[at : at + HEADER_SIZE - had]
                try:
                    header = read_header(pending, 0, len(pending))
                except ProtocolError:
                    del pending[had:]
                    raise
                if header is None:
                    return end
                at += header.size - had
                pending.clear()
            self._begin_frame(header, time_ns, out)
            if header.length:
                return at
        header = self._header
        if header is None:
            return at
        size = min(self._left, end - at)
        if size:
            self._payload(header, data if size == len(data) else data[at : at + size])
            self._left -= size
        if not self._left:
            self._end_frame(header, time_ns, out)
        return at + size

    def _begin_frame(self, header: FrameHeader, time_ns: int, out: list[Message]) -> None:
        self._header = header
        self._left = header.length
        opcode = header.opcode
        if opcode >= CLOSE:
            message = self._control = _Gathering(_KINDS[opcode], compressed=False)
        else:
            message = self._begin_data(header, time_ns, out)
            self._orphan = None
        message.fragments += 1
        if bool(header.key) != self._masked:
            message.say(Mark.MALFORMED, "masked" if header.key else "not masked")
        if not header.minimal:
            message.say(Mark.MALFORMED, "length longer than need be")

    def _begin_data(self, header: FrameHeader, time_ns: int, out: list[Message]) -> _Gathering:
        """Return the message that a data frame begins or goes on with."""
        message = self._message
        if header.opcode != CONTINUATION:
            if message is not None:
                message.say(Mark.MALFORMED, "a new message began within")
                message.say(Mark.UNFINISHED)
                out.append(self._finished(message, time_ns))
            compressed = header.compressed and self._inflater is not None
            message = self._message = _Gathering(_KINDS[header.opcode], compressed=compressed)
            if header.compressed and not compressed:
                message.say(Mark.MALFORMED, "compressed without agreement, shown as sent")
        elif message is None:
            message = self._message = _Gathering("unknown", compressed=False)
            message.say(self._orphan or Mark.MALFORMED, "continues a message that was not seen")
            if self._inflater is not None:
                # Whether it is compressed was said in its first frame.
                message.say(Mark.UNDECODED)
                self._inflater.forget(seen=False)
        elif header.compressed:
            message.say(Mark.MALFORMED, "compression announced within")
        return message

    def _payload(self, header: FrameHeader, data: bytes) -> None:
        message = self._control if header.opcode >= CLOSE else self._message
        if message is None:
            return
        message.size += len(data)
        if message.stopped or (len(message.data) >= self._limit and not message.compressed):
            if not message.compressed:
                message.decoded += len(data)
            return
        key = header.key
        if key:
            turn = (header.length - self._left) & 3
            data = unmask(data, key[turn:] + key[:turn])
        if message.compressed:
            self._inflate(message, data)
        else:
            message.keep(data, self._limit)

    def _inflate(self, message: _Gathering, data: bytes) -> None:
        inflater = self._inflater
        if inflater is None:
            return
        allowed = max(EXPANSION_FLOOR, EXPANSION_RATIO * message.size) - message.decoded
        guessing = inflater.guessing
        try:
            pieces, whole = inflater.feed(data, allowed)
        except ProtocolError as error:
            message.say(Mark.MALFORMED, f"permessage-deflate: {error.fields['reason']}")
            message.stopped = True
            return
        for piece in pieces:
            if guessing and UNKNOWN in piece:
                message.say(Mark.JOINED_LATE, "refers to what was sent before")
            message.keep(piece, self._limit)
        if not whole:
            message.say(Mark.LIMITED, f"expands beyond {message.decoded} bytes")
            message.stopped = True

    def _end_frame(self, header: FrameHeader, time_ns: int, out: list[Message]) -> None:
        self._header = None
        message: _Gathering | None
        if header.opcode >= CLOSE:
            message, self._control = self._control, None
        elif header.fin:
            message, self._message = self._message, None
            if message is not None and message.compressed and not message.stopped:
                self._inflate(message, FLUSH)
            if message is not None and message.compressed and self._inflater is not None:
                self._inflater.end_message()
        else:
            return
        if message is not None:
            out.append(self._finished(message, time_ns))

    def _finished(self, message: _Gathering, time_ns: int) -> WebSocketMessage:
        data = bytes(message.data)
        cut = len(data) < message.decoded
        code = 0
        if message.kind == "close" and data:
            if len(data) == 1:
                message.say(Mark.MALFORMED, "half a close code")
            else:
                code = int.from_bytes(data[:2], "big")
                data = data[2:]
        if message.kind in {"text", "close"} and _NOT_ALL.isdisjoint(message.marks):
            try:
                data.decode()
            except UnicodeDecodeError as error:
                # A cut may go through a character, which then is no fault of the sender's.
                if not cut or len(data) - error.start > 3:
                    message.say(Mark.MALFORMED, "not valid UTF-8")
        direction, stream, exchange = self._who
        return WebSocketMessage(
            direction,
            time_ns,
            stream,
            exchange,
            message.kind,
            data,
            message.size,
            message.decoded,
            message.fragments,
            message.compressed,
            code,
            message.marks,
            message.problem,
        )


class WebSocketConnection:
    """Both directions of a connection after its handshake; arguments as for the parser."""

    def __init__(
        self,
        *,
        deflate: Deflate | None = None,
        joined_late: bool = False,
        message_limit: int = MESSAGE_LIMIT,
        stream: int = 0,
        exchange: int = 0,
    ) -> None:
        self._parsers = tuple(
            WebSocketParser(
                direction,
                deflate=deflate,
                joined_late=joined_late,
                message_limit=message_limit,
                stream=stream,
                exchange=exchange,
            )
            for direction in Direction
        )

    def feed(self, direction: Direction, data: bytes, time_ns: int, gap: int = 0) -> list[Message]:
        """Take the next bytes of one direction and return the messages that they complete."""
        return self._parsers[direction].feed(data, time_ns, gap=gap)

    def end(self, time_ns: int) -> list[Message]:
        """Say that the connection or the capture ended."""
        return [message for parser in self._parsers for message in parser.end(time_ns)]
