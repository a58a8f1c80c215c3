# SPDX-License-Identifier: Apache-2.0
"""Bytes to a file descriptor, from a thread of its own.

A slow disk or pipe must not keep the capture thread from draining the ring. So ``write`` only
queues, up to a bound; when that is reached it waits, draining pauses, the kernel drops, and what it
dropped is counted. A failed write ends the capture: the next ``write`` or ``close`` raises.
"""

from __future__ import annotations

import fcntl
import os
import select
import stat
import threading
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from ecapture.errors import SinkError
from ecapture.sinks.regular import FLOOD_BYTES, RegularFile

_What = TypeVar("_What")

QUEUE_BYTES = 16 << 20
# Pieces that are small on average are joined, which is cheaper than handing each to the kernel;
# large ones are handed over as they are, which saves copying them.
_JOIN_BELOW = 2048
_PIECES_AT_ONCE = 1024  # IOV_MAX of Linux


class Closed(SinkError):  # noqa: N818 - not a failure
    """Whoever read our output is gone (EPIPE): the capture ends, but that is no failure."""

    exit_code = 0
    template = "{destination}: the reader is gone"


class Writer:
    """Writes to ``fd``; ``name`` and ``option`` are for messages. ``close`` closes it if ``owned``.

    A regular file that is owned and not appended to is emptied by ``begin``.
    """

    def __init__(
        self,
        fd: int,
        name: str,
        *,
        owned: bool,
        queue_bytes: int = QUEUE_BYTES,
        option: str = "-w",
    ) -> None:
        self._fd = fd
        self._name = name
        self._owned = owned
        self._limit = queue_bytes
        self._option = option
        self._begun = False
        self._queue: deque[tuple[list[bytes], int, int]] = deque()
        self._queued = 0
        self._ending = False
        self._error: OSError | None = None
        self._changed = threading.Condition()
        self._file: RegularFile | None = None
        # Only a file of our own: others' writes to a shared descriptor must find its offset moved.
        if owned and stat.S_ISREG(os.fstat(fd).st_mode) and not _appends(fd):
            self._file = RegularFile(fd, os.lseek(fd, 0, os.SEEK_CUR))
        self._thread = threading.Thread(target=self._run, name=f"write {name}", daemon=True)
        self._thread.start()

    @property
    def seekable(self) -> bool:
        """Whether what was written can be overwritten: ``write`` with ``back``."""
        return self._file is not None

    def begin(self) -> None:
        """Empties the file from where it stood: what was there gives way now.

        The first ``write`` does it, too.
        """
        if self._file is not None and not self._begun:
            os.ftruncate(self._fd, os.lseek(self._fd, 0, os.SEEK_CUR))
        self._begun = True

    def write(self, *pieces: bytes, back: int = 0) -> None:
        """Queues bytes; waits while the queue is full. Raises SinkError once a write has failed.

        ``back``: the last so many bytes of a seekable file are overwritten, by a single write.
        """
        size = sum(map(len, pieces))
        if not size:
            return
        if not self._begun:
            self.begin()
        join = back or size < _JOIN_BELOW * len(pieces)
        joined = [b"".join(pieces)] if join else list(pieces)
        with self._changed:
            while self._queued and self._queued + size > self._limit and not self._error:
                self._changed.wait()
            self._raise_error()
            self._queue.append((joined, size, back))
            self._queued += size
            self._changed.notify_all()

    def tick(self) -> None:
        """Time has passed: nothing depends on it here."""

    def flush(self) -> None:
        """Waits until all that is queued is written. Raises SinkError if it cannot be."""
        with self._changed:
            while self._queued and not self._error:
                self._changed.wait()
            self._raise_error()

    def close(self) -> None:
        """Writes what is queued and ends. Raises SinkError if anything could not be written."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        self._thread.join()
        if self._owned and self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._raise_error()

    def _raise_error(self) -> None:
        error = self._error
        if error is None:
            return
        if isinstance(error, BrokenPipeError):
            raise Closed(destination=self._name) from error
        raise SinkError(
            destination=self._name,
            cause=error.strerror or str(error),
            hint=f"free some space, or write elsewhere with {self._option} FILE",
        ) from error

    def _run(self) -> None:
        try:
            while True:
                with self._changed:
                    while not self._queue and not self._ending:
                        self._changed.wait()
                    if not self._queue:
                        break
                    pieces, size, back = self._queue.popleft()
                    flood = not back and self._queued >= FLOOD_BYTES
                    drained = not self._queue
                if self._file is None:
                    self._write_all(pieces)
                else:
                    self._file.write(pieces, flood=flood, back=back)
                    if drained:
                        self._file.flush()
                with self._changed:
                    self._queued -= size
                    self._changed.notify_all()
            if self._file is not None:
                self._file.close()
        except OSError as error:
            with self._changed:
                self._error = error
                self._queue.clear()
                self._queued = 0
                self._changed.notify_all()

    def _write_all(self, pieces: list[bytes]) -> None:
        for at in range(0, len(pieces), _PIECES_AT_ONCE):
            some = pieces[at : at + _PIECES_AT_ONCE]
            written = self._waiting(os.writev, some)
            if written < sum(map(len, some)):
                # A full pipe or disk took a part; the rest is written piece by piece.
                for piece in some:
                    rest = memoryview(piece)[written:]
                    written = max(0, written - len(piece))
                    while rest:
                        rest = rest[self._waiting(os.write, rest) :]

    def _waiting(self, write: Callable[[int, _What], int], what: _What) -> int:
        # Whoever shares a pipe or terminal with us may have set O_NONBLOCK on it.
        while True:
            try:
                return write(self._fd, what)
            except BlockingIOError:
                ready = select.poll()
                ready.register(self._fd, select.POLLOUT)
                ready.poll()


def _appends(fd: int) -> bool:
    return bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND)
