# SPDX-License-Identifier: Apache-2.0
"""Settings, frozen. Text turns into values here and nowhere else; a value that exists is valid."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final, Literal

import msgspec

from ecapture._wire import CGROUPS_MAXIMUM, COMM_LENGTH
from ecapture._wire import SNAP_MAXIMUM as _SNAP_MAXIMUM
from ecapture.errors import TargetNotFound, UsageError

SNAP_MAXIMUM: Final = _SNAP_MAXIMUM
"""As much as is ever kept of a packet, in bytes."""
RING_BYTES = 16 << 20
TEXT_BYTES = 64 << 10
TEXT_MAXIMUM = 1 << 30
# As many as the kernel programs have room for (bpf/lib/target.bpf.h).
_PIDS_MAXIMUM, _NAMES_MAXIMUM = 16384, 256
_RING_MINIMUM, _RING_MAXIMUM = 1 << 16, 1 << 30
SNAP_MINIMUM = 18
"""The head of an Ethernet frame with a VLAN tag, in bytes."""


class Scope(msgspec.Struct, frozen=True):
    """Whom to watch. Empty means everybody; kinds are joined by and, values of one kind by or.

    ``follow`` adds the descendants of ``pids``. ``cgroups`` are directories of the cgroup v2 tree.
    """

    pids: tuple[int, ...] = ()
    uids: tuple[int, ...] = ()
    comms: tuple[str, ...] = ()
    cgroups: tuple[str, ...] = ()
    follow: bool = False

    def check(self) -> None:
        """Raises UsageError or TargetNotFound for what cannot be watched."""
        self._check_room()
        for pid in self.pids:
            _check_process(pid)
        for uid in self.uids:
            if not 0 <= uid < 1 << 32:
                raise UsageError(option="--uid", problem=f"{uid} is no number that users have")
        for comm in self.comms:
            if not comm or len(os.fsencode(comm)) >= COMM_LENGTH:
                raise UsageError(
                    option="--comm",
                    problem=f"{comm!r} has not 1 to {COMM_LENGTH - 1} bytes, as command names have",
                    hint="see the name in /proc/PID/comm",
                )
        for path in self.cgroups:
            if not (Path(path) / "cgroup.procs").exists():
                raise TargetNotFound(
                    looked_for=path,
                    looked_in="the cgroup v2 tree",
                    hint="give a directory of a mounted cgroup2 file system (mount -t cgroup2)",
                )

    def _check_room(self) -> None:
        for option, named, most in (
            ("--pid", self.pids, _PIDS_MAXIMUM),
            ("--uid", self.uids, _NAMES_MAXIMUM),
            ("--comm", self.comms, _NAMES_MAXIMUM),
            ("--cgroup_path", self.cgroups, CGROUPS_MAXIMUM),
        ):
            if len(named) > most:
                raise UsageError(
                    option=option,
                    problem=f"more than {most} given",
                    hint="watch a cgroup with --cgroup_path, or everybody",
                )


class Limits(msgspec.Struct, frozen=True):
    """``payload`` bytes of one call are kept (None: all); the kernel's buffer has ``ring``.

    ``text`` bytes are kept of one text, such as a statement to a database.
    """

    payload: int | None = None
    ring: int = RING_BYTES
    text: int = TEXT_BYTES


class PacketConfig(msgspec.Struct, frozen=True):
    """Which packets are wanted, and how much of each.

    ``interfaces`` are names, empty for all; ``spaces`` are processes whose network namespaces are
    meant, empty for our own. ``snap_length`` bytes are kept of a packet. ``expression`` is a filter
    in the language of libpcap. ``with_names``: where the scope names processes, questions to name
    servers are wanted whoever asks them.
    """

    interfaces: tuple[str, ...] = ()
    spaces: tuple[int, ...] = ()
    snap_length: int = SNAP_MAXIMUM
    expression: str = ""
    with_names: bool = False

    def check(self) -> None:
        """Raises TargetNotFound for processes that do not exist."""
        for pid in self.spaces:
            _check_process(pid, "--netns")


class CaptureConfig(msgspec.Struct, frozen=True):
    """One capture.

    ``libraries`` are files named by hand: then only they are observed. ``command`` is started with
    the probes in place and watched with its descendants. ``types`` is "auto", "required" (refuse
    to run without kernel BTF) or "none" (as on a kernel without). ``plaintext`` and ``keys`` say
    what is wanted: what is read and written, the secrets of connections, or both.
    ``server_function`` (a symbol) or ``server_offset`` (in bytes, of the file) is the function of a
    MySQL server named in ``libraries`` that carries out commands, where its names do not tell.
    ``unattended``: also what shells run that nobody types.
    """

    probes: tuple[str, ...] = ("tls",)
    scope: Scope = Scope()
    limits: Limits = Limits()
    libraries: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    types: Literal["auto", "required", "none"] = "auto"
    plaintext: bool = True
    keys: bool = False
    packets: PacketConfig | None = None
    server_function: str = ""
    server_offset: int | None = None
    unattended: bool = False


def _check_process(pid: int, option: str = "--pid") -> None:
    try:
        status = Path(f"/proc/{pid}/status").read_text(errors="replace")
    except OSError:
        status = ""
    # A process that has ended keeps its entry until its parent has asked how.
    ended = re.search(r"^State:\s+[ZX]", status, re.MULTILINE)
    if not status or ended:
        raise TargetNotFound(
            looked_for=f"process {pid}",
            looked_in="/proc (it has ended)" if ended else "/proc",
            hint="`ecapture targets` lists the processes that can be watched",
        )
    found = re.search(r"^Tgid:\s+(\d+)", status, re.MULTILINE)
    group = int(found[1]) if found else pid
    if group != pid:
        raise UsageError(
            option=option,
            problem=f"{pid} is a thread of process {group}",
            hint=f"use {option} {group}",
        )


_SIZE_LIMIT = 1 << 62
_SIZE = re.compile(r"([0-9]{1,15})\s*([kmg]?)i?b?", re.IGNORECASE)


def byte_size(text: str, option: str) -> int:
    """Bytes of a text such as "64k", "16 MiB" or "1000"; units are of 1024. Raises UsageError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(
            option=option, problem=f"{text!r} is not a size", hint="examples: 4096, 64k, 16m"
        )
    size = int(match[1]) << {"": 0, "k": 10, "m": 20, "g": 30}[match[2].lower()]
    if size > _SIZE_LIMIT:
        raise UsageError(option=option, problem=f"{text!r} is more than there can be")
    return size


def ring_size(size: int, option: str) -> int:
    """The size in bytes as the kernel wants it: a power of two, whole pages. Raises UsageError."""
    if not _RING_MINIMUM <= size <= _RING_MAXIMUM:
        raise UsageError(
            option=option,
            problem=f"{size} bytes is not between {_RING_MINIMUM} and {_RING_MAXIMUM}",
        )
    page = os.sysconf("SC_PAGE_SIZE")
    return 1 << (max(size, page) - 1).bit_length()
