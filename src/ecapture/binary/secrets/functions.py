# SPDX-License-Identifier: Apache-2.0
"""Where functions start and end, and which of them only lead to another library.

The proof that an address is a function's first instruction is the table of call frame records that
the unwinder searches (``.eh_frame_hdr``; Linux Standard Base Core 5.0, section 10.6.2). It is part
of what is loaded, so stripping does not remove it. A program built without it has no proof of that
kind; there the address must be one that direct calls lead to, which is the caller's business.

Only the encoding that every linker writes is read (sorted pairs of 32-bit distances from the
table's header). Searches read a few blocks, never the whole table.
"""

from __future__ import annotations

import struct
import sys
from bisect import bisect_right
from collections.abc import Iterator
from typing import Final

from ecapture.binary.elf import ElfFile
from ecapture.binary.secrets.image import Image
from ecapture.binary.secrets.operations import Call, Jump, Load, Return, Set, Stop

_PT_GNU_EH_FRAME: Final = 0x6474E550  # the program header that names the table
_HEADER: Final = struct.Struct("<4BiI")
_PAIR: Final = struct.Struct("<ii")
_RECORD: Final = struct.Struct("<IIiI")
_MOST_RECORDS: Final = 1 << 17
_STUB_INSTRUCTIONS: Final = 4
_ALIGNMENT: Final = 16
_LONGEST_FUNCTION: Final = 4096  # bytes to look back
_PADDING: Final = (b"\xcc", b"\xc3", b"\x90", b"\x00")  # int3, ret, nop and the end of a long nop


class Functions:
    """The functions of an image, by the unwinder's table."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._start, size = image.segment(_PT_GNU_EH_FRAME) or (0, 0)
        self._count = 0
        self._last = (0, 0)  # questions come in runs from the same function
        header = image.bytes_at(self._start, _HEADER.size) if size else b""
        if len(header) == _HEADER.size:
            version, _, count_form, pair_form, _, count = _HEADER.unpack(header)
            # 0x03: unsigned 4 bytes; 0x3b: signed 4 bytes, relative to this header
            if (version, count_form, pair_form) == (1, 0x03, 0x3B):
                self._count = min(count, (size - _HEADER.size) // _PAIR.size)

    @property
    def known(self) -> bool:
        """Whether the file has a table of functions at all."""
        return self._count > 0

    def is_start(self, address: int) -> bool:
        """Tell whether a function of the table starts exactly here."""
        found = self._row_of(address)
        return found is not None and found[0] == address

    def range_of(self, address: int) -> tuple[int, int] | None:
        """Return first and behind-last address of the function around an address, if known."""
        if self._last[0] <= address < self._last[1]:
            return self._last
        found = self._row_of(address)
        if found is None:
            return None
        start, record = found
        block = self._image.bytes_at(record, _RECORD.size)
        if len(block) < _RECORD.size:
            return None
        length, owner, distance, size = _RECORD.unpack(block)
        # The usual record: 32-bit length, a relative start that repeats the table's, its size.
        if not owner or length == 0xFFFFFFFF or record + 8 + distance != start:
            return None
        if not start <= address < start + size:
            return None
        self._last = (start, start + size)
        return self._last

    def _row_of(self, address: int) -> tuple[int, int] | None:
        low, high = 0, self._count
        while low < high:
            middle = (low + high) // 2
            row = self._row(middle)
            if row is None:
                return None
            if row[0] <= address:
                low = middle + 1
            else:
                high = middle
        return self._row(low - 1) if low else None

    def _row(self, number: int) -> tuple[int, int] | None:
        at = self._start + _HEADER.size + number * _PAIR.size
        block = self._image.bytes_at(at, _PAIR.size)
        if len(block) < _PAIR.size:
            return None
        start, record = _PAIR.unpack(block)
        return self._start + start, self._start + record


class ListedFunctions(Functions):
    """The functions of a file whose linker made no table to search: the records themselves.

    They are where the section headers say (``.eh_frame``), and stripping leaves both; programs that
    are linked statically for one address are like that.

    Raises:
        NotExecutable: the file became shorter.
    """

    def __init__(self, elf: ElfFile, image: Image) -> None:
        super().__init__(image)
        self._rows = [] if self._count else sorted(_records(elf, image))

    @property
    def known(self) -> bool:
        """Whether the file tells of its functions at all."""
        return bool(self._rows) or super().known

    def _row_of(self, address: int) -> tuple[int, int] | None:
        if not self._rows:
            return super()._row_of(address)
        at = bisect_right(self._rows, (address, sys.maxsize))
        return self._rows[at - 1] if at else None


def _records(elf: ElfFile, image: Image) -> Iterator[tuple[int, int]]:
    # (start of the function, address of the record); those in the usual form are taken.
    section = elf.section(".eh_frame")
    at, end = (section.address, section.address + section.size) if section is not None else (0, 0)
    for _ in range(_MOST_RECORDS):
        block = image.bytes_at(at, _RECORD.size) if at < end else b""
        if len(block) < _RECORD.size:
            return
        length, owner, distance, _size = _RECORD.unpack(block)
        if not length or length == 0xFFFFFFFF:
            return
        if owner:
            yield at + 8 + distance, at
        at += 4 + length


def likely_start(image: Image, address: int) -> int | None:
    """Guess where the function around an address starts, where no table says so.

    It is the nearest aligned address behind padding from which decoding in a straight line meets
    ``address``. Good enough to read code from there, not to plant a probe.
    """
    for start in range(address & ~(_ALIGNMENT - 1), address - _LONGEST_FUNCTION, -_ALIGNMENT):
        before = image.bytes_at(start - 1, 1)
        if before in _PADDING and _meets(image, start, address):
            return start
    return None


def _meets(image: Image, start: int, address: int) -> bool:
    while start < address:
        instruction = image.instruction(start)
        if instruction.end == start:
            return False
        start = instruction.end
    return start == address


def is_stub(image: Image, address: int) -> bool:
    """Tell whether code here only jumps through memory: an entry of the procedure linkage table.

    A program that reads key logs compares against the same labels by an imported ``strcmp``; the
    stub of that import is not a function of this file. A stub finds its place in memory by itself:
    a function that jumps through its argument is none.
    """
    loaded, constants = False, {-1}
    for _ in range(_STUB_INSTRUCTIONS):
        instruction = image.instruction(address)
        for operation in instruction.operations:
            if isinstance(operation, Load):
                if operation.memory.base not in constants:
                    return False
                loaded = True
            elif isinstance(operation, Set):
                constants.add(operation.target)
            elif isinstance(operation, Jump):
                return operation.target is None and loaded
            elif isinstance(operation, Call | Return | Stop):
                return False
        address = instruction.end
    return False
