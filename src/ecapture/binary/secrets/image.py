# SPDX-License-Identifier: Apache-2.0
"""An ELF file seen by address: its loaded parts, and the bytes and instructions at an address.

Everything here works in addresses as the file was linked. Reads go through one bounded cache of
aligned blocks, since following code asks for the same neighbourhood again and again; scans of a
whole part read it block by block and keep none.

Nothing of the file is trusted: an address outside of it yields no bytes, and a part is never
longer than the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from ecapture.binary.elf import ElfFile
from ecapture.binary.file import CHUNK
from ecapture.binary.secrets import aarch64, x86
from ecapture.binary.secrets.operations import AAPCS64, AMD64, Convention, Instruction, Stop

_BLOCK: Final = 1 << 14
_KEPT: Final = 256  # blocks in the cache: 4 MiB
_SCAN: Final = CHUNK - (1 << 12)  # what one read may return, less the overlap
_MAX_INSTRUCTIONS: Final = 1 << 17
_PT_LOAD, _PF_X = 1, 1


class Part(NamedTuple):
    """A loaded part of the file: address, offset in the file and size, in bytes."""

    address: int
    offset: int
    size: int
    executable: bool


class Image:
    """Bytes and instructions of an ELF file by linked address.

    Raises:
        NotExecutable: the file contradicts itself, or became shorter.
    """

    def __init__(self, file: ElfFile) -> None:
        self._file = file
        self._blocks: dict[int, bytes] = {}
        self._instructions: dict[int, Instruction] = {}
        self.machine = file.machine
        self.fixed = file.type == "executable"  # linked for one address: constants can be addresses
        self.convention: Convention = AAPCS64 if file.machine == "aarch64" else AMD64
        self._decode: Callable[[bytes, int], Instruction] = (
            aarch64.decode if file.machine == "aarch64" else x86.decode
        )
        self.parts: tuple[Part, ...] = tuple(
            Part(s.address, s.offset, size, bool(s.flags & _PF_X))
            for s in file.segments
            if s.type == _PT_LOAD and (size := min(s.file_size, file.size - s.offset)) > 0
        )

        if sum(part.size for part in self.parts) > 2 * file.size:
            file.refuse("loaded parts overlap: they add up to more than twice the file")

    def segment(self, kind: int) -> tuple[int, int] | None:
        """Return address and size of the first program header of this kind, if there is one."""
        for segment in self._file.segments:
            if segment.type == kind:
                return segment.address, segment.file_size
        return None

    def part_of(self, address: int, *, executable: bool = False) -> Part | None:
        """Return the loaded part that has this address in the file, if any."""
        for part in self.parts:
            if 0 <= address - part.address < part.size and (part.executable or not executable):
                return part
        return None

    def offset_of(self, address: int) -> int | None:
        """Return where in the file the code at this address is, or None if there is none."""
        part = self.part_of(address, executable=True)
        return None if part is None else address - part.address + part.offset

    def address_of(self, offset: int) -> int | None:
        """Return the address of the code at this place in the file, or None if there is none."""
        for part in self.parts:
            if part.executable and 0 <= offset - part.offset < part.size:
                return offset - part.offset + part.address
        return None

    def bytes_at(self, address: int, size: int) -> bytes:
        """Return up to ``size`` bytes at an address; fewer at the end of a part, none outside."""
        part = self.part_of(address)
        if part is None:
            return b""
        start = address - part.address + part.offset
        end = min(start + size, part.offset + part.size)
        content = b""
        while start < end:
            number, skip = divmod(start, _BLOCK)
            piece = self._block(number)[skip : skip + end - start]
            if not piece:
                break
            content += piece
            start += len(piece)
        return content

    def _block(self, number: int) -> bytes:
        block = self._blocks.get(number)
        if block is None:
            if len(self._blocks) >= _KEPT:
                del self._blocks[next(iter(self._blocks))]
            start = number * _BLOCK
            block = self._file.read(start, min(_BLOCK, self._file.size - start))
            self._blocks[number] = block
        return block

    def instruction(self, address: int) -> Instruction:
        """Return the instruction at an address; outside of code it is one that stops."""
        known = self._instructions.get(address)
        if known is None:
            if len(self._instructions) >= _MAX_INSTRUCTIONS:
                self._instructions.clear()
            if self.part_of(address, executable=True) is None:
                known = Instruction(address, (Stop(),))
            else:
                known = self._decode(self.bytes_at(address, 15), address)
            self._instructions[address] = known
        return known

    def scan(self, part: Part, overlap: int) -> Iterator[tuple[int, bytes]]:
        """Yield a part as (address, bytes), each block going ``overlap`` bytes into the next."""
        for done in range(0, part.size, _SCAN):
            size = min(_SCAN + overlap, part.size - done)
            yield part.address + done, self._file.read(part.offset + done, size)
