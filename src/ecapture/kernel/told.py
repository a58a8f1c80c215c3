# SPDX-License-Identifier: Apache-2.0
"""Hooks for secrets that a program tells together with their client random: Go and rustls.

The counterpart of ``bpf/told.bpf.c``: finds the places (``binary.secrets``), remembers them, writes
one row for each way in which secrets are told, and says once what cannot be had of a file.

Invariant: a probe is planted only where the bytes are those that were seen when the place was
proven.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable, Mapping

import msgspec

from ecapture._wire import (
    LABEL_PLACES,
    OPERAND,
    OPERAND_CONSTANT,
    SECRET_SLOTS,
    TOLD_ROW,
    TOLD_ROWS,
    Label,
    Shape,
)
from ecapture.binary.cache import Remembered, identity
from ecapture.binary.elf import ElfFile
from ecapture.binary.golang import KEY_LOG
from ecapture.binary.library import Library
from ecapture.binary.secrets.rustls import locate_rustls
from ecapture.binary.secrets.sites import NotLocated
from ecapture.binary.secrets.telling import Operand, Telling, TellingSite, locate_go
from ecapture.kernel.attach import Place, Programs
from ecapture.kernel.feature import feature
from ecapture.plan import Hook

_log = logging.getLogger(__name__)

TOLD = Hook("(a secret is told)", Shape.TOLD)
KINDS = ("go", "rustls")
"""Kinds of files whose secrets are told so."""

_PAGE = 4096
# Of Go only texts are looked for, at 3 ms a megabyte. rustls takes half a second for so much, once.
_QUICK_BYTES = {"go": 64 << 20, "rustls": 16 << 20}
# Registers as instructions number them, in the order of struct pt_regs (UAPI asm/ptrace.h).
_X86_64 = (10, 11, 12, 5, 19, 4, 13, 14, 9, 8, 7, 6, 3, 2, 1, 0)
_WORDS = {"x86_64": _X86_64, "aarch64": tuple(range(32))}


class LocatedTelling(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a file tells secrets, or why nothing is hooked there."""

    telling: Telling | None = None
    reason: str = ""


class TellingCache(Remembered[LocatedTelling]):
    """Where secrets are told, by file."""

    file_name = "telling.json"
    judgement = LocatedTelling


class TellingKeys:
    """Finds the places of one file after another, and tells the programs of each. Thread-safe."""

    def __init__(self, programs: Programs, cache: TellingCache) -> None:
        self._programs = programs
        self._cache = cache
        self._lock = threading.Lock()
        self._rows: dict[bytes, int] = {}
        self._said: set[tuple[str, str]] = set()

    def quick(self, status: os.stat_result, library: Library) -> bool:
        """Whether ``places`` will answer in some hundredths of a second."""
        with self._lock:
            return status.st_size <= _QUICK_BYTES[library.kind] or self._cache.lookup(status)[0]

    def places(self, path: str, name: str, library: Library) -> list[Place]:
        """Where to hook a file of one of ``KINDS``.

        Raises NotExecutable if the file contradicts itself, TargetNotFound if it is gone.
        """
        with ElfFile(path) as elf:
            key = identity(elf.status)
            found = self._located(elf, library)
            if found.telling is None:
                self._say(key, "%s: its keys cannot be read: %s", name, found.reason)
                return []
            telling, machine = found.telling, elf.machine
            if any(elf.read(site.offset, len(site.head)) != site.head for site in telling.sites):
                self._say(key, "%s: its keys cannot be read: it is not the file it was", name)
                return []
        for note in telling.notes:
            self._say(key, "%s: not all of its keys can be read: %s", name, note)
        hook = next(n for n, hook in enumerate(self._programs.hooks) if hook.shape is Shape.TOLD)
        places = []
        for site in telling.sites:
            row = self._row(told_row(site, telling, machine))
            if row < 0:
                self._say(key, "%s: not all of its keys can be read: too many places", name)
                break
            places.append(Place(hook, site.offset, file_row=row))
        return places

    def save(self) -> None:
        """Keeps what was learned for later runs."""
        with self._lock:
            self._cache.save()

    def _located(self, elf: ElfFile, library: Library) -> LocatedTelling:
        with self._lock:
            _known, found = self._cache.lookup(elf.status)
        if found is not None:
            return found
        answer = _locate(elf, library)
        if isinstance(answer, NotLocated):
            found = LocatedTelling(reason=answer.reason)
        else:
            found = LocatedTelling(answer)
        after = os.fstat(elf.fileno())
        if identity(after) == identity(elf.status):
            with self._lock:
                self._cache.remember(after, found)
        return found

    def _row(self, content: bytes) -> int:
        # -1: there are more ways than rows. Files of one make often have the same.
        limit = TOLD_ROWS if feature("attach_cookie") else SECRET_SLOTS
        with self._lock:
            row = self._rows.get(content, len(self._rows))
            if row >= limit:
                return -1
            if content not in self._rows:
                self._programs.set_row("told_rows", row, content)
                self._rows[content] = row
            return row

    def _say(self, key: str, text: str, *words: str) -> None:
        with self._lock:
            if (key, text + words[-1]) in self._said:
                return
            self._said.add((key, text + words[-1]))
        _log.warning(text, *words)


def _locate(elf: ElfFile, library: Library) -> Telling | NotLocated:
    if library.kind == "go":
        function = library.functions.get(KEY_LOG)
        if function is None or not library.convention:
            return NotLocated(library.reason or f"has no function {KEY_LOG}")
        return locate_go(elf, function, library.convention)
    return locate_rustls(elf)


def told_row(site: TellingSite, telling: Telling, machine: str) -> bytes:
    """What the kernel programs must know of a place (struct ec_told_row)."""
    told = site.told
    operands = (
        told.label,
        told.label_length,
        told.random,
        told.random_length,
        told.secret,
        told.secret_length,
    )
    places, numbers = label_places(telling.labels)
    return TOLD_ROW.pack(*(_operand(operand, machine) for operand in operands), places, numbers)


def _operand(operand: Operand, machine: str) -> bytes:
    offsets = (*operand.path, operand.offset, 0, 0)[:3]
    word = OPERAND_CONSTANT if operand.register is None else _WORDS[machine][operand.register]
    return OPERAND.pack(*offsets, word, len(operand.path))


def label_places(labels: Mapping[str, Iterable[int]]) -> tuple[bytes, bytes]:
    """Where labels stand within their pages, and which they are, as kernel programs read it.

    A file is mapped in whole pages, so a text stands where it stands within its page.
    """
    found: dict[int, set[Label]] = {}
    for name, addresses in labels.items():
        for address in addresses:
            if name in Label.__members__:
                found.setdefault(address % _PAGE, set()).add(Label[name])
    certain = [(place, labels.pop()) for place, labels in found.items() if len(labels) == 1]
    certain = certain[:LABEL_PLACES]
    return (
        b"".join(place.to_bytes(2, "little") for place, _label in certain).ljust(
            2 * LABEL_PLACES, b"\0"
        ),
        bytes(label for _place, label in certain).ljust(LABEL_PLACES, b"\0"),
    )
