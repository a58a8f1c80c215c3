# SPDX-License-Identifier: Apache-2.0
"""Whether process ids mean the same to us and to the kernel programs.

The programs see the numbers of the host. In a container that has a PID namespace of its own,
``/proc`` has others, and one must not be taken for the other: a filter by them would watch a
stranger, and a look-up in ``/proc`` would describe one. Probes that are placed in a process are not
concerned, as the kernel translates the number that it is given then.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from ecapture.config import CaptureConfig
from ecapture.errors import HostError

_OWN = Path("/proc/self/ns/pid")
_FIRST_NAMESPACE = 0xEFFF_FFFC  # PROC_PID_INIT_INO (include/linux/proc_ns.h)


@cache
def are_of_host() -> bool:
    """Whether ``/proc`` has the numbers of the host. Raises HostError if it is not mounted."""
    try:
        return _OWN.stat().st_ino == _FIRST_NAMESPACE
    except OSError:
        raise HostError(
            message="/proc is not mounted, so no process can be looked at",
            hint="mount -t proc proc /proc",
        ) from None


def check(config: CaptureConfig) -> None:
    """Raises HostError for what needs the host's process ids where these are not to be had."""
    if are_of_host():
        return
    needing = [
        word
        for word, needed in (
            ("-- command", config.command),
            ("--follow", config.scope.follow),
            ("--pid with packets", config.scope.pids and config.packets is not None),
        )
        if needed
    ]
    if needing:
        raise HostError(
            message=f"{needing[0]} needs the process ids of the host; this container has others",
            hint="run it on the host, or in a container with --pid=host;"
            " --uid, --comm, --cgroup_path and --pid of one process work here, too",
        )
