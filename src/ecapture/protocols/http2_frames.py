# SPDX-License-Identifier: Apache-2.0
"""Where HTTP/2 frames begin and end in one direction of a connection (RFC 9113, 4 and 6).

``FrameReader`` is fed what was captured and returns the frames that a listener needs: DATA in
pieces as they come, so that no frame is ever collected for its content; HEADERS, PUSH_PROMISE and
CONTINUATION whole, up to a limit; the first octets of RST_STREAM and GOAWAY. All others are
checked and passed over. The nine octets of a frame header are read here rather than by the
``hyperframe`` library, which wants whole frames and builds an object for each.

1. A direction begins with the connection preface or with SETTINGS. If it begins otherwise, the
   capture joined late (``Kind.JOINED``) and the reader hunts for a frame.
2. Hunting accepts the first offset from which plausible frames end exactly where the captured
   octets end, since programs write whole frames; if there is none, the first from which three
   frame headers in a row are plausible, or two at the very beginning. Plausible means: a type of
   RFC 9113 with the flags, length and kind of stream that it allows.
3. Missing bytes (``gap``) that lie within one payload cost only that payload, because its length
   is known. Other gaps, and frames that break the rules, are ``Kind.LOST``: header blocks may be
   among what is missing, and the reader hunts again.
4. After ``_LOSSES`` losses within one piece, the rest of that piece is passed over.
5. Memory is bounded by ``payload_limit`` and by ``_HUNTED``; time is linear in what is fed.
"""

from __future__ import annotations

import re
from enum import IntEnum
from struct import Struct
from typing import Final, NamedTuple

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # RFC 9113, 3.4

END_STREAM: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITY_FLAG: Final = 0x20
ACK: Final = 0x1

_HEADER: Final = Struct(">BHBBL")
_HEADER_SIZE: Final = 9
_HUNTED: Final = 1 << 17
"""How much is looked back on while hunting: twice the longest frame that is hunted for."""
_CANDIDATES: Final = 64
_LOSSES: Final = 8
_EXACT: Final = 1000
_WRONG: Final = -1
_ENOUGH: Final = 100
"""As many frame headers in a row need no further look."""
_EXTENSION_LIMIT: Final = 1 << 14
"""Frames of unknown types are passed over (RFC 9113, 4.1) up to the least maximum size."""
_NOTHING: Final = -1


class Kind(IntEnum):
    """What a ``Frame`` is: types of RFC 9113, 6, and what befell the reader (negative)."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9
    OPENED = -2
    """The direction was seen from its first octet; the payload is the preface, or nothing."""
    JOINED = -3
    """The direction was not seen from its first octet."""
    LOST = -4
    """Frames may be missing: ``length`` octets are; the payload is the reason, or nothing."""
    FOUND = -5
    """Frames are read again; ``length`` captured octets were passed over."""
    HOLE = -6
    """``length`` octets of the content of DATA are missing."""


class Frame(NamedTuple):
    """A frame, a piece of DATA, or something that befell the reader.

    ``length`` is what the frame header says, padding included. ``whole`` is false where the
    payload is not all there; for DATA it tells that more of the frame is to come.
    """

    kind: int
    flags: int
    stream: int
    length: int
    payload: bytes
    whole: bool


# Per type: least and greatest length, and whether the stream must be (0) zero or (1) not, or (2)
# may be both. The sections of RFC 9113 are 6.1 to 6.10, in this order.
_ANY: Final = (1 << 24) - 1
_RULES: Final = (
    (0, _ANY, 1),
    (0, _ANY, 1),
    (5, 5, 1),
    (4, 4, 1),
    (0, _ANY, 0),
    (4, _ANY, 1),
    (8, 8, 0),
    (8, _ANY, 0),
    (4, 4, 2),
    (0, _ANY, 1),
)
# How many octets of the payload are kept; DATA is handed on instead.
_KEPT_START: Final = {int(Kind.RST_STREAM): 4, int(Kind.GOAWAY): 256}
_BLOCK_KINDS: Final = frozenset((int(Kind.HEADERS), int(Kind.PUSH_PROMISE), int(Kind.CONTINUATION)))

_STREAM: Final = rb"\0(?!\0{3})[\s\S]{3}"
_PLAUSIBLE: Final = re.compile(
    rb"\0(?!\0\0(?:\0[\0\x08]|\x01))(?:[\s\S]{2}"
    rb"(?:\0[\0\1\x08\x09]"
    rb"|\x01[\0\1\4\5\x08\x09\x0c\x0d !$%(),-]"
    rb"|\x05[\0\4\x08\x0c]"
    rb"|\x09[\0\4])" + _STREAM + rb"|\0(?:\x05\x02|\x04\x03|\x04\x08)\0" + _STREAM + rb"|\0(?:"
    rb"[\0\6\x0c\x12\x18\x1e\x24\x2a\x30\x36\x3c\x42\x48]\x04\0"
    rb"|\0\x04\x01"
    rb"|\x08\x06[\0\1]"
    rb"|\x04\x08\0)\0{4}"
    rb"|[\0\1][\s\S]\x07\0\0{4})"
)
"""A frame header that may well be one. Not hunted for are frames of 64 KiB and more, streams beyond
2**24, and frames without any effect: zeros are common in payloads."""


def problem_of(kind: int, length: int, flags: int, stream: int) -> str:
    """Return what is wrong with a frame header, or an empty text."""
    if kind > Kind.CONTINUATION:
        return "" if length <= _EXTENSION_LIMIT else f"a frame of type {kind}, length {length}"
    least, greatest, where = _RULES[kind]
    if not least <= length <= greatest:
        return f"{Kind(kind).name} of length {length}"
    if where not in (2, stream != 0):
        return f"{Kind(kind).name} on stream {stream}"
    if kind == Kind.SETTINGS and length % 6 + length * (flags & ACK):
        return f"SETTINGS of length {length}"
    return ""


def begins_with_frames(piece: bytes) -> bool | None:
    """Tell whether ``piece`` begins with frames, as rule 2 has it; None while that is open."""
    count = _count_frames(piece, 0)
    if count == _WRONG:
        return False
    return True if count == _EXACT or count > 1 else None


class FrameReader:
    """The frames of one direction."""

    __slots__ = (
        "_candidates",
        "_content",
        "_flags",
        "_hunting",
        "_kept",
        "_kind",
        "_left",
        "_length",
        "_pad_first",
        "_passed",
        "_payload",
        "_payload_limit",
        "_pending",
        "_scanned",
        "_started",
        "_stream",
        "_whole",
    )

    def __init__(self, *, payload_limit: int = 1 << 18) -> None:
        """Keep at most ``payload_limit`` octets of a frame that has to be whole."""
        self._payload_limit = payload_limit
        self._pending = bytearray()  # an unfinished frame header, or what is hunted through
        self._payload = bytearray()
        self._started = False
        self._hunting = False
        self._candidates: list[int] = []
        self._scanned = 0
        self._passed = 0
        self._kind = _NOTHING
        self._flags = self._stream = self._length = 0
        self._left = 0  # octets of the payload to come
        self._content = 0  # those of them that are content of DATA, not padding
        self._pad_first = False  # whether the next octet is the length of the padding
        self._kept = 0  # how much of the payload is wanted
        self._whole = True

    @property
    def hunting(self) -> bool:
        """Whether it is unknown where the next frame begins."""
        return self._hunting

    @property
    def unfinished(self) -> int:
        """How many octets have come of a frame that nothing was given out of."""
        if self._hunting:
            return 0
        header = _HEADER_SIZE if self._kind in _BLOCK_KINDS else 0
        return len(self._pending) + header + len(self._payload)

    def feed(self, data: bytes, gap: int = 0) -> list[Frame]:
        """Read on. ``gap`` octets before ``data`` are missing, an unknown number where negative."""
        frames: list[Frame] = []
        if gap:
            self._miss(gap, frames)
        if not self._started:
            data = self._open(data, frames)
        if self._hunting:
            data = self._hunt(data, frames)
        at = losses = 0
        size = len(data)
        while at < size:
            if self._kind == _NOTHING:
                at = self._begin(data, at, frames)
                if self._hunting:
                    losses += 1
                    rest = data[at:]
                    if losses > _LOSSES:
                        self._passed += len(rest)
                        break
                    data = self._hunt(rest, frames)
                    at = 0
                    size = len(data)
            elif self._kind == Kind.DATA:
                at = self._read_data(data, at, frames)
            else:
                at = self._read_payload(data, at, frames)
        return frames

    def end(self) -> int:
        """End the direction; return how many octets were hunted through in vain."""
        if not self._hunting:
            return 0
        passed = self._passed + len(self._pending)
        self._pending.clear()
        self._passed = 0
        return passed

    def _open(self, data: bytes, frames: list[Frame]) -> bytes:
        # How does the direction begin? Returns what is to be read on.
        start = bytes(self._pending) + data
        preface = PREFACE.startswith(start[: len(PREFACE)])
        if len(start) < (len(PREFACE) if preface else _HEADER_SIZE):
            self._pending[:] = start
            return b""
        self._pending.clear()
        self._started = True
        if preface:
            frames.append(Frame(Kind.OPENED, 0, 0, 0, PREFACE, whole=True))
            return start[len(PREFACE) :]
        opened = start[3] == Kind.SETTINGS and not start[4] & ACK and _PLAUSIBLE.match(start)
        self._hunting = not opened
        frames.append(Frame(Kind.OPENED if opened else Kind.JOINED, 0, 0, 0, b"", whole=True))
        return start

    def _miss(self, gap: int, frames: list[Frame]) -> None:
        # Octets are missing: within one payload, or who knows where.
        if not self._started:
            self._started = True
            self._passed = len(self._pending)
            frames.append(Frame(Kind.JOINED, 0, 0, 0, b"", whole=True))
        elif not self._hunting and self._kind != _NOTHING and 0 < gap <= self._left:
            self._whole = False
            self._left -= gap
            if self._kind == Kind.DATA:
                # A pad length that is missing is taken for 0.
                hole = min(gap - self._pad_first, self._content)
                self._pad_first = False
                self._content -= hole
                if hole:  # and not only padding
                    frames.append(Frame(Kind.HOLE, 0, self._stream, hole, b"", whole=False))
                if not self._left:
                    self._end_data(b"", frames)
                return
            if self._kind == Kind.GOAWAY:  # of which the beginning counts
                self._kept = max(len(self._payload), 1)
            if not self._left:
                self._end_payload(frames)
            return
        else:
            frames.append(Frame(Kind.LOST, 0, 0, max(gap, 0), b"", whole=False))
        self._start_hunt(b"")

    def _begin(self, data: bytes, at: int, frames: list[Frame]) -> int:
        # Read a frame header, or the part of it that is there; return where it ends.
        pending = self._pending
        if pending or len(data) - at < _HEADER_SIZE:
            part = data[at : at + _HEADER_SIZE - len(pending)]
            pending += part
            at += len(part)
            if len(pending) < _HEADER_SIZE:
                return at
            header = bytes(pending)
            pending.clear()
        else:
            header = data[at : at + _HEADER_SIZE]
            at += _HEADER_SIZE
        high, low, kind, flags, stream = _HEADER.unpack(header)
        length = high << 16 | low
        stream &= 0x7FFFFFFF
        if problem := problem_of(kind, length, flags, stream):
            frames.append(Frame(Kind.LOST, 0, 0, 0, problem.encode(), whole=False))
            self._start_hunt(header)
            self._scanned = 1  # here it was not
            return at
        self._kind = kind
        self._flags = flags
        self._stream = stream
        self._length = self._left = length
        self._whole = True
        if kind == Kind.DATA:
            self._pad_first = bool(flags & PADDED and length)
            self._content = length - self._pad_first
            if not length:
                self._end_data(b"", frames)
        else:
            self._kept = self._payload_limit if kind in _BLOCK_KINDS else _KEPT_START.get(kind, 0)
            if not length:
                self._end_payload(frames)
        return at

    def _read_data(self, data: bytes, at: int, frames: list[Frame]) -> int:
        if self._pad_first:
            self._pad_first = False
            self._left -= 1
            self._content = max(self._left - data[at], 0)  # more padding than frame is an error
            at += 1
        here = min(len(data) - at, self._left)
        content = min(here, self._content)
        piece = data[at : at + content]
        self._left -= here
        self._content -= content
        if not self._left:
            self._end_data(piece, frames)
        elif content:
            stream = self._stream
            frames.append(Frame(0, self._flags, stream, self._length, piece, whole=False))
        return at + here

    def _end_data(self, piece: bytes, frames: list[Frame]) -> None:
        frames.append(Frame(0, self._flags, self._stream, self._length, piece, whole=True))
        self._kind = _NOTHING

    def _read_payload(self, data: bytes, at: int, frames: list[Frame]) -> int:
        here = min(len(data) - at, self._left)
        room = self._kept - len(self._payload)
        if room > 0:
            self._payload += data[at : at + min(here, room)]
        self._left -= here
        if not self._left:
            self._end_payload(frames)
        return at + here

    def _end_payload(self, frames: list[Frame]) -> None:
        if self._kept:
            payload = bytes(self._payload)
            self._payload.clear()
            whole = self._whole and len(payload) == self._length
            length = self._length
            frames.append(Frame(self._kind, self._flags, self._stream, length, payload, whole))
        self._kind = _NOTHING

    def _start_hunt(self, seen: bytes) -> None:
        if self._hunting:
            self._passed += len(self._pending)
        self._pending[:] = seen
        self._payload.clear()
        self._kind = _NOTHING
        self._hunting = True
        self._candidates.clear()
        self._scanned = 0

    def _hunt(self, data: bytes, frames: list[Frame]) -> bytes:
        # Look for the next frame; return what is to be read from there, or nothing.
        pending = self._pending
        pending += data
        candidates = self._candidates
        at = self._scanned
        while len(candidates) < _CANDIDATES and (match := _PLAUSIBLE.search(pending, at)):
            candidates.append(match.start())
            at = match.start() + 1
        match = None  # it would keep the bytearray from shrinking
        self._scanned = max(at, len(pending) - _HEADER_SIZE + 1)
        start = self._choose()
        if start >= 0:
            rest = bytes(pending[start:])
            frames.append(Frame(Kind.FOUND, 0, 0, self._passed + start, b"", whole=True))
            pending.clear()
            self._passed = 0
            self._hunting = False
            return rest
        if len(pending) > _HUNTED:
            spent = len(pending) - _HUNTED // 2
            del pending[:spent]
            self._passed += spent
            self._scanned -= spent
            self._candidates = [kept - spent for kept in self._candidates if kept >= spent]
        return b""

    def _choose(self) -> int:
        # The best of the candidates, or -1; those that turned out wrong are dropped.
        pending = self._pending
        open_yet = []
        good = -1
        for candidate in self._candidates:
            count = _count_frames(pending, candidate)
            if count == _EXACT:
                return candidate
            if count == _WRONG:
                continue
            open_yet.append(candidate)
            if good < 0 and count >= (3 if candidate or self._passed else 2):
                good = candidate
        self._candidates = open_yet
        return good


def _count_frames(found: bytes | bytearray, at: int) -> int:
    """Return how many frame headers follow one another from ``at``; ``_EXACT``; or ``_WRONG``."""
    end = len(found)
    count = 0
    while end - at >= _HEADER_SIZE:
        if not _PLAUSIBLE.match(found, at):
            return _WRONG
        high, low, kind, flags, stream = _HEADER.unpack_from(found, at)
        if problem_of(kind, high << 16 | low, flags, stream):
            return _WRONG
        count += 1
        at += _HEADER_SIZE + (high << 16 | low)
        if count == _ENOUGH:
            return count
    return _EXACT if at == end and count else count
