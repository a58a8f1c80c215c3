# SPDX-License-Identifier: Apache-2.0
"""Packets and secrets as a pcapng file.

Packets come as the blocks they are in the file; all that is added stands around them. A file begins
with the section and the interfaces that are known by then, so that any file of several can be read
without those before it.

Invariants: an interface stands before its first packet; in one batch secrets stand before packets.
"""

from __future__ import annotations

from ecapture.events import Event, Interface, InterfaceCounts, Packets, Secret
from ecapture.formats.keylog import KeyLogFormat
from ecapture.formats.pcapng import (
    decryption_secrets,
    interface_description,
    interface_statistics,
    section_header,
)


class CaptureFileFormat:
    """Events to blocks. ``hardware``, ``system`` and ``application`` describe who captured.

    Once what ``encode`` returned is written, ``written`` must be called: until then ``opening``
    tells only of interfaces from before.
    """

    def __init__(self, *, hardware: str, system: str, application: str) -> None:
        self._section = section_header(hardware=hardware, system=system, application=application)
        self._system = system
        self._interfaces: list[bytes] = []
        self._coming: list[bytes] = []
        self._lines = KeyLogFormat()

    def opening(self) -> bytes:
        """What a file begins with."""
        return self._section + b"".join(self._interfaces)

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
        return [*self._coming, *told, *packets, *statistics]

    def written(self) -> None:
        """The last batch is in a file."""
        self._interfaces += self._coming
        self._coming.clear()

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
