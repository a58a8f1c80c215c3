# SPDX-License-Identifier: Apache-2.0
"""Proves that an address in the middle of a function is the beginning of an instruction.

Instructions of x86-64 have no fixed length, so that depends on where decoding began. It begins at
the start of the function: by the unwinder's table or, in programs built without one, at an address
that the loader makes a pointer to (methods of trait objects, handlers), or that several direct
calls lead to. From there every instruction up to the address must be understood.

The loader's list is that of sections ``.rela.dyn``; entries that only add where the file was loaded
(R_X86_64_RELATIVE, R_AARCH64_RELATIVE) are what a pointer to code or to a text looks like.
"""

from __future__ import annotations

import re
import struct
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterator
from functools import cached_property
from itertools import islice
from typing import Final

from ecapture.binary.elf import ElfFile
from ecapture.binary.secrets.functions import Functions
from ecapture.binary.secrets.image import Image
from ecapture.binary.secrets.sites import Proof

_RELATIVE: Final = {"x86_64": 8, "aarch64": 1027}
_ENTRY: Final = struct.Struct("<QQq")
_MAX_ENTRIES: Final = 1 << 21
_LONGEST: Final = 1 << 16  # bytes from the start of a function to an address in it
_CALLS: Final = 2  # that lead to what is not known otherwise
_TRIES: Final = 4
_MAX_STARTS: Final = 4096
_REGION: Final = 1 << 16  # bytes whose callers are looked for at once
_MAX_REGIONS: Final = 24
_MAX_DECODED: Final = 1 << 18  # instructions; a hostile file could ask for more than anybody has


class Boundaries:
    """Of one file."""

    def __init__(self, elf: ElfFile, image: Image) -> None:
        self._elf = elf
        self._image = image
        self._functions = Functions(image)
        self._met: dict[int, tuple[int, frozenset[int]]] = {}
        self._regions: dict[int, list[int]] = {}
        self._decoded = 0

    def pointers_to(self, wanted: Collection[int]) -> list[int]:
        """Return where pointers to these addresses are, of which the loader makes some.

        Without an entry for them they stand in the file as they are: where it has a fixed address,
        and where its relocations are packed (RELR).
        """
        made = [place for place, target in self._relocations if target in wanted]
        return made or sorted(set(islice(self._words(wanted), _MAX_STARTS)))

    def word(self, address: int) -> int:
        """Return what eight bytes at an address are once the file is loaded, less where it is."""
        made = self._made.get(address)
        if made is not None:
            return made
        return int.from_bytes(self._image.bytes_at(address, 8), "little")

    def _words(self, wanted: Collection[int]) -> Iterator[int]:
        for part in self._image.parts:
            if part.executable:
                continue
            for address, block in self._image.scan(part, 7):
                for target in wanted:
                    text = target.to_bytes(8, "little")
                    at = block.find(text)
                    while at >= 0:
                        if (address + at) % 8 == 0:
                            yield address + at
                        at = block.find(text, at + 1)

    def proof_of(self, address: int) -> Proof | None:
        """Return why an instruction begins at this address, or nothing."""
        if self._image.machine == "aarch64" and address % 4:
            return None
        if self._functions.known:
            inside = self._functions.range_of(address)
            if inside is None or address not in self._instructions(*inside):
                return None
            return Proof.FRAME_TABLE
        for start, proof in self._starts_before(address):
            if address in self._instructions(start, address + 1):
                return proof
        return None

    @cached_property
    def _relocations(self) -> list[tuple[int, int]]:
        section = self._elf.section(".rela.dyn")
        if section is None:
            return []
        kind, found = _RELATIVE[self._image.machine], []
        size = min(section.size, _MAX_ENTRIES * _ENTRY.size) // _ENTRY.size * _ENTRY.size
        blocks = self._elf.blocks(section.offset, size, 0)
        content = b"".join(block for _offset, block in blocks)
        for place, what, target in _ENTRY.iter_unpack(content[:size]):
            if what & 0xFFFFFFFF == kind:
                found.append((place, target))
        return found

    @cached_property
    def _made(self) -> dict[int, int]:
        return dict(self._relocations)

    @cached_property
    def _pointed(self) -> list[int]:
        # Code that pointers lead to, sorted.
        image = self._image
        return sorted(
            {
                target
                for _place, target in self._relocations
                if image.part_of(target, executable=True) is not None
            }
        )

    def _starts_before(self, address: int) -> Iterator[tuple[int, Proof]]:
        # Nearest first.
        at = bisect_right(self._pointed, address)
        starts = [(start, Proof.POINTER) for start in self._pointed[max(0, at - _TRIES) : at]]
        starts += [(start, Proof.CALL_TARGET) for start in self._called(address)]
        near = [(start, proof) for start, proof in starts if 0 <= address - start < _LONGEST]
        yield from sorted(near, reverse=True)[:_TRIES]

    def _called(self, address: int) -> list[int]:
        # What several direct calls lead to, within reach before the address.
        if self._image.machine != "x86_64":
            return []
        region = address // _REGION
        both = self._called_in(region - 1) + self._called_in(region)
        return [target for target in both if target <= address]

    def _called_in(self, region: int) -> list[int]:
        known = self._regions.get(region)
        if known is None:
            if len(self._regions) >= _MAX_REGIONS:
                return []
            known = self._regions[region] = self._count_calls(region * _REGION)
        return known

    def _count_calls(self, first: int) -> list[int]:
        found: Counter[int] = Counter()
        for part in self._image.parts:
            if not part.executable:
                continue
            for base, block in self._image.scan(part, 4):
                for target in _calls(block, base, first, first + _REGION):
                    if first <= target < first + _REGION and len(found) < _MAX_STARTS:
                        found[target] += 1
        return [target for target, count in found.items() if count >= _CALLS]

    def _instructions(self, start: int, end: int) -> frozenset[int]:
        # Where instructions begin that decoding meets; none behind what is not understood.
        end = min(end, start + _LONGEST)
        known_end, known = self._met.get(start, (start, frozenset()))
        if known_end >= end:
            return known
        met: set[int] = set()
        address = start
        while address < end and self._decoded < _MAX_DECODED:
            instruction = self._image.instruction(address)
            if instruction.end <= address:
                break
            met.add(address)
            address = instruction.end
            self._decoded += 1
        self._met[start] = end, frozenset(met)
        return self._met[start][1]


def _calls(block: bytes, base: int, first: int, last: int) -> Iterator[int]:
    # Targets of call rel32. Within a block the upper half of the distance takes a handful of
    # values, which sorts out nearly everything at once.
    low, high = first - base - len(block) - 5, last - base
    halves = {half & 0xFFFF for half in range(low >> 16, (high >> 16) + 1)}
    texts = b"|".join(re.escape(half.to_bytes(2, "little")) for half in sorted(halves))
    for match in re.finditer(rb"\xe8[\s\S]{2}(?=" + texts + rb")", block):
        distance = block[match.start() + 1 : match.start() + 5]
        if len(distance) == 4:
            yield base + match.start() + 5 + int.from_bytes(distance, "little", signed=True)
