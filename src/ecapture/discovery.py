# SPDX-License-Identifier: Apache-2.0
"""Which files to hook: those in use at start, those the loader would find, and every new one.

At start, files come from the mappings of processes and the loader's cache, each once by (device,
inode). From then on the kernel tells of every executable mapping (PERF_RECORD_MMAP2): a library is
hooked the moment any process maps it, in any container. A thread of its own does that, because
looking into a file takes milliseconds and the ring must be drained meanwhile.

Where keys pass by, and where plaintext does in a program without names, takes up to two seconds to
find in a large program. Such files are looked into by another thread, one after the other, so that
all others are hooked first; only those that were named by hand, and those of a command that is
about to start, are waited for.

With a list of processes and no descendants to follow, probes are placed in those processes only,
and all others pay nothing. Else they are placed for everybody and the kernel programs filter.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import platform
import queue
import re
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from ecapture._wire import Shape
from ecapture.binary import process
from ecapture.binary.cache import Cache
from ecapture.binary.calls.completion import CallsCache, Completion, is_open
from ecapture.binary.command_line import files_of_command
from ecapture.binary.elf import ElfFile
from ecapture.binary.library import KEYS_ONLY, NOT_TLS, Library
from ecapture.binary.scan import Found, opened, pinned, scan, scan_files
from ecapture.config import CaptureConfig
from ecapture.errors import (
    AttachRefused,
    ECaptureError,
    NotExecutable,
    SymbolNotFound,
    TargetError,
    TargetNotFound,
)
from ecapture.hooked import HookedFiles, Key, Seen, close_links
from ecapture.kernel import _native
from ecapture.kernel.attach import Place, Programs
from ecapture.kernel.families import FAMILIES
from ecapture.kernel.feature import feature
from ecapture.kernel.latecomers import Latecomers, back_ends, processes_of
from ecapture.kernel.parameters import Parameters
from ecapture.kernel.shells import SHAPES, Shells
from ecapture.notices import Notice, Notices, online_processors
from ecapture.plan import Hook
from ecapture.probes.spec import ProbeSpec
from ecapture.reach import Reach
from ecapture.unseen import Unseen

if TYPE_CHECKING:
    from ecapture.kernel.keys import Keys

_log = logging.getLogger(__name__)
# The nice value of what looks into new files, where the default is 0 and the least is -20.
_AHEAD = -10
_MAXIMUM_LOOKED = 65536


class _Slow(NamedTuple):
    # A file that is held open until there is time to look into its code.
    fd: int
    seen: Seen
    library: Library
    keys: tuple[Key, ...]
    older: bool
    late: Notice | None


class Discovery:
    """Finds files and hooks them through ``programs``, until closed."""

    def __init__(
        self, programs: Programs, chosen: Sequence[ProbeSpec], config: CaptureConfig
    ) -> None:
        self._programs = programs
        self._chosen = tuple(chosen)
        self._config = config
        scope = config.scope
        self._only = () if scope.follow or config.command else scope.pids
        self._hooked = HookedFiles(programs, self._forget, self._look_again_at)
        # When the content of a file that was looked at had last changed: the number of an inode
        # that is free is given to the next file, and some linkers write a program anew in its place
        self._looked: dict[Key, int] = {}
        kinds = [kind for probe in self._chosen for kind in probe.kinds]
        self._unseen = Unseen(kinds, unattended=config.unattended)
        self._watch: _native.MapWatch | None = None
        self._thread: threading.Thread | None = None
        self._returns = not _return_probes_kill()
        self._keys = _keys(programs) if config.keys else None
        self._completion = Completion(CallsCache.of_user())
        self._parameters = Parameters.of_user()
        self._parameter_lock = threading.Lock()
        self._late = Latecomers(programs)
        self._shells = Shells(programs)
        self._slow: queue.SimpleQueue[_Slow | None] = queue.SimpleQueue()
        self._slow_thread: threading.Thread | None = None

    def start(self) -> None:
        """Hooks what is there and begins to watch for more.

        Raises TargetError for a file or process that was named by hand and cannot be observed.
        """
        self._start_watch()  # before the first look, so that nothing falls in between
        if self._config.libraries:
            for path in self._config.libraries:
                self._attach_named(path)
        else:
            self._attach_found()
        if self._watch is not None:
            self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC)
            self._thread = threading.Thread(target=self._run, name="discovery", daemon=True)
            self._thread.start()
        self._slow_thread = threading.Thread(target=self._run_slow, name="slow files", daemon=True)
        self._slow_thread.start()

    def describe(self) -> str:
        """What is attached, for people."""
        text = self._hooked.describe()
        if self._only:
            text += " of process " + ", ".join(map(str, self._only))
        if self._watch is not None and not self._config.libraries:
            text += ", and in others as they are loaded"
        return text + "; Ctrl-C stops"

    def close(self) -> None:
        """Takes all probes out. What they saw is in the ring."""
        # Before the threads, which may be within a file for seconds: nobody drains the ring now.
        self._hooked.close()
        if self._thread is not None:
            os.write(self._wake_write, b"c")
            self._thread.join()
            self._thread = None
            os.close(self._wake_read)
            os.close(self._wake_write)
        if self._slow_thread is not None:
            self._slow.put(None)
            self._slow_thread.join()
            self._slow_thread = None
        if self._keys is not None:
            self._keys.save()
        self._completion.save()
        with self._parameter_lock:
            self._parameters.save()
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        close_links(self._late.close())

    # --- files ---

    def _attach_named(self, path: str) -> None:
        try:
            Path(path).stat()
        except OSError as error:
            raise TargetNotFound(
                looked_for=path,
                looked_in=f"the file system ({error.strerror})",
                hint="`ecapture targets` lists the files that processes use",
            ) from None
        # Held open: whoever owns the directory may put another file there, with code elsewhere.
        with ElfFile(path) as elf:
            held = f"/proc/self/fd/{elf.fileno()}"
            try:
                self._attach_held(elf, held, path)
            except ECaptureError as error:  # it is known by the name that it was given
                error.fields |= {k: path for k, value in error.fields.items() if value == held}
                raise

    def _attach_held(self, elf: ElfFile, held: str, path: str) -> None:
        if elf.machine != platform.machine():
            raise NotExecutable(
                path=path, reason=f"is built for {elf.machine}, this is {platform.machine()}"
            )
        named, at = self._config.server_function, self._config.server_offset
        by_hand = bool(named) or at is not None
        from ecapture.binary.identify import identify, identify_server  # noqa: PLC0415

        library = identify_server(elf, named=named, at=at) if by_hand else identify(elf)
        found = elf.status
        if library is not None and self._chosen_kind(library):
            library = self._completion.of(held, library)
        possible = [kind for probe in self._chosen for kind in probe.kinds]
        kinds = ", ".join(kind for kind in possible if kind not in KEYS_ONLY)
        if library is None or not (self._places(library) or self._has_keys(library)):
            required = " and ".join(name for probe in self._chosen for name in probe.required)
            raise SymbolNotFound(
                path=path,
                symbol=required,
                hint=(
                    library.reason
                    if library is not None and library.reason
                    else f"it is none of: {kinds}"
                ),
            )
        seen = Seen(found.st_mtime_ns, path)
        for pid in self._only or (0,):
            self._attach(held, seen, library, Key(found.st_dev, found.st_ino, pid, False))
        mapped = _mapped_now(found)
        if self._has_keys(library):
            keys = [Key(found.st_dev, found.st_ino, pid, True) for pid in self._only or (0,)]
            found_keys = self._attach_keys(held, seen, library, keys, older=mapped)
            if not found_keys and not self._places(library):
                raise AttachRefused(hook=path, reason="its keys cannot be read")
        if not mapped:
            _log.info("%s: no process has it mapped yet; those that load it will be seen", path)

    def _attach_found(self) -> None:
        with Cache.of_user() as cache:
            for found in scan(cache, self._only or None):
                self._attach_one(found, wait=False)
            if self._config.command:
                # what the command will load is hooked before it runs, though nobody has it mapped
                for found in scan_files(cache, files_of_command(self._config.command)):
                    self._attach_one(found, wait=True)
        for pid in self._only:
            if not process.is_running(pid):
                raise TargetNotFound(
                    looked_for=f"process {pid}", looked_in="/proc: it ended during start"
                )

    def _attach_one(self, found: Found, *, wait: bool) -> None:
        pids = sorted(set(self._only) & set(found.pids)) if self._only else [0]
        seen = Seen(found.changed_ns, found.name, found.pids)
        self._unseen.tell((found.device, found.inode), found.name, found.library)
        if self._places(found.library):
            for pid in pids:
                key = Key(found.device, found.inode, pid, False)
                with self._unseen.refusals(key, found.name), pinned(found) as path:
                    self._attach(path, seen, found.library, key)
        if self._needs_reading(found.library) and pids:
            keys = tuple(Key(found.device, found.inode, pid, True) for pid in pids)
            older = bool(found.pids)
            with self._unseen.refusals(keys[0], found.name), pinned(found) as path:
                self._read(path, seen, found.library, keys, older=older, wait=wait)

    def _places(self, library: Library) -> list[Place]:
        if not self._chosen_kind(library):
            return []
        places: list[Place] = []
        for row, hook in enumerate(self._programs.hooks):
            entry = library.functions.get(hook.symbol)
            if entry is None or hook.convention not in ("", library.convention):
                continue
            if library.through.get(hook.symbol) in library.functions:
                continue
            if hook.shape is Shape.SERVED_INNER_READ:
                continue  # for latecomers alone
            beside = library.functions.get(hook.beside)
            file_row = self._file_row(library, hook)
            # Returns first: a call entered in between is then lost whole, not half remembered.
            sites = library.returns.get(hook.symbol, ())
            places += [Place(row, site, True, _distance(site, beside)) for site in sites]
            places.append(Place(row, entry, False, _distance(entry, beside), file_row))
            others = library.copies.get(hook.symbol, ())
            places += [Place(row, other, False, 0, file_row) for other in others]
        return places

    def _file_row(self, library: Library, hook: Hook) -> int:
        # What the programs of a hook know the file by; -1: by nothing.
        if hook.shape in SHAPES:
            return self._shells.row(library)
        if library.server is None or not FAMILIES[hook.shape].by_file:
            return -1
        row = self._programs.server_row(library.server.pack())
        if row < 0:
            raise AttachRefused(hook=hook.symbol, reason="there are too many builds of servers")
        return row

    def _chosen_kind(self, library: Library) -> bool:
        kinds = {library.kind, *library.also}
        return any(not kinds.isdisjoint(probe.kinds) for probe in self._chosen)

    def _has_keys(self, library: Library) -> bool:
        tls = library.kind not in NOT_TLS  # where it is that only, and has no TLS library in it
        return self._keys is not None and tls and self._chosen_kind(library)

    # --- what is found by reading code: nameless functions, and keys ---

    def _is_open(self, library: Library) -> bool:
        return self._config.plaintext and self._chosen_kind(library) and is_open(library)

    def _needs_reading(self, library: Library) -> bool:
        return self._is_open(library) or self._has_keys(library)

    def _read(
        self,
        path: str,
        seen: Seen,
        library: Library,
        keys: tuple[Key, ...],
        *,
        wait: bool,
        older: bool = False,
        late: Notice | None = None,
    ) -> None:
        """Hooks what reading the file's code finds, later if that takes long and nobody waits."""
        plain = tuple(key._replace(keys=False) for key in keys if self._is_open(library))
        wanted = (*plain, *(keys if self._has_keys(library) else ()))
        if all(self._hooked.has(key) for key in wanted):
            return
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise TargetNotFound(looked_for=seen.name, looked_in="the file system") from error
        if not self._quick(os.fstat(fd), library):
            if not wait:
                self._slow.put(_Slow(fd, seen, library, keys, older, late))
                return
            _log.info(
                "%s is new and large: looking into its code, once, before the start", seen.name
            )
        try:
            self._attach_read(f"/proc/self/fd/{fd}", seen, library, keys, older=older)
            self._tell_late(keys[0], late)
        finally:
            os.close(fd)

    def _quick(self, status: os.stat_result, library: Library) -> bool:
        keys = self._keys if self._has_keys(library) else None
        if keys is not None and not keys.quick(status, library):
            return False
        return not self._is_open(library) or self._completion.quick(status, library)

    def _attach_read(
        self, path: str, seen: Seen, library: Library, keys: Sequence[Key], *, older: bool
    ) -> None:
        if self._is_open(library):
            library = self._completion.of(path, library)
            if not library.visible:
                _log.info("%s is not shown: %s", seen.name, library.reason)
            for key in keys:
                self._attach(path, seen, library, key._replace(keys=False))
        if self._has_keys(library):
            self._attach_keys(path, seen, library, keys, older=older)

    def _run_slow(self) -> None:
        while (file := self._slow.get()) is not None:
            try:
                if not self._hooked.closed:
                    with self._unseen.refusals(file.keys[0], file.seen.name):
                        self._attach_read(
                            f"/proc/self/fd/{file.fd}",
                            file.seen,
                            file.library,
                            file.keys,
                            older=file.older,
                        )
                        self._tell_late(file.keys[0], file.late)
            finally:
                os.close(file.fd)

    def _attach_keys(
        self, path: str, seen: Seen, library: Library, keys: Sequence[Key], *, older: bool
    ) -> bool:
        """Hooks the file for its keys in each process; false if there is nothing to hook."""
        if self._keys is None:
            return False
        places = self._keys.places(path, seen.name, library, older=older)
        for key in keys if places else ():
            self._attach_places(path, seen, library, key, places)
        return bool(places)

    def _attach(self, path: str, seen: Seen, library: Library, key: Key) -> None:
        places = self._places(library)
        if places and not self._hooked.has(key):
            row = self._parameter_row(path, library)
            if row:
                places = [msgspec.structs.replace(place, parameters=row) for place in places]
            self._attach_places(path, seen, library, key, places)

    def _parameter_row(self, path: str, library: Library) -> int:
        # Version and cipher are worth two milliseconds of a file, but not the file.
        if library.convention or not feature("attach_cookie"):
            return 0
        try:
            with ElfFile(path) as elf:
                with self._parameter_lock:
                    row = self._parameters.row(elf)
                return self._programs.parameter_row(row)
        except TargetError as error:
            _log.debug("%s: what it negotiates is not known: %s", path, error)
            return 0

    def _attach_places(
        self, path: str, seen: Seen, library: Library, key: Key, places: Sequence[Place]
    ) -> None:
        if self._hooked.closed or self._hooked.has(key):
            return
        pid = key.pid or None
        returns = self._returns or (pid is not None and not _sandboxed(pid))
        if not returns and not library.returns and not key.keys:
            _log.warning(
                "%s: this kernel kills sandboxed programs at return probes, so only writes are"
                " shown, as they were asked for",
                seen.name,
            )
        functions = self._hooked.hook(key, path, seen, places, returns=returns)
        if not functions:
            return
        _log.debug(
            "attached %s=%s kind=%s functions=%d pid=%s",
            "keys" if key.keys else "file",
            seen.name,
            library.kind,
            functions,
            pid,
        )
        if library.kind == "postgres" and not key.keys:
            # Afterwards, so that whoever is not among them is seen from its beginning.
            running = back_ends(processes_of(Path(path).stat()))
            watched = process.with_descendants(self._config.scope.pids)
            self._late.attach(path, library, [p for p in running if not watched or p in watched])

    # --- new mappings ---

    def _start_watch(self) -> None:
        if self._config.libraries or not feature("mapping_watch"):
            return
        try:
            self._watch = _native.MapWatch(online_processors())
        except _native.NativeError as error:
            _log.warning("new libraries will not be noticed: %s", error)

    def _run(self) -> None:
        watch = self._watch
        if watch is None:
            return
        # Needed by the first file that nobody has seen, whose process may not live long.
        importlib.import_module("ecapture.binary.identify")
        # What is late is not shown, so this goes ahead of the programs that begin meanwhile.
        with contextlib.suppress(OSError):  # not everybody who may capture may do that
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _AHEAD)
        with Cache.of_user() as cache:

            def look_again(missed: int) -> None:
                _log.debug("lost %d notices of mappings; looking at all processes", missed)
                for found in scan(cache, self._only or None):
                    self._attach_one(found, wait=False)

            with closing(Notices(watch, self._wake_read, self._only, look_again)) as notices:
                while (notice := notices.take()) is not None:
                    try:
                        self._look(notice, cache)
                    except TargetError as error:
                        _log.debug("mapping of %s by %d: %s", notice.path, notice.pid, error)

    def _look(self, notice: Notice, cache: Cache) -> None:
        path = notice.path
        key_pid = notice.pid if self._only else 0
        found = _locate(notice.pid, notice.start, notice.start + notice.size, path)
        if found is None:
            return
        place, status = found
        key = Key(status.st_dev, status.st_ino, key_pid, keys=False)
        key_of_keys = key._replace(keys=True)
        changed_ns = status.st_ctime_ns
        hooked = self._hooked.is_used(key, notice.pid, changed_ns)
        hooked_for_keys = self._hooked.is_used(key_of_keys, notice.pid, changed_ns)
        if self._looked.get(key) == changed_ns:
            return
        if len(self._looked) >= _MAXIMUM_LOOKED:
            self._looked.clear()
        self._looked[key] = changed_ns
        if hooked and (self._keys is None or hooked_for_keys):
            return  # at start
        seen = Seen(status.st_mtime_ns, path, (notice.pid,))
        try:
            with opened(place, (status.st_dev, status.st_ino)) as held:
                library = _identified(held, status, cache)
                if library is not None:
                    self._unseen.tell(key[:2], path, library)
                if library is not None and self._places(library):
                    with self._unseen.refusals(key, path):
                        self._attach(held, seen, library, key)
                        self._tell_late(key, notice)
                if library is not None and self._needs_reading(library):
                    with self._unseen.refusals(key_of_keys, path):
                        self._read(held, seen, library, (key_of_keys,), wait=False, late=notice)
        except TargetNotFound:
            self._forget(key)  # the next to map it will be asked again
            raise

    def _look_again_at(self, reach: Reach) -> None:
        # Called when a hooked file may have another content, with nobody writing to it any more.
        with (
            self._unseen.refusals(("again", reach.device, reach.inode), reach.name),
            Cache.of_user() as cache,
        ):
            for found in scan_files(cache, reach.paths()):
                if (found.device, found.inode) == (reach.device, reach.inode):
                    pids = (reach.pid,) if reach.pid else ()
                    again = msgspec.structs.replace(found, name=reach.name, pids=pids)
                    self._attach_one(again, wait=False)
                    return

    def _forget(self, key: Key) -> None:
        self._looked.pop(key._replace(keys=False), None)

    def _tell_late(self, key: Key, notice: Notice | None) -> None:
        if notice is not None and self._hooked.has(key):
            self._unseen.tell_late(key, notice.path, notice.pid, notice.mapped_ns)


def _keys(programs: Programs) -> Keys:
    from ecapture.binary.secrets.remembered import SitesCache  # noqa: PLC0415 - slow to import
    from ecapture.kernel.keys import Keys  # noqa: PLC0415
    from ecapture.kernel.told import TellingCache, TellingKeys  # noqa: PLC0415

    telling = TellingKeys(programs, TellingCache.of_user())
    return Keys(programs, SitesCache.of_user(), telling)


def _distance(place: int, other: int | None) -> int:
    """Bytes from one place in a file to another; 0 where there is none within 2 GiB."""
    return 0 if other is None or abs(other - place) >= 1 << 31 else other - place


def _locate(pid: int, start: int, end: int, path: str) -> tuple[str, os.stat_result] | None:
    """A name by which we can open a mapped file, though its process or its own name may be gone."""
    for name in (f"/proc/{pid}/map_files/{start:x}-{end:x}", f"/proc/{pid}/root{path}", path):
        try:
            return name, Path(name).stat()
        except (OSError, ValueError):
            continue
    return None


def _identified(place: str, status: os.stat_result, cache: Cache) -> Library | None:
    known, library = cache.lookup(status)
    if not known:
        from ecapture.binary.identify import identify  # noqa: PLC0415 - much code, seldom needed

        with ElfFile(place) as elf:
            library = identify(elf)
        cache.remember(status, library)
    return library


def _sandboxed(pid: int) -> bool:
    return process.read_process(pid).seccomp not in ("", "off")


def _mapped_now(wanted: os.stat_result) -> bool:
    """Whether any process has this file mapped."""
    for pid in process.all_pids():
        with contextlib.suppress(ECaptureError):
            for mapped in process.mapped_files(pid):
                if (mapped.device, mapped.inode) == (wanted.st_dev, wanted.st_ino):
                    return True
    return False


def _return_probes_kill() -> bool:
    """Asked only of kernels that could: the system call came with 6.11, its repair with 6.14."""
    release = re.match(r"(\d+)\.(\d+)", platform.release())
    if platform.machine() != "x86_64" or release is None:
        return False
    if not (6, 11) <= (int(release[1]), int(release[2])) < (6, 14):
        return False
    from ecapture.kernel.seccomp import return_probe_kills  # noqa: PLC0415 - few have to ask

    return return_probe_kills() is not False
