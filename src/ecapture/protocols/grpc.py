# SPDX-License-Identifier: Apache-2.0
"""gRPC on HTTP/2: what a call is named, how it ended, and its messages (gRPC, PROTOCOL-HTTP2.md).

Each message is prefixed by five octets, a compressed flag and a length, and knows nothing of the
DATA frames around it. ``MessageSplitter`` takes the content of one direction of a stream as it
comes and gives a ``GrpcMessage`` out whenever one is whole.

1. What is kept of a message is bounded by ``message_limit``; the rest is counted. A message may
   announce 4 GiB and costs nothing until its octets come, and no more than the limit then.
2. A compressed message is undone by the coding that ``grpc-encoding`` names (gzip, deflate, zstd,
   br), in the same limits as any content; each message begins anew.
3. A stream that was joined late, or where octets are missing beyond the end of a message, is read
   again from the first piece of content that consists of whole messages: programs write a message
   from the start of a DATA frame. What is passed over is counted in ``passed``.
4. Where frames may be missing, of this stream or of another, messages go on and are marked, until
   one ends where a piece of content does. A piece of whole messages ends what was begun before.

gRPC-Web is not split: its last message is of another kind, and it may be in base64.
"""

from __future__ import annotations

from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from .body import ContentReader, codings_of
from .messages import Direction, Fields, GrpcMessage, Mark

MESSAGE_LIMIT: Final = 1 << 20
"""How much of one message is kept, unless told otherwise: 1 MiB."""

STATUS_NAMES: Final = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
"""Status codes by number (gRPC, statuscodes.md)."""

_PREFIX: Final = 5
_COMPRESSED: Final = 1


class Status(NamedTuple):
    """How a call ended."""

    code: int
    name: str
    message: str


def is_grpc(content_type: str) -> bool:
    """Tell whether content of this type is a sequence of gRPC messages."""
    kind = content_type.lower()
    return kind.startswith("application/grpc") and kind[16:17] in ("", "+", ";", " ")


def method_of(target: str) -> tuple[str, str]:
    """Split ``/package.Service/Method`` into service and method; the service may be empty."""
    service, _, method = target.strip("/").rpartition("/")
    return service, method


def status_of(fields: Fields) -> Status | None:
    """Return the status among trailers (or the only header fields of a response), if there is one.

    A code that is no number is ``-1``. The message is percent-decoded UTF-8.
    """
    found = dict(reversed(fields))
    text = found.get("grpc-status")
    if text is None:
        return None
    code = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1
    name = STATUS_NAMES[code] if 0 <= code < len(STATUS_NAMES) else f"code {text[:16]}"
    message = unquote_to_bytes(found.get("grpc-message", "").encode("latin-1"))
    return Status(code, name, message.decode("utf-8", "replace"))


def whole_messages(piece: bytes) -> bool:
    """Tell whether ``piece`` is a sequence of whole messages and nothing else."""
    at = 0
    end = len(piece)
    while end - at >= _PREFIX and piece[at] <= _COMPRESSED:
        at += _PREFIX + int.from_bytes(piece[at + 1 : at + _PREFIX], "big")
        if at == end:
            return True
    return False


class MessageSplitter:
    """The messages of one direction of one stream."""

    __slots__ = (
        "_data",
        "_direction",
        "_doubt",
        "_encoding",
        "_flag",
        "_left",
        "_lost",
        "_marks",
        "_message_limit",
        "_number",
        "_prefix",
        "_reader",
        "_size",
        "_stream",
        "decoded_size",
        "kept",
        "passed",
        "size",
    )

    def __init__(
        self,
        direction: Direction,
        stream: int,
        *,
        encoding: str = "",
        message_limit: int = MESSAGE_LIMIT,
        joined_late: bool = False,
    ) -> None:
        """Begin a direction whose ``grpc-encoding`` is ``encoding``, empty where none was sent."""
        self._direction = direction
        self._stream = stream
        self._encoding = codings_of((encoding,))
        self._message_limit = message_limit
        self._lost = joined_late
        self._doubt: Mark | None = None  # why octets may be missing
        self._prefix = b""
        self._left = -1  # octets of the message to come; -1 before its prefix is whole
        self._size = 0
        self._flag = 0
        self._number = 0
        self._marks: tuple[Mark, ...] = ()
        self._data: bytes | bytearray = b""
        self._reader: ContentReader | None = None
        self.size = 0
        """Octets of content so far, prefixes included, with those known to be missing."""
        self.decoded_size = 0
        """Octets of the messages so far, after their codings."""
        self.kept = 0
        """Octets that the messages given out carried."""
        self.passed = 0
        """Octets that could not be told to belong to any message."""

    @property
    def within(self) -> bool:
        """Whether a message has begun and not ended."""
        return self._left >= 0 or bool(self._prefix)

    def feed(self, piece: bytes, time_ns: int) -> list[GrpcMessage]:
        """Take the next content and return the messages that it completes."""
        messages: list[GrpcMessage] = []
        self.size += len(piece)
        if self._lost or self._doubt is not None:
            messages += self._recover(piece, time_ns)
            if self._lost:
                self.passed += len(piece)
                return messages
        at = 0
        end = len(piece)
        while at < end:
            if self._left < 0:
                part = piece[at : at + _PREFIX - len(self._prefix)]
                at += len(part)
                prefix = self._prefix + part
                if len(prefix) < _PREFIX:
                    self._prefix = prefix
                    break
                if not self._begin(prefix):
                    self.passed += _PREFIX + end - at
                    break
            here = min(self._left, end - at)
            if here:
                self._take(piece[at : at + here])
                at += here
                self._left -= here
            if not self._left:
                messages.append(self._end(time_ns))
        if not self.within:
            self._doubt = None
        return messages

    def _recover(self, piece: bytes, time_ns: int) -> list[GrpcMessage]:
        # A piece of whole messages is where the next one begins.
        if not whole_messages(piece):
            return []
        messages = self.gap(0, time_ns)
        self._lost = False
        self._doubt = None
        return messages

    def doubt(self, mark: Mark) -> None:
        """Note that octets may be missing here, and why."""
        self._doubt = mark

    def gap(self, size: int, time_ns: int) -> list[GrpcMessage]:
        """Note ``size`` missing octets, and return the messages that are at an end thereby."""
        self.size += size
        if self._lost:
            return []
        if 0 < size <= self._left:
            self._left -= size
            if Mark.GAP not in self._marks:
                self._marks += (Mark.GAP,)
            if self._reader is not None:
                self._reader.gap(size)
            return [] if self._left else [self._end(time_ns)]
        messages = [self._end(time_ns, Mark.GAP)] if self._left >= 0 else []
        self.passed += len(self._prefix)
        self._prefix = b""
        self._lost = True
        return messages

    def end(self, time_ns: int) -> list[GrpcMessage]:
        """End the direction: a message that has begun is given out as unfinished."""
        if self._left < 0:
            self.passed += len(self._prefix)
            self._prefix = b""
            return []
        return [self._end(time_ns, Mark.UNFINISHED)]

    def _begin(self, prefix: bytes) -> bool:
        self._prefix = b""
        if prefix[0] > _COMPRESSED:  # no other flag is defined, so this is no prefix
            self._lost = True
            return False
        self._flag = prefix[0]
        self._left = self._size = int.from_bytes(prefix[1:], "big")
        if self._flag == _COMPRESSED and self._encoding:
            self._reader = ContentReader(self._encoding, body_limit=self._message_limit)
        elif self._size > self._message_limit:
            self._reader = ContentReader(body_limit=self._message_limit)
        return True

    def _take(self, part: bytes) -> None:
        if self._reader is not None:
            part = self._reader.feed(part)
        if not self._data:
            self._data = part  # nearly every message is one piece
        elif part:
            if isinstance(self._data, bytes):
                self._data = bytearray(self._data)
            self._data += part

    def _end(self, time_ns: int, mark: Mark | None = None) -> GrpcMessage:
        marks = self._marks
        problem = ""
        reader = self._reader
        data = bytes(self._data)
        arrived = self._size - self._left
        decoded_size = arrived
        if reader is not None:
            if self._left:
                reader.close()
            else:
                reader.finish()
            marks += tuple(each for each in reader.marks if each not in marks)
            problem = reader.problem
            decoded_size = reader.decoded_size
        if mark is not None and mark not in marks:
            marks += (mark,)
            problem = problem or f"{arrived} of {self._size} bytes"
        if self._doubt is not None and self._doubt not in marks:
            marks += (self._doubt,)
            problem = problem or "frames may be missing"
        if self._flag == _COMPRESSED and not self._encoding:
            marks += (Mark.UNDECODED,)
            problem = problem or "no coding was named, shown as sent"
        message = GrpcMessage(
            self._direction,
            time_ns,
            self._stream,
            number=self._number,
            data=data,
            size=self._size,
            decoded_size=decoded_size,
            compressed=self._flag == _COMPRESSED,
            marks=marks,
            problem=problem,
        )
        self._number += 1
        self.decoded_size += decoded_size
        self.kept += len(data)
        self._left = -1
        self._data = b""
        self._marks = ()
        self._reader = None
        return message
