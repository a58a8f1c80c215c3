# SPDX-License-Identifier: Apache-2.0
"""The interfaces of a network namespace, and what comes and goes (rtnetlink(7), RTM_GETLINK).

A watch belongs to the namespace of the thread that makes it, whichever thread reads it. Strategy:
subscribe first, then ask for all, so that nothing falls in between; when the kernel says that
notices were lost, ask for all again and compare.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Self, TypeVar

import msgspec

from ecapture.errors import KernelError, PermissionMissing, TargetNotFound
from ecapture.kernel import _network

_T = TypeVar("_T")

# linux/netlink.h, linux/rtnetlink.h, linux/if_link.h, linux/if.h
_NEWLINK, _DELLINK, _GETLINK = 16, 17, 18
_ERROR, _DONE = 2, 3
_REQUEST, _DUMP, _INTERRUPTED = 1, 0x300, 0x10
_LINK_GROUP = 1
_NAME = 3
_LOOPBACK = 8
_HEAD, _LINK_HEAD, _ATTRIBUTE_HEAD = 16, 16, 4
_READ_BYTES = 1 << 16

ETHERNET_HEADER: Final = 14

_ETHERNET, _RAW = (1, ETHERNET_HEADER), (101, 0)
_KINDS: Final = {
    # ARPHRD_ of linux/if_arp.h: (LINKTYPE_ of https://www.tcpdump.org/linktypes.html, bytes that
    # stand before what skb->protocol announces)
    1: _ETHERNET,  # ARPHRD_ETHER
    772: _ETHERNET,  # ARPHRD_LOOPBACK
    256: _RAW,  # ARPHRD_SLIP
    512: _RAW,  # ARPHRD_PPP: the driver adds its header later
    519: _RAW,  # ARPHRD_RAWIP: mobile modems
    768: _RAW,  # ARPHRD_TUNNEL: IPIP, VTI
    769: _RAW,  # ARPHRD_TUNNEL6
    776: _RAW,  # ARPHRD_SIT
    778: _RAW,  # ARPHRD_IPGRE
    823: _RAW,  # ARPHRD_IP6GRE
    0xFFFE: _RAW,  # ARPHRD_NONE: tun, WireGuard, xfrm
    801: (105, 0),  # ARPHRD_IEEE80211
    803: (127, 0),  # ARPHRD_IEEE80211_RADIOTAP
}


class Link(msgspec.Struct, frozen=True):
    """One interface: ``index`` and ``name`` in its namespace, ``hardware`` is its ARPHRD_ number.

    ``gone``: it is not there any more.
    """

    index: int
    name: str
    hardware: int
    flags: int
    gone: bool = False

    @property
    def loopback(self) -> bool:
        """Whether both ends of what it carries are here."""
        return bool(self.flags & _LOOPBACK)

    @property
    def kind(self) -> tuple[int, int] | None:
        """(link type of files, bytes before the IP header); None: files have no such type."""
        return _KINDS.get(self.hardware)


class LinkWatch:
    """Tells of the interfaces of the calling thread's network namespace.

    Raises KernelError if the kernel does not answer.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._known: dict[int, Link] = {}
        self._socket.bind((0, _LINK_GROUP))

    def fileno(self) -> int:
        """To poll for changes."""
        return self._socket.fileno()

    def all(self) -> list[Link]:
        """All interfaces, by index."""
        while True:
            self._ask()
            found: dict[int, Link] = {}
            try:
                if self._answer(found):
                    break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise _refused(error) from error
        self._known = found
        return [found[index] for index in sorted(found)]

    def changes(self) -> list[Link]:
        """What has come or gone since it was last asked. Does not wait."""
        changed: list[Link] = []
        while True:
            try:
                batch = self._socket.recv(_READ_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return changed
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise _refused(error) from error
                before = self._known
                now = {link.index: link for link in self.all()}
                changed += [_gone(link) for index, link in before.items() if index not in now]
                changed += [link for index, link in now.items() if index not in before]
                continue
            for kind, _flags, content in _messages(batch):
                link = _link(content) if kind in (_NEWLINK, _DELLINK) else None
                if link is None:
                    continue
                if kind == _DELLINK:
                    if self._known.pop(link.index, None):
                        changed.append(_gone(link))
                elif link.index not in self._known:
                    self._known[link.index] = link
                    changed.append(link)

    def close(self) -> None:
        """Ends the watch."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self) -> None:
        request = (
            (_HEAD + _LINK_HEAD).to_bytes(4, "little")
            + _GETLINK.to_bytes(2, "little")
            + (_REQUEST | _DUMP).to_bytes(2, "little")
            + bytes(8 + _LINK_HEAD)
        )
        self._socket.send(request)

    def _answer(self, found: dict[int, Link]) -> bool:
        # False: the list changed while it was told, so it must be asked for again
        whole = True
        while True:
            for kind, flags, content in _messages(self._socket.recv(_READ_BYTES)):
                if kind == _ERROR:
                    code = -int.from_bytes(content[:4], "little", signed=True)
                    raise OSError(code, os.strerror(code))
                whole = whole and not flags & _INTERRUPTED
                if kind == _DONE:
                    return whole
                link = _link(content)
                if link is not None and kind == _NEWLINK:
                    found[link.index] = link
                elif link is not None and kind == _DELLINK:
                    found.pop(link.index, None)


def _messages(batch: bytes) -> Iterator[tuple[int, int, bytes]]:
    at = 0
    while at + _HEAD <= len(batch):
        length = int.from_bytes(batch[at : at + 4], "little")
        if length < _HEAD or at + length > len(batch):
            return
        kind = int.from_bytes(batch[at + 4 : at + 6], "little")
        flags = int.from_bytes(batch[at + 6 : at + 8], "little")
        yield kind, flags, batch[at + _HEAD : at + length]
        at += (length + 3) & ~3


def _link(content: bytes) -> Link | None:
    # struct ifinfomsg: family and padding, type (u16), index (i32), flags (u32), change mask
    if len(content) < _LINK_HEAD:
        return None
    hardware = int.from_bytes(content[2:4], "little")
    index = int.from_bytes(content[4:8], "little")
    flags = int.from_bytes(content[8:12], "little")
    at = _LINK_HEAD
    while at + _ATTRIBUTE_HEAD <= len(content):
        length = int.from_bytes(content[at : at + 2], "little")
        if length < _ATTRIBUTE_HEAD or at + length > len(content):
            break
        if int.from_bytes(content[at + 2 : at + 4], "little") == _NAME:
            name = content[at + _ATTRIBUTE_HEAD : at + length].split(b"\0", 1)[0]
            return Link(index, os.fsdecode(name), hardware, flags)
        at += (length + 3) & ~3
    return None


def _gone(link: Link) -> Link:
    return Link(link.index, link.name, link.hardware, link.flags, gone=True)


def _refused(error: OSError) -> KernelError:
    return KernelError(
        operation="list", subject="the network interfaces", reason=error.strerror or str(error)
    )


class Space:
    """A network namespace: that of process ``pid``, or our own. ``identity`` is its inode.

    Raises TargetNotFound or PermissionMissing. ``call`` runs something inside.
    """

    def __init__(self, pid: int = 0) -> None:
        self.pid = pid
        path = f"/proc/{pid or 'self'}/ns/net"
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise TargetNotFound(looked_for=f"process {pid}", looked_in="/proc") from None
        except PermissionError:
            raise PermissionMissing(
                capability="root", needed_for=f"the network namespace of process {pid}"
            ) from None
        self.identity = os.fstat(self._fd).st_ino
        self._own = self.identity == Path("/proc/self/ns/net").stat().st_ino

    @property
    def label(self) -> str:
        """What tells it from our own; empty for our own."""
        return "" if self._own else f"net:[{self.identity}]"

    def call(self, action: Callable[[], _T]) -> _T:
        """The result of ``action``, run in this namespace (by a thread of its own if need be)."""
        if self._own:
            return action()
        with ThreadPoolExecutor(
            1, initializer=_network.enter_network, initargs=(self._fd,)
        ) as thread:
            return thread.submit(action).result()

    def close(self) -> None:
        """Lets go of the namespace."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
