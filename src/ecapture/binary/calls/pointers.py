# SPDX-License-Identifier: Apache-2.0
"""Pointers to code that a file has in its data once it is loaded: where they stand and lead to.

Most are made by the loader: ``.rela.dyn`` lists them as entries that only add where the file was
loaded (R_X86_64_RELATIVE, R_AARCH64_RELATIVE). Where these entries are packed (RELR), and where the
file has a fixed address, pointers stand in the file as they are, on multiples of eight.

A browser has a million of them, so they are kept as bare numbers, 16 bytes each.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Final

from ecapture.binary.elf import ElfFile
from ecapture.binary.file import CHUNK
from ecapture.binary.secrets.image import Image

_RELATIVE: Final = {"x86_64": 8, "aarch64": 1027}
_ENTRY: Final = 24  # Elf64_Rela: place, kind, number
_STEP: Final = CHUNK // _ENTRY * _ENTRY
_MAX_ENTRIES: Final = 1 << 21
_MAX_FOUND: Final = 1 << 14
_WORD: Final = 8

Window = tuple[int, int]
"""First and last address of a part of the code."""


class Pointers:
    """Of one file.

    Raises:
        NotExecutable: by any method, the file became shorter.
    """

    def __init__(self, elf: ElfFile, image: Image) -> None:
        self._elf = elf
        self._image = image

    def into(self, windows: Sequence[Window]) -> dict[int, list[int]]:
        """Return the addresses within these windows that pointers lead to, and where those stand.

        Windows are sorted and apart from each other. Bounded: of a file that is full of such
        pointers some thousands are returned.
        """
        if not windows:
            return {}
        places, targets = self._made
        found = _within(windows, places, targets) or _within(windows, *self._standing(windows))
        return {target: sorted(at) for target, at in found.items()}

    def words(self, start: int, count: int) -> list[int]:
        """Return what stands at an address and behind it once loaded at 0; outside of it zeros."""
        end = start + count * _WORD
        words = [
            int.from_bytes(self._image.bytes_at(place, _WORD), "little")
            for place in range(start, end, _WORD)
        ]
        places, targets = self._made
        for place, target in zip(places, targets, strict=True):
            if start <= place < end and not (place - start) % _WORD:
                words[(place - start) // _WORD] = target
        return words

    @cached_property
    def _made(self) -> tuple[array[int], array[int]]:
        places, targets = array("Q"), array("Q")
        section = self._elf.section(".rela.dyn")
        if section is None:
            return places, targets
        kind = _RELATIVE[self._image.machine]
        size = min(section.size, _MAX_ENTRIES * _ENTRY, self._elf.size - section.offset)
        size -= size % _ENTRY
        for done in range(0, max(0, size), _STEP):
            block = self._elf.read(section.offset + done, min(_STEP, size - done))
            numbers = memoryview(block).cast("Q").tolist()
            places.extend(p for p, k in zip(numbers[::3], numbers[1::3], strict=True) if k == kind)
            leading = zip(numbers[2::3], numbers[1::3], strict=True)
            targets.extend(target for target, k in leading if k == kind)
        return places, targets

    def _standing(self, windows: Sequence[Window]) -> tuple[array[int], array[int]]:
        # Words of the data that are addresses between the first window and the last.
        first, last = windows[0][0], windows[-1][1]
        places, targets = array("Q"), array("Q")
        for part in self._image.parts:
            if part.executable:
                continue
            for address, block in self._image.scan(part, 0):
                skip = -address % _WORD
                rest = len(block) - skip
                if rest < _WORD:
                    continue
                words = memoryview(block)[skip : skip + rest - rest % _WORD].cast("Q").tolist()
                for number, word in enumerate(words):
                    if first <= word <= last and len(places) < _MAX_ENTRIES:
                        places.append(address + skip + number * _WORD)
                        targets.append(word)
        return places, targets


def _within(
    windows: Sequence[Window], places: Sequence[int], targets: Sequence[int]
) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for place, target in _between(windows[0][0], windows[-1][1], places, targets):
        at = bisect_right(windows, target, key=lambda window: window[0]) - 1
        if target <= windows[at][1]:
            found.setdefault(target, []).append(place)
            if len(found) >= _MAX_FOUND:
                break
    return found


def _between(
    first: int, last: int, places: Sequence[int], targets: Sequence[int]
) -> Iterator[tuple[int, int]]:
    return (
        (place, target)
        for place, target in zip(places, targets, strict=True)
        if first <= target <= last
    )
