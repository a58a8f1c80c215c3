# SPDX-License-Identifier: Apache-2.0
"""Reads what ``/proc`` says about processes and the files they run code from.

Strategy: few short reads per process, since a host has hundreds of them. A process may end between
any two reads and its number may be taken by another; both are ordinary here. ``/proc/PID/maps``
names files by a device number that some file systems (btrfs, overlay) do not show elsewhere, so a
mapped file's identity is asked of ``/proc/PID/map_files``, which leads to the file itself whatever
became of its name (proc_pid_map_files(5)).

Invariant: a process that vanished is left out or reported as ``TargetNotFound``; what may not be
read is reported with its reason; no other error leaves this module.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

import msgspec

from ecapture.binary.file import text_of_name
from ecapture.errors import PermissionMissing, TargetNotFound

Seccomp = Literal["", "off", "strict", "filter"]

_MAX_PROC_FILE = 64 << 20
_STAT_FIELDS = 20  # up to the start time (proc_pid_stat(5))
_KERNEL_THREAD = 0x00200000  # PF_KTHREAD (include/linux/sched.h)
_SECCOMP: dict[bytes, Seccomp] = {b"0": "off", b"1": "strict", b"2": "filter"}

# An executable mapping of a file: proc_pid_maps(5).
_CODE = re.compile(
    rb"^([0-9a-f]+)-([0-9a-f]+) ..x. ([0-9a-f]+) "
    rb"([0-9a-f]+):([0-9a-f]+) ([1-9][0-9]*) +([^[\n].*)$",
    re.MULTILINE,
)
# Code without a TLS library: devices, shared memory of System V, pages the .NET runtime writes.
_IRRELEVANT = re.compile(r"/dev/(?!shm/)|/SYSV|/anon_hugepage|/memfd:doublemapper")
_DELETED = " (deleted)"

# Container ids in cgroup paths as runtimes make them: a unit of systemd (docker-ID.scope), a part
# of an older name (POD.slice:cri-containerd:ID), or a plain directory (docker/ID, kubepods/…/ID).
_CONTAINER = re.compile(
    r"(?P<unit>docker|cri-containerd|containerd|nerdctl|crio|libpod|podman)[-:]"
    r"(?P<in_unit>[0-9a-f]{64})(?:\.scope)?(?=/|$)"
    r"|/(?P<folder>docker|kubepods|libpod_parent|default)(?:/[^/]+)*?/(?P<in_folder>[0-9a-f]{64})(?=/|$)"
    r"|/(?P<lxc>lxc(?:\.payload)?)[./](?P<name>[^/]+)"
)
_POD = re.compile(r"pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})(?=[./:]|$)")
_RUNTIMES = {
    "docker": "docker",
    "cri-containerd": "containerd",
    "containerd": "containerd",
    "nerdctl": "containerd",
    "default": "containerd",
    "crio": "cri-o",
    "libpod": "podman",
    "podman": "podman",
    "libpod_parent": "podman",
    "kubepods": "kubernetes",
}


class Container(msgspec.Struct, frozen=True):
    """The container a process is in. ``pod`` is the UID of its pod under Kubernetes, else empty."""

    id: str
    runtime: str
    pod: str = ""


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """One process.

    ``uid`` is the real one, ``started_ns`` counts from boot, ``mount_namespace`` is the number of
    the namespace or 0, ``exe`` is as seen from here, with " (deleted)" after it if it is. What
    could not be read is empty, and ``problem`` says why.
    """

    pid: int
    ppid: int
    uid: int
    comm: str
    started_ns: int
    threads: int
    kernel_thread: bool
    exe: str
    mount_namespace: int
    cgroup: str
    container: Container | None
    seccomp: Seccomp
    problem: str = ""


class MappedFile(NamedTuple):
    """A part of a file that a process may run.

    ``device`` and ``inode`` are those of ``os.stat``, if ``exact``; else, without the rights for
    that, they are what ``/proc/PID/maps`` says, which is the same on most file systems. ``path``
    is as the process names it, with " (deleted)" if that name is gone. Addresses and the offset
    in the file are in bytes.
    """

    pid: int
    device: int
    inode: int
    path: str
    map_files: str
    start: int
    end: int
    offset: int
    exact: bool

    @property
    def deleted(self) -> bool:
        """Whether the file has lost the name it was mapped by."""
        return self.path.endswith(_DELETED)

    @property
    def name(self) -> str:
        """The path without the mark for deleted files."""
        return self.path.removesuffix(_DELETED)


def processes(
    pids: Iterable[int] | None = None, *, kernel_threads: bool = False
) -> Iterator[Process]:
    """Yield the processes of the host, or those of the given ones that exist, by number."""
    for pid in sorted(set(pids)) if pids is not None else all_pids():
        try:
            process = read_process(pid)
        except (TargetNotFound, PermissionMissing):
            continue
        if kernel_threads or not process.kernel_thread:
            yield process


def all_pids() -> list[int]:
    """Return the numbers of all processes that ``/proc`` shows, in order."""
    return sorted(int(name) for name in os.listdir("/proc") if name.isdecimal())  # noqa: PTH208


def is_running(pid: int) -> bool:
    """Whether a process exists and has not ended: one that nobody waited for yet has."""
    try:
        fields = _read(pid, "stat").rpartition(b")")[2].split()
    except TargetNotFound:
        return False
    except PermissionMissing:
        return True
    # A process whose first thread ended goes on while there are others.
    return len(fields) >= _STAT_FIELDS and (fields[0] not in b"ZX" or int(fields[17]) > 1)


def parent_of(pid: int) -> int:
    """Return the number of a process's parent; 0: it has none that is seen from here.

    Raises:
        TargetNotFound: it does not exist.
        PermissionMissing: ``/proc`` hides it (``hidepid``).
    """
    # The name in parentheses may hold anything; behind it are state and parent (proc_pid_stat(5)).
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    if len(fields) < _STAT_FIELDS:
        raise _gone(pid)
    return int(fields[1])


def with_descendants(pids: Iterable[int]) -> frozenset[int]:
    """Return these processes and all that descend from them, as it stands."""
    wanted = set(pids)
    if not wanted:
        return frozenset()
    children: dict[int, list[int]] = {}
    for pid in all_pids():
        with contextlib.suppress(TargetNotFound, PermissionMissing):
            children.setdefault(parent_of(pid), []).append(pid)
    waiting = list(wanted)
    while waiting:
        for child in children.get(waiting.pop(), ()):
            if child not in wanted:
                wanted.add(child)
                waiting.append(child)
    return frozenset(wanted)


def read_process(pid: int) -> Process:
    """Return what is known about a process.

    Raises:
        TargetNotFound: it does not exist, or ended while it was looked at.
        PermissionMissing: ``/proc`` hides it (``hidepid``).
    """
    head, _, rest = _read(pid, "stat").rpartition(b")")
    fields = rest.split()
    status = _read(pid, "status")
    if len(fields) < _STAT_FIELDS:
        raise _gone(pid)
    problems: dict[str, None] = {}
    cgroup, container = parse_cgroup(os.fsdecode(_read_if_allowed(pid, "cgroup", problems)))
    namespace = _link(pid, "ns/mnt", problems)  # mnt:[4026531841]
    kernel_thread = bool(int(fields[6]) & _KERNEL_THREAD)
    return Process(
        pid=pid,
        ppid=int(fields[1]),
        uid=int(_value(status, b"Uid") or b"0"),
        comm=os.fsdecode(head.partition(b"(")[2]),
        started_ns=int(fields[19]) * (1_000_000_000 // os.sysconf("SC_CLK_TCK")),
        threads=int(fields[17]),
        kernel_thread=kernel_thread,
        exe="" if kernel_thread else _link(pid, "exe", problems),
        mount_namespace=int(namespace[5:-1]) if namespace.startswith("mnt:[") else 0,
        cgroup=cgroup,
        container=container,
        seccomp=_SECCOMP.get(_value(status, b"Seccomp"), ""),
        problem="; ".join(problems),
    )


def parse_cgroup(text: str) -> tuple[str, Container | None]:
    """Return the cgroup of ``/proc/PID/cgroup`` and the container its name gives away, if any.

    The cgroup is that of the unified hierarchy, unless it is the root there and has another name
    in an older hierarchy. Of nested containers the innermost counts.
    """
    paths: list[str] = []
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        path = rest.partition(":")[2]
        if path:
            paths.insert(0 if number == "0" else len(paths), path)
    cgroup = next((path for path in paths if path != "/"), "/" if paths else "")
    for path in paths:
        names = list(_CONTAINER.finditer(path))
        if names:
            found = names[-1]
            pod = _POD.search(path)
            return cgroup, Container(
                id=found["in_unit"] or found["in_folder"] or text_of_name(found["name"]),
                runtime=_RUNTIMES.get(found["unit"] or found["folder"] or "", "lxc"),
                pod=pod[1].replace("_", "-") if pod else "",
            )
    return cgroup, None


def mapped_files(pid: int) -> list[MappedFile]:
    """Return the executable mappings of files of a process, in the order of their addresses.

    Raises:
        TargetNotFound: the process does not exist, or ended.
        PermissionMissing: it is another user's.
    """
    found = []
    identities: dict[tuple[bytes, ...], tuple[int, int, bool]] = {}
    for match in _CODE.finditer(_read(pid, "maps")):
        start, end, offset, *identity = match.groups()
        path = os.fsdecode(identity[3].replace(b"\\012", b"\n"))  # seq_path() escapes only that
        if _IRRELEVANT.match(path):
            continue
        place = f"/proc/{pid}/map_files/{int(start, 16):x}-{int(end, 16):x}"
        key = tuple(identity)
        if key not in identities:
            identities[key] = _identity(pid, place, path, identity)
        device, inode, exact = identities[key]
        found.append(
            MappedFile(
                pid,
                device,
                inode,
                path,
                place,
                int(start, 16),
                int(end, 16),
                int(offset, 16),
                exact,
            )
        )
    return found


def _identity(pid: int, place: str, path: str, shown: list[bytes]) -> tuple[int, int, bool]:
    major, minor, inode = int(shown[0], 16), int(shown[1], 16), int(shown[2])
    for name in (place, f"/proc/{pid}/root{path}"):
        try:
            status = os.stat(name)  # noqa: PTH116 - a thousand of these are a scan's cost
        except (OSError, ValueError):  # following map_files needs CAP_CHECKPOINT_RESTORE
            continue
        if name == place or status.st_ino == inode:
            return status.st_dev, status.st_ino, True
    return os.makedev(major, minor), inode, False


def _value(status: bytes, field: bytes) -> bytes:
    # The first word after "Field:" in /proc/PID/status.
    at = status.find(b"\n" + field + b":")
    words = status[at + len(field) + 2 : at + len(field) + 34].split(None, 1) if at >= 0 else []
    return words[0] if words else b""


def _read(pid: int, name: str) -> bytes:
    place = f"/proc/{pid}/{name}"
    try:
        fd = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as cause:
        raise _translated(pid, place, cause) from cause
    blocks: list[bytes] = []
    length = 0
    try:
        while length < _MAX_PROC_FILE and (block := os.read(fd, 1 << 16)):
            blocks.append(block)
            length += len(block)
    except OSError as cause:
        raise _translated(pid, place, cause) from cause
    finally:
        os.close(fd)
    return b"".join(blocks)


def _read_if_allowed(pid: int, name: str, problems: dict[str, None]) -> bytes:
    try:
        return _read(pid, name)
    except PermissionMissing as error:
        problems[str(error)] = None
        return b""


def _link(pid: int, name: str, problems: dict[str, None]) -> str:
    try:
        return os.readlink(f"/proc/{pid}/{name}")  # noqa: PTH115 - the text, not a path
    except PermissionError:
        problems[f"/proc/{pid}/{name} may not be read"] = None
    except OSError:  # a zombie has none
        pass
    return ""


def _gone(pid: int) -> TargetNotFound:
    return TargetNotFound(looked_for=f"process {pid}", looked_in="/proc")


def _translated(pid: int, place: str, cause: OSError) -> TargetNotFound | PermissionMissing:
    if cause.errno in (errno.EACCES, errno.EPERM):
        return PermissionMissing(
            hint="run as root", needed_for=f"reading {place}", capability="CAP_SYS_PTRACE"
        )
    return _gone(pid)
