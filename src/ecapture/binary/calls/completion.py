# SPDX-License-Identifier: Apache-2.0
"""Completes judgements about files whose functions have no names, and remembers the answers."""

from __future__ import annotations

import os
import threading
from typing import Final

from ecapture.binary.cache import Remembered, identity
from ecapture.binary.elf import ElfFile
from ecapture.binary.library import BUILT_IN, NAMELESS, Library

_OPEN: Final = {"openssl": NAMELESS, "boringssl": NAMELESS, "rustls": BUILT_IN}
_MACHINES: Final = ("x86_64", "aarch64")
_QUICK_BYTES: Final = 16 << 20


class CallsCache(Remembered[Library]):
    """Completed judgements, by file."""

    file_name = "calls.json"
    judgement = Library


class Completion:
    """Completes judgements, once for each file. Thread-safe; ``save`` keeps them for later runs."""

    def __init__(self, cache: CallsCache) -> None:
        self._cache = cache
        self._lock = threading.Lock()

    def quick(self, status: os.stat_result, library: Library) -> bool:
        """Whether ``of`` will answer in some hundredths of a second."""
        if not is_open(library):
            return True
        with self._lock:
            return status.st_size <= _QUICK_BYTES or self._cache.lookup(status)[0]

    def of(self, path: str, library: Library) -> Library:
        """The judgement about the file that ``path`` leads to, completed if it was open.

        Raises:
            NotExecutable: the file contradicts itself.
            TargetNotFound: it is gone.
            PermissionMissing: it may not be read.
        """
        if not is_open(library):
            return library
        with ElfFile(path) as elf:
            with self._lock:
                _known, found = self._cache.lookup(elf.status)
            if found is None:
                from ecapture.binary.calls.locate import complete  # noqa: PLC0415 - much code, seldom

                found = complete(elf, library)
                after = os.fstat(elf.fileno())
                if identity(after) == identity(elf.status):
                    with self._lock:
                        self._cache.remember(after, found)
        return found

    def save(self) -> None:
        """Keep what was learned for later runs."""
        with self._lock:
            self._cache.save()


def is_open(library: Library) -> bool:
    """Tell whether a judgement can be completed by reading the file's code."""
    return library.machine in _MACHINES and library.reason == _OPEN.get(library.kind, "-")
