# SPDX-License-Identifier: Apache-2.0
"""From the frames of one direction to the fields of its messages (RFC 9113, 4.3 and 8.3).

``BlockReader`` puts a header block together from HEADERS or PUSH_PROMISE and CONTINUATION, decodes
it, and returns a ``FieldBlock``, which keeps the pseudo-header fields apart from the others.

1. Blocks change the table that later blocks are decoded with. One that is not decoded, for
   whatever reason, costs the table (``miss``), and the block itself comes without fields.
2. The first field that only the lost table could tell is remarked on once per loss.
3. What concerns the connection is put into ``remarks``, which the caller empties.

Bounds: a block is collected up to ``header_limit`` octets and ``_FRAMES`` frames; beyond that its
frames are passed over, however many there are. Nothing is raised.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from .header_block import HeaderBlock, HeaderDecoder
from .http2_frames import END_HEADERS, END_STREAM, PADDED, PRIORITY_FLAG, Frame, Kind
from .messages import Direction, Head, Mark

TABLE_UNKNOWN: Final = "header table unknown"
"""The remark that stands in place of names which cannot be told."""

_FRAMES: Final = 1000
_HEADERS: Final = int(Kind.HEADERS)
_PUSH_PROMISE: Final = int(Kind.PUSH_PROMISE)
_CONTINUATION: Final = int(Kind.CONTINUATION)


class Remark(NamedTuple):
    """Something to be said: of which stream (0: the connection), why, and of how many octets."""

    stream: int
    mark: Mark
    detail: str
    size: int = 0


class FieldBlock:
    """The fields of one header block."""

    __slots__ = (
        "authority",
        "last",
        "marks",
        "method",
        "path",
        "plain",
        "problem",
        "promised",
        "protocol",
        "pseudo",
        "scheme",
        "size",
        "status",
        "stream",
    )

    def __init__(self, stream: int, *, last: bool, promised: int, size: int) -> None:
        self.stream = stream
        self.last = last
        """Whether its sender sends nothing more on the stream."""
        self.promised = promised
        """The stream that it promises an answer on, or 0."""
        self.size = size
        self.marks: tuple[Mark, ...] = ()
        self.problem = ""
        self.method = self.path = self.scheme = self.authority = self.protocol = ""
        self.status = 0
        self.plain: list[tuple[str, str]] = []
        """All fields but the pseudo-header fields that have a place of their own."""
        self.pseudo = 0
        """How many pseudo-header fields there are."""

    def take(self, fields: list[tuple[str, str]]) -> None:
        """Sort ``fields`` into those that have a place of their own and the others."""
        plain = self.plain = [field for field in fields if field[0][:1] != ":"]
        self.pseudo = len(fields) - len(plain)
        if not self.pseudo:
            return
        for field in fields:
            name, value = field
            if name[:1] != ":":
                continue
            if name == ":method":
                self.method = value
            elif name == ":path":
                self.path = value
            elif name == ":scheme":
                self.scheme = value
            elif name == ":authority":
                self.authority = value
            elif name == ":status":
                self.status = int(value) if _is_status(value) else 0
            else:
                self.protocol = value if name == ":protocol" else self.protocol
                plain.append(field)

    def head(self, speaker: Direction, time_ns: int, stream: int) -> Head:
        """Return the head that these fields are."""
        return Head(
            speaker,
            time_ns,
            stream,
            kind="request" if speaker is Direction.TO_SERVER else "response",
            method=self.method,
            target=self.path,
            status=self.status,
            version="2",
            fields=tuple(self.plain),
            authority=self.authority,
            scheme=self.scheme,
            size=self.size,
            marks=self.marks,
            problem=self.problem,
        )


def _is_status(value: str) -> bool:
    return len(value) == 3 and value.isascii() and value.isdigit()


class BlockReader:
    """The header blocks of one direction."""

    __slots__ = (
        "_collected",
        "_decoder",
        "_flags",
        "_frames",
        "_header_limit",
        "_promised",
        "_said",
        "_stream",
        "_why",
        "missed",
        "remarks",
    )

    def __init__(self, header_limit: int) -> None:
        self._header_limit = header_limit
        self._decoder = HeaderDecoder(list_limit=header_limit)
        self._stream = 0  # of the block that is being collected; 0 for none
        self._promised = self._flags = self._frames = 0
        self._collected = bytearray()
        self._why: Mark | None = None  # why the block cannot be decoded
        self._said = False
        self.missed: Mark | None = None
        """Why blocks may be missing."""
        self.remarks: list[Remark] = []

    @property
    def within(self) -> int:
        """The stream of the block that has begun and not ended, or 0."""
        return self._stream

    def miss(self, mark: Mark) -> None:
        """Note that blocks are missing here."""
        self._decoder.forget()
        self._stream = 0
        self._collected.clear()
        self.missed = mark
        self._said = False

    def break_off(self, mark: Mark, detail: str) -> None:
        """Give up the block that has begun, if there is one."""
        if self._stream:
            self.remarks.append(Remark(self._stream, mark, detail, len(self._collected)))
            self.miss(mark)

    def feed(self, frame: Frame) -> FieldBlock | None:
        """Take a frame of a block; return the block if it is the last of it."""
        payload: bytes | None = frame.payload
        if frame.kind == _CONTINUATION:
            if frame.stream != self._stream:
                self.break_off(Mark.MALFORMED, "the header block was broken off")
                mark = self.missed or Mark.MALFORMED
                detail = "CONTINUATION of an unseen header block"
                self.remarks.append(Remark(frame.stream, mark, detail, frame.length))
                self.miss(mark)
                return None
        else:
            promised = 0
            if frame.whole and frame.flags & (PADDED | PRIORITY_FLAG):
                payload = _strip(frame)
            if frame.kind == _PUSH_PROMISE and payload is not None:
                promised = int.from_bytes(payload[:4], "big") & 0x7FFFFFFF
                payload = payload[4:] if promised else None
            if frame.whole and frame.flags & END_HEADERS and payload is not None:
                block = FieldBlock(
                    frame.stream,
                    last=bool(frame.flags & END_STREAM),
                    promised=promised,
                    size=len(payload),
                )
                return self._decode(block, payload)
            self._stream = frame.stream
            self._flags = frame.flags if frame.kind == _HEADERS else 0
            self._promised = promised
            self._frames = 0
            self._why = None
        self._collect(frame, payload)
        if not frame.flags & END_HEADERS:
            return None
        octets = bytes(self._collected)
        self._collected.clear()
        last = bool(self._flags & END_STREAM)
        block = FieldBlock(self._stream, last=last, promised=self._promised, size=len(octets))
        self._stream = 0
        if self._why is None:
            return self._decode(block, octets)
        self.miss(self._why)
        block.marks = (self._why,)
        return block

    def _collect(self, frame: Frame, payload: bytes | None) -> None:
        # Append one part, or find out why the block cannot be decoded.
        if self._why is not None:
            return
        self._frames += 1
        limit = self._header_limit
        size = len(self._collected) + frame.length
        if payload is None:
            self._why = Mark.MALFORMED
        elif self._frames > _FRAMES or size > limit:
            self._why = Mark.LIMITED
            detail = f"a header block of more than {limit} bytes or {_FRAMES} frames"
            self.remarks.append(Remark(self._stream, Mark.LIMITED, detail, size))
        elif not frame.whole:
            self._why = Mark.GAP
        else:
            self._collected += payload
            return
        self._collected.clear()

    def _decode(self, block: FieldBlock, octets: bytes) -> FieldBlock:
        decoded = self._decoder.decode(octets)
        block.take(decoded.fields)
        if decoded.unknown or decoded.limited or decoded.problem:
            self._remark(block, decoded)
        return block

    def _remark(self, block: FieldBlock, decoded: HeaderBlock) -> None:
        # What the block lacks, said once where it concerns the connection.
        marks: tuple[Mark, ...] = ()
        if decoded.unknown:
            # A table is incomplete because blocks were missed, or larger than what is kept of it.
            mark = self.missed or (Mark.MALFORMED if self._decoder.complete else Mark.LIMITED)
            marks += (mark,)
            if self.missed is not None and not self._said:
                self._said = True
                self.remarks.append(Remark(0, mark, TABLE_UNKNOWN))
        if decoded.problem:
            marks += () if Mark.MALFORMED in marks else (Mark.MALFORMED,)
            block.problem = decoded.problem
            if not self._decoder.complete:
                self.miss(self.missed or Mark.MALFORMED)
        if decoded.limited:
            marks += (Mark.LIMITED,)
        block.marks = marks


def _strip(frame: Frame) -> bytes | None:
    """Return the payload without padding and priority (RFC 9113, 6.2), or None if it is wrong."""
    payload = frame.payload
    start = 0
    end = len(payload)
    if frame.flags & PADDED:
        if not payload:
            return None
        start = 1
        end -= payload[0]
    if frame.flags & PRIORITY_FLAG and frame.kind == _HEADERS:
        start += 5
    return payload[start:end] if start <= end else None
