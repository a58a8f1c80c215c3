# SPDX-License-Identifier: Apache-2.0
"""Content codings undone piece by piece, within limits.

A message's content may have been through several codings (RFC 9110, 8.4; RFC 9112, 6.1 for those of
the transfer). ``ContentReader`` undoes them as the bytes come, hands on what is decoded up to a
limit, counts the rest, and forgets it.

Strategy: one decoder per coding, each pushing bounded pieces into the next, the last into the
reader. The reader refuses a piece beyond the permitted expansion by an exception that unwinds them
all, so a bomb costs what is permitted and little more. zlib and brotli take an output bound per
call; zstandard has none for ``decompressobj``, but its ``stream_writer`` hands over pieces of a
bounded size, and is fed a little at a time. brotli and zstandard are imported when first needed
and may be absent. LZW (``compress``) is in no library of ours and not seen in practice: shown as
sent.

Invariants: no more than ``body_limit`` bytes are ever given out; ``size`` counts every byte fed or
known missing; no error leaves except by ``marks`` and ``problem``; per decoder one piece of output
(``_PIECE``) and its window (32 KiB, 16 MiB for brotli, 8 MiB for zstd as RFC 9659 permits) is kept.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from typing import IO, Any, Protocol, cast

from ecapture.errors import ProtocolError

from .messages import Mark

BODY_LIMIT = 1 << 20
"""How much decoded content of one message is given out, unless told otherwise: 1 MiB."""
EXPANSION_FLOOR = 16 << 20
"""What any content may expand to: 16 MiB."""
EXPANSION_RATIO = 100
"""Beyond the floor, how many bytes may come of each byte sent. Text rarely passes 20."""
MAX_CODINGS = 4
"""How many codings are undone; more are a bomb's habit."""

_PIECE = 1 << 16
_MAX_MEMBERS = 1024
"""gzip members in one content: RFC 1952 allows any number, each costs a new decoder."""
_EARLY = 512
"""How much is remembered as sent until something could be decoded."""
_GZIP_MAGIC = 0x1F
"""The first byte of a member (RFC 1952, 2.3.1)."""
_ZSTD_WINDOW = 8 << 20
"""RFC 9659, 3: the largest window a content coding may ask for."""

_ZSTD_STEP = 1024

Sink = Callable[[bytes], object]


class Decoder(Protocol):
    """One coding being undone. Output goes to the sink it was made with, in bounded pieces."""

    def feed(self, data: bytes) -> None:
        """Take the next bytes. Raises ProtocolError, or whatever the sink raises."""

    def finish(self) -> None:
        """Say that no more will come. Raises ProtocolError if more should have."""


class _Enough(Exception):  # noqa: N818 - it is a signal within this module, not an error
    """The permitted expansion is used up."""


class _Unavailable(Exception):  # noqa: N818 - likewise
    """The coding cannot be undone here; the argument says why."""


def _refuse(coding: str, reason: str) -> ProtocolError:
    return ProtocolError(protocol=coding, offset=0, reason=reason)


class _Zlib:
    """gzip (RFC 1952), zlib (RFC 1950), and raw deflate (RFC 1951) under the name deflate.

    zlib gives nothing of a call that fails, so up to one piece before a fault is lost with it.
    """

    def __init__(self, coding: str, sink: Sink) -> None:
        self._coding = coding
        self._sink = sink
        self._begun = b""
        self._members = 0
        self._inflate: Any = None

    def feed(self, data: bytes) -> None:
        while data:
            if self._inflate is None:
                data = self._begin(data)
                if not data:
                    return
            try:
                data = self._member(data)
            except zlib.error as error:
                raise _refuse(self._coding, str(error).rpartition(": ")[2]) from None

    def _begin(self, data: bytes) -> bytes:
        """Find out how the next member begins; return its bytes, or none if there must be more."""
        if self._members and not self._begun:
            data = data.lstrip(b"\0")  # padding, which gzip lets pass
            if not data:
                return b""
        data = self._begun + data
        if self._members and (self._coding != "gzip" or data[0] != _GZIP_MAGIC):
            raise _refuse(self._coding, "bytes after its end")
        if len(data) < 2:
            self._begun = data
            return b""
        self._begun = b""
        if self._members == _MAX_MEMBERS:
            raise _Enough
        self._members += 1
        self._inflate = zlib.decompressobj(self._window_bits(data))
        return data

    def _window_bits(self, data: bytes) -> int:
        # Of all pairs of bytes few are a zlib header (RFC 1950, 2.2), and no encoder begins raw
        # deflate with such a one: it would be a stored block with set padding bits.
        if self._coding == "gzip":
            return 31
        return 15 if data[0] & 0x8F == 8 and (data[0] << 8 | data[1]) % 31 == 0 else -15

    def _member(self, data: bytes) -> bytes:
        """Inflate, and return what follows the end of the member, if that was reached."""
        inflate = self._inflate
        while True:
            out = inflate.decompress(data, _PIECE)
            if out:
                self._sink(out)
            if inflate.eof:
                self._inflate = None
                unused: bytes = inflate.unused_data
                return unused
            data = inflate.unconsumed_tail
            if not data and len(out) < _PIECE:
                return b""

    def finish(self) -> None:
        if self._inflate is not None or self._begun:
            raise _refuse(self._coding, "ends early")


class _Brotli:
    """RFC 7932, by the brotli package; 1.2 is the first that can bound its output."""

    def __init__(self, _coding: str, sink: Sink) -> None:
        try:
            import brotli  # type: ignore[import-untyped]  # noqa: PLC0415 - optional, rarely wanted
        except ImportError:
            raise _Unavailable("the brotli package is not installed") from None
        self._sink = sink
        self._error: type[Exception] = brotli.error
        self._brotli = brotli.Decompressor()
        self._finished = False
        if not hasattr(self._brotli, "can_accept_more_data"):
            raise _Unavailable("the brotli package is older than 1.2")

    def feed(self, data: bytes) -> None:
        process = self._brotli.process
        try:
            out = process(data, output_buffer_limit=_PIECE)
            while out:
                self._sink(out)
                out = process(b"", output_buffer_limit=_PIECE)
            self._finished = bool(self._brotli.is_finished())
        except self._error:
            # It does not tell bytes after its end from wrong bytes, unless it had ended before.
            after = "bytes after its end" if self._finished else "not as RFC 7932 has it"
            raise _refuse("br", after) from None

    def finish(self) -> None:
        if not self._finished:
            raise _refuse("br", "ends early")


class _ZstdSink:
    """The file that zstandard's writer wants.

    It keeps what went wrong, as zstandard 0.25 loses a buffer for good if it is raised through; and
    not as the error itself, whose traceback would lead back to the writer, where no collector goes.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.enough = False
        self.wrong: tuple[str, str] | None = None

    def write(self, piece: bytes) -> int:
        if not self.enough:
            try:
                self._sink(bytes(piece))
            except _Enough:
                self.enough = True
            except ProtocolError as error:
                self.enough = True
                self.wrong = (str(error.fields["protocol"]), str(error.fields["reason"]))
        return len(piece)


class _Zstd:
    """RFC 8878, by the zstandard package. It does not tell whether a frame has ended."""

    def __init__(self, _coding: str, sink: Sink) -> None:
        try:
            import zstandard  # noqa: PLC0415 - optional, rarely wanted
        except ImportError:
            raise _Unavailable("the zstandard package is not installed") from None
        self._error: type[Exception] = zstandard.ZstdError
        self._file = _ZstdSink(sink)
        frames = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
        self._writer = frames.stream_writer(
            cast("IO[bytes]", self._file), write_size=_PIECE, closefd=False
        )

    def feed(self, data: bytes) -> None:
        # A block of four bytes can stand for 128 KiB, so it is asked often whether to go on.
        for at in range(0, len(data), _ZSTD_STEP):
            try:
                self._writer.write(data[at : at + _ZSTD_STEP])
            except self._error as error:
                raise _refuse("zstd", str(error).removeprefix("zstd decompress error: ")) from None
            if self._file.wrong is not None:
                raise _refuse(*self._file.wrong)
            if self._file.enough:
                raise _Enough

    def finish(self) -> None:
        pass


_DECODERS: dict[str, Callable[[str, Sink], Decoder]] = {
    "gzip": _Zlib,
    "deflate": _Zlib,
    "br": _Brotli,
    "zstd": _Zstd,
}


def codings_of(values: Iterable[str]) -> tuple[str, ...]:
    """Return the codings that a Content-Encoding or Transfer-Encoding names, outermost first.

    ``values`` are the values of all fields of that name, in order; the last coding named was the
    last applied. ``identity`` is none, and ``x-gzip`` is gzip (RFC 9110, 8.4.1.3).
    """
    named = [word.strip().lower() for value in values for word in value.split(",")]
    return tuple(
        word.removeprefix("x-") if word == "x-gzip" else word
        for word in reversed(named)
        if word and word != "identity"
    )


class ContentReader:
    """The content of one message: fed as sent, given out decoded, never kept.

    ``tap``, if given, sees every decoded piece, those beyond ``body_limit`` too.
    """

    __slots__ = (
        "_chain",
        "_early",
        "_expansion_floor",
        "_expansion_ratio",
        "_first",
        "_pieces",
        "_spent",
        "_tap",
        "body_limit",
        "codings",
        "decoded_size",
        "kept",
        "marks",
        "problem",
        "size",
    )

    def __init__(
        self,
        codings: tuple[str, ...] = (),
        *,
        body_limit: int = BODY_LIMIT,
        expansion_floor: int = EXPANSION_FLOOR,
        expansion_ratio: int = EXPANSION_RATIO,
        tap: Sink | None = None,
    ) -> None:
        self.body_limit = body_limit
        self.size = 0
        """Bytes as sent, with those known to be missing."""
        self.decoded_size = 0
        """Bytes after the codings, a lower bound once decoding had to stop."""
        self.kept = 0
        """Bytes given out."""
        self.codings: tuple[str, ...] = ()
        """What is being undone, outermost first."""
        self.marks: tuple[Mark, ...] = ()
        self.problem = ""
        self._expansion_floor = expansion_floor
        self._expansion_ratio = expansion_ratio
        self._tap = tap
        self._spent = 0
        self._pieces: list[bytes] = []
        self._early = b""
        self._chain: list[Decoder] = []
        self._first: Sink | None = None
        if codings:
            self._arrange(codings)

    def _arrange(self, codings: tuple[str, ...]) -> None:
        if len(codings) > MAX_CODINGS:
            self._say(Mark.LIMITED, f"{len(codings)} codings, shown as sent")
            return
        known: list[str] = []
        for coding in codings:
            if coding not in _DECODERS:
                self._say(Mark.UNDECODED, f"coding {coding[:32]!r} is not known")
                break
            known.append(coding)
        sink: Sink = self._accept
        undone = len(known)
        for place in reversed(range(len(known))):
            coding = known[place]
            try:
                decoder = _DECODERS[coding](coding, sink)
            except _Unavailable as reason:
                # What is inside of it can be undone no more either.
                self._say(Mark.UNDECODED, f"{coding}: {reason}")
                undone = place
                self._chain.clear()
                sink = self._accept
                continue
            self._chain.insert(0, decoder)
            sink = self._metered(decoder.feed) if place else decoder.feed
        if self._chain:
            self.codings = tuple(known[:undone])
            self._first = sink

    @property
    def counting(self) -> bool:
        """Whether nothing but the number of further bytes matters."""
        return self.kept >= self.body_limit and self._first is None and self._tap is None

    def _say(self, mark: Mark, problem: str) -> None:
        if mark not in self.marks:
            self.marks += (mark,)
        if not self.problem:
            self.problem = problem

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes as sent and return what they decode to, within the limit."""
        self.size += len(data)
        first = self._first
        if first is None:
            if self.codings:
                return b""  # decoding had to stop
            return self._plain(data)
        if not self.decoded_size and len(self._early) < _EARLY:
            self._early = (self._early + data)[:_EARLY]
        pieces = self._pieces = []
        try:
            first(data)
        except _Enough:
            self._stop(Mark.LIMITED, f"expands beyond {self.decoded_size} bytes")
        except ProtocolError as error:
            return self._fall_back(data, error)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _fall_back(self, data: bytes, error: ProtocolError) -> bytes:
        """Show content as sent if it never was in that coding, else what was decoded until now."""
        reason = f"{error.fields['protocol']}: {error.fields['reason']}"
        pieces = self._pieces
        self._stop(Mark.MALFORMED, reason)
        if not self.decoded_size:
            sent = data if len(data) == self.size else self._early
            if len(sent) == self.size:
                self.codings = ()
                return self._plain(sent)
        return b"".join(pieces)

    def _stop(self, mark: Mark, problem: str) -> None:
        self._say(mark, problem)
        self._first = None
        self._chain = []
        self._pieces = []
        # An empty tuple would mean that the content is as sent; what was undone stays named.

    def _plain(self, data: bytes) -> bytes:
        self.decoded_size += len(data)
        if self._tap is not None:
            self._tap(data)
        room = self.body_limit - self.kept
        if len(data) > room:
            data = data[: max(room, 0)]
        self.kept += len(data)
        return data

    def _spend(self, size: int) -> None:
        spent = self._spent + size
        if spent > self._expansion_floor and spent > self._expansion_ratio * self.size:
            raise _Enough
        self._spent = spent

    def _metered(self, sink: Sink) -> Sink:
        """Count what one coding hands to the next: it may come to nothing there."""

        def metered(piece: bytes) -> None:
            self._spend(len(piece))
            sink(piece)

        return metered

    def _accept(self, piece: bytes) -> None:
        self._spend(len(piece))
        self.decoded_size += len(piece)
        if self._tap is not None:
            self._tap(piece)
        room = self.body_limit - self.kept
        if room > 0:
            if len(piece) > room:
                piece = piece[:room]
            self._pieces.append(piece)
            self.kept += len(piece)

    def count(self, size: int) -> None:
        """Note ``size`` bytes without looking at them; only while ``counting``."""
        self.size += size
        if not self.codings:
            self.decoded_size += size

    def gap(self, size: int) -> None:
        """Note ``size`` bytes missing here (0: some). No coding can be followed across them."""
        self.size += size
        missing = f"{size} bytes missing" if size else "bytes missing"
        if self._first is not None:
            self._stop(Mark.GAP, f"{missing}, decoded up to there")
        else:
            self._say(Mark.GAP, missing)
            if not self.codings:
                self.decoded_size += size

    def finish(self) -> None:
        """Say that the content is complete as framed, so a coding that is not gets a mark."""
        chain = self._chain if self.size else []
        self.close()
        for decoder in chain:
            try:
                decoder.finish()
            except ProtocolError as error:
                reason = f"{error.fields['protocol']}: {error.fields['reason']}"
                self._say(Mark.MALFORMED, reason)
                return

    def close(self) -> None:
        """Let go of the decoders, which refer to the reader in turn."""
        self._first = None
        self._chain = []
        self._tap = None
