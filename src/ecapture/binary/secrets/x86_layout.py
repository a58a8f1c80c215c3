# SPDX-License-Identifier: Apache-2.0
"""Where the parts of an x86-64 instruction stand: prefixes, opcode, operands, immediate, length.

Source: Intel SDM volume 2, chapter 2 (instruction format) and appendix A (opcode maps); AMD64
manual volume 3 for what 64-bit mode made invalid. The tables say only which opcodes have a ModRM
byte and how long their immediate is; what an instruction means is the business of ``x86``.

An encoding that 64-bit mode does not have, or that no compiler emits (XOP, 3DNow!, MVEX), is
refused: ``parse`` answers None. Being wrong about a length would make everything after it wrong.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from ecapture.binary.secrets.operations import UNKNOWN_INDEX, Memory

LONGEST: Final = 15

# Kinds of immediates
_NONE, _BYTE, _WORD, _WORD_BYTE, _DOUBLE, _FULL, _ADDRESS, _GROUP3 = range(8)


def _one_byte_modrm() -> frozenset[int]:
    arithmetic = {row + column for row in range(0x00, 0x40, 8) for column in range(4)}
    others = {0x63, 0x69, 0x6B, 0x80, 0x81, 0x83, *range(0x84, 0x90), 0xC0, 0xC1, 0xC6, 0xC7}
    return frozenset(arithmetic | others | {*range(0xD0, 0xD4), *range(0xD8, 0xE0)}) | {
        0xF6,
        0xF7,
        0xFE,
        0xFF,
    }


def _one_byte_immediates() -> dict[int, int]:
    # _DOUBLE is two bytes with an operand-size prefix, _FULL also eight bytes with REX.W.
    kinds = dict.fromkeys((row + 4 for row in range(0x00, 0x40, 8)), _BYTE)
    kinds |= dict.fromkeys((row + 5 for row in range(0x00, 0x40, 8)), _DOUBLE)
    kinds |= dict.fromkeys((*range(0x70, 0x80), *range(0xB0, 0xB8), *range(0xE0, 0xE8)), _BYTE)
    kinds |= dict.fromkeys((0x6A, 0x6B, 0x80, 0x83, 0xA8, 0xC0, 0xC1, 0xC6, 0xCD, 0xEB), _BYTE)
    kinds |= dict.fromkeys((0x68, 0x69, 0x81, 0xA9, 0xC7), _DOUBLE)
    kinds |= dict.fromkeys(range(0xB8, 0xC0), _FULL)
    kinds |= dict.fromkeys(range(0xA0, 0xA4), _ADDRESS)
    kinds |= {0xC2: _WORD, 0xC8: _WORD_BYTE, 0xE8: _DOUBLE, 0xE9: _DOUBLE}
    return kinds | {0xF6: _GROUP3, 0xF7: _GROUP3}


_MODRM: Final = _one_byte_modrm()
_IMMEDIATES: Final = _one_byte_immediates()
_INVALID: Final = frozenset(
    {0x06, 0x07, 0x0E, 0x16, 0x17, 0x1E, 0x1F, 0x27, 0x2F, 0x37, 0x3F, 0x60, 0x61, 0x82, 0x9A}
    | {0xCE, 0xD4, 0xD5, 0xD6, 0xEA}
)
_NO_MODRM_0F: Final = frozenset(
    {0x05, 0x06, 0x07, 0x08, 0x09, 0x0B, 0x0E, 0x77, 0xA0, 0xA1, 0xA2, 0xA8, 0xA9, 0xAA}
    | {*range(0x30, 0x38), *range(0x80, 0x90), *range(0xC8, 0xD0)}
)
_INVALID_0F: Final = frozenset(
    {0x04, 0x0A, 0x0C, 0x0F, *range(0x24, 0x28), 0x36, 0x39, *range(0x3B, 0x40)}
)
_BYTE_0F: Final = frozenset({*range(0x70, 0x74), 0xA4, 0xAC, 0xBA, 0xC2, 0xC4, 0xC5, 0xC6})
_PREFIXES: Final = frozenset({0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3})

ONE_BYTE, MAP_0F, MAP_0F38, MAP_0F3A = range(4)


class Layout(NamedTuple):
    """One instruction taken apart. ``rm`` is a register where ``memory`` is None."""

    end: int  # address of the next instruction
    opcode: int
    table: int  # ONE_BYTE or one of the maps
    size: int  # operand size in bytes: 2, 4 or 8 (a byte operand is in the opcode)
    rex: bool
    prefix: int  # 0x66, 0xF2 or 0xF3, the last one that may select an opcode; 0 for none
    vector: bool  # VEX or EVEX
    vvvv: int  # the third operand's register of VEX, else -1
    reg: int
    rm: int
    memory: Memory | None
    immediate: int  # sign-extended; also branch displacements


_UNKNOWN_BASE: Final = Memory(-1, 0, UNKNOWN_INDEX)  # segment-relative: nothing we could follow


def parse(code: bytes, address: int) -> Layout | None:
    """Take the first instruction of ``code`` apart, or answer None where it is not understood.

    ``code`` holds the bytes from ``address`` on (up to ``LONGEST``).
    """
    try:
        return _parse(code[:LONGEST], address)
    except IndexError:
        return None


class _Prefixes(NamedTuple):
    at: int  # position of what follows
    selecting: int
    rex: int
    short: bool  # operands of two bytes
    elsewhere: bool  # addresses of four bytes, or relative to a thread's segment


class _Opcode(NamedTuple):
    at: int
    table: int
    opcode: int
    rex: int
    selecting: int
    vvvv: int
    vector: bool
    scaled: bool  # EVEX scales its short displacements


def _parse(code: bytes, address: int) -> Layout | None:
    prefixes = _prefixes(code)
    found = _opcode(code, prefixes) if prefixes is not None else None
    if prefixes is None or found is None:
        return None
    at, table, opcode, rex, selecting, vvvv, vector, scaled = found
    size = 8 if rex & 8 else 2 if prefixes.short else 4
    reg, rm, memory, relative = 0, (opcode & 7) | (rex & 1) << 3, None, False
    if _has_modrm(table, opcode, vector=vector):
        modrm = code[at]
        reg, rm = (modrm >> 3 & 7) | (rex & 4) << 1, (modrm & 7) | (rex & 1) << 3
        at += 1
        if table == ONE_BYTE and opcode == 0x8F and modrm & 0x38:
            return None  # XOP
        if modrm < 0xC0 and not (table == MAP_0F and 0x20 <= opcode <= 0x23):
            at, memory, relative = _memory(code, at, modrm, rex)
            if prefixes.elsewhere or scaled:
                memory, relative = _UNKNOWN_BASE, False
    length = _immediate_length(table, opcode, reg, size, prefixes)
    if length is None or len(code) < at + length:
        return None
    immediate = int.from_bytes(code[at : at + length], "little", signed=True)
    end = address + at + length
    if relative and memory is not None:
        memory = Memory(-1, end + memory.displacement)
    named = (bool(rex), selecting, vector, vvvv)
    return Layout(end, opcode, table, size, *named, reg, rm, memory, immediate)


def _prefixes(code: bytes) -> _Prefixes | None:
    at = selecting = rex = 0
    short = elsewhere = False
    while (byte := code[at]) in _PREFIXES:
        at += 1
        short |= byte == 0x66
        elsewhere |= byte in (0x64, 0x65, 0x67)
        if byte in (0xF2, 0xF3) or (byte == 0x66 and not selecting):
            selecting = byte
    if byte & 0xF0 == 0x40:
        rex, at = byte, at + 1
        if code[at] in _PREFIXES or code[at] & 0xF0 == 0x40:
            return None  # a REX that is not last is ignored by the processor: nobody emits it
    return _Prefixes(at, selecting, rex, short, elsewhere)


def _opcode(code: bytes, prefixes: _Prefixes) -> _Opcode | None:
    at, selecting, rex = prefixes.at, prefixes.selecting, prefixes.rex
    first, table, vvvv = code[at], ONE_BYTE, -1
    vector = first in (0xC4, 0xC5, 0x62)
    if vector:
        found = None if rex else _vector_prefix(code, at)
        if found is None:
            return None
        at, rex, table, selecting, vvvv = found
    elif first == 0x0F:
        at += 1
        table = {0x38: MAP_0F38, 0x3A: MAP_0F3A}.get(code[at], MAP_0F)
        at += table != MAP_0F
    opcode = code[at]
    if (table == ONE_BYTE and opcode in _INVALID) or (table == MAP_0F and opcode in _INVALID_0F):
        return None
    return _Opcode(at + 1, table, opcode, rex, selecting, vvvv, vector, first == 0x62)


def _vector_prefix(code: bytes, at: int) -> tuple[int, int, int, int, int] | None:
    # VEX and EVEX carry inverted R, X, B bits, the opcode map and the selecting prefix.
    first = code[at]
    low = code[at + 1]
    if first == 0xC5:
        rex, table, last, at = (~low >> 5) & 4, MAP_0F, low, at + 2
    elif first == 0xC4:
        last = code[at + 2]
        rex, table, at = (~low >> 5) & 7 | (last >> 4) & 8, low & 0x1F, at + 3
    else:
        last = code[at + 2]
        rex, table, at = (~low >> 5) & 7 | (last >> 4) & 8, low & 7, at + 4
    if table not in (MAP_0F, MAP_0F38, MAP_0F3A):
        return None
    return at, rex, table, (0, 0x66, 0xF3, 0xF2)[last & 3], ~(last >> 3) & 15


def _has_modrm(table: int, opcode: int, *, vector: bool) -> bool:
    if table == ONE_BYTE:
        return opcode in _MODRM
    if table == MAP_0F:
        return opcode not in _NO_MODRM_0F or (vector and opcode != 0x77)
    return True


def _immediate_kind(table: int, opcode: int, reg: int) -> int:
    if table == ONE_BYTE:
        kind = _IMMEDIATES.get(opcode, _NONE)
        if kind == _GROUP3:  # only test has an immediate
            return _NONE if reg & 6 else _BYTE if opcode == 0xF6 else _DOUBLE
        return kind
    if table == MAP_0F:
        return _DOUBLE if 0x80 <= opcode < 0x90 else _BYTE if opcode in _BYTE_0F else _NONE
    return _BYTE if table == MAP_0F3A else _NONE


def _immediate_length(
    table: int, opcode: int, reg: int, size: int, prefixes: _Prefixes
) -> int | None:
    kind = _immediate_kind(table, opcode, reg)
    if kind in (_NONE, _BYTE, _WORD):
        return kind
    if kind == _WORD_BYTE:
        return 3
    if kind == _ADDRESS:  # no compiler uses the form with an address prefix
        return None if prefixes.elsewhere else 8
    if kind == _FULL:
        return size
    near = table == MAP_0F or opcode in (0xE8, 0xE9)
    if size == 2:  # processors disagree on what the prefix does to a branch
        return None if near else 2
    return 4


def _memory(code: bytes, at: int, modrm: int, rex: int) -> tuple[int, Memory, bool]:
    # Answers the position behind, the operand, and whether it is relative to the next instruction.
    mode, low = modrm >> 6, modrm & 7
    base, index, scale = low | (rex & 1) << 3, -1, 1
    if low == 4:
        sib = code[at]
        at += 1
        base = (sib & 7) | (rex & 1) << 3
        index = (sib >> 3 & 7) | (rex & 2) << 2
        scale = 1 << (sib >> 6)
        if index == 4:  # the stack pointer cannot be an index
            index, scale = -1, 1
        if sib & 7 == 5 and mode == 0:
            base = -1
    elif low == 5 and mode == 0:
        base = -1
    length = 4 if mode == 2 or (mode == 0 and base == -1) else mode
    if len(code) < at + length:
        raise IndexError
    displacement = int.from_bytes(code[at : at + length], "little", signed=True)
    relative = mode == 0 and low == 5
    return at + length, Memory(base, displacement, index, scale), relative
