# SPDX-License-Identifier: Apache-2.0
"""Whether anybody can still get at a file that was seen in use.

Nobody can who has neither a name for it nor a mapping of it:

- A file that has a name here is within reach while the name leads to it: any program may be started
  from it. A package upgrade takes that away, and so does unmounting its file system.
- A file of another mount namespace, such as a container's, is while a process is in there.
- Anybody's is who has it mapped, whatever became of its name; so is one that was reached in another
  way, as through the root directory of a process that runs here: of that nothing can be known.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping

from ecapture.binary import process
from ecapture.binary.scan import paths_to
from ecapture.errors import PermissionMissing, TargetNotFound


class Reach:
    """A file by its ``device`` and ``inode``, of which process ``pid`` was seen that it maps it.

    0: none was. ``path`` leads to the file now, ``name`` is what processes call it. ``only`` is the
    process that alone is of interest, if there is such. Raises OSError.
    """

    def __init__(self, path: str, name: str, pid: int, only: int = 0) -> None:
        status = os.stat(path)  # noqa: PTH116
        self.device, self.inode = status.st_dev, status.st_ino
        self.name = name
        self.pid = pid or only
        self._only = only
        self._here = is_here(name, self.device, self.inode)
        elsewhere = 0 if self._here or not self.pid else _namespace(self.pid)
        self._namespace = 0 if elsewhere == _namespace(os.getpid()) else elsewhere
        # Or the process has ended already, and where its name leads to cannot be asked.
        self._unlinked = status.st_nlink == 0 or (self.pid > 0 and not elsewhere)

    def paths(self) -> Iterator[str]:
        """Paths that may lead to the file from here."""
        yield self.name
        if not self.pid:
            return
        yield f"/proc/{self.pid}/root{self.name}"
        for file in _mapped(self.pid):
            if self._is(file):
                yield from paths_to(file)

    def is_certain(self) -> bool:
        """Whether it is within somebody's reach, as far as can be told at once."""
        if self._only:
            return process.is_running(self._only)
        if self._namespace:
            if _namespace(self.pid) == self._namespace:
                return True
        elif self._here:
            if is_here(self.name, self.device, self.inode):
                return True
        elif not self._unlinked:
            return True
        return self._is_mapped_by(self.pid)

    def user(self) -> int:
        """A process that has the file mapped; 0: none has."""
        pids = (self.pid, *process.all_pids())
        return next((pid for pid in pids if self._is_mapped_by(pid)), 0)

    def adopt(self, inside: Mapping[int, int], mapped: Iterable[process.MappedFile]) -> bool:
        """Takes another process to ask about; false if there is none.

        Given are a process of each mount namespace, and what processes have mapped.
        """
        if self._only:
            return False
        pid = inside.get(self._namespace) or next((f.pid for f in mapped if self._is(f)), 0)
        self.pid = pid or self.pid
        return pid != 0

    def _is_mapped_by(self, pid: int) -> bool:
        return any(self._is(file) for file in _mapped(pid))

    def _is(self, file: process.MappedFile) -> bool:
        return file.inode == self.inode and (file.device == self.device or not file.exact)


def out_of_reach(reaches: Iterable[Reach]) -> list[Reach]:
    """Those that nobody can get at any more. Asks all processes only if there is a doubt."""
    doubtful = [reach for reach in reaches if not reach.is_certain()]
    if not doubtful:
        return []
    inside: dict[int, int] = {}
    mapped: list[process.MappedFile] = []
    inodes = {reach.inode for reach in doubtful}
    for pid in process.all_pids():
        inside.setdefault(_namespace(pid), pid)
        mapped += [file for file in _mapped(pid) if file.inode in inodes]
    inside.pop(0, None)
    return [reach for reach in doubtful if not reach.adopt(inside, mapped)]


def is_here(name: str, device: int, inode: int) -> bool:
    """Whether this name leads to that file, seen from here."""
    try:
        status = os.stat(name)  # noqa: PTH116 - one for each hooked file, again and again
    except (OSError, ValueError):
        return False
    return (status.st_dev, status.st_ino) == (device, inode)


def _mapped(pid: int) -> list[process.MappedFile]:
    with contextlib.suppress(TargetNotFound, PermissionMissing):
        return process.mapped_files(pid) if pid else []
    return []


def _namespace(pid: int) -> int:
    # The number of the mount namespace of a process; 0: it is gone, or hidden.
    try:
        return os.stat(f"/proc/{pid}/ns/mnt").st_ino  # noqa: PTH116
    except OSError:
        return 0
