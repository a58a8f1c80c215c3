# SPDX-License-Identifier: Apache-2.0
"""What the kernel tells of new executable mappings, in the order in which files are looked into.

Small ones first: a large program may take a second to look into, while a library that was mapped
behind it begins its work within milliseconds. A large one lets those pass that were mapped within
the time that it takes itself, and no others: where programs start all the time, as under a
compiler, it would wait for ever.
"""

from __future__ import annotations

import heapq
import os
import select
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Protocol

# How long a byte of an executable mapping takes, about: 4 to 13 ns were measured.
_LOOKED_INTO_NS: Final = 10
# So many may wait. A program that maps files for ever makes them faster than they are looked at.
_MAXIMUM_PENDING: Final = 32768


class Watch(Protocol):
    """Where notices come from: the ``MapWatch`` of the native layer."""

    @property
    def fds(self) -> list[int]:
        """Descriptors that can be read when there are notices."""

    @property
    def lost(self) -> int:
        """Notices for which there was no room."""

    def read(self) -> list[tuple[int, int, int, str, str, int]]:
        """Process, address, size in bytes, path, build id and time (ns) of each new mapping."""


class Notice(NamedTuple):
    """An executable mapping of ``size`` bytes, ordered by ``due_ns``.

    ``mapped_ns`` is when it was made, by CLOCK_MONOTONIC.
    """

    due_ns: int
    size: int
    mapped_ns: int
    pid: int
    start: int
    path: str


class Notices:
    """The mappings of these processes (of all, if none is named) that were not looked at yet.

    ``take`` waits for one; it answers None when ``wake``, a descriptor, can be read. When notices
    were lost, ``on_loss`` is called with their number; those that are too many to wait are lost.
    """

    def __init__(
        self, watch: Watch, wake: int, pids: Sequence[int], on_loss: Callable[[int], None]
    ) -> None:
        self._watch = watch
        self._pids = frozenset(pids)
        self._on_loss = on_loss
        self._lost = 0
        self._pending: list[Notice] = []
        self._wake = wake
        # The kernel tells of each wake-up once (perf_poll in kernel/events/ring_buffer.c), and to
        # whoever asks first, which is the call that registers: what came before is not told again.
        self._looked = False
        self._poll = select.epoll()
        for fd in (wake, *watch.fds):
            self._poll.register(fd, select.EPOLLIN)

    def close(self) -> None:
        """Ends the waiting for good; the watch stays its owner's."""
        self._poll.close()

    def take(self) -> Notice | None:
        """The one that is due first of all that have come."""
        while True:
            ready = self._poll.poll(None if self._looked and not self._pending else 0)
            self._looked = True
            if any(fd == self._wake for fd, _events in ready):
                return None
            self._gather()
            if self._pending:
                return heapq.heappop(self._pending)

    def _gather(self) -> None:
        for pid, start, size, path, _build_id, mapped_ns in self._watch.read():
            if path.startswith("/") and (not self._pids or pid in self._pids):
                due_ns = mapped_ns + size * _LOOKED_INTO_NS
                heapq.heappush(self._pending, Notice(due_ns, size, mapped_ns, pid, start, path))
        missed, self._lost = self._watch.lost - self._lost, self._watch.lost
        if len(self._pending) > _MAXIMUM_PENDING:
            missed += len(self._pending)
            self._pending.clear()
        if missed:
            self._on_loss(missed)


def online_processors() -> list[int]:
    """The numbers of the processors that run, as the kernel counts them."""
    try:
        text = Path("/sys/devices/system/cpu/online").read_text().strip()
    except OSError:  # no sysfs, as in some containers
        return list(range(os.cpu_count() or 1))
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found
