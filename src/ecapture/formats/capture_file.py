# SPDX-License-Identifier: Apache-2.0
"""Packets and secrets as a pcapng file.

Packets come as the blocks they are in the file; all that is added stands around them. A file begins
with the section and the interfaces that are known by then, so that any file of several can be read
without those before it.

Secrets belong into the file that has the handshake which they came from, and may be told before its
packets are drained. So a file begins with those of the last seconds, too.

Counts go on from file to file, as the format defines them: since the capture began.

Invariants: an interface stands before its first packet; in one batch secrets stand before packets;
a file that is followed by another ends with the counts of all its interfaces.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from ecapture.events import Event, Interface, InterfaceCounts, Packets, Secret
from ecapture.formats.keylog import KeyLogFormat
from ecapture.formats.pcapng import (
    decryption_secrets,
    interface_description,
    interface_statistics,
    section_header,
)

RECENT_NS: Final = 10_000_000_000
"""How old secrets may be that a new file begins with, if they are many."""
_FEW_BYTES, _MOST_BYTES = 64 << 10, 4 << 20


class CaptureFileFormat:
    """Events to blocks. ``hardware``, ``system`` and ``application`` describe who captured.

    Once what ``encode`` returned is written or dropped, ``written`` must be called: until then
    ``opening`` tells only of interfaces from before.
    """

    def __init__(self, *, hardware: str, system: str, application: str) -> None:
        self._section = section_header(hardware=hardware, system=system, application=application)
        self._system = system
        self._interfaces: list[bytes] = []
        self._coming: list[bytes] = []
        self._lines = KeyLogFormat()
        self._recent: deque[tuple[int, bytes]] = deque()
        self._recent_bytes = 0
        self._told: list[tuple[int, bytes]] = []

    def opening(self, known: int | None = None) -> bytes:
        """What a file begins with; ``known`` is how many interfaces are told of, None for all."""
        recent = b"".join(lines for _time_ns, lines in tuple(self._recent))
        secrets = decryption_secrets(recent) if recent else b""
        return self._section + b"".join(self._interfaces[:known]) + secrets

    def opening_here(self) -> Callable[[], bytes]:
        """What makes the opening of a file that begins with what is encoded next.

        It may be called at any time, in another thread, too: interfaces that are told of from now
        on are in what is encoded, and must not be told of twice.
        """
        return partial(self.opening, len(self._interfaces))

    def closing_size(self) -> int:
        """How many bytes ``closing`` will give at most."""
        return len(self._interfaces) * _COUNTED_BYTES

    def closing(self, counts: Iterable[InterfaceCounts]) -> bytes:
        """What a file ends with that is followed by another: counts as they are now."""
        there = len(self._interfaces)
        return b"".join(_counted(count) for count in counts if count.number < there)

    def encode(self, events: list[Event]) -> list[bytes]:
        """The blocks of one batch, in pieces."""
        secrets: list[Event] = []
        packets: list[bytes] = []
        statistics: list[bytes] = []
        for event in events:
            if type(event) is Packets:
                packets.append(event.blocks)
            elif type(event) is Secret:
                secrets.append(event)
            elif type(event) is Interface:
                self._coming.append(self._described(event))
            elif type(event) is InterfaceCounts:
                statistics.append(_counted(event))
        lines = b"".join(self._lines.encode(secrets)) if secrets else b""
        told = [decryption_secrets(lines)] if lines else []
        if lines:
            self._told.append((max(secret.time_ns for secret in secrets), lines))
        return [*self._coming, *told, *packets, *statistics]

    def written(self, *, kept: bool = True) -> None:
        """The last batch is in a file; or it was dropped, then its interfaces come again."""
        if kept:
            self._interfaces += self._coming
            self._coming.clear()
        recent = self._recent
        for time_ns, lines in self._told:
            recent.append((time_ns, lines))
            self._recent_bytes += len(lines)
            while self._recent_bytes > _MOST_BYTES or (
                self._recent_bytes > _FEW_BYTES and time_ns - recent[0][0] > RECENT_NS
            ):
                self._recent_bytes -= len(recent.popleft()[1])
        self._told.clear()

    def _described(self, event: Interface) -> bytes:
        return interface_description(
            event.link_type,
            name=event.name,
            description=event.space and f"{event.name} in the network namespace {event.space}",
            snap_length=event.snap_length,
            filter_=event.expression,
            system=self._system,
        )


def _counted(event: InterfaceCounts) -> bytes:
    delivered = event.received - event.dropped
    remarks = [
        f"{count} packets {what}"
        for count, what in ((event.cut, "cut to the snap length"), (event.unreadable, "unreadable"))
        if count
    ]
    return interface_statistics(
        event.number,
        event.time_ns,
        start_ns=event.start_ns,
        end_ns=event.time_ns,
        received=event.received,
        dropped=event.dropped,
        accepted=event.received,
        delivered=delivered,
        comment=", ".join(remarks),
    )


_MOST: Final = (1 << 64) - 1
_COUNTED_BYTES: Final = len(_counted(InterfaceCounts(0, 0, 0, _MOST, 0, _MOST, _MOST)))
"""The longest block of counts."""
