# SPDX-License-Identifier: Apache-2.0
"""Back-ends of PostgreSQL that were there before the probes.

Who waits for its client is inside ``secure_read`` and will return from it unseen, with the first
request. So the functions that it calls in there are hooked, too, in those processes only, until
each was seen to enter ``secure_read`` anew. All others pay nothing: never is the server's first
process hooked so, because all that it forks would inherit the breakpoints and pay for them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

from ecapture._wire import Shape
from ecapture.binary import process
from ecapture.binary.library import Library
from ecapture.errors import AttachRefused, PermissionMissing, TargetNotFound
from ecapture.kernel.attach import Attached, Place, Programs

_log = logging.getLogger(__name__)
_SECONDS = 0.5  # between looks at who is done


class Latecomers:
    """Hooks them, and takes the hooks out again in a thread of its own."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs
        self._attached: dict[int, Attached] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def attach(self, path: str, library: Library, pids: Iterable[int]) -> None:
        """Hooks the back-ends among these processes of one file."""
        hooks = self._programs.hooks
        places = [
            Place(row, library.functions[hook.symbol])
            for row, hook in enumerate(hooks)
            if hook.shape is Shape.SERVED_INNER_READ and hook.symbol in library.functions
        ]
        for pid in pids if places else ():
            self._attach(path, places, pid)
        if self._attached and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="latecomers", daemon=True)
            self._thread.start()

    def _attach(self, path: str, places: Sequence[Place], pid: int) -> None:
        self._programs.expect_latecomer(pid)
        try:
            attached = self._programs.attach(path, places, pid)
        except TargetNotFound:
            return
        except AttachRefused as error:
            _log.warning("the first request of process %d may be missed: %s", pid, error)
            return
        with self._lock:
            if not self._closed.is_set():
                self._attached[pid] = attached
                return
        attached.close()

    def _run(self) -> None:
        while not self._closed.wait(_SECONDS):
            waiting = self._programs.latecomers()
            with self._lock:
                gone = [
                    pid
                    for pid in self._attached
                    if pid not in waiting or not Path(f"/proc/{pid}").exists()
                ]
                done = [self._attached.pop(pid) for pid in gone]
            for attached in done:
                attached.close()
            if not self._attached:
                return

    def close(self) -> list[Attached]:
        """Ends the thread; what is still attached is the caller's to close."""
        with self._lock:
            self._closed.set()
            attached = list(self._attached.values())
            self._attached.clear()
        if self._thread is not None:
            self._thread.join()
        return attached


def back_ends(pids: Iterable[int]) -> list[int]:
    """Those among the processes of a file that may serve a client.

    A back-end is forked by the server's first process, which reads from no client itself, forks
    none, and holds a socket (src/backend/postmaster/postmaster.c, BackendStartup).
    """
    parents: dict[int, int] = {}
    for pid in pids:
        with contextlib.suppress(TargetNotFound, PermissionMissing):
            parents[pid] = process.parent_of(pid)
    first = set(parents.values())
    return [
        pid
        for pid, parent in parents.items()
        if parent in parents and pid not in first and _may_hold_socket(pid)
    ]


def _may_hold_socket(pid: int) -> bool:
    try:
        return any(entry.is_socket() for entry in Path(f"/proc/{pid}/fd").iterdir())
    except PermissionError:
        return True
    except OSError:
        return False  # it is gone


def processes_of(status: os.stat_result) -> list[int]:
    """The processes that run this very file."""
    found = []
    for pid in process.all_pids():
        try:
            exe = Path(f"/proc/{pid}/exe").stat()
        except OSError:
            continue
        if (exe.st_dev, exe.st_ino) == (status.st_dev, status.st_ino):
            found.append(pid)
    return found
