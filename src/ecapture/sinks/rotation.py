# SPDX-License-Identifier: Apache-2.0
"""A file that is set aside under a dated name when it is large or old, and begun anew.

``capture.txt`` is always the one being written; ``capture-20261122T174500.123Z.txt`` was set aside
then (UTC, as all times in our output). Rules:

1. Between two calls of ``write`` only: what one call was given is never split over files.
2. No file is ever overwritten: a dated name that exists gets a number, and what an earlier run left
   under the name itself is set aside, too.
3. A file in which nothing was written is not set aside, however old.
4. ``keep`` deletes by name, and only names that are of this form and regular files.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from ecapture.errors import SinkError
from ecapture.sinks.file import open_output
from ecapture.sinks.writer import QUEUE_BYTES, Writer

_DATED: Final = r"-(\d{8}T\d{6}\.\d{3}Z)(?:-(\d{1,9}))?"


class Rotation(msgspec.Struct, frozen=True):
    """When to begin a new file: before it exceeds ``size`` bytes, or after so many ``seconds``.

    0 is never. ``keep`` is how many old files stay, 0 for all.
    """

    size: int = 0
    seconds: float = 0
    keep: int = 0


class Closing(NamedTuple):
    """What a file ends with that is set aside; the last file ends with what was written to it.

    ``size`` tells how many bytes ``make`` may give at most: room is kept for so many.
    """

    size: Callable[[], int]
    make: Callable[[], bytes]


class RotatingFile:
    """Writes to ``path`` and rotates. Making it, writing and closing raise SinkError.

    ``opening`` gives what every file begins with: it is asked when the first bytes of a file are
    written, or at the end if there were none. ``wall`` is the clock for names, ``elapsed`` that for
    ages, both in seconds. ``option`` named the file: for messages.
    """

    def __init__(
        self,
        path: str,
        rotation: Rotation,
        *,
        opening: Callable[[], bytes] = bytes,
        closing: Closing | None = None,
        wall: Callable[[], float] = time.time,
        elapsed: Callable[[], float] = time.monotonic,
        queue_bytes: int = QUEUE_BYTES,
        option: str = "-w",
    ) -> None:
        self._option = option
        self._path = Path(path)
        self._rotation = rotation
        self._opening = opening
        self._closing = closing
        self._wall = wall
        self._elapsed = elapsed
        self._queue_bytes = queue_bytes
        self._written = 0
        self._last = "", 0
        self._left = self._left_by_others()
        self._writer: Writer | None = self._open()

    def begin(self) -> None:
        """Sets aside what an earlier run left. The first ``write`` does it, too."""
        left, self._left = self._left, False
        if left and self._writer is not None:
            self._writer.close()
            self._writer = None
            self._set_aside()
            self._writer = self._open()
        self._prune()

    def write(self, *pieces: bytes) -> None:
        """Queues bytes that belong together, in this file or the next."""
        size = sum(map(len, pieces))
        if not size:
            return
        if self._left:
            self.begin()
        limit = self._rotation.size
        if limit and self._written:
            end = self._closing.size() if self._closing is not None else 0
            if self._written + size + end > limit:
                self._rotate()
        self.tick()
        if self._writer is None:
            self._writer = self._open()
        if not self._written:
            opening = self._opening()
            self._writer.write(opening, *pieces)
            size += len(opening)
        else:
            self._writer.write(*pieces)
        self._written += size

    def tick(self) -> None:
        """Rotates if the file is old by now: also called when nothing comes."""
        age = self._rotation.seconds
        if age and self._written and self._elapsed() - self._opened >= age:
            self._rotate()

    def close(self) -> None:
        """Writes what is queued and ends. Raises SinkError if anything could not be written."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        try:
            if not self._written and not self._left:
                writer.write(self._opening())
        finally:
            writer.close()

    def _rotate(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            try:
                if self._closing is not None:
                    writer.write(self._closing.make())
            finally:
                writer.close()
        self._set_aside()
        self._written = 0
        self._writer = self._open()
        self._prune()

    def _open(self) -> Writer:
        path = str(self._path)
        fd = open_output(path, option=self._option)
        writer = Writer(fd, path, owned=True, queue_bytes=self._queue_bytes, option=self._option)
        self._opened = self._elapsed()
        return writer

    def _left_by_others(self) -> bool:
        # Whether something is there that must not be emptied; refuses what cannot be rotated.
        try:
            if stat.S_ISLNK(os.lstat(self._path).st_mode):
                raise self._refused("is a symbolic link, which cannot be rotated")
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._refused(error.strerror or str(error)) from None
        fd = open_output(str(self._path), append=True, option=self._option)
        try:
            found = os.fstat(fd)
        finally:
            os.close(fd)
        if not stat.S_ISREG(found.st_mode):
            raise self._refused("is not a regular file and cannot be rotated")
        return found.st_size > 0

    def _set_aside(self) -> None:
        now = self._wall()
        second, fraction = divmod(int(now * 1000), 1000)
        date = time.strftime("%Y%m%dT%H%M%S", time.gmtime(second)) + f".{fraction:03d}Z"
        # Names only ever ascend, whatever the clock does: their order is that of the content.
        last, number = self._last
        if date > last:
            last, number = date, -1
        try:
            while True:
                number += 1
                suffix = f"-{number}" if number else ""
                name = f"{self._path.stem}-{last}{suffix}{self._path.suffix}"
                if _moved(self._path, self._path.with_name(name)):
                    self._last = last, number
                    return
        except FileNotFoundError:
            return  # somebody else has moved or deleted it
        except OSError as error:
            raise self._refused(error.strerror or str(error)) from None

    def _prune(self) -> None:
        if not self._rotation.keep:
            return
        form = re.compile(re.escape(self._path.stem) + _DATED + re.escape(self._path.suffix))
        old: list[tuple[str, int, str]] = []
        try:
            with os.scandir(self._path.parent) as entries:
                for entry in entries:
                    dated = form.fullmatch(entry.name)
                    if dated and entry.is_file(follow_symlinks=False):
                        old.append((dated[1], int(dated[2] or 0), entry.path))
            old.sort()
            for _, _, path in old[: -self._rotation.keep]:
                Path(path).unlink(missing_ok=True)
        except OSError as error:
            raise self._refused(f"old files cannot be deleted: {error.strerror}") from None

    def _refused(self, cause: str) -> SinkError:
        return SinkError(
            destination=str(self._path), cause=cause, hint="write to another file or do not rotate"
        )


def _moved(source: Path, target: Path) -> bool:
    # False if the target exists. A link, unlike a rename, never replaces; where there are no links
    # (FAT, some network file systems) the check comes first and a race is possible.
    try:
        os.link(source, target, follow_symlinks=False)
    except FileExistsError:
        return False
    except FileNotFoundError:
        raise
    except OSError:
        if os.path.lexists(target):
            return False
        source.rename(target)
        return True
    source.unlink()
    return True
