# SPDX-License-Identifier: Apache-2.0
"""permessage-deflate (RFC 7692), read passively: one direction's decompressor, bounded.

A compressor that keeps its history refers to messages that a reader who joined late, or lost some,
never saw. Its history is then made up of SUB characters (0x1A): what refers to it becomes these,
the rest is exact, and after 32 KiB nothing can refer to it any more.

Invariants: only ProtocolError is raised; what is kept is 32 KiB of history and at most one piece of
output more, and zlib's own window.
"""

from __future__ import annotations

import zlib
from collections import deque
from typing import Any, NamedTuple

from ecapture.errors import ProtocolError

UNKNOWN = 0x1A
"""What stands for a byte of a history that was not seen."""

_HISTORY = 1 << 15
"""The largest window there is (RFC 7692, 7.1.2): 15 bits. It reads what smaller ones made."""
_PIECE = 1 << 16
_MAX_FINALS = 16
"""Final blocks in one piece: each costs a new decompressor, and a message needs one at most."""
_MADE_UP = bytes((UNKNOWN,)) * _HISTORY
FLUSH = b"\x00\x00\xff\xff"
"""What the sender leaves out at the end of each message (RFC 7692, 7.2.1)."""


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


class Inflater:
    """One direction's decompressor. ``takeover`` says whether history outlives a message.

    With ``seen`` the history is known to be empty; otherwise it is made up.
    """

    def __init__(self, *, takeover: bool, seen: bool) -> None:
        self._takeover = takeover
        self._recent: deque[bytes] = deque()
        self._recent_size = 0
        self._inflate: Any = None
        self.guessing = False
        """Whether made up history can still be referred to."""
        self.forget(seen=seen)

    def forget(self, *, seen: bool) -> None:
        """Begin anew, with an empty history or one that is made up."""
        self._recent.clear()
        self._recent_size = 0
        self.guessing = not seen
        self._inflate = zlib.decompressobj(-15) if seen else zlib.decompressobj(-15, _MADE_UP)

    def end_message(self) -> None:
        """Forget what the next message will not refer to."""
        if not self._takeover:
            self.forget(seen=True)

    def feed(self, data: bytes, bound: int) -> tuple[list[bytes], bool]:
        """Inflate, and return the pieces and whether they are all: above ``bound`` bytes it stops.

        Raises ProtocolError; then, and when it stopped, the history is lost.
        """
        pieces: list[bytes] = []
        size = finals = 0
        try:
            while True:
                out = self._inflate.decompress(data, _PIECE)
                if out:
                    pieces.append(out)
                    size += len(out)
                    self._remember(out)
                if size > bound:
                    self.forget(seen=False)
                    return pieces, False
                data = self._inflate.unconsumed_tail
                if self._inflate.eof:
                    # A final block ends a message's data but not its history (RFC 7692, 7.2.3.4).
                    data = self._inflate.unused_data
                    finals += 1
                    if finals > _MAX_FINALS:
                        break
                    self._inflate = zlib.decompressobj(-15, self._history())
                elif not data and len(out) < _PIECE:
                    return pieces, True
        except zlib.error as error:
            reason = str(error).rpartition(": ")[2]
        else:
            reason = "too many final blocks"
        self.forget(seen=False)
        raise ProtocolError(protocol="permessage-deflate", offset=0, reason=reason)

    def _remember(self, out: bytes) -> None:
        recent = self._recent
        recent.append(out)
        self._recent_size += len(out)
        while self._recent_size - len(recent[0]) >= _HISTORY:
            self._recent_size -= len(recent.popleft())
        if len(recent) > _HISTORY // 64:
            # Many small pieces weigh more than what is in them.
            joined = b"".join(recent)
            recent.clear()
            recent.append(joined)
        if self._recent_size >= _HISTORY:
            self.guessing = False

    def _history(self) -> bytes:
        history = b"".join(self._recent)[-_HISTORY:]
        return (_MADE_UP + history)[-_HISTORY:] if self.guessing else history
