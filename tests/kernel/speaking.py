# SPDX-License-Identifier: Apache-2.0
"""Drives ``speaker``: a process that makes known calls when told to, and hooks on its functions.

A call has returned, and its records are in the ring, when ``say`` returns: nothing is waited for.
"""

from __future__ import annotations

import select
import subprocess
from pathlib import Path
from typing import Self

from ecapture import plan
from ecapture.binary.elf import ElfFile
from ecapture.config import CaptureConfig, Limits, Scope
from ecapture.kernel.attach import Attached, Place, Programs
from ecapture.kernel.feature import feature

SOURCE = Path(__file__).parent / "speaker.c"
DEADLINE = 300.0  # seconds: an emulated machine is twenty times slower than this one
_ROUND = bytes(range(251))
HOOKS = (
    plan.read("plain_read"),
    plan.write("plain_write"),
    plan.write("pointed_write", length=3, pointed=True),
    plan.send_file("send_file"),
    plan.write("outer_write"),
    plan.descriptor("set_descriptor"),
    plan.end("end"),
)


def distinct(*masks: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return those masks of features that leave different ones on this kernel.

    What an old kernel lacks anyway would be tried again and again: a minute each in emulation.
    """
    left: dict[frozenset[str], tuple[str, ...]] = {}
    for mask in masks:
        left.setdefault(frozenset(name for name in mask if feature(name)), mask)
    return list(left.values())


def compiled(folder: Path) -> Path:
    """The program, built with symbols in its dynamic table."""
    path = folder / "speaker"
    subprocess.run(
        ["cc", "-O1", "-pthread", "-rdynamic", "-o", path, SOURCE],
        check=True,
        capture_output=True,
    )
    return path


def places(path: Path) -> list[Place]:
    """Where the hooks are in the file."""
    with ElfFile(str(path)) as elf:
        found = [elf.symbol(hook.symbol) for hook in HOOKS]
        assert None not in found
        return [Place(row, elf.file_offset(s.address)) for row, s in enumerate(found)]


def settings(*, ring: int = 1 << 20, payload: int | None = None, **scope: object) -> CaptureConfig:
    """A configuration that watches what the scope says."""
    return CaptureConfig(scope=Scope(**scope), limits=Limits(payload, ring))


class Speaker:
    """The running program."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.pid = int(self._answer())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def _answer(self) -> bytes:
        ready, _, _ = select.select([self._process.stdout], [], [], DEADLINE)
        assert ready, "the program does not answer"
        return self._process.stdout.readline()

    def say(self, call: str, length: int = 0) -> int:
        """Makes one call and returns what it returned."""
        self._process.stdin.write(f"{call} {length}\n".encode())
        self._process.stdin.flush()
        return int(self._answer())


class Hooked:
    """Loaded programs, attached to one speaker."""

    def __init__(self, speaker: Speaker, config: CaptureConfig, *, returns: bool = True) -> None:
        self.programs = Programs(config, HOOKS)
        try:
            self.attached: Attached = self.programs.attach(
                str(speaker.path), places(speaker.path), speaker.pid, returns=returns
            )
        except BaseException:
            self.programs.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.attached.close()
        self.programs.close()

    def drain(self, limit: int = 1 << 22) -> bytes:
        """All that is in the ring."""
        out = b""
        while batch := self.programs.ring.drain(limit):
            out += batch
        return out


def spoken(start: int, length: int) -> bytes:
    """What the speaker says in its bytes from ``start`` on."""
    begin = start % 251
    return (_ROUND * (length // 251 + 2))[begin : begin + length]
