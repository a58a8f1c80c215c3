# SPDX-License-Identifier: Apache-2.0
"""One direction of HTTP/1, as a state machine fed with pieces of any size.

Strategy: a head is cut out of the piece it came in where it came whole, else out of a queue that
never rescans; content is handed on as slices of the pieces, never gathered.

Rules:

1. A parser is always in one ``State``. What it cannot follow ends the message at hand (marked) and
   leads to SEEKING, where ``http1_seek`` looks for the next start line; what was passed over is
   told by a ``Note`` before the next head. After several losses within one piece, the rest of that
   piece is passed over, so that no input costs more than a few looks at it.
2. Joined late is a first piece that is no head; nothing else is special about it.
3. A gap within content of known length is a hole in it. Any other leads to SEEKING.
4. Content that was announced may never come: to HEAD requests which were not seen, and after
   ``Expect`` was answered by a final status. If a whole start line stands in its place, that is
   believed instead.
5. What a client sends behind a request for another protocol need not be HTTP any more (AHEAD). It
   waits for the answer, and is read as HTTP if that does not switch.

Invariants: only ProtocolError is raised within and none leaves ``feed`` and ``end``; what is kept
is a head of at most ``max_head`` bytes and the state of the codings, or what the seeker keeps.
"""

from __future__ import annotations

import re
from enum import IntEnum

from ecapture.errors import ProtocolError

from .buffer import ByteQueue
from .http1_delivery import Delivery, joined
from .http1_head import (
    MAX_LENGTH,
    Ends,
    Framing,
    Parsed,
    frame_request,
    frame_response,
    parse_head,
    parse_trailers,
    refuse,
    refuse_partial,
)
from .http1_pairing import Exchange, Pairing
from .http1_seek import Seeker, begins_later, starts_here
from .messages import Direction, Head, Mark, Message, MessageComplete, Note, Switched

MAX_HEAD = 1 << 17
"""The longest head or trailer section, unless told otherwise: 128 KiB."""
MAX_FIELDS = 512
"""How many fields of a message are shown, unless told otherwise."""
_MAX_LOSSES = 8
_MAX_CHUNK_LINE = 4096
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r\n]{0,4000})?(\r?)\n")
_CHUNK_BEGUN = re.compile(rb"[0-9A-Fa-f]{1,16}(?:[ \t]*\r?\Z|[ \t]*;[^\n]*\Z)")
_CR, _LF = 0x0D, 0x0A
_SWITCHING = 101
_EVENT_STREAM = "text/event-stream"
_JUDGED_WHOLE = 8192


class State(IntEnum):
    """Where a parser is."""

    HEAD = 0
    LENGTH = 1
    CHUNK_SIZE = 2
    CHUNK_CONTENT = 3
    CHUNK_END = 4
    TRAILERS = 5
    UNTIL_CLOSE = 6
    SEEKING = 7
    SWITCHED = 8
    AHEAD = 9


_STATES = {
    Ends.BY_LENGTH: State.LENGTH,
    Ends.BY_CHUNKS: State.CHUNK_SIZE,
    Ends.BY_CLOSE: State.UNTIL_CLOSE,
}
_CONTENT = {State.LENGTH, State.CHUNK_CONTENT, State.UNTIL_CLOSE}


class Http1Parser:
    """One direction. ``Http1Connection`` is what to use; this is where it reads."""

    def __init__(
        self,
        direction: Direction,
        pairing: Pairing,
        *,
        body_limit: int,
        max_head: int,
        max_fields: int,
    ) -> None:
        self._direction = direction
        self._request = direction is Direction.TO_SERVER
        self._pairing = pairing
        self._body_limit = body_limit
        self._max_head = max_head
        self._max_fields = max_fields
        self.state = State.HEAD
        self._time = 0
        self._queue = ByteQueue()
        self._rest: bytes | None = None
        self._judged = 0
        self._seeker = Seeker(request=self._request)
        self._seeking = Mark.JOINED_LATE
        self._why = "the beginning was not captured"
        self._untold = False
        self._ever = False
        self._number = 0
        self._exchange: Exchange | None = None
        self._delivery: Delivery | None = None
        self._left = 0
        self._cr = False

    @property
    def between(self) -> bool:
        """Whether the next byte begins a message."""
        return self.state == State.HEAD and not self._queue

    def feed(self, data: bytes, time_ns: int, out: list[Message], gap: int = 0) -> bytes:
        """Read ``data``; return what of it belongs to the protocol that was switched to."""
        self._time = time_ns
        if gap:
            self._gap(gap, out)
        if self._delivery is not None:
            self._delivery.time_ns = time_ns
        if self.state == State.AHEAD and not self._may_switch:
            self.state, self._judged = State.HEAD, 0
            data = self._queue.take(len(self._queue)) + data
        at = losses = 0
        end = len(data)
        while at < end:
            if self.state == State.SWITCHED:
                return data[at:]
            if self.state == State.SEEKING:
                data = self._seek(data[at:], out)
                at, end = 0, len(data)
                continue
            try:
                at = self._step(data, at, end, out)
            except ProtocolError as error:
                data = self._recover(error, data[at:], out)
                at, end = 0, len(data)
                losses += 1
                if losses > _MAX_LOSSES:
                    self._seeker.skipped += end
                    break
        if self._delivery is not None:
            self._delivery.flush(out)
        return b""

    def _step(self, data: bytes, at: int, end: int, out: list[Message]) -> int:
        """Read one thing at ``at``, and return where the next begins."""
        state = self.state
        if state == State.HEAD:
            return self._read_head(data, at, end, out)
        if state in _CONTENT:
            return self._read_content(data, at, end, out)
        if state == State.CHUNK_SIZE:
            return self._read_chunk_size(data, at, end)
        if state == State.CHUNK_END:
            return self._read_chunk_end(data, at)
        if state == State.AHEAD:
            return self._read_ahead(data, at, end)
        return self._read_trailers(data, at, end, out)

    def _recover(self, error: ProtocolError, data: bytes, out: list[Message]) -> bytes:
        """Give up the message at hand; return what is to be read from there on."""
        mark = error.fields["mark"]
        self._lose(Mark(str(mark)), str(error.fields["reason"]), out)
        rest, self._rest = self._rest, None
        return data if rest is None else rest

    def _read_head(self, data: bytes, at: int, end: int, out: list[Message]) -> int:
        queue = self._queue
        had = len(queue)
        if not had:
            # Empty lines may precede a start line (RFC 9112, 2.2).
            while (data[at] == _CR or data[at] == _LF) and not self._may_switch:
                at += 1
                if at == end:
                    return end
            stop = data.find(b"\n\r\n", at)
            bare = data.find(b"\n\n", at, stop + 1 if stop >= 0 else end)
            stop = bare + 2 if bare >= 0 else stop + 3
            if 2 < stop <= at + self._max_head:
                self._begin(data[at:stop], data, stop, out)
                return stop
        queue.feed(data[at:] if at else data)
        stop = queue.find(b"\n\r\n", b"\n\n")
        if stop >= 0:
            stop += 2 if queue.peek(1, stop + 1) == b"\n" else 3
        if (stop if stop >= 0 else len(queue)) > self._max_head:
            self._oversized(out)
        if stop < 0:
            self._judge()
            return end
        raw = queue.take(stop)
        at += stop - had
        queue.clear()
        self._judged = 0
        self._begin(raw, data, at, out)
        return at

    def _judge(self) -> None:
        """Refuse what is in the queue early, if it cannot become a head."""
        queue = self._queue
        if self._judged == _JUDGED_WHOLE:
            return
        raw = queue.peek(_JUDGED_WHOLE)
        self._judged = len(raw)
        try:
            refuse_partial(raw, request=self._request)
        except ProtocolError:
            if self._may_switch:
                self.state = State.AHEAD
                return
            self._rest = queue.take(len(queue))[1:]
            self._seeker.skipped += 1
            raise

    @property
    def _may_switch(self) -> bool:
        """Whether the answer that is awaited may switch to another protocol (rule 5)."""
        exchange = self._exchange
        if exchange is None or not self._request or exchange.answered:
            return False
        return bool(exchange.upgrade) or exchange.method == "CONNECT"

    def _read_ahead(self, data: bytes, at: int, end: int) -> int:
        queue = self._queue
        queue.feed(data[at:])
        if len(queue) > self._max_head:
            self._rest = queue.take(len(queue))
            problem = f"more than {self._max_head} bytes came before the answer to a switch"
            raise refuse(problem, Mark.LIMITED)
        return end

    def _oversized(self, out: list[Message]) -> None:
        """Show as much of a head as is allowed, and give its message up. Raises ProtocolError."""
        raw = self._queue.take(self._max_head)
        self._rest = self._queue.take(len(self._queue))
        self._judged = 0
        problem = f"a head of more than {self._max_head} bytes"
        try:
            head = parse_head(raw, request=self._request, max_fields=self._max_fields)
        except ProtocolError:
            self._seeker.skipped += len(raw)
            raise refuse(problem, Mark.LIMITED) from None
        self._announce(head, len(raw), (Mark.LIMITED,), problem, out)
        self._complete(out, Mark.LIMITED, problem=problem)
        raise refuse(problem, Mark.LIMITED)

    def _begin(self, raw: bytes, data: bytes, stop: int, out: list[Message]) -> None:
        """Take a whole head; ``stop`` is where ``data`` goes on behind it."""
        try:
            head = parse_head(raw, request=self._request, max_fields=self._max_fields)
            if not self._ever and self._request and begins_later(raw, head.method, head.target):
                raise refuse("content stands before the request line")
        except ProtocolError:
            if self._may_switch:
                self.state = State.AHEAD
                self._queue.feed(raw)
                return
            self._rest = raw[1:] + data[stop:]
            self._seeker.skipped += 1
            raise
        framing = self._announce(head, len(raw), (), "", out)
        if framing is None:
            return
        ends = framing.ends
        if ends == Ends.AT_ONCE:
            self._complete(out)
            self._switch(head)
            return
        if ends == Ends.UNKNOWN:
            self._complete(out, *framing.marks, problem=framing.problem)
            self._lost(framing.marks[0], framing.problem)
            return
        self._left = framing.length
        self.state = _STATES[ends]
        kind = "" if self._request else head.first("content-type")
        self._delivery = Delivery(
            self._direction,
            self._number,
            framing,
            body_limit=self._body_limit,
            event_stream=kind.lower().startswith(_EVENT_STREAM),
        )
        self._delivery.time_ns = self._time

    def _announce(
        self, head: Parsed, size: int, marks: tuple[Mark, ...], problem: str, out: list[Message]
    ) -> Framing | None:
        """Give out a head and return where its content ends; None if another head answers too."""
        self._ever = True
        informational = 100 <= head.status < 200 and head.status != _SWITCHING
        if self._request:
            exchange = self._pairing.ask(head.method)
            exchange.upgrade = head.first("upgrade")
            exchange.expect = bool(head.first("expect"))
            framing = frame_request(head)
        else:
            exchange = self._pairing.answer(final=not informational)
            framing = frame_response(head, exchange.method)
        self._exchange = exchange
        self._number = exchange.number
        out.append(
            Head(
                self._direction,
                self._time,
                0,
                exchange.number,
                "request" if self._request else "response",
                head.method,
                head.target,
                head.status,
                head.reason,
                head.version,
                head.fields,
                "",
                "",
                size,
                joined(head.marks, framing.marks, marks),
                head.problem or framing.problem or problem,
            )
        )
        return None if informational else framing

    def _switch(self, head: Parsed) -> None:
        """Note the end of HTTP, if this response is that."""
        exchange = self._exchange
        if self._request or exchange is None:
            return
        protocol = ""
        if head.status == _SWITCHING:
            named = head.first("upgrade") or exchange.upgrade
            protocol = named.partition(",")[0].strip().lower() or "unknown"
        elif exchange.method == "CONNECT" and 200 <= head.status < 300:
            protocol = "tunnel"
        if protocol:
            self._pairing.switch = Switched(
                self._direction, self._time, 0, exchange.number, protocol
            )
            # One list, on however many lines it stands (RFC 6455, 9.1).
            extensions = head.wanted.get("sec-websocket-extensions", ())
            self._pairing.extensions = ",".join(extensions)
            self.state = State.SWITCHED

    def switch(self, out: list[Message]) -> bytes:
        """Read no more, and return what was waiting for the rest of its head."""
        if self._delivery is not None:
            self._complete(out, Mark.UNFINISHED)
        elif self.state == State.SEEKING:
            self._seeker.forget()
            self._tell(out)
        self.state = State.SWITCHED
        return self._queue.take(len(self._queue))

    def _read_content(self, data: bytes, at: int, end: int, out: list[Message]) -> int:
        delivery = self._delivery
        if delivery is None:
            return end
        doubtful = not delivery.begun and self._doubtful
        if doubtful and starts_here(data, at, request=self._request):
            problem = "the content that was announced did not come"
            self._complete(out, Mark.UNFINISHED, problem=problem)
            return at
        if self.state == State.UNTIL_CLOSE:
            delivery.take(data, at, end)
            return end
        stop = min(end, at + self._left)
        delivery.take(data, at, stop)
        self._left -= stop - at
        if not self._left:
            self._end_of_length(out)
        return stop

    @property
    def _doubtful(self) -> bool:
        """Whether the content may not come (rule 4)."""
        exchange = self._exchange
        if exchange is None or self.state == State.CHUNK_CONTENT:
            return False
        return exchange.expect and exchange.answered if self._request else not exchange.method

    def _end_of_length(self, out: list[Message]) -> None:
        if self.state == State.LENGTH:
            self._complete(out)
        else:
            self.state = State.CHUNK_END

    def _read_chunk_end(self, data: bytes, at: int) -> int:
        byte = data[at]
        if byte == _CR and not self._cr:
            if data.startswith(b"\r\n", at):
                self.state = State.CHUNK_SIZE
                return at + 2
            self._cr = True
            return at + 1
        if byte != _LF:
            raise refuse("a chunk is longer than was said")
        if not self._cr:
            self._doubt("a chunk ends in LF alone")
        self._cr = False
        self.state = State.CHUNK_SIZE
        return at + 1

    def _read_chunk_size(self, data: bytes, at: int, end: int) -> int:
        queue = self._queue
        match = None
        if not queue:
            at, match = self._read_whole_chunks(data, at, end)
        if match is not None:
            stop = match.end()
        elif at == end:
            return end
        else:
            stop = data.find(b"\n", at) + 1 or end
            queue.feed(data[at:stop])
            line = queue.peek(_MAX_CHUNK_LINE)
            match = _CHUNK.fullmatch(line)
            if match is None:
                if len(line) == _MAX_CHUNK_LINE or _CHUNK_BEGUN.match(line) is None:
                    self._rest = queue.take(len(queue)) + data[stop:]
                    raise refuse("not a chunk size")
                return stop
            queue.clear()
        self._left = int(match[1], 16)
        if self._left > MAX_LENGTH:
            self._rest = data[stop:]
            raise refuse(f"a chunk of {self._left} bytes", Mark.LIMITED)
        if not match[2]:
            self._doubt("a chunk size ends in LF alone")
        self.state = State.CHUNK_CONTENT if self._left else State.TRAILERS
        return stop

    def _read_whole_chunks(
        self, data: bytes, at: int, end: int
    ) -> tuple[int, re.Match[bytes] | None]:
        """Take the chunks that are here as a whole, and return where they end and what is there.

        Some servers write a chunk per line; this keeps the cost of one near a microsecond.
        """
        delivery = self._delivery
        match = _CHUNK.match(data, at)
        while match is not None and delivery is not None:
            begin = match.end()
            stop = begin + int(match[1], 16)
            if stop == begin or stop > end or not match[2] or not data.startswith(b"\r\n", stop):
                break
            delivery.take(data, begin, stop)
            at = stop + 2
            match = _CHUNK.match(data, at)
        return at, match

    def _doubt(self, problem: str) -> None:
        if self._delivery is not None:
            self._delivery.doubt(problem)

    def _read_trailers(self, data: bytes, at: int, end: int, out: list[Message]) -> int:
        queue = self._queue
        had = len(queue)
        if not had and data.startswith(b"\r\n", at):
            self._complete(out)
            return at + 2
        queue.feed(data[at:])
        if queue.peek(1) == b"\n":
            stop = 1
        elif queue.peek(2) == b"\r\n":
            stop = 2
        else:
            stop = queue.find(b"\n\r\n", b"\n\n")
            if stop >= 0:
                stop += 2 if queue.peek(1, stop + 1) == b"\n" else 3
        if (stop if stop >= 0 else len(queue)) > self._max_head:
            self._rest = queue.take(len(queue))
            raise refuse("trailers too long", Mark.LIMITED)
        if stop < 0:
            return end
        raw = queue.take(stop)
        queue.clear()
        at += stop - had
        if stop > 2:
            self._rest = data[at:]
            fields, marks = parse_trailers(raw, self._max_fields)
            self._rest = None
            if self._delivery is not None:
                self._delivery.trailers = fields
                self._delivery.marks = joined(self._delivery.marks, marks)
        self._complete(out)
        return at

    def _complete(self, out: list[Message], *marks: Mark, problem: str = "") -> None:
        """End the message at hand, and be ready for the next."""
        self.state = State.HEAD
        delivery = self._delivery
        if delivery is None:
            who, now, number = self._direction, self._time, self._number
            out.append(MessageComplete(who, now, 0, number, marks=marks, problem=problem))
            return
        delivery.time_ns = self._time
        delivery.finish(out, marks, problem)
        self._delivery = None
        self._left = 0
        self._cr = False

    def _gap(self, gap: int, out: list[Message]) -> None:
        """Account for ``gap`` bytes that are missing, or an unknown number of them (-1)."""
        state = self.state
        delivery = self._delivery
        counted = state in {State.LENGTH, State.CHUNK_CONTENT} and 0 < gap <= self._left
        if delivery is not None and (counted or state == State.UNTIL_CLOSE):
            delivery.time_ns = self._time
            delivery.gap(max(gap, 0), out)
            if counted:
                self._left -= gap
                if not self._left:
                    self._end_of_length(out)
        elif state != State.SWITCHED:
            self._lose(Mark.GAP, "bytes are missing", out)
            self._seeker.skipped += max(gap, 0)

    def _lose(self, mark: Mark, why: str, out: list[Message]) -> None:
        """Give up the message at hand, and seek the next."""
        if self._delivery is not None:
            self._complete(out, mark, Mark.UNFINISHED, problem=why)
        if not self._ever and mark is Mark.MALFORMED:
            mark, why = Mark.JOINED_LATE, "the beginning was not captured"
        self._lost(mark, why)

    def _lost(self, mark: Mark, why: str) -> None:
        self._seeker.forget()
        self._seeker.skipped += self._queue.clear()
        self._judged = 0
        self._seeking = mark
        self._untold = mark is Mark.GAP
        self._why = why
        self.state = State.SEEKING
        if not self._request and mark is not Mark.JOINED_LATE:
            self._pairing.lose(missing=mark is Mark.GAP)

    def _seek(self, data: bytes, out: list[Message]) -> bytes:
        """Return the bytes from the next start line on, or none."""
        found = self._seeker.feed(data)
        if found is None:
            return b""
        self._tell(out)
        self.state = State.HEAD
        return found

    def _tell(self, out: list[Message]) -> None:
        """Say what was passed over."""
        skipped = self._seeker.skipped
        if skipped or self._untold:
            out.append(Note(self._direction, self._time, 0, 0, self._seeking, self._why, skipped))
        self._seeker.skipped = 0
        self._untold = False

    def end(self, time_ns: int, out: list[Message], *, cut: bool) -> None:
        """Take the end of the stream, or of the capture if ``cut``."""
        self._time = time_ns
        state = self.state
        if state == State.SEEKING:
            self._seeker.forget()
            self._tell(out)
        elif state in (State.HEAD, State.AHEAD):
            self._end_head(out)
        elif state == State.UNTIL_CLOSE and not cut:
            self._complete(out)
        elif state != State.SWITCHED:
            self._queue.clear()
            self._complete(out, Mark.UNFINISHED)

    def _end_head(self, out: list[Message]) -> None:
        """Show what there is of a head whose end did not come."""
        queue = self._queue
        raw = queue.take(len(queue))
        if not raw:
            return
        whole = raw[: raw.rfind(b"\n") + 1]
        problem = "the head is not complete"
        if self.state == State.AHEAD:
            problem = "these came before the answer to a switch"
        try:
            head = parse_head(whole, request=self._request, max_fields=self._max_fields)
        except ProtocolError:
            who = self._direction
            out.append(Note(who, self._time, 0, 0, Mark.UNFINISHED, problem, len(raw)))
            return
        self._announce(head, len(raw), (Mark.UNFINISHED,), problem, out)
        self._complete(out, Mark.UNFINISHED, problem=problem)
