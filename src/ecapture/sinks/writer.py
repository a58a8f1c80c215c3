# SPDX-License-Identifier: Apache-2.0
"""Bytes to a file descriptor, from a thread of its own.

A slow disk or pipe must not keep the capture thread from draining the ring. So ``write`` only
queues, up to a bound; when that is reached it waits, draining pauses, the kernel drops, and what it
dropped is counted. A failed write ends the capture: the next ``write`` or ``close`` raises.
"""

from __future__ import annotations

import os
import threading
from collections import deque

from ecapture.errors import SinkError

QUEUE_BYTES = 16 << 20
_MAXIMUM_WRITE = 1 << 20


class Closed(SinkError):
    """Whoever read our output is gone (EPIPE): the capture ends, but that is no failure."""

    exit_code = 0
    template = "{destination}: the reader is gone"


class Writer:
    """Writes to ``fd``; ``name`` is for messages. ``close`` closes the descriptor if ``owned``."""

    def __init__(self, fd: int, name: str, *, owned: bool, queue_bytes: int = QUEUE_BYTES) -> None:
        self._fd = fd
        self._name = name
        self._owned = owned
        self._limit = queue_bytes
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._ending = False
        self._error: OSError | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"write {name}", daemon=True)
        self._thread.start()

    def write(self, content: bytes) -> None:
        """Queues bytes; waits while the queue is full. Raises SinkError once a write has failed."""
        if not content:
            return
        with self._changed:
            while self._queued and self._queued + len(content) > self._limit and not self._error:
                self._changed.wait()
            self._raise_error()
            self._queue.append(content)
            self._queued += len(content)
            self._changed.notify_all()

    def failed(self) -> bool:
        """Whether a write has failed; ``write`` and ``close`` then raise."""
        return self._error is not None

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
            hint="free some space, or write elsewhere with -w FILE",
        ) from error

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._queue and not self._ending:
                    self._changed.wait()
                if not self._queue:
                    return
                chunk = self._take()
            try:
                self._write_all(chunk)
            except OSError as error:
                with self._changed:
                    self._error = error
                    self._queue.clear()
                    self._queued = 0
                    self._changed.notify_all()
                return
            with self._changed:
                self._queued -= len(chunk)
                self._changed.notify_all()

    def _take(self) -> bytes:
        # Small pieces are joined: one system call for many events.
        first = self._queue.popleft()
        if len(first) >= _MAXIMUM_WRITE or not self._queue:
            return first
        pieces, size = [first], len(first)
        while self._queue and size < _MAXIMUM_WRITE:
            pieces.append(self._queue.popleft())
            size += len(pieces[-1])
        return b"".join(pieces)

    def _write_all(self, chunk: bytes) -> None:
        view = memoryview(chunk)
        while view:
            view = view[os.write(self._fd, view) :]
