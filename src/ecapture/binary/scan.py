# SPDX-License-Identifier: Apache-2.0
"""Finds every file on the host that contains a TLS implementation some process may call.

Strategy: a file is one device and inode, however many processes, containers and names it has. It
is judged once, by whichever of its names still leads to it, and a judgement made in an earlier run
is taken from the cache. Libraries that the loader would find but nobody maps yet are added, so
that a program started later is seen from its first call.

Invariants: a ``Found`` path led to the very file that was judged, at the time it was judged;
``pinned`` makes that true at the time of use. A file or process that cannot be looked at is listed
among the skipped, unless it is gone or is no ELF file.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from ecapture.binary.cache import Cache
from ecapture.binary.elf import ElfFile
from ecapture.binary.library import Library
from ecapture.binary.loader import loader_cache
from ecapture.binary.process import MappedFile, all_pids, mapped_files
from ecapture.errors import NotExecutable, PermissionMissing, TargetError, TargetNotFound

_LIBRARIES = ("libssl", "libgnutls", "libsoftokn3", "libreadline")
_SHELLS = Path("/etc/shells")  # shells(5): what users may log in to
_MAX_SHELLS = 64
_MAX_NAMES = 8  # how many mappings of a file are tried before it counts as gone


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A file with a TLS implementation.

    ``path`` is what to attach by, from here; ``name`` is what the processes call it, with
    " (deleted)" if that name is gone. ``pids`` are the processes that map it, in order.
    """

    path: str
    name: str
    device: int
    inode: int
    size: int
    changed_ns: int
    pids: tuple[int, ...]
    library: Library


class Skipped(msgspec.Struct, frozen=True):
    """What could not be looked at, and why."""

    subject: str
    reason: str


def scan(
    cache: Cache,
    pids: Iterable[int] | None = None,
    skipped: list[Skipped] | None = None,
) -> Iterator[Found]:
    """Yield every file with a TLS implementation that a process maps or the loader would find.

    With ``pids`` only what these processes map counts. What could not be looked at is added to
    ``skipped``.
    """
    skipped = [] if skipped is None else skipped
    mapped: dict[tuple[int, int], list[MappedFile]] = {}
    for pid in all_pids() if pids is None else sorted(set(pids)):
        try:
            for file in mapped_files(pid):
                mapped.setdefault((file.device, file.inode), []).append(file)
        except TargetNotFound:
            continue
        except PermissionMissing as error:
            skipped.append(Skipped(f"process {pid}", str(error)))
    for (device, inode), files in mapped.items():
        names = _distinct(files)
        users = tuple(sorted({file.pid for file in files}))
        paths = ((path, file.path) for file in names for path in paths_to(file))
        exact = (device, inode) if files[0].exact else None
        if found := _judge(cache, paths, exact, users, skipped):
            yield found
    if pids is None:
        yield from _unmapped(cache, mapped, skipped)


def scan_files(
    cache: Cache, paths: Iterable[str], skipped: list[Skipped] | None = None
) -> Iterator[Found]:
    """Yield those of these files that contain a TLS implementation, each file once."""
    skipped = [] if skipped is None else skipped
    seen: set[tuple[int, int]] = set()
    for path in paths:
        found = _judge(cache, [(path, path)], None, (), skipped)
        if found and (found.device, found.inode) not in seen:
            seen.add((found.device, found.inode))
            yield found


@contextlib.contextmanager
def pinned(found: Found) -> Iterator[str]:
    """Hold the file open and yield a path that leads to it and to nothing else.

    The owner of a directory may put another file in the place of the one that was judged, whose
    offsets would then be wrong; the yielded path goes through a descriptor and cannot change.

    Raises:
        TargetNotFound: the file is gone, or is another by now.
        PermissionMissing: it may no longer be read.
    """
    with ElfFile(found.path) as elf:
        now = elf.status
        if (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns) != (
            found.device,
            found.inode,
            found.size,
            found.changed_ns,
        ):
            raise TargetNotFound(looked_for=f"{found.path} as it was", looked_in="the file system")
        yield f"/proc/self/fd/{elf.fileno()}"


@contextlib.contextmanager
def opened(place: str, identity: tuple[int, int]) -> Iterator[str]:
    """Hold a file open, since its process may end, and yield a path that leads to it.

    Raises:
        TargetNotFound: what is there is not the file with this ``identity``, device and inode.
    """
    try:
        fd = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise TargetNotFound(looked_for=place, looked_in="the file system") from error
    try:
        now = os.fstat(fd)
        if (now.st_dev, now.st_ino) != identity:
            raise TargetNotFound(looked_for=f"{place} as it was", looked_in="the file system")
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def paths_to(file: MappedFile) -> Iterator[str]:
    """Yield paths by which the file may be opened from here, the most lasting first."""
    if not file.deleted and file.name.startswith("/"):
        yield file.name
        yield f"/proc/{file.pid}/root{file.name}"
    yield file.map_files


def _distinct(files: list[MappedFile]) -> list[MappedFile]:
    # One mapping per process; the name that most processes use need not be the first that works.
    return list({file.pid: file for file in reversed(files)}.values())[::-1][:_MAX_NAMES]


def _unmapped(
    cache: Cache, mapped: dict[tuple[int, int], list[MappedFile]], skipped: list[Skipped]
) -> Iterator[Found]:
    paths = [
        path
        for name, places in loader_cache().items()
        if name.startswith(_LIBRARIES)
        for path in places
    ]
    paths += _login_shells()
    for found in scan_files(cache, paths, skipped):
        if (found.device, found.inode) not in mapped:
            yield found


def _login_shells() -> list[str]:
    try:
        lines = _SHELLS.read_text(errors="replace").splitlines()
    except OSError:
        return []
    return [line.strip() for line in lines if line.startswith("/")][:_MAX_SHELLS]


def _judge(
    cache: Cache,
    paths: Iterable[tuple[str, str]],
    wanted: tuple[int, int] | None,
    pids: tuple[int, ...],
    skipped: list[Skipped],
) -> Found | None:
    # Judge the file by the first path that leads to it.
    refusal: Skipped | None = None
    for path, name in paths:
        try:
            status, library = _look(cache, path, wanted)
        except NotExecutable:
            return None
        except TargetError:
            continue
        except PermissionMissing as error:
            refusal = Skipped(name, str(error))
            continue
        if library is None:
            return None
        return Found(
            path=path,
            name=name,
            device=status.st_dev,
            inode=status.st_ino,
            size=status.st_size,
            changed_ns=status.st_mtime_ns,
            pids=pids,
            library=library,
        )
    if refusal:
        skipped.append(refusal)
    return None


def _look(
    cache: Cache, path: str, wanted: tuple[int, int] | None
) -> tuple[os.stat_result, Library | None]:
    # The judgement about the file that the path leads to, if it is the one that is wanted.
    with contextlib.suppress(OSError, ValueError):  # opening it gives the reason
        status = Path(path).stat()
        _insist(path, status, wanted)
        known, library = cache.lookup(status)
        if known:
            return status, library
    from ecapture.binary.identify import identify  # noqa: PLC0415 - much code, seldom needed

    with ElfFile(path) as elf:
        _insist(path, elf.status, wanted)
        try:
            library = identify(elf)
        except NotExecutable:
            library = None
        after = os.fstat(elf.fileno())
    before = elf.status
    if (after.st_size, after.st_mtime_ns, after.st_ctime_ns) == (
        before.st_size,
        before.st_mtime_ns,
        before.st_ctime_ns,
    ):
        cache.remember(before, library)
    return before, library


def _insist(path: str, status: os.stat_result, wanted: tuple[int, int] | None) -> None:
    if wanted not in (None, (status.st_dev, status.st_ino)):
        raise TargetNotFound(looked_for=path, looked_in="the file system")
