# SPDX-License-Identifier: Apache-2.0
"""x86-64 instructions as operations.

Understood are the forms that compilers use to move addresses about, compare, branch and call.
Of everything else we know which general registers it may write, and say that they are lost; where
even that is not known for sure, both operands and the implicit accumulator pair are lost. Vector
instructions matter only for the memory they read and write.

Source: Intel SDM volume 2. The table is checked against an independent disassembler over whole
libraries (``tests/corpus``): equal lengths, and never a written register that is not reported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ecapture.binary.secrets.operations import (
    SCRATCH,
    Add,
    Branch,
    Call,
    Choose,
    Compare,
    Copy,
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
from ecapture.binary.secrets.x86_layout import MAP_0F, MAP_0F3A, MAP_0F38, ONE_BYTE, Layout, parse

_RAX, _RCX, _RDX, _RBX, _RSP, _RBP, _RSI, _RDI = range(8)
_ACCUMULATORS: Final = Lose((_RAX, _RDX))


def decode(code: bytes, address: int) -> Instruction:
    """Return what the first instruction of ``code`` does; it stands at ``address``.

    Never raises: what is not understood ends in ``Stop``.
    """
    layout = parse(code, address)
    if layout is None:
        return Instruction(address, (Stop(),))
    if layout.table == ONE_BYTE:
        meaning = _MEANINGS.get(layout.opcode)
        operations = _other(layout) if meaning is None else meaning(layout)
    elif layout.vector:
        operations = _vector(layout)
    elif layout.table == MAP_0F:
        meaning = _MEANINGS_0F.get(layout.opcode)
        operations = _vector(layout) if meaning is None else meaning(layout)
    else:
        operations = _vector(layout)
    return Instruction(layout.end, operations)


def _byte_register(layout: Layout, register: int) -> int:
    # Without a REX prefix byte registers 4 to 7 are the second bytes of the first four.
    return register & 3 if not layout.rex and 4 <= register < 8 else register


def _operand_size(layout: Layout) -> int:
    return layout.size if layout.opcode & 1 else 1


def _writes(register: int, size: int) -> tuple[Operation, ...]:
    # A write of one or two bytes leaves the rest: the whole is unknown then.
    return (Lose((register,)),) if size < 4 else ()


def _other(layout: Layout) -> tuple[Operation, ...]:
    # An opcode without a meaning of its own: whatever it may write is lost.
    lost = {_RAX, _RDX, layout.reg}
    if layout.memory is None:
        lost |= {layout.rm, layout.rm & 3}
    reads = () if layout.memory is None else (Load(-1, layout.memory, layout.size),)
    return (*reads, Forget(), Lose(tuple(lost)))


def _nothing(_layout: Layout) -> tuple[Operation, ...]:
    return ()


def _stop(_layout: Layout) -> tuple[Operation, ...]:
    return (Stop(),)


# Moves


def _move_to_rm(layout: Layout) -> tuple[Operation, ...]:
    size = _operand_size(layout)
    if layout.memory is not None:
        source = _byte_register(layout, layout.reg) if size == 1 else layout.reg
        return (Store(layout.memory, size, source),)
    if size < 4:
        return (Lose((_byte_register(layout, layout.rm) if size == 1 else layout.rm,)),)
    return (Move(layout.rm, layout.reg, size),)


def _move_to_reg(layout: Layout) -> tuple[Operation, ...]:
    size = _operand_size(layout)
    target = _byte_register(layout, layout.reg) if size == 1 else layout.reg
    if layout.memory is not None:
        return (Load(target, layout.memory, size), *_writes(target, size))
    return (Lose((target,)),) if size < 4 else (Move(target, layout.rm, size),)


def _move_immediate(layout: Layout) -> tuple[Operation, ...]:
    size = _operand_size(layout)
    if layout.memory is not None:
        return (Store(layout.memory, size, -1, layout.immediate),)
    if size < 4:
        return (Lose((_byte_register(layout, layout.rm) if size == 1 else layout.rm,)),)
    return (Set(layout.rm, _cut(layout.immediate, size)),)


def _load_immediate(layout: Layout) -> tuple[Operation, ...]:
    if layout.opcode < 0xB8:
        return (Lose((_byte_register(layout, layout.rm),)),)
    if layout.size < 4:
        return (Lose((layout.rm,)),)
    return (Set(layout.rm, _cut(layout.immediate, layout.size)),)


def _cut(value: int, size: int) -> int:
    # What a register holds: 32-bit writes clear the upper half.
    return value & ((1 << 8 * size) - 1)


def _address(layout: Layout) -> tuple[Operation, ...]:
    if layout.memory is None or layout.size < 8:
        return (Lose((layout.reg,)),)
    memory = layout.memory
    if memory.base == -1 and memory.counter == -1:
        return (Set(layout.reg, memory.displacement),)
    return (Point(layout.reg, memory),)


def _extend(layout: Layout) -> tuple[Operation, ...]:
    # movzx, movsx and movsxd: the small part is all that a load reports.
    size = 4 if layout.table == ONE_BYTE else 2 if layout.opcode & 1 else 1
    if layout.memory is not None:
        return (Load(layout.reg, layout.memory, size),)
    return (Lose((layout.reg,)),)


def _exchange(layout: Layout) -> tuple[Operation, ...]:
    if layout.opcode == 0x90 and layout.rm == 0:
        return ()
    if layout.opcode >= 0x90:
        return (Lose((_RAX, layout.rm)),)
    lost = {layout.reg, layout.reg & 3}
    if layout.memory is None:
        lost |= {layout.rm, layout.rm & 3}
    return (Lose(tuple(lost)),)


# Stack


def _push(layout: Layout) -> tuple[Operation, ...]:
    top = Memory(_RSP, 0)
    down = Add(_RSP, _RSP, -8)
    if layout.opcode in (0x68, 0x6A):
        return (down, Store(top, 8, -1, layout.immediate))
    if layout.opcode == 0x9C:
        return (down, Store(top, 8, -1))
    return (down, Store(top, 8, layout.rm))


def _pop(layout: Layout) -> tuple[Operation, ...]:
    if layout.opcode == 0x9D:
        return (Add(_RSP, _RSP, 8), Forget())
    if layout.opcode == 0x8F:
        return (Add(_RSP, _RSP, 8), *_other(layout))
    return (Load(layout.rm, Memory(_RSP, 0), 8), Add(_RSP, _RSP, 8))


def _leave(_layout: Layout) -> tuple[Operation, ...]:
    return (Move(_RSP, _RBP, 8), Load(_RBP, Memory(_RSP, 0), 8), Add(_RSP, _RSP, 8))


# Arithmetic

_ADD, _SUB, _XOR, _CMP = 0, 5, 6, 7


def _arithmetic(layout: Layout) -> tuple[Operation, ...]:
    # 00 to 3D: eight operations in six forms each.
    operation, form = layout.opcode >> 3, layout.opcode & 7
    size = layout.size if form & 1 else 1
    if form >= 4:  # the accumulator and an immediate
        return _with_constant(operation, _RAX, layout.immediate, size)
    left, right = (layout.reg, layout.rm) if form & 2 else (layout.rm, layout.reg)
    if layout.memory is not None:
        return _arithmetic_memory(operation, layout, layout.memory, size, to_memory=not form & 2)
    if size == 1:
        left, right = _byte_register(layout, left), _byte_register(layout, right)
    if operation == _CMP:
        return (Compare(left, right, 0, size=size),) if size >= 4 else (Forget(),)
    if operation in (_XOR, _SUB) and left == right and size >= 4:
        return (Set(left, 0), Forget())
    return (Lose((left,)), Forget())


def _arithmetic_memory(
    operation: int, layout: Layout, memory: Memory, size: int, *, to_memory: bool
) -> tuple[Operation, ...]:
    load = Load(SCRATCH, memory, size)
    if operation == _CMP:
        if size == 1:
            return (load, Forget())
        pair = (SCRATCH, layout.reg) if to_memory else (layout.reg, SCRATCH)
        return (load, Compare(*pair, 0, size=size))
    if to_memory:
        return (load, Store(memory, size, -1), Forget())
    register = _byte_register(layout, layout.reg) if size == 1 else layout.reg
    return (load, Lose((register,)), Forget())


def _arithmetic_group(layout: Layout) -> tuple[Operation, ...]:
    # 80, 81, 83: the operation is in the ModRM byte, the right side is an immediate.
    operation, size = layout.reg & 7, _operand_size(layout)
    if layout.memory is None:
        register = _byte_register(layout, layout.rm) if size == 1 else layout.rm
        return _with_constant(operation, register, layout.immediate, size)
    load = Load(SCRATCH, layout.memory, size)
    if operation == _CMP:
        return (load, Compare(SCRATCH, -1, layout.immediate, size=size))
    return (load, Store(layout.memory, size, -1), Forget())


def _with_constant(operation: int, register: int, value: int, size: int) -> tuple[Operation, ...]:
    if operation == _CMP:
        return (Compare(register, -1, value, size=size),) if size >= 4 else (Forget(),)
    if size == 8 and operation in (_ADD, _SUB):
        return (Add(register, register, value if operation == _ADD else -value), Forget())
    return (Lose((register,)), Forget())


def _test(layout: Layout) -> tuple[Operation, ...]:
    if layout.opcode in (0xA8, 0xA9):
        return (Forget(),)
    if layout.memory is not None:
        return (Load(-1, layout.memory, _operand_size(layout)), Forget())
    if layout.opcode == 0x85 and layout.reg == layout.rm and layout.size >= 4:
        return (Compare(layout.reg, -1, 0, test=True, size=layout.size),)
    return (Forget(),)


def _group3(layout: Layout) -> tuple[Operation, ...]:
    operation = layout.reg & 7
    if operation < 2:
        return _test(layout)
    reads = () if layout.memory is None else (Load(-1, layout.memory, _operand_size(layout)),)
    if operation >= 4:  # multiplications and divisions write the accumulator pair
        return (*reads, _ACCUMULATORS, Forget())
    if layout.memory is not None:
        return (*reads, Store(layout.memory, _operand_size(layout), -1), Forget())
    return (Lose((layout.rm, _byte_register(layout, layout.rm))), Forget())


def _group5(layout: Layout) -> tuple[Operation, ...]:
    operation = layout.reg & 7
    # Calls, jumps and pushes take 8 bytes whatever the prefixes say.
    size = _operand_size(layout) if operation < 2 else 8
    reads = () if layout.memory is None else (Load(SCRATCH, layout.memory, size),)
    if operation < 2:
        if layout.memory is not None:
            return (*reads, Store(layout.memory, _operand_size(layout), -1), Forget())
        if layout.opcode == 0xFF and layout.size == 8:
            return (Add(layout.rm, layout.rm, 1 - 2 * operation), Forget())
        return (Lose((layout.rm, layout.rm & 3)), Forget())
    if layout.opcode == 0xFE:
        return (Stop(),)
    if operation == 2:
        return (*reads, Call(None))
    if operation == 4:
        return (*reads, Jump(None))
    if operation == 6:
        source = layout.rm if layout.memory is None else SCRATCH
        return (*reads, Add(_RSP, _RSP, -8), Store(Memory(_RSP, 0), 8, source))
    return (Stop(),)


def _shift(layout: Layout) -> tuple[Operation, ...]:
    if layout.memory is not None:
        size = _operand_size(layout)
        return (Load(-1, layout.memory, size), Store(layout.memory, size, -1), Forget())
    return (Lose((layout.rm, _byte_register(layout, layout.rm))), Forget())


def _multiply(layout: Layout) -> tuple[Operation, ...]:
    reads = () if layout.memory is None else (Load(-1, layout.memory, layout.size),)
    return (*reads, Lose((layout.reg,)), Forget())


def _string(layout: Layout) -> tuple[Operation, ...]:
    # movs copies; stos, lods, scas and cmps only move the pointers.
    copies = (Copy(_RDI, _RSI),) if layout.opcode in (0xA4, 0xA5) else ()
    return (*copies, Forget(), Lose((_RAX, _RCX, _RSI, _RDI)))


# Control


def _branch(layout: Layout) -> tuple[Operation, ...]:
    return (Branch(layout.end + layout.immediate, _condition(layout.opcode)),)


def _loop(layout: Layout) -> tuple[Operation, ...]:
    return (Lose((_RCX,)), Branch(layout.end + layout.immediate, None))


def _condition(opcode: int) -> bool | None:
    return {4: True, 5: False}.get(opcode & 15)


def _jump(layout: Layout) -> tuple[Operation, ...]:
    return (Jump(layout.end + layout.immediate),)


def _call(layout: Layout) -> tuple[Operation, ...]:
    return (Call(layout.end + layout.immediate),)


def _return(_layout: Layout) -> tuple[Operation, ...]:
    return (Return(),)


def _choose(layout: Layout) -> tuple[Operation, ...]:
    if layout.size < 4:
        return (Lose((layout.reg,)),)
    choice = Choose(
        layout.reg,
        SCRATCH if layout.memory is not None else layout.rm,
        layout.reg,
        _condition(layout.opcode),
    )
    if layout.memory is None:
        return (choice,)
    return (Load(SCRATCH, layout.memory, layout.size), choice)


# Two-byte opcodes


def _set_byte(layout: Layout) -> tuple[Operation, ...]:
    if layout.memory is not None:
        return (Store(layout.memory, 1, -1),)
    return (Lose((_byte_register(layout, layout.rm),)),)


def _identify(_layout: Layout) -> tuple[Operation, ...]:
    return (Lose((_RAX, _RCX, _RDX, _RBX, 11)), Forget())


def _swap(layout: Layout) -> tuple[Operation, ...]:
    return (Lose((layout.rm,)),)


_VECTOR_STORES: Final = frozenset({0x11, 0x13, 0x17, 0x29, 0x2B, 0x7E, 0x7F, 0xC3, 0xD6, 0xE7})
_WRITES_REG: Final = {  # vector instructions that write a general register, by ModRM.reg
    MAP_0F: frozenset({0x2C, 0x2D, 0x50, 0xC5, 0xD7, 0x78, 0x79}),
    MAP_0F38: frozenset({*range(0xF0, 0x100), 0x7A, 0x7B, 0x7C}),
    MAP_0F3A: frozenset({0xF0}),
}
_WRITES_RM: Final = {  # the same, by ModRM.rm
    MAP_0F: frozenset({0x7E, *range(0x90, 0x94)}),
    MAP_0F38: frozenset({0xF3}),
    MAP_0F3A: frozenset(range(0x14, 0x18)),
}
_IMPLICIT: Final = {MAP_0F3A: frozenset(range(0x60, 0x64))}  # string compares leave an index


def _vector(layout: Layout) -> tuple[Operation, ...]:
    lost: set[int] = set()
    if layout.opcode in _WRITES_REG[layout.table]:
        lost |= {layout.reg}
    if layout.opcode in _WRITES_RM[layout.table] and layout.memory is None:
        lost |= {layout.rm}
    if layout.vvvv >= 0 and layout.table == MAP_0F38 and layout.opcode >= 0xF2:
        lost |= {layout.vvvv}  # blsr and its kin; mulx
    if layout.vvvv >= 0 and layout.table == MAP_0F and 0x90 <= layout.opcode <= 0x93:
        lost |= {layout.reg}  # mask registers to general ones
    if layout.opcode in _IMPLICIT.get(layout.table, frozenset()):
        lost |= {_RCX}
    after: tuple[Operation, ...] = (Lose(tuple(lost)),) if lost else ()
    if layout.memory is None:
        return (*after, Forget())
    stores = layout.table == MAP_0F and layout.opcode in _VECTOR_STORES
    if layout.opcode == 0x7E and layout.prefix == 0xF3:
        stores = False
    size = 8 if layout.prefix in (0xF2, 0xF3) and layout.opcode in (0x10, 0x11, 0x7E) else 16
    if layout.opcode in (0x12, 0x13, 0x16, 0x17, 0xD6):
        size = 8
    if stores:
        return (Store(layout.memory, size, -1), *after, Forget())
    return (Load(-1, layout.memory, size), *after, Forget())


_Meaning = Callable[[Layout], tuple[Operation, ...]]


def _one_byte_meanings() -> dict[int, _Meaning]:
    meanings: dict[int, _Meaning] = {
        row + form: _arithmetic for row in range(0x00, 0x40, 8) for form in range(6)
    }
    meanings |= dict.fromkeys(range(0x50, 0x58), _push)
    meanings |= dict.fromkeys(range(0x58, 0x60), _pop)
    meanings |= {0x63: _extend, 0x68: _push, 0x6A: _push, 0x69: _multiply, 0x6B: _multiply}
    meanings |= dict.fromkeys(range(0x70, 0x80), _branch)
    meanings |= dict.fromkeys((0x80, 0x81, 0x83), _arithmetic_group)
    meanings |= {0x84: _test, 0x85: _test, 0x86: _exchange, 0x87: _exchange, 0xA8: _test}
    meanings |= {0x88: _move_to_rm, 0x89: _move_to_rm, 0x8A: _move_to_reg, 0x8B: _move_to_reg}
    meanings |= {0x8D: _address, 0x8F: _pop, 0xA9: _test, 0x9B: _nothing, 0x9C: _push, 0x9D: _pop}
    meanings |= dict.fromkeys(range(0x6C, 0x70), _stop)  # port input and output
    meanings |= dict.fromkeys(range(0x90, 0x98), _exchange)
    meanings |= dict.fromkeys((0xA4, 0xA5, 0xA6, 0xA7, *range(0xAA, 0xB0)), _string)
    meanings |= dict.fromkeys(range(0xB0, 0xC0), _load_immediate)
    meanings |= dict.fromkeys((0xC0, 0xC1, *range(0xD0, 0xD4)), _shift)
    meanings |= {0xC2: _return, 0xC3: _return, 0xC6: _move_immediate, 0xC7: _move_immediate}
    meanings |= {0xC9: _leave, 0xCC: _stop, 0xE8: _call, 0xE9: _jump, 0xEB: _jump, 0xF4: _stop}
    meanings |= dict.fromkeys(range(0xE0, 0xE4), _loop)
    meanings |= {0xF6: _group3, 0xF7: _group3, 0xFE: _group5, 0xFF: _group5}
    return meanings


def _two_byte_meanings() -> dict[int, _Meaning]:
    meanings: dict[int, _Meaning] = dict.fromkeys(range(0x40, 0x50), _choose)
    meanings |= dict.fromkeys(range(0x80, 0x90), _branch)
    meanings |= dict.fromkeys(range(0x90, 0xA0), _set_byte)
    meanings |= {0x0B: _stop, 0xB9: _stop, 0xFF: _stop, 0xAF: _multiply, 0xA2: _identify}
    meanings |= dict.fromkeys((*range(0x18, 0x20), 0x0D), _nothing)
    meanings |= dict.fromkeys((0xB6, 0xB7, 0xBE, 0xBF), _extend)
    meanings |= dict.fromkeys((0xA3, 0xA4, 0xA5, 0xAB, 0xAC, 0xAD, 0xB3, 0xBA, 0xBB), _other)
    meanings |= dict.fromkeys((0xB0, 0xB1, 0xB8, 0xBC, 0xBD, 0xC0, 0xC1, 0xC7), _other)
    meanings |= dict.fromkeys((0x01, 0x02, 0x03, 0x05, 0x20, 0x21, 0x31, 0x32, 0x33), _identify)
    return meanings | dict.fromkeys(range(0xC8, 0xD0), _swap)


_MEANINGS: Final = _one_byte_meanings()
_MEANINGS_0F: Final = _two_byte_meanings()
