# SPDX-License-Identifier: Apache-2.0
"""WebSocket frames (RFC 6455) with permessage-deflate (RFC 7692) into messages.

``WebSocketParser`` reads one direction, ``WebSocketConnection`` both. Fragments are put together,
unmasked and inflated; control frames are messages of their own, also between fragments.

wsproto's frame decoder was considered: it stops for good at the first violation, must have seen the
handshake, and inflates without a bound, so here it only serves as the judge in the tests.

Rules:

1. A header is *plausible* if its opcode is defined, RSV2 and RSV3 are clear, a control frame is
   whole and short, and the length is below ``_MAX_FRAME``. An implausible one means that the
   parser lost its place.
2. Other violations (mask on the wrong side, a length longer than need be, a continuation of
   nothing, invalid UTF-8) mark the message and are otherwise let pass: both peers may do so too.
3. To find a place again (joined late, gap, garbage) an offset is sought from which frames follow
   each other to the end of what is at hand, with the mask bit as the direction demands. One frame
   is enough where a piece began, two are needed elsewhere, and none may pass ``_SEEK_FRAME``.
4. The history of a compressor that was not seen is replaced by SUB characters (0x1A): what refers
   to it becomes these, the message is marked joined late, and the rest is exact.

Invariants: only ProtocolError is raised within and none leaves; at most ``message_limit`` bytes of
a message, one control frame, one header and, while seeking, ``_SEEK_KEPT`` bytes are kept, and
32 KiB of history with one piece where a compressor is followed.
"""

from __future__ import annotations

import re
import zlib
from collections import deque
from typing import Any, Literal, NamedTuple

from ecapture.errors import ProtocolError

from .body import EXPANSION_FLOOR, EXPANSION_RATIO
from .messages import Direction, Mark, Message, Note, WebSocketMessage

MESSAGE_LIMIT = 1 << 20
"""How much of one message is kept, unless told otherwise: 1 MiB."""
_MAX_FRAME = 1 << 40
"""The longest payload that is believed: 1 TiB. RFC 6455 permits 2**63 - 1."""
_SEEK_FRAME = 1 << 20
_SEEK_KEPT = 1 << 16
_HISTORY = 1 << 15
"""The largest window of RFC 7692."""
_PIECE = 1 << 16
_FLUSH = b"\x00\x00\xff\xff"
"""What the sender leaves out at the end of each message (RFC 7692, 7.2.1)."""
_UNKNOWN = b"\x1a" * _HISTORY

_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10
_KINDS: dict[int, Literal["text", "binary", "close", "ping", "pong"]] = {
    _TEXT: "text",
    _BINARY: "binary",
    _CLOSE: "close",
    _PING: "ping",
    _PONG: "pong",
}
_FIRST_BYTE = re.compile(rb"[\x00-\x02\x40-\x42\x80-\x82\x88-\x8a\xc0-\xc2]")
_XOR = tuple(bytes(value ^ key for value in range(256)) for key in range(256))
_SHORT = 1024


class Deflate(NamedTuple):
    """What was agreed on: whether each side's compressor starts anew with every message."""

    client_no_context_takeover: bool = False
    server_no_context_takeover: bool = False

    @classmethod
    def agreed(cls, extensions: str) -> Deflate | None:
        """Read the Sec-WebSocket-Extensions of the answer; None if it has no permessage-deflate."""
        for extension in extensions.split(","):
            name, *parameters = (word.strip().lower() for word in extension.split(";"))
            if name == "permessage-deflate":
                return cls(
                    "client_no_context_takeover" in parameters,
                    "server_no_context_takeover" in parameters,
                )
        return None


class _Header(NamedTuple):
    size: int
    fin: bool
    compressed: bool
    opcode: int
    masked: bool
    length: int
    key: bytes
    minimal: bool


def unmask(data: bytes, key: bytes) -> bytes:
    """Return ``data`` with the four bytes of ``key`` taken off in turn (RFC 6455, 5.3)."""
    size = len(data)
    if size <= _SHORT:
        # One subtraction in the hardware's words beats any loop for what is short.
        pad = (key * (size // 4 + 1))[:size]
        return (int.from_bytes(data, "little") ^ int.from_bytes(pad, "little")).to_bytes(
            size, "little"
        )
    plain = bytearray(size)
    for lane in range(4):
        plain[lane::4] = data[lane::4].translate(_XOR[key[lane]])
    return bytes(plain)


def _read_header(data: bytes | bytearray, at: int, end: int) -> _Header | None:
    """Read the frame header at ``at``; None if it is not complete. Raises ProtocolError (rule 1)."""
    if end - at < 2:
        return None
    first, second = data[at], data[at + 1]
    opcode = first & 0x0F
    length = second & 0x7F
    fin = first > 0x7F
    if first & 0x30 or (opcode not in _KINDS and opcode != _CONTINUATION):
        raise _refuse(at, f"frame of kind {opcode} with reserved bits {first >> 4 & 7:03b}")
    if opcode >= _CLOSE and (not fin or length > 125 or first & 0x40):
        raise _refuse(at, "control frame that is long, compressed or in fragments")
    size = 2
    minimal = True
    if length >= 126:
        size = 4 if length == 126 else 10
        if end - at < size:
            return None
        short = length == 126
        length = int.from_bytes(data[at + 2 : at + size], "big")
        minimal = length > (125 if short else 0xFFFF)
        if length > _MAX_FRAME:
            raise _refuse(at, f"frame of {length} bytes")
    key = b""
    if second & 0x80:
        if end - at < size + 4:
            return None
        key = bytes(data[at + size : at + size + 4])
        size += 4
    compressed = bool(first & 0x40)
    return _Header(size, fin, compressed, opcode, bool(key), length, key, minimal)


def _refuse(offset: int, reason: str) -> ProtocolError:
    return ProtocolError(protocol="websocket", offset=offset, reason=reason)


def find_frame(data: bytes | bytearray, *, masked: bool, edges: frozenset[int]) -> int:
    """Return the first offset from which frames follow each other to the end, or -1 (rule 3).

    ``edges`` are the offsets where pieces began: there one frame is proof enough.
    """
    end = len(data)
    for match in _FIRST_BYTE.finditer(data):
        start = at = match.start()
        frames = 0
        try:
            while at < end and frames < 8:
                header = _read_header(data, at, end)
                if header is None or header.masked != masked or header.length > _SEEK_FRAME:
                    break
                if not header.minimal:
                    break
                at += header.size + header.length
                frames += 1
        except ProtocolError:
            continue
        if frames == 8 or (at == end and frames >= (1 if start in edges else 2)):
            return start
    return -1


class _Inflater:
    """One direction's decompressor: bounded, and able to begin without its history."""

    def __init__(self, *, takeover: bool, seen: bool) -> None:
        self._takeover = takeover
        self._recent: deque[bytes] = deque()
        self._recent_size = 0
        self._inflate: Any = None
        self.guessing = False
        """Whether history is made up of SUB characters."""
        self.forget(seen=seen)

    def forget(self, *, seen: bool) -> None:
        """Begin anew, with an empty history that is ``seen`` to be so, or an unknown one."""
        self._recent.clear()
        self._recent_size = 0
        self.guessing = not seen
        self._inflate = zlib.decompressobj(-15) if seen else zlib.decompressobj(-15, _UNKNOWN)

    def end_message(self) -> None:
        """Start anew if that was agreed on."""
        if not self._takeover:
            self.forget(seen=True)

    def feed(self, data: bytes, bound: int) -> tuple[list[bytes], bool]:
        """Inflate, and return the pieces and whether that was all; more than ``bound`` is not.

        Raises ProtocolError.
        """
        pieces: list[bytes] = []
        size = 0
        try:
            while True:
                out = self._inflate.decompress(data, _PIECE)
                if out:
                    pieces.append(out)
                    size += len(out)
                    self._remember(out)
                data = self._inflate.unconsumed_tail
                if self._inflate.eof:
                    # A final block within a stream is allowed (RFC 7692, 7.2.3.4).
                    data = self._inflate.unused_data
                    history = b"".join(self._recent)[-_HISTORY:]
                    if self.guessing:
                        history = (_UNKNOWN + history)[-_HISTORY:]
                    self._inflate = zlib.decompressobj(-15, history)
                elif not data and len(out) < _PIECE:
                    return pieces, True
                if not data and self._inflate.eof:
                    return pieces, True
                if size > bound:
                    return pieces, False
        except zlib.error as error:
            reason = f"permessage-deflate: {str(error).rpartition(': ')[2]}"
            raise _refuse(0, reason) from None

    def _remember(self, out: bytes) -> None:
        if not self._takeover:
            return
        self._recent.append(out)
        self._recent_size += len(out)
        while self._recent_size - len(self._recent[0]) >= _HISTORY:
            self._recent_size -= len(self._recent.popleft())
            self.guessing = False


class _Gathering:
    """A message whose frames are coming in."""

    __slots__ = (
        "compressed",
        "decoded",
        "fragments",
        "kept",
        "kind",
        "marks",
        "pieces",
        "problem",
        "size",
        "stopped",
    )

    def __init__(self, kind: Any, *, compressed: bool) -> None:
        self.kind = kind
        self.compressed = compressed
        self.pieces: list[bytes] = []
        self.kept = 0
        self.size = 0
        self.decoded = 0
        self.fragments = 0
        self.marks: tuple[Mark, ...] = ()
        self.problem = ""
        self.stopped = False

    def say(self, mark: Mark, problem: str = "") -> None:
        if mark not in self.marks:
            self.marks += (mark,)
        if not self.problem:
            self.problem = problem

    def keep(self, piece: bytes, limit: int) -> None:
        self.decoded += len(piece)
        room = limit - self.kept
        if room > 0:
            if len(piece) > room:
                piece = piece[:room]
            self.pieces.append(piece)
            self.kept += len(piece)


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
        self._inflater: _Inflater | None = None
        if deflate is not None or joined_late:
            agreed = deflate or Deflate()
            fresh = agreed[0] if direction is Direction.TO_SERVER else agreed[1]
            self._inflater = _Inflater(takeover=not fresh, seen=not joined_late)
        self._pending = bytearray()
        self._edges: set[int] = set()
        self._seeking: Mark | None = Mark.JOINED_LATE if joined_late else None
        self._skipped = 0
        self._why = ""
        self._orphan = self._seeking
        self._message: _Gathering | None = None
        self._control: _Gathering | None = None
        self._header: _Header | None = None
        self._left = 0
        self._offset = 0

    def feed(self, data: bytes, time_ns: int, *, gap: int = 0) -> list[Message]:
        """Take the next bytes, before which ``gap`` are missing (-1: some), and read messages."""
        out: list[Message] = []
        if gap:
            self._gap(gap, time_ns, out)
        if self._seeking is not None:
            data = self._seek(data, time_ns, out)
        at = 0
        end = len(data)
        while at < end:
            try:
                at = self._step(data, at, end, time_ns, out)
            except ProtocolError as error:
                self._offset += at
                self._lose(Mark.MALFORMED, str(error.fields["reason"]), time_ns, out)
                rest = bytes(self._pending) + data[at:]
                self._pending.clear()
                # The byte that was refused cannot be where frames begin.
                self._skipped = 1
                data = self._seek(rest[1:], time_ns, out)
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
        self._abandon(time_ns, out, Mark.UNFINISHED, "")
        return out

    def _note(self, time_ns: int) -> Note:
        direction, stream, exchange = self._who
        detail = self._why or "frames are sought"
        mark = self._seeking or Mark.MALFORMED
        return Note(direction, time_ns, stream, exchange, mark, detail, self._skipped)

    def _gap(self, gap: int, time_ns: int, out: list[Message]) -> None:
        header = self._header
        if header is not None and 0 < gap <= self._left and header.opcode < _CLOSE:
            message = self._message
            if message is not None:
                message.say(Mark.GAP, f"{gap} bytes missing")
                message.size += gap
                if not message.compressed:
                    message.decoded += gap
                message.stopped = message.compressed
            if self._inflater is not None:
                self._inflater.forget(seen=False)
            self._left -= gap
            if not self._left:
                self._end_frame(header, time_ns, out)
            return
        self._lose(Mark.GAP, "frames are missing", time_ns, out)
        self._skipped = max(gap, 0)

    def _lose(self, mark: Mark, why: str, time_ns: int, out: list[Message]) -> None:
        """Forget the place; whatever was being gathered is given out as it is."""
        self._abandon(time_ns, out, mark, why)
        self._seeking = self._orphan = mark
        self._why = why
        self._skipped = 0
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

    def _seek(self, data: bytes, time_ns: int, out: list[Message]) -> bytes:
        """Return the bytes from the first frame on, or nothing as long as there is none."""
        pending = self._pending
        self._edges.add(len(pending))
        pending += data
        at = find_frame(pending, masked=self._masked, edges=frozenset(self._edges))
        if at < 0:
            spare = len(pending) - _SEEK_KEPT
            if spare > 0 or len(self._edges) > 64:
                # A cheap bound in place of a clever one: what a frame needs to be found is that
                # it ends where a piece ends, and most do.
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
                header = _read_header(data, at, end)
                if header is None:
                    pending += data[at:end]
                    return end
                at += header.size
            else:
                had = len(pending)
                pending += data[at : at + 14 - had]
                try:
                    header = _read_header(pending, 0, len(pending))
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

    def _begin_frame(self, header: _Header, time_ns: int, out: list[Message]) -> None:
        self._header = header
        self._left = header.length
        opcode = header.opcode
        message: _Gathering
        if opcode >= _CLOSE:
            message = self._control = _Gathering(_KINDS[opcode], compressed=False)
        elif opcode != _CONTINUATION:
            if self._message is not None:
                self._message.say(Mark.MALFORMED, "a new message began within")
                self._message.say(Mark.UNFINISHED)
                out.append(self._finished(self._message, time_ns))
            message = self._message = _Gathering(_KINDS[opcode], compressed=header.compressed)
            if header.compressed and self._inflater is None:
                message.compressed = False
                message.say(Mark.MALFORMED, "compressed without agreement, shown as sent")
        elif self._message is None:
            message = self._message = _Gathering("unknown", compressed=False)
            message.say(self._orphan or Mark.MALFORMED, "continues a message that was not seen")
            if self._inflater is not None:
                # Whether it is compressed was said in its first frame.
                message.say(Mark.UNDECODED)
                self._inflater.forget(seen=False)
        else:
            message = self._message
            if header.compressed:
                message.say(Mark.MALFORMED, "compression announced within")
        if opcode < _CLOSE:
            self._orphan = None
        message.fragments += 1
        if header.masked != self._masked:
            message.say(Mark.MALFORMED, "masked" if header.masked else "not masked")
        if not header.minimal:
            message.say(Mark.MALFORMED, "length longer than need be")

    def _payload(self, header: _Header, data: bytes) -> None:
        message = self._control if header.opcode >= _CLOSE else self._message
        if message is None:
            return
        message.size += len(data)
        if message.stopped or (message.kept >= self._limit and not message.compressed):
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
            message.say(Mark.MALFORMED, str(error.fields["reason"]))
            message.stopped = True
            inflater.forget(seen=False)
            return
        for piece in pieces:
            if guessing and b"\x1a" in piece:
                message.say(Mark.JOINED_LATE, "refers to what was sent before")
            message.keep(piece, self._limit)
        if not whole:
            message.say(Mark.LIMITED, f"expands beyond {message.decoded} bytes")
            message.stopped = True
            inflater.forget(seen=False)

    def _end_frame(self, header: _Header, time_ns: int, out: list[Message]) -> None:
        self._header = None
        message: _Gathering | None
        if header.opcode >= _CLOSE:
            message, self._control = self._control, None
        elif header.fin:
            message, self._message = self._message, None
            if message is not None and message.compressed and not message.stopped:
                self._inflate(message, _FLUSH)
            if message is not None and message.compressed and self._inflater is not None:
                self._inflater.end_message()
        else:
            return
        if message is not None:
            out.append(self._finished(message, time_ns))

    def _finished(self, message: _Gathering, time_ns: int) -> WebSocketMessage:
        pieces = message.pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        code = 0
        if message.kind == "close" and data:
            if len(data) == 1:
                message.say(Mark.MALFORMED, "half a close code")
            else:
                code = int.from_bytes(data[:2], "big")
                data = data[2:]
        if message.kind in {"text", "close"}:
            try:
                data.decode()
            except UnicodeDecodeError as error:
                # A cut may go through a character, which then is no fault of the sender's.
                if message.kept == message.decoded or len(data) - error.start > 3:
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
