# SPDX-License-Identifier: Apache-2.0
"""Saves records as they came from the kernel, and reads them back: the second reader.

A recording is a magic line, then frames: length (u32), kind (u32), bytes. The first frame is
metadata as JSON; then come batches of records, byte for byte as drained, and snapshots of the loss
counters. A file that was cut short (kill -9, full disk) is good up to its last whole record.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import Annotated, BinaryIO

import msgspec

from ecapture._wire import FRAME, HEADER, LOSSES, WIRE_VERSION
from ecapture.errors import RecordError, TargetNotFound, UsageError
from ecapture.events import Losses, SessionFacts

MAGIC = b"ecapture recording 1\n"
_MAXIMUM_FRAME = 64 << 20
_MAXIMUM_OFFSET = 1 << 62  # nanoseconds: 146 years, which keeps every time a date


class Frame(IntEnum):
    """What a frame holds."""

    METADATA = 1
    RECORDS = 2
    LOSSES = 3
    PROCESS = 4


class Metadata(msgspec.Struct, frozen=True):
    """What replay must know beside the records."""

    wall_offset_ns: Annotated[int, msgspec.Meta(ge=-_MAXIMUM_OFFSET, le=_MAXIMUM_OFFSET)]
    wire_version: int = WIRE_VERSION
    version: str = ""
    kernel: str = ""
    machine: str = ""


class ProcessFacts(msgspec.Struct, frozen=True):
    """What was known of a process when it was captured and can be looked up nowhere later."""

    pid: int
    container: str
    session: SessionFacts | None = None


def frame(kind: Frame, content: bytes) -> bytes:
    """One frame, ready to be written."""
    return FRAME.pack(len(content), kind) + content


def opening(metadata: Metadata) -> bytes:
    """The beginning of a recording."""
    return MAGIC + frame(Frame.METADATA, msgspec.json.encode(metadata))


def _whole_records(batch: bytes) -> bytes:
    """The records of a batch up to the one in which it was cut off."""
    at = 0
    while at + HEADER.size <= len(batch):
        size = HEADER.unpack_from(batch, at)[1]
        following = at + ((size + 7) & ~7)
        if size < HEADER.size or following > len(batch):
            break
        at = following
    return batch[:at]


class RecordingReader:
    """Reads a recording. Iterating yields batches; ``losses`` follows the snapshots as they pass.

    Raises UsageError if the file is no recording of this version, TargetNotFound if there is none.
    What is damaged further on ends the reading; ``malformed`` counts it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self.losses = Losses()
        self.malformed = 0
        self.containers: dict[int, str] = {}
        self.sessions: dict[int, SessionFacts] = {}
        try:
            self._file: BinaryIO = Path(path).open("rb")  # noqa: SIM115 - closed by close()
        except FileNotFoundError:
            raise TargetNotFound(
                looked_for=self.path,
                looked_in="the file system",
                hint="record one: ecapture tls -m record -w FILE",
            ) from None
        except OSError as error:
            raise TargetNotFound(
                looked_for=self.path,
                looked_in=f"the file system ({error.strerror})",
                hint="give a file that `ecapture tls -m record -w FILE` wrote",
            ) from None
        try:
            self.metadata = self._metadata()
        except BaseException:
            self._file.close()
            raise

    def _metadata(self) -> Metadata:
        refused = UsageError(
            option=self.path,
            problem="is not a recording",
            hint="replay reads what `ecapture tls -m record -w FILE` wrote",
        )
        try:
            if self._file.read(len(MAGIC)) != MAGIC:
                raise refused
            found = self._frame()
            if found is None or found[0] != Frame.METADATA:
                raise refused
            metadata = msgspec.json.decode(found[1], type=Metadata)
        except (RecordError, msgspec.MsgspecError, ValueError, RecursionError, OSError) as error:
            raise refused from error
        if metadata.wire_version != WIRE_VERSION:
            raise UsageError(
                option=self.path,
                problem=f"has wire version {metadata.wire_version}, this program {WIRE_VERSION}",
                hint=f"replay it with ecapture {metadata.version}",
            )
        return metadata

    def _frame(self) -> tuple[int, bytes] | None:
        head = self._file.read(FRAME.size)
        if not head:
            return None
        if len(head) < FRAME.size:
            raise RecordError(kind="frame", reason="cut short")
        length, kind = FRAME.unpack(head)
        if length > _MAXIMUM_FRAME:
            raise RecordError(kind=kind, reason=f"impossible length {length}")
        content = self._file.read(length)
        if len(content) < length:
            # Its capture was killed while it wrote: what came before is as good as ever.
            content = _whole_records(content) if kind == Frame.RECORDS else b""
            if not content:
                raise RecordError(kind=kind, reason="cut short")
            self.malformed += 1
        return kind, content

    def batches(self) -> Iterator[bytes]:
        """The batches of records, as they were drained.

        Facts about processes stand behind the batch in which the process first appears; they are
        read before that batch is given out.
        """
        held: bytes | None = None
        while True:
            try:
                found = self._frame()
            except (RecordError, OSError):
                self.malformed += 1
                found = None
            if found is not None and found[0] == Frame.PROCESS:
                self._process(found[1])
                continue
            if held is not None:
                yield held
                held = None
            if found is None:
                return
            kind, content = found
            if kind == Frame.RECORDS:
                held = content
            elif kind == Frame.LOSSES and len(content) == LOSSES.size:
                self.losses = Losses(*LOSSES.unpack(content))
            else:
                self.malformed += 1

    def _process(self, content: bytes) -> None:
        try:
            facts = msgspec.json.decode(content, type=ProcessFacts)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            self.malformed += 1
            return
        self.containers[facts.pid] = facts.container
        if facts.session is not None:
            self.sessions[facts.pid] = facts.session

    def forget(self, pid: int) -> None:
        """Drops what was told of a process that has ended."""
        self.containers.pop(pid, None)
        self.sessions.pop(pid, None)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
