# SPDX-License-Identifier: Apache-2.0
"""Hears of it before a file's content changes, and lets whoever writes wait that long.

A probe is planted at an offset, whatever is there: where a program that is hooked is written anew
in its place (``cp new old``), the next to run it would stumble over breakpoints in the middle of
instructions. A read lease (fcntl(2), F_SETLEASE) keeps who opens the file for writing or cuts it
waiting until the lease is given up: for as long as probes take to come out, some ten milliseconds.
A package manager puts a new file under the name, which concerns no lease.

Where there are no leases (on some network file systems, or without CAP_LEASE), what has changed is
noticed by its time of change.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import threading
from array import array
from typing import Final, Self

_F_SETOWN_EX: Final = 15  # UAPI asm-generic/fcntl.h
_F_SETSIG: Final = 10
_F_OWNER_TID: Final = 0
_TOLD_BY: Final = signal.SIGRTMAX - 1


class Listener:
    """Where the thread that made it is told that somebody waits to write."""

    def __init__(self) -> None:
        # One that is not blocked ends the process; SIGIO comes where others have no room.
        signal.pthread_sigmask(signal.SIG_BLOCK, {_TOLD_BY, signal.SIGIO})
        self._tid = threading.get_native_id()
        self._thread = threading.get_ident()

    def wait(self, seconds: float) -> None:
        """Returns when somebody may wait to write, after ``wake``, or when the time is over."""
        signal.sigtimedwait({_TOLD_BY}, seconds)

    def wake(self) -> None:
        """Ends the waiting, for the thread that is in it."""
        signal.pthread_kill(self._thread, _TOLD_BY)

    def receive(self, fd: int) -> None:
        """Lets the kernel tell it of this file."""
        fcntl.fcntl(fd, _F_SETOWN_EX, array("i", (_F_OWNER_TID, self._tid)).tobytes())
        fcntl.fcntl(fd, _F_SETSIG, _TOLD_BY)


class Lease:
    """The content of a file, to which ``path`` leads now, as it is then (``status``).

    ``writers``: somebody has it open for writing, so there is no lease. Raises OSError if it cannot
    be read.
    """

    def __init__(self, path: str, listener: Listener) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        self.writers = False
        self._taken = False
        # Without a listener the kernel would tell the whole process by SIGIO, which ends it.
        with contextlib.suppress(OSError):
            listener.receive(self._fd)
            self._taken = self._take()
        self.status: Final = os.fstat(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def is_wanted(self) -> bool:
        """Whether somebody waits to write, or has written."""
        if self._fd < 0:
            return False
        if self._taken:
            return fcntl.fcntl(self._fd, fcntl.F_GETLEASE) == fcntl.F_UNLCK
        return os.fstat(self._fd).st_ctime_ns != self.status.st_ctime_ns

    def give_up(self) -> None:
        """Lets them write."""
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        self._taken = False

    def is_written(self) -> bool:
        """Whether nobody has it open for writing any more, as far as that can be told."""
        if self._take():
            self.give_up()
        return not self.writers

    def close(self) -> None:
        """Lets them write, and forgets the file."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _take(self) -> bool:
        try:
            fcntl.fcntl(self._fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except OSError as error:
            self.writers = isinstance(error, BlockingIOError)
            return False
        self.writers = False
        return True
