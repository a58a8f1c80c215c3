# SPDX-License-Identifier: Apache-2.0
"""HTTP/2 for somebody who only listens (RFC 9113), joined late or not.

``Http2Connection`` is fed the octets of both directions and returns messages: per request and
response a ``Head``, its content, and a ``MessageComplete``, all with the number of their stream.
Frames are found by ``http2_frames``, header blocks read by ``http2_blocks``, content is the matter
of ``http2_streams``. What is done here is the rest:

1. Which direction the client speaks in is told by the preface, by ``:method`` and ``:status``, by
   PUSH_PROMISE, or by whoever makes the connection. Until then it is guessed; messages that were
   begun under a wrong guess end when that is known, and go on in their own direction.
2. A half of a stream is nothing, begun (its head was given out), or done. Both halves done, or
   RST_STREAM, end the stream; frames that arrive later for it are of no interest.
3. Whatever is seen of a stream whose beginning was not is shown under an empty head, with the mark
   that says why. The first field that cannot be decoded is announced by a ``Note``, ``joined late:
   header table unknown``, once per connection; after a gap, once per gap.
4. After CONNECT was answered with 2xx, both messages are at an end, ``Switched`` tells what
   follows. WebSocket (RFC 8441) is read here; the octets of anything else are ``Opaque``.
5. After an upgrade to h2c the request of stream 1 was sent as HTTP/1.1 (RFC 7540, 3.2).
6. The listener may hear an answer before its question: who writes is heard when the call returns,
   and another thread may have read the answer by then. If the client was heard from the beginning
   and without a gap, a stream that begins with an answer waits for its question.
7. Flow control, priorities, PING and SETTINGS change nothing that is shown. The size of the header
   table is told by the header blocks themselves.

Nothing is raised. Bounds: ``header_limit`` octets of a header block and as many decoded;
``stream_limit`` open streams, of which the oldest gives way; the limits of ``ContentLimits``. Time
is linear in what is fed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from .http2_blocks import TABLE_UNKNOWN, BlockReader, FieldBlock
from .http2_frames import END_STREAM, PREFACE, Frame, FrameReader, Kind
from .http2_streams import ContentLimits, Half, Readers, Stream
from .messages import Direction, Head, Mark, Message, Note, Switched
from .websocket import WebSocketConnection
from .websocket_deflate import Deflate

ERROR_NAMES: Final = (
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
)
"""Error codes by number (RFC 9113, 7)."""

_REMEMBERED: Final = 256
"""How many ended streams are remembered, so that stragglers are known for what they are."""

_DATA: Final = int(Kind.DATA)
_HEADERS: Final = int(Kind.HEADERS)
_CONTINUATION: Final = int(Kind.CONTINUATION)
_BLOCK_KINDS: Final = (_HEADERS, _CONTINUATION, int(Kind.PUSH_PROMISE))


def error_name(code: int) -> str:
    """Return what an error code of RST_STREAM or GOAWAY is called."""
    return ERROR_NAMES[code] if code < len(ERROR_NAMES) else f"error {code:#x}"


class Http2Connection:
    """Both directions of one connection.

    ``client`` is the direction in which the client speaks, if that is known (0 for what the
    observed process read, 1 for what it wrote). ``upgraded`` says that HTTP/1.1 came before.
    """

    def __init__(
        self,
        *,
        client: int | None = None,
        upgraded: bool = False,
        header_limit: int = 1 << 18,
        stream_limit: int = 2000,
        content: ContentLimits | None = None,
    ) -> None:
        self._frames = tuple(FrameReader(payload_limit=header_limit) for _ in range(2))
        self._blocks = tuple(BlockReader(header_limit) for _ in range(2))
        self._known = client is not None
        self._client = 1 if client is None else client
        self._upgraded = upgraded
        self._stream_limit = stream_limit
        self._readers = Readers(content or ContentLimits())
        self._streams: dict[int, Stream] = {}
        self._ended: dict[int, None] = {}  # as a set that knows its order
        self._heard = [False, False]  # which directions were from their first octet
        self._said = False  # whether the table of a late joiner was announced
        self._out: list[Message] = []  # what the current call returns
        self._now = 0  # and its time

    @property
    def client(self) -> int | None:
        """The direction in which the client speaks, or None where that is not known."""
        return self._client if self._known else None

    @property
    def open_streams(self) -> int:
        """How many streams are being followed."""
        return len(self._streams)

    def follows(self, stream: int) -> bool:
        """Tell whether more is expected of a stream."""
        return stream in self._streams

    def feed(self, direction: int, data: bytes, time_ns: int, gap: int = 0) -> list[Message]:
        """Read on and return what is complete thereby.

        ``gap`` octets of that direction are missing before ``data``; negative where their number
        is not known.
        """
        out = self._out = []
        self._now = time_ns
        blocks = self._blocks[direction]
        for frame in self._frames[direction].feed(data, gap):
            kind = frame.kind
            if blocks.within and 0 <= kind != _CONTINUATION:  # RFC 9113, 6.10
                blocks.break_off(Mark.MALFORMED, "the header block was broken off")
            if kind == _DATA:
                self._data(direction, frame)
            elif kind in _BLOCK_KINDS:
                block = blocks.feed(frame)
                if block is not None:
                    self._block(direction, block)
            else:
                _REST[kind](self, direction, frame)
            if blocks.remarks:
                self._pass_on(direction)
        return out

    def end(self, time_ns: int) -> list[Message]:
        """End the connection: what has begun is given out as unfinished."""
        out = self._out = []
        self._now = time_ns
        for direction, blocks in enumerate(self._blocks):
            blocks.break_off(Mark.UNFINISHED, "the header block has no end")
            self._pass_on(direction)
            if passed := self._frames[direction].end():
                mark = blocks.missed or Mark.MALFORMED
                self._note(direction, 0, mark, "passed over, no frame was found", passed)
            if left := self._frames[direction].unfinished:
                self._note(direction, 0, Mark.UNFINISHED, "the frame has no end", left)
        for number in tuple(self._streams):
            self._drop(number, Mark.UNFINISHED, "")
        return out

    # Who speaks, and what is to be said of it.

    def _speaker(self, direction: int) -> Direction:
        return Direction.TO_SERVER if direction == self._client else Direction.TO_CLIENT

    def _learn(self, client: int) -> None:
        self._known = True
        if client != self._client:
            # What was given out under the wrong guess ends there and goes on as what it is.
            for number in tuple(self._streams):
                self._drop(number, Mark.JOINED_LATE, "taken for the other direction up to here")
            self._ended.clear()
            self._client = client

    def _note(self, direction: int, number: int, mark: Mark, detail: str, size: int = 0) -> None:
        speaker = self._speaker(direction)
        self._out.append(Note(speaker, self._now, number, 0, mark, detail, size))

    def _pass_on(self, direction: int) -> None:
        remarks = self._blocks[direction].remarks
        for number, mark, detail, size in remarks:
            if detail is TABLE_UNKNOWN and mark is Mark.JOINED_LATE:
                if self._said:
                    continue
                self._said = True
            self._note(direction, number, mark, detail, size)
        remarks.clear()

    # What befalls the reader of the frames.

    def _opened(self, direction: int, frame: Frame) -> None:
        self._heard[direction] = True
        if frame.payload == PREFACE:
            self._learn(direction)

    def _joined(self, direction: int, _frame: Frame) -> None:
        self._blocks[direction].miss(Mark.JOINED_LATE)

    def _lost(self, direction: int, frame: Frame) -> None:
        mark = Mark.MALFORMED if frame.payload else Mark.GAP
        self._blocks[direction].miss(mark)
        detail = frame.payload.decode("latin-1") or "frames may be missing"
        self._note(direction, 0, mark, detail, frame.length)
        speaker = self._speaker(direction)
        for number, stream in self._streams.items():
            stream.halves[direction].doubt(mark, speaker, self._now, number, self._out)

    def _found(self, direction: int, frame: Frame) -> None:
        if frame.length:
            mark = self._blocks[direction].missed or Mark.MALFORMED
            self._note(direction, 0, mark, "passed over until the next frame", frame.length)

    def _hole(self, direction: int, frame: Frame) -> None:
        blocks = self._blocks[direction]
        blocks.missed = blocks.missed or Mark.GAP
        half = self._half(direction, frame.stream)
        if half is not None:
            speaker = self._speaker(direction)
            half.miss(frame.length, speaker, self._now, frame.stream, self._out)

    # Frames.

    def _data(self, direction: int, frame: Frame) -> None:
        number = frame.stream
        half = self._half(direction, number)
        if half is None:
            if frame.payload and number in self._streams:
                detail = "DATA after the end of the message"
                self._note(direction, number, Mark.MALFORMED, detail, len(frame.payload))
            return
        if frame.payload:
            half.feed(frame.payload, self._speaker(direction), self._now, number, self._out)
        if frame.flags & END_STREAM and frame.whole:
            self._end_half(direction, number)

    def _reset(self, direction: int, frame: Frame) -> None:
        number = frame.stream
        stream = self._streams.get(number)
        if stream is None:
            return
        who = "client" if direction == self._client else "server"
        code = error_name(int.from_bytes(frame.payload, "big")) if frame.whole else "?"
        problem = f"RST_STREAM {code} from the {who}"
        if stream.tunnel or not stream.halves[1 - self._client].begun:
            self._note(direction, number, Mark.ABANDONED, problem)
        self._drop(number, Mark.ABANDONED, problem)

    def _go_away(self, direction: int, frame: Frame) -> None:
        payload = frame.payload
        if len(payload) < 8:  # what tells of it is missing
            self._note(direction, 0, Mark.ABANDONED, "GOAWAY ?")
            return
        last = int.from_bytes(payload[:4], "big") & 0x7FFFFFFF
        detail = f"GOAWAY {error_name(int.from_bytes(payload[4:8], 'big'))}, last stream {last}"
        if debug := payload[8:].decode("utf-8", "backslashreplace"):
            detail += f", {debug!r}"
        self._note(direction, 0, Mark.ABANDONED, detail)

    # Streams.

    def _open(self, number: int, *, late: bool) -> Stream:
        if len(self._streams) >= self._stream_limit:
            oldest = next(iter(self._streams))
            self._drop(oldest, Mark.LIMITED, "too many streams are open")
            del self._ended[oldest]  # it may go on, and is shown again then
        stream = self._streams[number] = Stream(self._readers, late=late)
        if self._upgraded and number == 1:
            stream.halves[self._client].done = True
        return stream

    def _half(self, direction: int, number: int) -> Half | None:
        """Return the half that content belongs to; None if it is over."""
        stream = self._streams.get(number)
        if stream is None:
            if number in self._ended:
                return None
            stream = self._open(number, late=True)
        half = stream.halves[direction]
        if half.done:
            return half if half.tunnel else None
        if not half.begun:
            self._begin_late(direction, number, stream)
        return half

    def _begin_late(self, direction: int, number: int, stream: Stream) -> None:
        # An empty head stands for the one that nobody saw.
        block = FieldBlock(number, last=False, promised=0, size=0)
        missed = self._blocks[direction].missed or self._blocks[1 - direction].missed
        block.marks = (missed or Mark.MALFORMED,)
        head = block.head(self._speaker(direction), self._now, number)
        self._out.append(head)
        stream.halves[direction].begin_late(head, grpc=stream.grpc)

    def _end_half(self, direction: int, number: int) -> None:
        stream = self._streams[number]
        half, other = stream.halves[direction], stream.halves[1 - direction]
        half.end(self._speaker(direction), self._now, number, self._out)
        if half.tunnel:
            half.tunnel = False
            if other.tunnel:
                return
        unseen = stream.late and direction != self._client and not other.begun
        if other.done or unseen:
            self._forget(number)

    def _drop(self, number: int, mark: Mark, problem: str) -> None:
        # Both halves end here, whatever is missing of them.
        for direction, half in enumerate(self._streams[number].halves):
            if half.begun and not half.done:
                half.say(mark, problem)
                half.end(self._speaker(direction), self._now, number, self._out)
        self._forget(number)

    def _forget(self, number: int) -> None:
        stream = self._streams.pop(number)
        websocket = stream.halves[0].websocket
        if websocket is not None:
            self._out += websocket.end(self._now)
        self._ended[number] = None
        if len(self._ended) > _REMEMBERED:
            del self._ended[next(iter(self._ended))]

    # Header blocks.

    def _block(self, direction: int, block: FieldBlock) -> None:
        if not self._known:
            if block.status or block.promised:
                self._learn(1 - direction)
            elif block.method:
                self._learn(direction)
        if self._blocks[direction].remarks:
            self._pass_on(direction)
        if block.promised:
            self._promise(direction, block)
            return
        number = block.stream
        stream = self._streams.get(number)
        if stream is None:
            if number in self._ended:
                return
            stream = self._open(number, late=self._is_late(direction, block))
        half = stream.halves[direction]
        if half.done or half.begun or (stream.late and block.last and not block.pseudo):
            self._trailers(direction, stream, block)
        else:
            self._begin(direction, stream, block)
        if block.last:
            self._end_half(direction, number)

    def _is_late(self, direction: int, block: FieldBlock) -> bool:
        """Tell whether a stream that begins with ``block`` began before it."""
        if direction != self._client:
            client = self._client
            heard = self._heard[client] and self._blocks[client].missed is None
            return not heard and not (self._upgraded and block.stream == 1)
        return not block.method and self._blocks[direction].missed is not None

    def _begin(self, direction: int, stream: Stream, block: FieldBlock) -> None:
        half = stream.halves[direction]
        head = block.head(self._speaker(direction), self._now, block.stream)
        if not head.informational:
            half.begin(head)
        if stream.tunnel or head.method == "CONNECT":
            self._connect(half, stream, head, block)
        else:
            self._out.append(head)

    def _connect(self, half: Half, stream: Stream, head: Head, block: FieldBlock) -> None:
        # A request for a tunnel, or its answer.
        request = stream.halves[self._client]
        now, number = head.time_ns, head.stream
        if head.kind == "request":
            stream.tunnel = block.protocol or "tunnel"
            half.tunnel = True
            self._out.append(head)
        elif 200 <= head.status < 300:
            request.end(Direction.TO_SERVER, now, number, self._out)
            self._out.append(head)
            half.end(Direction.TO_CLIENT, now, number, self._out)
            half.tunnel = True
            self._out.append(Switched(head.direction, now, number, protocol=stream.tunnel))
            if stream.tunnel == "websocket":
                # One list, in however many fields it stands (RFC 6455, 9.1).
                named = [v for name, v in head.fields if name == "sec-websocket-extensions"]
                deflate = Deflate.agreed(",".join(named))
                half.websocket = request.websocket = WebSocketConnection(
                    deflate=deflate, message_limit=self._readers.limits.message, stream=number
                )
        else:
            if not head.informational:
                request.tunnel = False
                stream.tunnel = ""
            self._out.append(head)

    def _trailers(self, direction: int, stream: Stream, block: FieldBlock) -> None:
        half = stream.halves[direction]
        if half.done:
            if not half.tunnel:
                detail = "HEADERS after the end of the message"
                self._note(direction, block.stream, Mark.MALFORMED, detail, block.size)
            return
        if not half.begun:
            self._begin_late(direction, block.stream, stream)
        half.trailers = tuple(block.plain)
        for mark in block.marks:
            half.say(mark, block.problem)
        if block.pseudo or not block.last:
            half.say(Mark.MALFORMED, "the trailers are not as they must be")

    def _promise(self, direction: int, block: FieldBlock) -> None:
        # A request that the server made up (RFC 9113, 8.4).
        number = block.promised
        if number in self._streams or number in self._ended:
            detail = f"stream {number} is promised, but was there"
            self._note(direction, block.stream, Mark.MALFORMED, detail, block.size)
            return
        block.marks = (Mark.PROMISED, *block.marks)
        head = block.head(Direction.TO_SERVER, self._now, number)
        self._out.append(head)
        half = self._open(number, late=False).halves[1 - direction]
        half.begin(head)
        half.end(Direction.TO_SERVER, self._now, number, self._out)


_REST: Final[dict[int, Callable[[Http2Connection, int, Frame], None]]] = {
    Kind.RST_STREAM: Http2Connection._reset,  # noqa: SLF001 - a part of the class, as a table
    Kind.GOAWAY: Http2Connection._go_away,  # noqa: SLF001
    Kind.OPENED: Http2Connection._opened,  # noqa: SLF001
    Kind.JOINED: Http2Connection._joined,  # noqa: SLF001
    Kind.LOST: Http2Connection._lost,  # noqa: SLF001
    Kind.FOUND: Http2Connection._found,  # noqa: SLF001
    Kind.HOLE: Http2Connection._hole,  # noqa: SLF001
}
