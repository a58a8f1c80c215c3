# SPDX-License-Identifier: Apache-2.0
"""The files that are hooked: each once, as long as they are what they were and can be reached.

Probes are planted in a file below all names and mounts (its inode), at offsets, and the file stays
in use for as long as they are. Three things follow for whoever watches a host for weeks:

- A file may be written anew in its place. Its probes are taken out before (``kernel.leases``), and
  the file is looked into again when nobody writes to it any more.
- The containers of one image have their files in common, each through an overlay of its own with
  its own device number. Hooked through every one of them, a call would be probed as often as there
  are containers. So a file that is known by another number already gets one more user instead.
- A file system that was unmounted here, or whose container has ended, would stay. So what is out of
  reach (``reach``) is let go, and looked at anew should it come back.

Whether an overlay has a known file below it no system call tells. It has, if inode number, size
and time of change to the nanosecond are equal, and a process that has mapped it has a breakpoint in
its memory: that was planted by the kernel, which knows what is below.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

from ecapture.binary import process
from ecapture.binary.scan import opened
from ecapture.errors import ECaptureError, TargetNotFound
from ecapture.kernel.attach import Attached, Place, Programs
from ecapture.kernel.leases import Lease, Listener
from ecapture.kernel.mounts import unheld
from ecapture.reach import Reach, out_of_reach

_log = logging.getLogger(__name__)
_SECONDS: Final = 2.0  # between looks at what is out of reach
_SOON: Final = 0.05  # between looks at a file that is being written
_LONG: Final = 5.0  # who writes for so long is waited for with less haste
_COMPARED: Final = 4  # bytes: a breakpoint has one on x86_64, four on aarch64


class Key(NamedTuple):
    """A file by its numbers, hooked in one process (0: in all), for its keys or for plaintext."""

    device: int
    inode: int
    pid: int
    keys: bool


class Seen(NamedTuple):
    """A file as it was looked into: when last modified (ns), what it is called and who maps it."""

    modified_ns: int
    name: str
    pids: tuple[int, ...] = ()


class _File:
    # It is hooked through the first of its users.

    def __init__(
        self, lease: Lease, places: Sequence[Place], attached: Attached, *, returns: bool
    ) -> None:
        self.users: list[_User] = []
        self.lease = lease
        self.places = tuple(places)
        self.attached = attached
        self.returns = returns


class _User:
    # One of the numbers by which a file is known. ``asked_for``: since it was last looked at.

    file: _File

    def __init__(self, key: Key, reach: Reach, changed_ns: int) -> None:
        self.key = key
        self.reach = reach
        self.changed_ns = changed_ns
        self.asked_for = False


class _Changing(NamedTuple):
    # A file whose probes are out since then (s, CLOCK_MONOTONIC), and who was to be observed.
    lease: Lease
    reaches: list[Reach]
    since: float


# inode, time of change (ns), size, process, whether for keys
_Alike = tuple[int, int, int, int, bool]


class HookedFiles:
    """Hooks files through ``programs``, until closed. Thread-safe.

    From a thread of its own ``on_gone`` is called before a file is let go, and ``on_changed`` when
    one that was let go may be looked into again.
    """

    def __init__(
        self,
        programs: Programs,
        on_gone: Callable[[Key], None],
        on_changed: Callable[[Reach], None],
    ) -> None:
        self._programs = programs
        self._on_gone = on_gone
        self._on_changed = on_changed
        self._users: dict[Key, _User] = {}
        self._alike: dict[_Alike, _File] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._changing: list[_Changing] = []
        self._said: set[str] = set()
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._told: Listener  # where the thread is told; it cannot be woken once it has ended
        self._ended = False

    @property
    def closed(self) -> bool:
        """Whether nothing is hooked any more, nor will be."""
        return self._closed.is_set()

    def has(self, key: Key) -> bool:
        """Whether the file is hooked."""
        return key in self._users

    def is_used(self, key: Key, pid: int, changed_ns: int) -> bool:
        """Whether the file is hooked, which process ``pid`` has just mapped.

        ``changed_ns`` is its time of change.
        """
        with self._lock:
            user = self._users.get(key)
            if user is None:
                return False
            if user.changed_ns != changed_ns and user is not user.file.users[0]:
                # Below its overlay is another file by now. The lease is not on this one.
                self._remove(user)
                return False
            user.asked_for = True
            user.reach.pid = pid
            return True

    def describe(self) -> str:
        """How much is hooked, for people."""
        with self._lock:
            users = [user.file.users[0] for user in self._users.values()]
        counts = {(user.key[:2], user.key.keys): user.file.attached.functions for user in users}
        return f"{sum(counts.values())} functions in {len({key for key, _keys in counts})} files"

    def hook(
        self, key: Key, path: str, seen: Seen, places: Sequence[Place], *, returns: bool
    ) -> int:
        """Hooks a file, to which ``path`` leads now, at these places; how many functions are.

        0: it was hooked already, all is closed, or somebody has it open for writing: then it will
        have to be looked into again. Raises AttachRefused, or TargetNotFound if it is gone or has
        another content than was seen.
        """
        if self.closed or self.has(key):
            return 0
        listener = self._listening()
        with unheld(path, seen.name) as unheld_path, contextlib.ExitStack() as stack:
            try:
                lease = stack.enter_context(Lease(unheld_path, listener))
                reach = Reach(path, seen.name, seen.pids[0] if seen.pids else 0, key.pid)
            except OSError as error:
                raise TargetNotFound(looked_for=seen.name, looked_in="the file system") from error
            now = lease.status
            if lease.writers:
                if self._wait_for_writers(key, lease, reach):
                    stack.pop_all()
                return 0
            if now.st_mtime_ns != seen.modified_ns:
                raise TargetNotFound(looked_for=f"{seen.name} as it was", looked_in="its place")
            user = _User(key, reach, now.st_ctime_ns)
            alike = (key.inode, now.st_ctime_ns, now.st_size, key.pid, key.keys)
            known = self._join(user, alike, path, places, seen.pids)
            if known:
                return known
            attached = self._programs.attach(unheld_path, places, key.pid or None, returns=returns)
            file = _File(lease, places, attached, returns=returns)
            with self._lock:
                if not self.closed and key not in self._users:
                    self._add(user, file)
                    self._alike[alike] = file
                    stack.pop_all()  # the lease is kept
                    return attached.functions
            attached.close()
        return 0

    def close(self) -> None:
        """Takes all probes out. What they saw is in the ring."""
        if self._thread is not None:
            self._ready.wait()
        with self._lock:
            self._closed.set()
            files = self._files()
            self._users.clear()
            self._alike.clear()
            if self._thread is not None and not self._ended:
                self._told.wake()
        close_links([file.attached for file in files])
        for file in files:
            file.lease.close()
        if self._thread is not None:
            # It may wait for a file system that does not answer, and has nothing left to do.
            self._thread.join(_SECONDS)
            self._thread = None

    def _files(self) -> list[_File]:
        return list({id(user.file): user.file for user in self._users.values()}.values())

    def _add(self, user: _User, file: _File) -> None:
        user.file = file
        self._users[user.key] = user
        file.users.append(user)

    def _remove(self, user: _User) -> None:
        file = user.file
        del self._users[user.key]
        file.users.remove(user)
        if not file.users:
            self._alike = {key: one for key, one in self._alike.items() if one is not file}

    def _listening(self) -> Listener:
        """The listener of the thread, which is started with the first file."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="hooked files", daemon=True)
                self._thread.start()
        self._ready.wait()
        return self._told

    def _wait_for_writers(self, key: Key, lease: Lease, reach: Reach) -> bool:
        """Has a file looked into later; false if it will be anyway."""
        self._on_gone(key)
        with self._lock:
            waiting = {(r.device, r.inode) for one in self._changing for r in one.reaches}
            if self.closed or (reach.device, reach.inode) in waiting:
                return False
            self._changing.append(_Changing(lease, [reach], time.monotonic()))
            self._told.wake()
        return True

    # --- files with several numbers ---

    def _join(
        self,
        user: _User,
        alike: _Alike,
        path: str,
        places: Sequence[Place],
        pids: Iterable[int],
    ) -> int:
        """Adds a user to the file that this one is, if that is hooked; how many functions are."""
        file = self._alike.get(alike)
        if file is None or not {p.offset for p in places} <= {p.offset for p in file.places}:
            return 0
        offset = places[0].offset
        if not any(_has_breakpoint(pid, user.key, path, offset) for pid in pids):
            return 0
        with self._lock:
            if self.closed or not file.users:
                return 0  # it was let go meanwhile
            self._add(user, file)
        _log.debug("%s is hooked already, as %s", user.reach.name, file.users[0].reach.name)
        return file.attached.functions

    # --- the thread ---

    def _run(self) -> None:
        self._told = Listener()
        self._ready.set()
        due = time.monotonic() + _SECONDS
        while not self.closed:
            soon = time.monotonic() - _LONG
            recent = any(changing.since > soon for changing in self._changing)
            self._told.wait(_SOON if recent else _SECONDS)
            self._give_way()
            self._look_again()
            if time.monotonic() >= due:
                self._let_go()
                due = time.monotonic() + _SECONDS
        with self._lock:
            self._ended = True
        for changing in self._changing:
            changing.lease.close()

    def _give_way(self) -> None:
        """Takes the probes out of files that somebody is about to write."""
        with self._lock:
            files = self._files()
        for file in files:
            with contextlib.suppress(OSError):  # closed meanwhile
                if file.lease.is_wanted() and not self.closed:
                    self._take_out(file)

    def _take_out(self, file: _File) -> None:
        with self._lock:
            users = [user for user in file.users if self._users.get(user.key) is user]
            for user in users:
                self._remove(user)
                self._on_gone(user.key)
        if users:
            close_links([file.attached])
            file.lease.give_up()
            reaches = [user.reach for user in users]
            with self._lock:
                self._changing.append(_Changing(file.lease, reaches, time.monotonic()))
            _log.debug("%s is written: its probes are out until then", users[0].reach.name)

    def _look_again(self) -> None:
        """Has files looked into that nobody writes any more."""
        with self._lock:
            done = [changing for changing in self._changing if changing.lease.is_written()]
            self._changing = [changing for changing in self._changing if changing not in done]
            long = [one for one in self._changing if one.since < time.monotonic() - _LONG]
        for name in {reach.name for one in long for reach in one.reaches} - self._said:
            self._said.add(name)
            _log.warning("%s is open for writing, and not observed until it is closed", name)
        for changing in done:
            changing.lease.close()
            for reach in changing.reaches:
                self._on_changed(reach)
        missed = {r.name: (r, changing.since) for changing in done for r in changing.reaches}
        for name, (reach, since) in missed.items():
            pid = reach.user()
            if pid:
                _log.info(
                    "%s was opened for writing: what process %d and others that had it mapped did"
                    " with it in those %.1f s is missed",
                    name,
                    pid,
                    time.monotonic() - since,
                )

    def _let_go(self) -> None:
        """Takes the probes out of files that nobody can get at any more."""
        with self._lock:
            users = {id(user.reach): user for user in self._users.values()}
            for user in users.values():
                user.asked_for = False
        for reach in out_of_reach(user.reach for user in users.values()):
            self._let_go_of(users[id(reach)])

    def _let_go_of(self, user: _User) -> None:
        file = user.file
        with self._lock:
            if user.asked_for or self._users.get(user.key) is not user:
                return
            hooked_through = file.users[0]
            self._remove(user)
            self._on_gone(user.key)
        _log.debug("let go of %s: nobody can get at it any more", user.reach.name)
        if not file.users:
            close_links([file.attached])
            file.lease.close()
        elif hooked_through is user:
            self._hook_through_others(file)

    def _hook_through_others(self, file: _File) -> None:
        # A call that is under way is seen to its end: both are hooked for a moment.
        for user in list(file.users):
            again = self._hook_again(user)
            if again is None:
                continue
            with self._lock:
                if not self.closed and user in file.users:
                    (file.attached, file.lease), again = again, (file.attached, file.lease)
                    file.users.remove(user)
                    file.users.insert(0, user)
            attached, lease = again
            close_links([attached])
            lease.close()
            return
        _log.debug("%s stays hooked as it was", file.users[0].reach.name)

    def _hook_again(self, user: _User) -> tuple[Attached, Lease] | None:
        file, pid = user.file, user.key.pid or None
        for path in user.reach.paths():
            with contextlib.suppress(OSError, ECaptureError), contextlib.ExitStack() as stack:
                held = stack.enter_context(opened(path, user.key[:2]))
                name = stack.enter_context(unheld(held, user.reach.name))
                with contextlib.ExitStack() as kept:
                    lease = kept.enter_context(Lease(name, self._told))
                    if not lease.writers and lease.status.st_ctime_ns == user.changed_ns:
                        attached = self._programs.attach(
                            name, file.places, pid, returns=file.returns
                        )
                        kept.pop_all()
                        return attached, lease
        return None


def close_links(attached: Sequence[Attached]) -> None:
    """Takes the probes of several files out."""
    # The kernel waits for its readers at every detach; in parallel those waits are shared.
    links = [link for file in attached for link in file.links]
    if links:
        with ThreadPoolExecutor(max_workers=32) as pool:
            list(pool.map(lambda link: link.close(), links))


def _has_breakpoint(pid: int, key: Key, path: str, offset: int) -> bool:
    """Whether a process that maps the file has there another instruction than the file has."""
    with contextlib.suppress(OSError, ECaptureError):
        mapped = process.mapped_files(pid)
        with Path(path).open("rb") as file, Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
            for part in mapped:
                place = part.start + offset - part.offset
                if (part.device, part.inode) == key[:2] and part.start <= place < part.end:
                    file.seek(offset)
                    memory.seek(place)
                    return file.read(_COMPARED) != memory.read(_COMPARED)
    return False
