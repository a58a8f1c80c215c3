# SPDX-License-Identifier: Apache-2.0
"""Pieces of output to somebody who listens elsewhere, and may go away for a while.

``tcp`` and ``websocket`` say how a connection is made and spoken on; this module does the rest,
from a thread of its own:

1. Capturing never waits for the network: ``write`` queues up to a bound, and drops what is beyond.
   What is dropped is counted and told at the end.
2. The first connection is made at once, so that a wrong address is refused before anything is
   attached. A connection that breaks later is made again, at growing intervals.
3. A piece is remembered until the kernel of the other end has confirmed all of it (SIOCOUTQ,
   tcp(7)). What was not confirmed when a connection broke is sent again on the next one, from its
   beginning: no piece is ever continued on another connection. So a piece may arrive twice, but is
   not lost unnoticed while the other end's system is alive.
4. ``opening`` is sent first on every connection. Where it depends on what was written before,
   ``opening_here`` is asked with every write: it gives what makes the opening of a connection that
   begins with that write.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import sys
import termios
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from ecapture.errors import SinkError
from ecapture.sinks.writer import QUEUE_BYTES

_log = logging.getLogger(__name__)

CONNECT_SECONDS: Final = 5.0
"""How long one attempt to connect may take."""
_CONFIRM_SECONDS: Final = 0.02  # how often we look whether all is confirmed, when it is waited for
_WATCH_SECONDS: Final = 0.5  # and how often when nothing else is to be done


_Piece = tuple[bytes, Callable[[], bytes]]  # and the opening of a connection that begins with it


class Link(Protocol):
    """One connection. Every method but the last two raises OSError when it is broken."""

    def send(self, piece: bytes) -> None:
        """Sends all of a piece; may wait."""

    def unconfirmed(self) -> int:
        """How many bytes, at least, the other end has not confirmed."""

    def check(self) -> None:
        """Raises if the connection is known to be broken; takes in what nobody asked for."""

    def close(self) -> None:
        """Ends the connection in order. May be called twice."""

    def abort(self) -> None:
        """Breaks it off, from another thread: a ``send`` that waits raises."""


def unconfirmed_bytes(fd: int) -> int:
    """Bytes in a TCP socket's send queue: what was not yet acknowledged (SIOCOUTQ)."""
    if fd < 0:
        raise OSError(errno.EBADF, "closed meanwhile")
    return int.from_bytes(fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


class Forwarder:
    """Sends pieces over connections that ``connect`` makes; ``name`` is for messages.

    ``joined`` makes one piece of all that one call of ``write`` is given. Making it raises
    SinkError if the first connection fails. ``lost_pieces`` and ``lost_bytes`` count what was
    dropped; ``linger`` is how many seconds ``close`` waits for what is still to be delivered.
    """

    def __init__(
        self,
        connect: Callable[[], Link],
        name: str,
        *,
        joined: bool,
        opening: Callable[[], bytes] = bytes,
        opening_here: Callable[[], Callable[[], bytes]] | None = None,
        queue_bytes: int = QUEUE_BYTES,
        pauses: tuple[float, float] = (0.1, 10.0),
        linger: float = 3.0,
    ) -> None:
        self.lost_pieces = 0
        self.lost_bytes = 0
        self._connect = connect
        self._name = name
        self._joined = joined
        self._opening_here = opening_here or (lambda: opening)
        self._limit = queue_bytes
        self._first_pause, self._longest_pause = pauses
        self._linger = linger
        self._pause = 0.0
        self._queue: deque[_Piece] = deque()
        self._queued = 0
        self._dropping = False
        self._sent: deque[_Piece] = deque()
        self._sent_bytes = 0
        self._opened = False
        self._ending = False
        self._closed = False
        self._deadline = 0.0
        self._changed = threading.Condition()
        try:
            self._link: Link | None = connect()
        except OSError as error:
            raise SinkError(
                destination=name,
                cause=f"cannot be reached ({_reason(error)})",
                hint="start what shall receive it first, or write to a file with -w FILE",
            ) from None
        self._thread = threading.Thread(target=self._run, name=f"send {name}", daemon=True)
        self._thread.start()

    def write(self, *pieces: bytes) -> bool:
        """Queues pieces, or drops and counts them if the queue is full. Never waits.

        Returns whether all were queued.
        """
        some = [b"".join(pieces)] if self._joined else pieces
        lost, opening = self.lost_pieces, self._opening_here()
        with self._changed:
            for piece in some:
                if not piece:
                    continue
                if self._queue and self._queued + len(piece) > self._limit:
                    self._drop(piece)
                else:
                    self._queue.append((piece, opening))
                    self._queued += len(piece)
                    self._dropping = False
            self._changed.notify_all()
        return self.lost_pieces == lost

    def begin(self) -> None:
        """A connection has no earlier content."""

    def tick(self) -> None:
        """Nothing is due by time."""

    def close(self) -> None:
        """Delivers what is queued within ``linger``. Raises SinkError if anything was lost."""
        if self._closed:
            return
        self._closed = True
        with self._changed:
            self._ending = True
            self._deadline = time.monotonic() + self._linger
            self._changed.notify_all()
        self._thread.join(self._linger + _WATCH_SECONDS)
        link = self._link
        if self._thread.is_alive() and link is not None:
            link.abort()
            self._thread.join(CONNECT_SECONDS + _WATCH_SECONDS)
        with self._changed:
            left = [*self._sent, *self._queue]
        self.lost_pieces += len(left)
        self.lost_bytes += sum(len(piece) for piece, _ in left)
        if self.lost_pieces:
            raise SinkError(
                destination=self._name,
                cause=f"{self.lost_pieces} pieces ({self.lost_bytes} bytes) were not delivered",
                hint="the receiver was away or too slow; a file (-w FILE) loses nothing",
            )

    def _drop(self, piece: bytes) -> None:
        self.lost_pieces += 1
        self.lost_bytes += len(piece)
        if not self._dropping:
            self._dropping = True
            _log.warning("%s: the queue is full, output is being lost", self._name)

    # --- in the thread ---

    def _run(self) -> None:
        while not self._done():
            try:
                if self._link is None:
                    self._reconnect()
                else:
                    self._work(self._link)
            except OSError as error:
                self._broken(error)
        if self._link is not None:
            self._link.close()

    def _done(self) -> bool:
        if not self._ending:
            return False
        rest = self._queue or self._sent or (self._link is not None and not self._opened)
        return not rest or time.monotonic() >= self._deadline

    def _work(self, link: Link) -> None:
        self._confirm(link.unconfirmed())
        link.check()
        with self._changed:
            if not self._queue and not self._ending:
                # Nobody tells when something is confirmed or the connection breaks: we look.
                self._changed.wait(_WATCH_SECONDS)
                return
            if not self._queue and self._opened:
                self._changed.wait(_CONFIRM_SECONDS)
                return
        if not self._opened:
            with self._changed:
                make = self._queue[0][1] if self._queue else self._opening_here()
            opening = make()
            if opening:
                link.send(opening)
            self._opened = True
            return
        with self._changed:
            queued = self._queue.popleft()
            piece = queued[0]
            self._queued -= len(piece)
            self._sent.append(queued)
            self._sent_bytes += len(piece)
        link.send(piece)

    def _confirm(self, unconfirmed: int) -> None:
        # Whatever is put around pieces makes bytes more, so this errs to the safe side.
        with self._changed:
            while self._sent and self._sent_bytes - len(self._sent[0][0]) >= unconfirmed:
                self._sent_bytes -= len(self._sent.popleft()[0])
                self._pause = 0.0

    def _reconnect(self) -> None:
        with self._changed:
            if self._ending:
                left = max(0.0, self._deadline - time.monotonic())
                self._changed.wait(min(self._pause, self._first_pause, left))
            elif self._pause:
                self._changed.wait_for(lambda: self._ending, self._pause)
        # Grows until something was confirmed: to be accepted and thrown out at once is no success.
        self._pause = min(max(2 * self._pause, self._first_pause), self._longest_pause)
        try:
            self._link = self._connect()
        except OSError as error:
            _log.debug("%s: cannot be reached (%s)", self._name, _reason(error))
        else:
            self._opened = False
            _log.info("%s: connected again", self._name)

    def _broken(self, error: OSError) -> None:
        _log.warning("%s: connection lost (%s), will connect again", self._name, _reason(error))
        link, self._link = self._link, None
        if link is not None:
            link.close()
        with self._changed:
            self._queue.extendleft(reversed(self._sent))
            self._queued += self._sent_bytes
            self._sent.clear()
            self._sent_bytes = 0


def _reason(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
