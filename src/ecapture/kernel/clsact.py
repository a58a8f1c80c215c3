# SPDX-License-Identifier: Apache-2.0
"""Programs at interfaces of kernels without tcx links (before 6.6): filters of the clsact qdisc.

A filter survives whoever placed it, even kill -9. So its name says whose it is, and the next
capture removes what is nobody's any more: "ecapture PID NAMESPACE MADE", where NAMESPACE is the
inode of the pid namespace and MADE is 1 if we made the qdisc, too.

Invariants: a filter that does not have such a name, or whose process still holds its program, is
never touched; a qdisc is removed only if we made it and nothing is left in it. Our filters have no
opinion on frames (TC_ACT_UNSPEC), so that those behind them decide.

Sources: tc-bpf(8); UAPI linux/pkt_sched.h, linux/pkt_cls.h, linux/rtnetlink.h.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ecapture.kernel.netlink import CREATE, DUMP, EXCLUSIVE, Netlink, attribute, attributes, text

_log = logging.getLogger(__name__)

_NEWQDISC, _DELQDISC, _GETQDISC = 36, 37, 38
_NEWFILTER, _DELFILTER, _GETFILTER = 44, 45, 46
_KIND, _OPTIONS = 1, 2  # TCA_
_FD, _NAME, _FLAGS, _ID = 6, 7, 8, 11  # TCA_BPF_
_DIRECT_ACTION = 1
_HEAD = 20  # struct tcmsg
_CLSACT, _CLSACT_HANDLE = 0xFFFFFFF1, 0xFFFF0000
_HOOKS = (0xFFFFFFF2, 0xFFFFFFF3)  # by index: frames that arrive, frames that are sent
_ALL_PROTOCOLS = 0x0300  # htons(ETH_P_ALL)
_FIRST, _ANY_PRIORITY = 1, 0
_OURS = re.compile(r"ecapture (\d+) (\d+) ([01])")
_MARK = 0xEC000000  # with our pid: a handle that nobody else will choose


class _Filter(NamedTuple):
    hook: int
    priority: int
    handle: int
    name: str
    program: int


class Classifier:
    """A filter in place: program ``fd`` at interface ``index`` of the calling thread's namespace.

    ``way`` is 0 for frames that arrive, 1 for frames that are sent. Raises OSError.
    """

    def __init__(self, netlink: Netlink, index: int, way: int, fd: int, *, made: bool) -> None:
        self._netlink = netlink
        self._index = index
        self._made = made
        name = f"ecapture {os.getpid()} {_own_namespace()} {int(made)}"
        options = (
            attribute(_FD, fd.to_bytes(4, "little"))
            + attribute(_NAME, name.encode() + b"\0")
            + attribute(_FLAGS, _DIRECT_ACTION.to_bytes(4, "little"))
        )
        body = attribute(_KIND, b"bpf\0") + attribute(_OPTIONS, options)
        handle = _MARK | os.getpid()
        for priority in (_FIRST, _ANY_PRIORITY):
            head = _head(index, _HOOKS[way], handle, priority << 16 | _ALL_PROTOCOLS)
            try:
                netlink.ask(_NEWFILTER, CREATE | EXCLUSIVE, head + body)
            except OSError as error:
                # somebody else's filter of another kind may have our priority
                if error.errno != errno.EINVAL or priority == _ANY_PRIORITY:
                    raise
            else:
                break
        self._filter: _Filter | None = next(
            f for f in _filters(netlink, index, way) if f.handle == handle
        )

    def close(self) -> None:
        """Takes the filter out, and the qdisc if it is ours and empty. May be called again."""
        found, self._filter = self._filter, None
        if found is not None:
            _remove(self._netlink, self._index, found, made=self._made)


def prepare(netlink: Netlink, index: int) -> tuple[bool, bool]:
    """Makes sure of the qdisc. Returns whether we made it, and whether it has both directions.

    Raises OSError.
    """
    head = _head(index, _CLSACT, _CLSACT_HANDLE)
    try:
        netlink.ask(_NEWQDISC, CREATE | EXCLUSIVE, head + attribute(_KIND, b"clsact\0"))
    except OSError as error:
        if error.errno != errno.EEXIST:
            raise
        return False, _kind(netlink, index) == "clsact"
    return True, True


def clean(netlink: Netlink, index: int, name: str) -> None:
    """Removes from an interface what captures left that are over. ``name`` is for people."""
    for way in range(len(_HOOKS)):
        for found in _filters(netlink, index, way):
            ours = _OURS.fullmatch(found.name)
            if ours and int(ours[2]) == _own_namespace() and not _held(int(ours[1]), found.program):
                _log.info("%s: a filter that process %s had left is removed", name, ours[1])
                _remove(netlink, index, found, made=ours[3] == "1")


def _remove(netlink: Netlink, index: int, found: _Filter, *, made: bool) -> None:
    head = _head(index, found.hook, found.handle, found.priority << 16 | _ALL_PROTOCOLS)
    # The interface, or the filter alone, may be gone.
    with contextlib.suppress(OSError):
        netlink.ask(_DELFILTER, 0, head + attribute(_KIND, b"bpf\0"))
    if made and not any(_any_filter(netlink, index, hook) for hook in _HOOKS):
        with contextlib.suppress(OSError):
            netlink.ask(_DELQDISC, 0, _head(index, _CLSACT, _CLSACT_HANDLE))


def _filters(netlink: Netlink, index: int, way: int) -> Iterator[_Filter]:
    for handle, information, found in _told(netlink, index, _HOOKS[way]):
        if text(found.get(_KIND, b"")) != "bpf" or not handle:
            continue
        options = attributes(found.get(_OPTIONS, b""))
        name = text(options.get(_NAME, b""))
        program = int.from_bytes(options.get(_ID, b""), "little")
        yield _Filter(_HOOKS[way], information >> 16, handle, name, program)


def _any_filter(netlink: Netlink, index: int, hook: int) -> bool:
    return any(handle for handle, _information, _found in _told(netlink, index, hook))


def _told(netlink: Netlink, index: int, hook: int) -> Iterator[tuple[int, int, dict[int, bytes]]]:
    # (handle, priority and protocol, attributes) of every filter; none where there is no qdisc
    try:
        answers = netlink.ask(_GETFILTER, DUMP, _head(index, hook))
    except OSError:
        return
    for message in answers:
        content = message.content
        if message.kind == _NEWFILTER and len(content) >= _HEAD:
            handle = int.from_bytes(content[8:12], "little")
            information = int.from_bytes(content[16:20], "little")
            yield handle, information, attributes(content[_HEAD:])


def _kind(netlink: Netlink, index: int) -> str:
    # of the qdisc that stands where clsact would
    for message in netlink.ask(_GETQDISC, DUMP, _head(index)):
        content = message.content
        same = int.from_bytes(content[4:8], "little") == index
        if same and int.from_bytes(content[12:16], "little") == _CLSACT:
            return text(attributes(content[_HEAD:]).get(_KIND, b""))
    return ""


def _held(pid: int, program: int) -> bool:
    """Whether the process exists and holds the program (proc_pid_fdinfo(5), "prog_id")."""
    wanted = f"prog_id:\t{program}"
    try:
        for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
            with contextlib.suppress(FileNotFoundError):
                if wanted in entry.read_text().splitlines():
                    return True
    except FileNotFoundError:
        return False
    except OSError:
        return True  # it is there and does not show: not ours to judge
    return False


def _own_namespace() -> int:
    return Path("/proc/self/ns/pid").stat().st_ino


def _head(index: int, parent: int = 0, handle: int = 0, information: int = 0) -> bytes:
    words = (0, index, handle, parent, information)
    return b"".join(word.to_bytes(4, "little") for word in words)
