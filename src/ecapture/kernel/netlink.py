# SPDX-License-Identifier: Apache-2.0
"""Messages of rtnetlink: requests, answers and notices (netlink(7), rtnetlink(7)).

A socket belongs to the network namespace of the thread that makes it, whichever thread uses it.
Answers come from the kernel, yet no length in them is believed beyond what was received.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Final, NamedTuple, Self

# linux/netlink.h
REQUEST: Final = 1
DUMP: Final = 0x300
CREATE: Final = 0x400
EXCLUSIVE: Final = 0x200
INTERRUPTED: Final = 0x10
_ACKNOWLEDGE = 4
_ERROR, _DONE = 2, 3
_HEAD, _ATTRIBUTE_HEAD = 16, 4
_READ_BYTES = 1 << 16
_NESTED = 0x8000


class Message(NamedTuple):
    """One message: its type, its flags, and what follows its head."""

    kind: int
    flags: int
    content: bytes


class Netlink:
    """A socket of rtnetlink; ``groups`` are those whose notices come unasked."""

    def __init__(self, groups: int = 0) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.bind((0, groups))

    def fileno(self) -> int:
        """To poll for notices."""
        return self._socket.fileno()

    def ask(self, kind: int, flags: int, body: bytes) -> list[Message]:
        """Sends a request and waits for what answers it. Raises OSError as the kernel refuses.

        Notices that come meanwhile are among the answers.
        """
        dump = flags & DUMP == DUMP
        flags |= REQUEST if dump else REQUEST | _ACKNOWLEDGE
        head = (_HEAD + len(body)).to_bytes(4, "little") + kind.to_bytes(2, "little")
        self._socket.send(head + flags.to_bytes(2, "little") + bytes(8) + body)
        found: list[Message] = []
        while True:
            for message in messages(self._socket.recv(_READ_BYTES)):
                if message.kind == _ERROR:
                    code = -int.from_bytes(message.content[:4], "little", signed=True)
                    if code:
                        raise OSError(code, os.strerror(code))
                    return found
                if message.kind == _DONE:
                    # a flag of the whole answer, which may stand at its end only
                    return [*found, message] if message.flags & INTERRUPTED else found
                found.append(message)

    def notices(self) -> list[Message]:
        """What has come unasked.

        Raises BlockingIOError if nothing has, OSError (ENOBUFS) if some of it was lost.
        """
        return list(messages(self._socket.recv(_READ_BYTES, socket.MSG_DONTWAIT)))

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def messages(batch: bytes) -> Iterator[Message]:
    """The whole messages of what was received."""
    at = 0
    while at + _HEAD <= len(batch):
        length = int.from_bytes(batch[at : at + 4], "little")
        if length < _HEAD or at + length > len(batch):
            return
        kind = int.from_bytes(batch[at + 4 : at + 6], "little")
        flags = int.from_bytes(batch[at + 6 : at + 8], "little")
        yield Message(kind, flags, batch[at + _HEAD : at + length])
        at += (length + 3) & ~3


def attributes(content: bytes) -> dict[int, bytes]:
    """Attributes by their type; of several of one type the last."""
    found: dict[int, bytes] = {}
    at = 0
    while at + _ATTRIBUTE_HEAD <= len(content):
        length = int.from_bytes(content[at : at + 2], "little")
        if length < _ATTRIBUTE_HEAD or at + length > len(content):
            break
        kind = int.from_bytes(content[at + 2 : at + 4], "little") & ~_NESTED
        found[kind] = content[at + _ATTRIBUTE_HEAD : at + length]
        at += (length + 3) & ~3
    return found


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, ready to be sent."""
    length = _ATTRIBUTE_HEAD + len(value)
    head = length.to_bytes(2, "little") + kind.to_bytes(2, "little")
    return head + value + bytes(-length % 4)


def text(value: bytes) -> str:
    """An attribute that is a string."""
    return os.fsdecode(value.split(b"\0", 1)[0])
