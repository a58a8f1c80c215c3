# SPDX-License-Identifier: Apache-2.0
"""Which process each socket belongs to: places the programs of bpf/owners.bpf.c.

1. Sockets that are made: a program at the root of the cgroup tree (cgroup v2, 4.10), so that even
   the first packet of a connection has its process.
2. Sockets that exist: an iterator over all open files (5.11), once, after 1 is in place.
3. Sockets that change hands: typed tracepoints at every call that sends or receives (6.3).

What a host lacks of these is said once; packets then have a process less often, never a wrong one.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from ecapture.config import Scope
from ecapture.kernel import _native, _network
from ecapture.kernel.feature import feature

_log = logging.getLogger(__name__)

# enum bpf_attach_type (UAPI linux/bpf.h)
_SOCK_CREATE, _ITERATOR = 2, 28
_MAXIMUM_CGROUPS = 60_000

CREATED, HELD = "socket_create", "socket_held"
USED = ("socket_sent", "socket_received")


def wanted_programs() -> list[str]:
    """Which programs of the object this kernel can run."""
    programs = [CREATED]
    if feature("btf") and feature("sock_from_file"):
        programs.append(HELD)
    if feature("tp_btf:sock_send_length"):
        programs += USED
    return programs


class Owners:
    """The programs in place, from ``attach`` to ``close``; ``loaded`` is the object of them."""

    def __init__(self, loaded: _native.Object) -> None:
        self._loaded = loaded
        self._links: list[_network.Attachment | _native.Link] = []

    def attach(self) -> None:
        """Places what this host allows, and looks at the sockets that exist."""
        wanted = wanted_programs()
        try:
            self._watch_creation()
        except _native.NativeError as error:
            _log.warning(
                "new sockets cannot be watched (%s): packets tell their process late or never",
                os.strerror(error.errno or 0),
            )
        for program in USED:
            if program in wanted:
                self._links.append(self._loaded.attach(program))
        if HELD in wanted:
            with _network.Attachment(self._loaded.program_fd(HELD), 0, _ITERATOR) as iterator:
                iterator.run()
        else:
            _log.warning(
                "this kernel does not tell whose the existing sockets are: packets of connections"
                " that are older than the capture name no process"
            )

    def _watch_creation(self) -> None:
        fd = _open_root()
        try:
            program = self._loaded.program_fd(CREATED)
            self._links.append(_network.Attachment(program, fd, _SOCK_CREATE))
        finally:
            os.close(fd)

    def close(self) -> None:
        """Takes the programs out."""
        for link in self._links:
            link.close()
        self._links.clear()


def _open_root() -> int:
    # Without a mount: below `ip netns exec` nothing is mounted in /sys, and in a container a part.
    try:
        return _network.cgroup_tree()
    except _native.NativeError:
        mounted = cgroup_root()
        if mounted is None:
            raise
        return os.open(mounted, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def cgroup_root() -> Path | None:
    """Where the cgroup v2 tree is mounted, as near to its root as this mount namespace has it."""
    with Path("/proc/self/mountinfo").open() as mounts:
        for line in mounts:
            words = line.split()
            if words[words.index("-") + 1] == "cgroup2" and words[3] == "/":
                return Path(words[4].encode().decode("unicode_escape"))
    return None


def cgroup_ids(scope: Scope) -> Iterator[int]:
    """Ids of the wanted cgroups and of all below them: the inode numbers of their directories."""
    count = 0
    for path in scope.cgroups:
        for folder, _folders, _files in os.walk(path):
            count += 1
            if count > _MAXIMUM_CGROUPS:
                return
            try:
                yield Path(folder).stat().st_ino
            except FileNotFoundError:
                continue
