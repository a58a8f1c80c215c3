# SPDX-License-Identifier: Apache-2.0
"""The interfaces of a network namespace, and what comes and goes (rtnetlink(7), RTM_GETLINK).

A watch belongs to the namespace of the thread that makes it, whichever thread reads it. Strategy:
subscribe first, then ask for all, so that nothing falls in between; when the kernel says that
notices were lost, ask for all again and compare.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Self, TypeVar

import msgspec

from ecapture.errors import KernelError, PermissionMissing, TargetNotFound
from ecapture.kernel import _network
from ecapture.kernel.netlink import DUMP, INTERRUPTED, Message, Netlink, attributes, text

_T = TypeVar("_T")

# linux/rtnetlink.h, linux/if_link.h, linux/if.h
_NEWLINK, _DELLINK, _GETLINK = 16, 17, 18
_LINK_GROUP = 1
_NAME = 3
_LOOPBACK = 8
_LINK_HEAD = 16
_UNSPECIFIED = 0  # AF_UNSPEC

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
        self._netlink = Netlink(_LINK_GROUP)
        self._known: dict[int, Link] = {}

    def fileno(self) -> int:
        """To poll for changes."""
        return self._netlink.fileno()

    def all(self) -> list[Link]:
        """All interfaces, by index."""
        told: list[Message] = []
        while not told or any(message.flags & INTERRUPTED for message in told):
            try:
                told = self._netlink.ask(_GETLINK, DUMP, bytes(_LINK_HEAD))
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise _refused(error) from error
        self._known = {}
        for message in told:
            self._note(message)
        return [self._known[index] for index in sorted(self._known)]

    def changes(self) -> list[Link]:
        """What has come or gone since it was last asked. Does not wait."""
        changed: list[Link] = []
        while True:
            try:
                told = self._netlink.notices()
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
            changed += [link for link in map(self._note, told) if link is not None]

    def _note(self, message: Message) -> Link | None:
        # What a message changes of what is known.
        link = _link(message.content)
        if link is None or message.kind not in (_NEWLINK, _DELLINK):
            return None
        if message.kind == _DELLINK:
            return _gone(link) if self._known.pop(link.index, None) else None
        new = link.index not in self._known
        self._known[link.index] = link
        return link if new else None

    def close(self) -> None:
        """Ends the watch."""
        self._netlink.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _link(content: bytes) -> Link | None:
    # struct ifinfomsg: family and padding, type (u16), index (i32), flags (u32), change mask. What
    # is told of another family is not of the interface: a bridge tells of its ports like that, and
    # that one is none any more as if it were gone (net/bridge/br_netlink.c, br_ifinfo_notify).
    if content[:1] != bytes((_UNSPECIFIED,)):
        return None
    name = attributes(content[_LINK_HEAD:]).get(_NAME)
    if name is None:
        return None
    return Link(
        index=int.from_bytes(content[4:8], "little"),
        name=text(name),
        hardware=int.from_bytes(content[2:4], "little"),
        flags=int.from_bytes(content[8:12], "little"),
    )


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
