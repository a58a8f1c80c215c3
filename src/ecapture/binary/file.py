# SPDX-License-Identifier: Apache-2.0
"""Reads a file that belongs to somebody else, while that somebody may be changing it.

Strategy: positioned reads of exactly the bytes a question needs, never a memory map. The owner of
a mapped file can shorten it at any time, and the kernel answers the next access with SIGBUS, which
would end the capture; a positioned read merely comes back short. It costs no more: the page tables
of a 100 MB map take longer to fill than the bytes take to copy.

Invariants: only the errors named here leave this module, and no read is longer than ``CHUNK``.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from ecapture.errors import NotExecutable, PermissionMissing, TargetNotFound

CHUNK = 1 << 20
"""Most bytes read at once."""

_MAX_TEXT = 4096  # a path or a library's name
_MAX_CONTENT = 1 << 30
_MAX_MATCH = 255
_MAX_PREFIX_HITS = 1 << 14

Ranges = tuple[tuple[int, int], ...]
"""Parts of a file as (offset, length) in bytes: sorted, without overlap, within the file."""


class ForeignFile:
    """A regular file, open for reading.

    ``source`` is a path, or the number of an open descriptor, which is duplicated. A path may be
    ``/proc/PID/map_files/START-END``, which names files that are already deleted.

    Raises:
        NotExecutable: it is not a regular file.
        TargetNotFound: there is no such file.
        PermissionMissing: it may not be read.
    """

    _fd = -1

    def __init__(self, source: str | os.PathLike[str] | int) -> None:
        self.path = f"descriptor {source}" if isinstance(source, int) else os.fspath(source)
        self._fd = _open(source, self.path)
        self.status = os.fstat(self._fd)
        self.size = self.status.st_size
        if not stat.S_ISREG(self.status.st_mode):
            self.close()
            self.refuse("not a regular file")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Give the descriptor back. May be called again."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def fileno(self) -> int:
        """Return the descriptor, which stays ours."""
        return self._fd

    def refuse(self, reason: str) -> NoReturn:
        """Say that this file is not what it claims to be.

        Raises:
            NotExecutable: always.
        """
        raise NotExecutable(path=self.path, reason=reason)

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly these bytes, ``CHUNK`` at most.

        Raises:
            NotExecutable: the file does not have them.
        """
        if offset < 0 or length < 0 or length > CHUNK or offset + length > self.size:
            self.refuse(f"truncated: {length} bytes at {offset:#x} are not in the file")
        try:
            block = os.pread(self._fd, length, offset)
        except OSError as cause:
            raise NotExecutable(path=self.path, reason=_text_of(cause)) from cause
        if len(block) != length:
            self.refuse(f"truncated while it was read, at {offset:#x}")
        return block

    def text(self, offset: int, limit: int) -> str:
        """Return the NUL-terminated string at this offset, within ``limit`` bytes.

        Raises:
            NotExecutable: it does not end there.
        """
        limit = max(0, min(limit, _MAX_TEXT, self.size - offset))
        block = self.read(offset, limit)
        end = block.find(b"\0")
        if end < 0:
            self.refuse(f"a string at {offset:#x} does not end")
        return os.fsdecode(block[:end])

    def blocks(self, offset: int, length: int, overlap: int) -> Iterator[tuple[int, bytes]]:
        """Yield the range in pieces, each with its offset.

        Neighbours share ``overlap`` bytes, so what is at most one byte longer than that is whole
        in one of them. What is beyond the end of the file is left out.
        """
        end = min(offset + length, self.size)
        while offset < end:
            step = min(CHUNK, end - offset)
            yield offset, self.read(offset, step)
            if offset + step >= end:
                return
            offset += step - overlap

    def search(self, ranges: Ranges, *markers: bytes) -> dict[bytes, int]:
        """Return which of the byte strings these parts contain, with a file offset of each.

        About 25 ms for 100 MB and one marker, when the file is in the page cache.
        """
        found: dict[bytes, int] = {}
        overlap = max(map(len, markers), default=1) - 1
        for start, length in ranges:
            for offset, block in self.blocks(start, length, overlap):
                for marker in markers:
                    if marker not in found and (at := block.find(marker)) >= 0:
                        found[marker] = offset + at
                if len(found) == len(markers):
                    return found
        return found

    def matches(
        self, ranges: Ranges, prefix: bytes, pattern: re.Pattern[bytes]
    ) -> Iterator[re.Match[bytes]]:
        """Yield where these parts have the prefix and, from there on, match the pattern.

        A match is up to 255 bytes long. The search ends after some thousand prefixes.
        """
        hits = 0
        for start, length in ranges:
            for _, block in self.blocks(start, length, _MAX_MATCH):
                at = block.find(prefix)
                while at >= 0:
                    hits += 1
                    if hits > _MAX_PREFIX_HITS:
                        return
                    if found := pattern.match(block, at, at + _MAX_MATCH):
                        yield found
                    at = block.find(prefix, at + 1)


def ranges_within(size: int, parts: Iterable[tuple[int, int]]) -> Ranges:
    """Return these (offset, length) pairs sorted, joined and clipped to a file of this size."""
    bounds: list[list[int]] = []
    for start, length in sorted(parts):
        end = min(start + length, size)
        if start >= end:
            continue
        if bounds and start <= bounds[-1][1]:
            bounds[-1][1] = max(bounds[-1][1], end)
        else:
            bounds.append([start, end])
    left, kept = _MAX_CONTENT, []
    for start, end in bounds:
        length = min(end - start, left)
        left -= length
        if length:
            kept.append((start, length))
    return tuple(kept)


def text_of_name(name: str) -> str:
    r"""Return a name of the file system as text to be stored: \xNN for bytes that are none."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _open(source: str | os.PathLike[str] | int, path: str) -> int:
    # The kind of file is asked before it is opened, because opening some devices has effects.
    try:
        if isinstance(source, int):
            return os.dup(source)
        if not stat.S_ISREG(Path(source).stat().st_mode):
            raise NotExecutable(path=path, reason="not a regular file")
        return os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (FileNotFoundError, NotADirectoryError) as cause:
        raise TargetNotFound(looked_for=path, looked_in="the file system") from cause
    except PermissionError as cause:
        raise PermissionMissing(
            hint="run as root",
            needed_for=f"reading {path}",
            capability="its owner's rights or CAP_SYS_ADMIN",
        ) from cause
    except ValueError as cause:
        raise NotExecutable(path=path, reason="the path contains a NUL") from cause
    except OSError as cause:
        raise NotExecutable(path=path, reason=_text_of(cause)) from cause


def _text_of(cause: OSError) -> str:
    return os.strerror(cause.errno or errno.EIO)
