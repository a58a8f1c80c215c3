# SPDX-License-Identifier: Apache-2.0
"""Where a capture goes: a format joined to a sink. What ``session.run`` writes to."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Protocol

import msgspec

from ecapture._wire import LOSSES
from ecapture.errors import UsageError
from ecapture.events import (
    Event,
    InterfaceCounts,
    Losses,
    Plaintext,
    ProcessExit,
    Served,
    SessionFacts,
    Statement,
)
from ecapture.kernel.recording import Frame, Metadata, ProcessFacts, frame, opening
from ecapture.shell_events import ShellCommand
from ecapture.sinks.destination import (
    Destination,
    FileDestination,
    Sink,
    Stdout,
    WebSocketDestination,
    is_terminal,
    open_sink,
    parse,
)
from ecapture.sinks.file import open_output
from ecapture.sinks.rotation import Closing, Rotation
from ecapture.sinks.writer import Writer
from ecapture.version import version

STDOUT = "-"


def open_destinations(
    output: str | None, forward: str | None, rotation: Rotation
) -> list[Destination]:
    """What ``-w`` and ``--eventaddr`` name; neither: standard output. Raises UsageError."""
    found = []
    if output is not None or forward is None:
        found.append(parse(output or STDOUT, rotate=rotation))
    if forward is not None:
        found.append(parse(forward, option="--eventaddr", rotate=rotation))
    return found


def open_writer(destination: str, *, append: bool = False, option: str = "-w") -> Writer:
    """A writer for a path, or for standard output if it is "-"; ``option`` named it."""
    if destination == STDOUT:
        return Writer(1, "standard output", owned=False)
    fd = open_output(destination, append=append, option=option)
    writer = Writer(fd, destination, owned=True, option=option)
    if append and _ends_within_a_line(fd):
        writer.write(b"\n")
    return writer


def _ends_within_a_line(fd: int) -> bool:
    # As a full disk leaves it: what is appended must not become a part of that line.
    found = os.fstat(fd)
    if not (stat.S_ISREG(found.st_mode) and found.st_size):
        return False
    try:
        with open(f"/proc/self/fd/{fd}", "rb", buffering=0) as file:  # noqa: PTH123 - of a descriptor
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except OSError:  # not ours to read
        return False


def no_session(_pid: int) -> SessionFacts:
    """The session of every process, where nobody looks them up."""
    return SessionFacts(reason="the session began before the capture")


class Output(Protocol):
    """Takes what is captured somewhere: a format with a sink, or the recorder."""

    def opening(self, metadata: Metadata) -> None:
        """Called once, before anything else."""

    def records(self, batch: bytes) -> None:
        """Every batch, as it came."""

    def events(self, events: list[Event]) -> None:
        """The same batch, decoded and through the pipeline."""

    def close(self, losses: Losses) -> None:
        """The capture is over."""


class Format(Protocol):
    """Turns events into bytes; opens nothing."""

    def encode(self, events: list[Event]) -> list[bytes]:
        """Return the bytes of one batch, in pieces to be written one behind the other."""


class FormatOutput:
    """Events in some format, to a sink or to what a text names."""

    def __init__(
        self, format_: Format, destination: str | Destination, *, append: bool = False
    ) -> None:
        self._format = format_
        # Over WebSocket every piece is a message: then it is one event, not a part of one.
        self._one_by_one = isinstance(destination, WebSocketDestination)
        self._writer: Sink
        if isinstance(destination, str):
            self._writer = open_writer(destination, append=append, option="-k" if append else "-w")
        else:
            self._writer = open_sink(destination, text=True)

    def opening(self, _metadata: Metadata) -> None:
        """Formats have no beginning."""
        self._writer.begin()

    def records(self, batch: bytes) -> None:
        """Formats are made of events; an empty batch says that time has passed."""
        if not batch:
            self._writer.tick()

    def events(self, events: list[Event]) -> None:
        """Write the events of one batch with one call."""
        if self._one_by_one:
            encoded = (b"".join(self._format.encode([event])) for event in events)
            self._writer.write(*filter(None, encoded))
        else:
            self._writer.write(*self._format.encode(events))

    def close(self, _losses: Losses) -> None:
        """Write what is queued."""
        self._writer.close()


class HarOutput:
    """Exchanges as a HAR file: whole after every write, where the file can be overwritten."""

    def __init__(self, destination: Destination, container_of: Callable[[int], str]) -> None:
        from ecapture.formats.har import HarFormat  # noqa: PLC0415 - only where it is used

        if isinstance(destination, FileDestination) and destination.rotate is None:
            self._writer = open_writer(destination.path, option=destination.option)
        elif isinstance(destination, Stdout):
            self._writer = open_writer(STDOUT)
        else:
            raise UsageError(
                option="-m har",
                problem="an archive is one document: it is neither rotated nor forwarded",
                hint="use -m jsonl",
            )
        self._format = HarFormat(
            version=version(),
            container_of=container_of,
            seekable=self._writer.seekable,
            terminal=is_terminal(destination),
        )

    def opening(self, _metadata: Metadata) -> None:
        """Write the beginning of the archive."""
        self._writer.write(self._format.opening())

    def records(self, _batch: bytes) -> None:
        """The archive is made of exchanges."""

    def events(self, events: list[Event]) -> None:
        """Write the exchanges of one batch with one call."""
        back, pieces = self._format.encode(events)
        self._writer.write(*pieces, back=back)

    def close(self, _losses: Losses) -> None:
        """Write the end of the archive, and what is queued."""
        self._writer.write(self._format.closing())
        self._writer.close()


class PacketOutput:
    """Packets and the keys to them, as a pcapng file.

    ``counts_of`` tells what has become of the packets of each interface until now.
    """

    def __init__(
        self,
        destination: Destination,
        counts_of: Callable[[], list[InterfaceCounts]] = list,
    ) -> None:
        from ecapture.formats.capture_file import CaptureFileFormat  # noqa: PLC0415

        if is_terminal(destination):
            raise UsageError(
                option="-m pcap",
                problem="packets are binary and would go to a terminal",
                hint="write them to a file with -w FILE",
            )
        # A batch is a message or none, so that none that is sent lacks an interface of its own.
        self._whole = isinstance(destination, WebSocketDestination)
        host = os.uname()
        self._format = CaptureFileFormat(
            hardware=host.machine,
            system=f"{host.sysname} {host.release}",
            application=f"ecapture {version()}",
        )
        self._writer = open_sink(
            destination,
            opening=self._format.opening,
            opening_here=self._format.opening_here,
            closing=Closing(self._format.closing_size, lambda: self._format.closing(counts_of())),
        )

    def opening(self, _metadata: Metadata) -> None:
        """The beginning is written with the first packets."""
        self._writer.begin()

    def records(self, batch: bytes) -> None:
        """An empty batch says that time has passed."""
        if not batch:
            self._writer.tick()

    def events(self, events: list[Event]) -> None:
        """Write the blocks of one batch with one call."""
        pieces = self._format.encode(events)
        if self._whole:
            pieces = [b"".join(pieces)]
        self._format.written(kept=self._writer.write(*pieces) is not False)

    def close(self, _losses: Losses) -> None:
        """Write what is queued."""
        self._writer.close()


class RecordOutput:
    """Records as they came, for ``replay``."""

    def __init__(
        self,
        named: str | Destination,
        container_of: Callable[[int], str],
        session_of: Callable[[int], SessionFacts] = no_session,
    ) -> None:
        destination = parse(named) if isinstance(named, str) else named
        self._container_of = container_of
        self._session_of = session_of
        self._described: dict[int, str] = {}
        self._metadata = Metadata(0)
        if is_terminal(destination):
            raise UsageError(
                option="-m record",
                problem="a recording is binary and would go to a terminal",
                hint="write it to a file with -w FILE",
            )
        self._writer = open_sink(destination, opening=self._beginning)

    def opening(self, metadata: Metadata) -> None:
        """Keep the metadata, which every file begins with."""
        self._metadata = metadata
        self._writer.begin()

    def _beginning(self) -> bytes:
        self._described.clear()  # a file must be readable without those before it
        return opening(self._metadata)

    def records(self, batch: bytes) -> None:
        """Write one frame; an empty batch says that time has passed."""
        if batch:
            self._writer.write(frame(Frame.RECORDS, batch))
        else:
            self._writer.tick()

    def events(self, events: list[Event]) -> None:
        """Write what can be looked up only now: the containers of processes."""
        for event in events:
            if type(event) is Plaintext or type(event) is Statement:
                if event.pid not in self._described:
                    self._describe(event.pid)
            elif type(event) is ShellCommand:
                self._describe_shell(event)
            elif type(event) is Served and event.pid not in self._described:
                self._describe(event.pid, self._session_of(event.pid) if event.late else None)
            elif type(event) is ProcessExit:
                self._described.pop(event.pid, None)

    def _describe_shell(self, event: ShellCommand) -> None:
        if event.pid not in self._described:
            self._describe(event.pid)
        if event.ended in ("exited", "killed"):
            del self._described[event.pid]

    def _describe(self, pid: int, session: SessionFacts | None = None) -> None:
        container = self._described[pid] = self._container_of(pid)
        if container or session is not None:
            facts = msgspec.json.encode(ProcessFacts(pid, container, session))
            self._writer.write(frame(Frame.PROCESS, facts))

    def close(self, losses: Losses) -> None:
        """Writes the loss counters, last."""
        counts = [getattr(losses, name) for name in losses.__struct_fields__]
        self._writer.write(frame(Frame.LOSSES, LOSSES.pack(*counts)))
        self._writer.close()
