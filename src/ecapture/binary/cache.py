# SPDX-License-Identifier: Apache-2.0
"""Remembers from run to run what was found out about a file.

Strategy: one JSON file, read whole at the first question and replaced whole at the end. A file is
known by its identity on disk (device, inode, size, times of modification and of change), never by
its build id: anybody can give a file the build id of the system's libssl, and offsets learned from
such a forgery would put probes into the middle of instructions of every program on the host. The
time of change cannot be set from user space (inode(7)), so a changed file is another file.

A judgement is as good as the code that made it: those of other code are forgotten.

Invariants: the cache is advice, so no error of it leaves this module; it is never read from or
written to a place that another user controls, nor through a symbolic link.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import pwd
import stat
import time
import zlib
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Generic, Self, TypeVar

import msgspec

from ecapture.binary.library import Library

_SCHEMA = 1
_MAX_FILE = 16 << 20
_MAX_ENTRIES = 20_000
_SETTLED_NS = 2_000_000_000  # times are as coarse as the timer tick, or 2 s on FAT

log = logging.getLogger(__name__)


Judgement = TypeVar("Judgement")


class _Stored(msgspec.Struct, Generic[Judgement], frozen=True):
    schema: int
    rules: int
    libraries: dict[str, Judgement]


class Remembered(Generic[Judgement]):
    """Judgements about files, by identity; a subclass says of which type.

    ``folder`` is where they are kept; without one they are forgotten. As a context manager it
    saves what was learned.
    """

    file_name: ClassVar[str]
    judgement: ClassVar[Any]
    """The type of a judgement, which msgspec must be able to encode."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._known: dict[str, Judgement] | None = None
        self._used: dict[str, Judgement] = {}
        self._changed = False

    @classmethod
    def of_user(cls) -> Self:
        """Return the cache in the cache directory of the user that this process runs as.

        That is ``$XDG_CACHE_HOME/ecapture`` or ``~/.cache/ecapture``. Under sudo it is root's own,
        because the environment may still name the caller's.
        """
        chosen = Path(os.environ.get("XDG_CACHE_HOME", ""))
        sudo = os.geteuid() == 0 and "SUDO_UID" in os.environ
        if sudo or not chosen.is_absolute():
            chosen = _home_of_user() / ".cache"
        return cls(chosen / "ecapture")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.save()

    def lookup(self, status: os.stat_result) -> tuple[bool, Judgement | None]:
        """Return whether the file with this status was judged before, and the judgement."""
        if self._known is None:
            self._known = self._load()
        key = identity(status)
        if key in self._used:
            return True, self._used[key]
        if key not in self._known:
            return False, None
        self._used[key] = self._known[key]
        return True, self._known[key]

    def remember(self, status: os.stat_result, judgement: Judgement) -> None:
        """Keep a judgement about the file that had this status before and after it was read.

        A file that changed a moment ago may change again without its times telling, so it is
        judged anew the next time.
        """
        if time.time_ns() - status.st_ctime_ns < _SETTLED_NS:
            return
        self._used[identity(status)] = judgement
        self._changed = True

    def save(self) -> None:
        """Write what was learned, if anything. The entries least recently used go first."""
        if self.folder is None or not self._changed:
            return
        if self._known is None:
            self._known = self._load()
        older = {key: value for key, value in self._known.items() if key not in self._used}
        newest = list((older | self._used).items())[-_MAX_ENTRIES:]
        content = _encoded(dict(newest))
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _own_folder(self.folder) as folder:
                _replace(folder, self.file_name, content)
        except OSError as cause:
            log.info("cache not written folder=%s cause=%s", self.folder, cause)
        else:
            self._changed = False

    def _load(self) -> dict[str, Judgement]:
        if self.folder is None:
            return {}
        generic: Any = _Stored
        stored_type = generic[self.judgement]
        try:
            with _own_folder(self.folder) as folder:
                content = _read(folder, self.file_name)
            stored: _Stored[Judgement] = msgspec.json.decode(content, type=stored_type)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as cause:  # msgspec's errors are ValueErrors
            log.info("cache ignored folder=%s cause=%s", self.folder, cause)
            return {}
        if (stored.schema, stored.rules) != (_SCHEMA, rules()):
            return {}
        return stored.libraries


class Cache(Remembered["Library | None"]):
    """Which TLS implementation files contain."""

    file_name = "binaries.json"
    judgement = Library | None


@functools.cache
def rules() -> int:
    """A number that is another one whenever the code that judges files was installed anew."""
    told = []
    for folder, _folders, files in os.walk(Path(__file__).parent):
        for name in files:
            if name.endswith(".py"):
                found = os.stat(f"{folder}/{name}")  # noqa: PTH116 - of dozens, at every start
                told.append(f"{name} {found.st_size} {found.st_mtime_ns}")
    return zlib.crc32("\n".join(sorted(told)).encode())


def identity(status: os.stat_result) -> str:
    """Return what tells this state of a file from all others of this host."""
    return (
        f"{status.st_dev:x}:{status.st_ino:x}:{status.st_size:x}"
        f":{status.st_mtime_ns:x}:{status.st_ctime_ns:x}"
    )


def _encoded(judgements: dict[str, Any]) -> bytes:
    # Without those that cannot be written: names of files need not be text.
    try:
        return msgspec.json.encode(_Stored(_SCHEMA, rules(), judgements))
    except ValueError:
        good = {key: value for key, value in judgements.items() if _is_text(value)}
        return msgspec.json.encode(_Stored(_SCHEMA, rules(), good))


def _is_text(judgement: object) -> bool:
    try:
        msgspec.json.encode(judgement)
    except ValueError:
        return False
    return True


def _home_of_user() -> Path:
    try:
        return Path(pwd.getpwuid(os.geteuid()).pw_dir)
    except KeyError:  # a user without an entry, as in containers
        return Path("/nonexistent")


class _own_folder(contextlib.AbstractContextManager[int]):  # noqa: N801 - used as a verb
    # A descriptor of a directory that is ours and that nobody else may write to.

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _insist_on_ours(os.fstat(self._fd))
        except BaseException:
            os.close(self._fd)
            raise

    def __enter__(self) -> int:
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _insist_on_ours(status: os.stat_result) -> None:
    if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(1, "somebody else may write to it")


def _read(folder: int, name: str) -> bytes:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    fd = os.open(name, flags, dir_fd=folder)
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        _insist_on_ours(status)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_FILE:
            raise ValueError("not a regular file of ordinary size")
        return file.read(_MAX_FILE)


def _replace(folder: int, file_name: str, content: bytes) -> None:
    name = f"{file_name}.{os.getpid()}"
    with contextlib.suppress(FileNotFoundError):  # of a process that was killed here
        os.unlink(name, dir_fd=folder)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(name, flags, 0o600, dir_fd=folder)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
        os.rename(name, file_name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)
        raise
