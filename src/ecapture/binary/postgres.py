# SPDX-License-Identifier: Apache-2.0
"""Whose session a back-end of PostgreSQL serves, asked of the process itself.

For sessions that are older than the capture. Two witnesses must agree: the title of the process
(``postgres: [CLUSTER: ]USER DATABASE CLIENT ACTIVITY``, src/backend/tcop/backend_startup.c), in
which blanks and colons make more than one reading possible, and its memory, where the session's
object, to which the exported variable ``MyProcPort`` leads, has pointers to the names of the
database and of the user side by side (struct Port in src/include/libpq/libpq-be.h, where they are
next to each other in all releases). Where they stand in it is found, not known. The application's
name is the exported variable ``application_name``.

Invariant: a user that is not in both is not told, nor is a database, but that of a walsender, whose
title has none.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from ecapture.binary.elf import ElfFile
from ecapture.binary.process import mapped_files
from ecapture.errors import ECaptureError
from ecapture.events import SessionFacts

_TITLE = re.compile(r"postgres: (?P<who>.*?) (?P<client>\[local\]|[^ ()]+\(\d{1,5}\))(?: |$)")
_WALSENDER = "walsender "
_OBJECT_BYTES = 1024  # of a struct Port: the names stand within the first 400 in all releases
_NAME_BYTES = 256  # NAMEDATALEN is 64 unless a build says otherwise
_POINTER = 8
_PT_LOAD, _PF_X = 1, 1


def read_session(pid: int) -> SessionFacts:
    """What is known of it. Never raises: ``reason`` says what is missing and why."""
    try:
        title = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode("utf-8", "replace")
    except OSError:
        return SessionFacts(reason="the session began before the capture, and is over")
    shown = _TITLE.match(title)
    if shown is None:
        return SessionFacts(
            reason="the session began before the capture, and the title of its process says no user"
        )
    client = "local" if shown["client"] == "[local]" else _address(shown["client"])
    who = shown["who"]
    try:
        with _Memory(pid) as memory:
            application = memory.text(memory.pointer(memory.variable("application_name")))
            for database, user in memory.neighbours():
                if _fits(who, user, database):
                    return SessionFacts(user, database, client, application)
    except (ECaptureError, OSError, ValueError) as error:
        reason = str(error)
        return SessionFacts(
            client=client,
            reason=f"the session began before the capture, and cannot be looked into: {reason}",
        )
    return SessionFacts(
        client=client,
        application=application,
        reason="the session began before the capture, and its title and memory do not agree",
    )


def _fits(who: str, user: str, database: str) -> bool:
    # Before it stands the name of the cluster, or the kind of process, or nothing. The title of a
    # walsender has no database, and itself only one that decodes what the log says.
    if who == f"{user} {database}" or who.endswith(f": {user} {database}"):
        return bool(user and database)
    return who.endswith(f"{_WALSENDER}{user}") and bool(user)


def _address(shown: str) -> str:
    host, _, port = shown.rstrip(")").rpartition("(")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _Memory:
    """The memory of a process, and the variables of the program that it runs."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as opened:
            exe = f"/proc/{self._pid}/exe"
            self._fd = os.open(f"/proc/{self._pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
            opened.callback(os.close, self._fd)
            self._elf = opened.enter_context(ElfFile(exe))
            status = Path(exe).stat()
            mapped = [
                file
                for file in mapped_files(self._pid)
                if (file.device, file.inode) == (status.st_dev, status.st_ino)
            ]
            if not mapped:  # it is ending, or runs what is not its program
                raise ValueError("it has no program mapped")
            self._bias = mapped[0].start - self._address_at(mapped[0].offset)
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def _address_at(self, offset: int) -> int:
        for segment in self._elf.segments:
            start = segment.offset & -mmap.PAGESIZE  # of 64 KiB on some machines
            inside = start <= offset < segment.offset + segment.file_size
            if inside and (segment.type, segment.flags & _PF_X) == (_PT_LOAD, _PF_X):
                return segment.address - segment.offset + offset
        raise ValueError("a mapping that is none of the file")

    def _read(self, address: int, size: int) -> bytes:
        return os.pread(self._fd, size, address) if 0 < address < 1 << 62 else b""

    def variable(self, name: str) -> int:
        """The address of an exported variable."""
        found = self._elf.symbol(name, variable=True)
        if found is None:
            raise ValueError(f"the server exports no variable {name}")
        return self._bias + found.address

    def pointer(self, address: int) -> int:
        """What an address holds; 0 if it cannot be read."""
        return int.from_bytes(self._read(address, _POINTER), "little")

    def text(self, address: int) -> str:
        """The text at an address; empty if there is none or it has no end."""
        try:
            raw = self._read(address, _NAME_BYTES)
        except OSError:
            return ""
        text, end, _ = raw.partition(b"\0")
        return text.decode("utf-8", "backslashreplace") if end else ""

    def neighbours(self) -> Iterator[tuple[str, str]]:
        """Texts to which the session's object has pointers side by side; the first may be empty."""
        place = self.pointer(self.variable("MyProcPort"))
        raw = self._read(place, _OBJECT_BYTES) if place else b""
        before = ""
        for at in range(0, len(raw) - _POINTER + 1, _POINTER):
            text = self.text(int.from_bytes(raw[at : at + _POINTER], "little"))
            if text:
                yield before, text
            before = text
