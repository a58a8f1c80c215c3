# SPDX-License-Identifier: Apache-2.0
"""A regular file that takes floods.

A few bytes go the ordinary way, through the page cache, and are there for readers at once. When
more than a megabyte waits, blocks go past the page cache (O_DIRECT): filling it with gigabytes that
nobody reads costs ten times the copying, takes the memory of the programs under observation, and
sets the kernel's flushers to compete with them for processors.

What one call of ``write`` was given is whole in the file or not at all, also where the disk is full
in the middle of it: then the file is cut back, and what was overwritten is put back.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
from collections import deque
from collections.abc import Sequence

FLOOD_BYTES = 1 << 20
_BLOCK = 4096  # no file system of today asks for more alignment
_BUFFER_BYTES = 1 << 20
_KEPT_BYTES = 64  # of the end: as much as is ever overwritten


class RegularFile:
    """Writes to ``fd`` from ``offset`` on. The descriptor stays the caller's."""

    def __init__(self, fd: int, offset: int) -> None:
        self._fd = fd
        self._offset = offset
        self._direct: int | None = None
        self._buffer: mmap.mmap | None = None
        self._filled = 0
        self._refused = False
        self._whole = offset  # up to here calls of ``write`` are whole in the file
        self._ends: deque[int] = deque()  # where those end that are not yet
        self._end = b""  # the last bytes of the last call

    def write(self, pieces: Sequence[bytes], *, flood: bool, back: int = 0) -> None:
        """Write all pieces; under ``flood`` up to a buffer's fill may stay behind until ``flush``.

        Without flood, ``back`` bytes at the end are overwritten first.
        """
        ordinary = not flood or not self._open_direct()
        if ordinary:
            self.flush()
        try:
            if ordinary:
                self._offset -= back
                for piece in pieces:
                    self._write_plain(piece)
                self._whole = self._offset
                self._ends.clear()
                self._end = bytes(pieces[-1][-_KEPT_BYTES:])
                return
            for piece in pieces:
                self._fill(memoryview(piece))
            self._ends.append(self._offset + self._filled)
            while self._ends and self._ends[0] <= self._offset:
                self._whole = self._ends.popleft()
        except OSError:
            self._cut_back(back)
            raise

    def flush(self) -> None:
        """Writes what was held back."""
        if self._filled and self._buffer is not None:
            filled, self._filled = self._filled, 0
            try:
                with memoryview(self._buffer) as view:
                    self._write_plain(view[:filled])
            except OSError:
                self._cut_back(0)
                raise
            self._whole = self._offset
            self._ends.clear()

    def close(self) -> None:
        """Flushes, and frees what this class opened."""
        try:
            self.flush()
        finally:
            if self._direct is not None:
                os.close(self._direct)
                self._direct = None
            if self._buffer is not None:
                self._buffer.close()
                self._buffer = None

    def _cut_back(self, back: int) -> None:
        # The file may be broken: nothing more can be done about it than is tried here.
        while self._ends and self._ends[0] <= self._offset:
            self._whole = self._ends.popleft()
        self._filled = 0
        self._offset = self._whole - back
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, self._offset)
            if back:
                self._write_plain(self._end[-back:])

    def _open_direct(self) -> bool:
        if self._direct is None and not self._refused:
            try:
                self._direct = os.open(
                    f"/proc/self/fd/{self._fd}", os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC
                )
                self._buffer = mmap.mmap(-1, _BUFFER_BYTES)  # page-aligned, as O_DIRECT wants it
            except OSError:
                # a file system without it: tmpfs before 6.6, some network ones
                self._refused = True
        return not self._refused

    def _fill(self, rest: memoryview) -> None:
        buffer = self._buffer
        if buffer is None:
            return
        if not self._filled and self._offset % _BLOCK:
            # up to the next block boundary the ordinary way
            head = min(len(rest), _BLOCK - self._offset % _BLOCK)
            self._write_plain(rest[:head])
            rest = rest[head:]
        while rest:
            room = min(len(rest), _BUFFER_BYTES - self._filled)
            buffer[self._filled : self._filled + room] = rest[:room]
            self._filled += room
            rest = rest[room:]
            if self._filled == _BUFFER_BYTES:
                self._write_block()

    def _write_block(self) -> None:
        if self._buffer is None or self._direct is None:
            return
        with memoryview(self._buffer) as view:
            done = 0
            try:
                done = os.pwrite(self._direct, view, self._offset)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                self._refused = True
            self._filled = 0
            self._offset += done
            self._write_plain(view[done:])

    def _write_plain(self, rest: bytes | memoryview) -> None:
        rest = memoryview(rest)
        while rest:
            written = os.pwrite(self._fd, rest, self._offset)
            self._offset += written
            rest = rest[written:]
