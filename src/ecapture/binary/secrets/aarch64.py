# SPDX-License-Identifier: Apache-2.0
"""A64 instructions as operations.

Every instruction is four bytes, so nothing can be misaligned and a word that is not understood
costs no more than the registers it names. Understood is what moves addresses about, compares,
branches and calls; every other word loses its destination (bits 0 to 4), and a load or store that
is not one of the plain forms loses every register it could write.

Source: Arm Architecture Reference Manual for A-profile (DDI 0487), chapter C4 (encoding tables).
Register 31 is the stack pointer in addresses and immediate arithmetic and zero elsewhere.
"""

from __future__ import annotations

from typing import Final

from ecapture.binary.secrets.operations import (
    SCRATCH,
    UNKNOWN_INDEX,
    Add,
    Branch,
    Call,
    Choose,
    Compare,
    Forget,
    Instruction,
    Jump,
    Load,
    Lose,
    Memory,
    Move,
    Operation,
    Point,
    Return,
    Set,
    Stop,
    Store,
)

_SP: Final = 31
_LINK: Final = 30


def decode(code: bytes, address: int) -> Instruction:
    """Return what the first word of ``code`` does; it stands at ``address``. Never raises."""
    if len(code) < 4 or address & 3:
        return Instruction(address, (Stop(),))
    word = int.from_bytes(code[:4], "little")
    group = word >> 25 & 15
    if group in (8, 9):
        operations = _immediate(word, address)
    elif group in (10, 11):
        operations = _control(word, address)
    elif group & 5 == 4:
        operations = _memory(word, address)
    elif group & 7 == 5:
        operations = _registers(word)
    elif group & 7 == 7:
        operations = _vector(word)
    else:  # reserved (udf among them) and scalable vectors
        operations = (Stop(),)
    return Instruction(address + 4, operations)


def _signed(value: int, bits: int) -> int:
    return value - ((value & 1 << bits - 1) << 1)


def _lose(*registers: int) -> tuple[Operation, ...]:
    return (Lose(tuple(register for register in registers if register != _SP)),)


def _immediate(word: int, address: int) -> tuple[Operation, ...]:
    target, source, wide = word & 31, word >> 5 & 31, word >> 31
    kind = word >> 23 & 7
    if kind in (0, 1):  # adr, adrp
        distance = _signed((word >> 5 & 0x7FFFF) << 2 | word >> 29 & 3, 21)
        if wide:
            return (Set(target, (address & ~0xFFF) + (distance << 12)),)
        return (Set(target, address + distance),)
    if kind == 2:  # add and subtract
        amount = (word >> 10 & 0xFFF) << (12 if word & 1 << 22 else 0)
        if word & 1 << 30:
            amount = -amount
        if word & 1 << 29:  # with flags; to the zero register it is a compare
            size = 8 if wide else 4
            flags = Compare(source, -1, -amount, size=size) if amount <= 0 else Forget()
            return (flags,) if target == _SP else (flags, *_lose(target))
        if not wide:
            return (Lose((target,)),)
        return (Add(target, source, amount),)
    if kind == 5:
        return _move_wide(word)
    if kind == 4 and word >> 29 & 3 == 3:  # ands
        return (Forget(), *_lose(target))
    return (Lose((target,)),)  # logical (31 is the stack pointer), bit fields, extracts


def _move_wide(word: int) -> tuple[Operation, ...]:
    target, shift, value = word & 31, (word >> 21 & 3) * 16, word >> 5 & 0xFFFF
    full = (1 << 64) - 1 if word >> 31 else (1 << 32) - 1
    if target == _SP or word >> 29 & 3 == 3:  # movk changes a part
        return _lose(target)
    return (Set(target, (value << shift if word >> 29 & 3 else ~(value << shift)) & full),)


def _control(word: int, address: int) -> tuple[Operation, ...]:
    target = word & 31
    if word & 0x7C000000 == 0x14000000:  # b, bl
        goal = address + 4 * _signed(word & 0x3FFFFFF, 26)
        return (Call(goal),) if word >> 31 else (Jump(goal),)
    if word & 0xFF000000 == 0x54000000:  # b.cond: eq is 0, ne is 1, always 14 and 15
        goal = address + 4 * _signed(word >> 5 & 0x7FFFF, 19)
        if word & 15 >= 14:
            return (Jump(goal),)
        return (Branch(goal, {0: True, 1: False}.get(word & 15)),)
    if word & 0x7E000000 == 0x34000000:  # cbz, cbnz
        goal = address + 4 * _signed(word >> 5 & 0x7FFFF, 19)
        compare = Compare(target, -1, 0, size=8 if word >> 31 else 4)
        return (compare, Branch(goal, not word & 1 << 24), Forget())
    if word & 0x7E000000 == 0x36000000:  # tbz, tbnz
        return (Branch(address + 4 * _signed(word >> 5 & 0x3FFF, 14), None),)
    if word & 0xFE000000 == 0xD6000000:
        kind = word >> 21 & 15
        if kind in (0, 8):  # br, also authenticated
            return (Jump(None),)
        if kind in (1, 9):
            return (Call(None),)
        return (Return(),) if kind == 2 else (Stop(),)
    if word & 0xFF000000 == 0xD5000000:  # hints, barriers, system registers
        return _lose(target) if word & 1 << 21 else ()
    return (Stop(),)  # traps and supervisor calls


def _memory(word: int, address: int) -> tuple[Operation, ...]:
    target, base = word & 31, word >> 5 & 31
    if word & 0x3A000000 == 0x28000000:
        return _pair(word)
    if word & 0x3B000000 == 0x18000000:  # literal
        goal = address + 4 * _signed(word >> 5 & 0x7FFFF, 19)
        if word & 1 << 26:
            return ()
        return (Load(target, Memory(-1, goal), 8 if word >> 30 == 1 else 4),)
    if word & 0x3B000000 == 0x39000000:  # unsigned offset
        size = _size(word)
        return _single(word, Memory(base, (word >> 10 & 0xFFF) * size), size)
    if word & 0x3B200000 == 0x38000000:  # signed offset, before or after the base is moved
        size, offset, mode = _size(word), _signed(word >> 12 & 0x1FF, 9), word >> 10 & 3
        move = (Add(base, base, offset),)
        if mode == 1:
            return (*_single(word, Memory(base, 0), size), *move)
        if mode == 3:
            return (*move, *_single(word, Memory(base, 0), size))
        return _single(word, Memory(base, offset), size)
    if word & 0x3B200C00 == 0x38200800:  # register offset
        size = _size(word)
        extended = word >> 13 & 7 not in (3, 7)  # a 32-bit index: its value is not what we track
        index = UNKNOWN_INDEX if extended or word >> 16 & 31 == _SP else word >> 16 & 31
        scale = size if word & 1 << 12 else 1
        return _single(word, Memory(base, 0, index, scale), size)
    if word & 1 << 26:  # structures of vectors
        return (Load(-1, Memory(base, 0), 16), Lose((base,)))
    # Exclusives, atomics and whatever else: all that could be written is lost.
    return (Load(-1, Memory(base, 0), 8), *_lose(target, base, word >> 16 & 31, word >> 10 & 31))


def _size(word: int) -> int:
    if word & 1 << 26 and word & 1 << 23:
        return 16
    return 1 << (word >> 30)


def _single(word: int, memory: Memory, size: int) -> tuple[Operation, ...]:
    target, vector, kind = word & 31, word & 1 << 26, word >> 22 & 3
    loads = kind & 1 if vector else kind
    if not loads:
        return _stored(memory, size, target, vector)
    if kind == 2 and size == 8 and not vector:  # prefetch
        return ()
    return (Load(-1 if vector else _named(target), memory, size),)


def _stored(memory: Memory, size: int, source: int, vector: int) -> tuple[Operation, ...]:
    if vector:
        return (Store(memory, size, -1),)
    if source == _SP:
        return (Store(memory, size, -1, 0),)
    return (Store(memory, size, source),)


def _named(target: int) -> int:
    # A load to the zero register keeps nothing.
    return -1 if target == _SP else target


def _pair(word: int) -> tuple[Operation, ...]:
    base, vector = word >> 5 & 31, word & 1 << 26
    size = 4 << (word >> 30) if vector else 8 if word >> 31 else 4
    offset, mode = _signed(word >> 15 & 0x7F, 7) * size, word >> 23 & 3
    at = 0 if mode in (1, 3) else offset
    move = (Add(base, base, offset),)
    places = (Memory(base, at), Memory(base, at + size))
    registers = (word & 31, word >> 10 & 31)
    accesses: list[Operation] = []
    if word & 1 << 22:
        # The base may be one of the two: through a scratch register the order does not matter.
        first, second = (-1 if vector else _named(register) for register in registers)
        accesses = [Load(SCRATCH, places[0], size), Load(second, places[1], size)]
        accesses.append(Move(first, SCRATCH, 8) if first >= 0 else Lose(()))
    else:
        for memory, register in zip(places, registers, strict=True):
            accesses += _stored(memory, size, register, vector)
    if mode == 1:
        return (*accesses, *move)
    return (*move, *accesses) if mode == 3 else tuple(accesses)


def _registers(word: int) -> tuple[Operation, ...]:
    target, first, second = word & 31, word >> 5 & 31, word >> 16 & 31
    size = 8 if word >> 31 else 4
    if word & 0xFFE00000 == 0x8B000000 and _SP not in (target, first, second):  # add, shifted left
        return (Point(target, Memory(first, 0, second, 1 << (word >> 10 & 63))),)
    if word & 0x7FE0FFE0 == 0x2A0003E0:  # mov
        if target == _SP:
            return ()
        return (Set(target, 0),) if second == _SP else (Move(target, second, size),)
    if word & 0x7F20FC1F == 0x6B00001F and _SP not in (first, second):  # cmp
        return (Compare(first, second, 0, size=size),)
    if word & 0x7F20FC1F == 0x6A00001F and first == second != _SP:  # tst
        return (Compare(first, -1, 0, test=True, size=size),)
    if word & 0x7FE00C00 == 0x1A800000 and _SP not in (target, first, second):  # csel
        return (Choose(target, first, second, {0: True, 1: False}.get(word >> 12 & 15)),)
    if word & 0x7FE00000 == 0x1A800000 or word & 0x7FE00000 == 0x5A800000:
        return _lose(target)
    flags: tuple[Operation, ...] = (Forget(),) if word & 1 << 29 else ()
    if word & 0x7FE00000 in (0x3A400000, 0x7A400000):  # conditional compares write flags only
        return flags
    return (*flags, *_lose(target))


def _vector(word: int) -> tuple[Operation, ...]:
    # Only moves and conversions to a general register matter.
    target = word & 31
    if word & 0x5F200000 == 0x1E000000 or word & 0x5F20FC00 == 0x1E200000:
        return _lose(target)
    if word & 0xBFE0EC00 == 0x0E002C00:  # smov, umov
        return _lose(target)
    # fcmp and, with a condition, fccmp
    compares = word & 0x5F203C00 == 0x1E202000 or word & 0x5F200C00 == 0x1E200400
    return (Forget(),) if compares else ()
