# SPDX-License-Identifier: Apache-2.0
"""Functions that the loader looks up: the slots for their addresses, and the code that jumps there.

A call of such a function goes to a stub of the procedure linkage table, which jumps through a slot
that the loader has filled (System V gABI, "Procedure Linkage Table"; relocations in ``DT_JMPREL``).
An exported function of the same file is called like that too, lest another file replace it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from ecapture.binary.secrets.image import Image
from ecapture.binary.secrets.operations import (
    Add,
    Branch,
    Call,
    Jump,
    Load,
    Memory,
    Move,
    Return,
    Set,
    Stop,
)

_PT_DYNAMIC: Final = 2
_DT_PLTRELSZ, _DT_STRTAB, _DT_SYMTAB, _DT_JMPREL = 2, 5, 6, 23
_TAG: Final = struct.Struct("<qQ")
_RELOCATION: Final = struct.Struct("<QQq")
_SYMBOL_SIZE: Final = 24
_MAX_TAGS: Final = 256
_MAX_IMPORTS: Final = 4096
_STUB_INSTRUCTIONS: Final = 4
_LONGEST_NAME: Final = 256


def import_slot(image: Image, name: bytes) -> int | None:
    """Return the address of the slot that the loader fills with a function's address.

    ``name`` ends in a NUL.
    """
    for slot, at in _rows(image):
        if image.bytes_at(at, len(name)) == name:
            return slot
    return None


def called_by_stub(image: Image, address: int) -> str:
    """Return the name of the function that the stub here leads to; empty if that is not known."""
    wanted = _slot_of(image, address)
    for slot, at in _rows(image) if wanted is not None else ():
        if slot == wanted:
            name, end, _ = image.bytes_at(at, _LONGEST_NAME).partition(b"\0")
            return name.decode("latin-1") if end else ""
    return ""


def _slot_of(image: Image, address: int) -> int | None:
    registers = {-1: 0}
    slot: int | None = None
    for _ in range(_STUB_INSTRUCTIONS):
        instruction = image.instruction(address)
        for operation in instruction.operations:
            match operation:
                case Set(target, value):
                    registers[target] = value
                case Add(target, source, amount) if source in registers:
                    registers[target] = registers[source] + amount
                case Load(_, Memory(base, displacement, -1), 8) if base in registers:
                    slot = registers[base] + displacement
                case Jump(None):
                    return slot
                case Move() | Call() | Jump() | Branch() | Return() | Stop():
                    return None
        address = instruction.end
    return None


def _rows(image: Image) -> Iterator[tuple[int, int]]:
    # (slot, address of the name) of each function that the loader looks up
    tags = dict(_dynamic(image))
    table, size = tags.get(_DT_JMPREL), tags.get(_DT_PLTRELSZ, 0)
    strings, symbols = tags.get(_DT_STRTAB), tags.get(_DT_SYMTAB)
    if table is None or strings is None or symbols is None:
        return
    for number in range(min(size // _RELOCATION.size, _MAX_IMPORTS)):
        row = image.bytes_at(table + number * _RELOCATION.size, _RELOCATION.size)
        if len(row) < _RELOCATION.size:
            return
        slot, kind, _ = _RELOCATION.unpack(row)
        at = image.bytes_at(symbols + (kind >> 32) * _SYMBOL_SIZE, 4)
        yield slot, strings + int.from_bytes(at, "little")


def _dynamic(image: Image) -> Iterator[tuple[int, int]]:
    start, size = image.segment(_PT_DYNAMIC) or (0, 0)
    for number in range(min(size // _TAG.size, _MAX_TAGS)):
        row = image.bytes_at(start + number * _TAG.size, _TAG.size)
        if len(row) < _TAG.size or row[:8] == bytes(8):
            return
        tag, value = _TAG.unpack(row)
        yield tag, value
