# SPDX-License-Identifier: Apache-2.0
"""A byte queue that never rescans: the input side of every parser.

Strategy: bytes are appended to one ``bytearray`` and taken from its front by an offset; the front
is given back only when it outweighs what is left, so that taking is amortised constant however
the bytes arrive. A search remembers how far it looked, so feeding a header byte by byte costs one
pass in total. Content that needs no look-ahead does not belong here: a parser hands it on from the
chunk it was fed.

Invariants: ``0 <= start <= len(store)``; what was taken is never read again; the memory in use is
at most twice what is waiting, plus ``_SLACK``.
"""

from __future__ import annotations

_SLACK = 16384
"""Bytes of spent front that may stay before they are given back."""


class ByteQueue:
    """Bytes in at the back, out at the front."""

    __slots__ = ("_searched", "_start", "_store", "taken")

    def __init__(self) -> None:
        self._store = bytearray()
        self._start = 0
        self._searched = 0
        self.taken = 0
        """How many bytes ever left at the front: the offset of the front in the whole stream."""

    def __len__(self) -> int:
        return len(self._store) - self._start

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Append ``data``."""
        self._store += data

    def find(self, *wanted: bytes) -> int:
        """Return where the first of ``wanted`` begins, counted from the front, or -1.

        Until bytes are taken the next call continues where this one ended, so one queue is asked
        for the same at a time.
        """
        store = self._store
        begin = max(self._start, self._searched)
        at = store.find(wanted[0], begin)
        for other in wanted[1:]:
            found = store.find(other, begin, at + len(other) - 1 if at >= 0 else len(store))
            if found >= 0:
                at = found
        if at < 0:
            self._searched = max(self._start, len(store) - max(map(len, wanted)) + 1)
            return -1
        self._searched = at
        return at - self._start

    def peek(self, count: int, offset: int = 0) -> bytes:
        """Return up to ``count`` bytes from ``offset`` behind the front, and leave them there."""
        start = self._start + offset
        return bytes(self._store[start : start + count])

    def take(self, count: int) -> bytes:
        """Take up to ``count`` bytes off the front."""
        start = self._start
        store = self._store
        if start == 0 and count >= len(store):
            taken = bytes(store)
            store.clear()
            self._searched = 0
            self.taken += len(taken)
            return taken
        taken = bytes(store[start : start + count])
        self.skip(len(taken))
        return taken

    def skip(self, count: int) -> int:
        """Drop up to ``count`` bytes off the front and return how many there were."""
        count = min(count, len(self))
        start = self._start + count
        self.taken += count
        self._searched = 0
        size = len(self._store)
        if start == size:
            self._store.clear()
            start = 0
        elif start > _SLACK and start * 2 > size:
            del self._store[:start]
            start = 0
        self._start = start
        return count

    def clear(self) -> int:
        """Drop everything and return how much it was."""
        return self.skip(len(self))
