# SPDX-License-Identifier: Apache-2.0
"""What one machine instruction does, in the few words that tracking pointers needs.

A decoder (``x86``, ``aarch64``) turns an instruction into a short tuple of these operations; the
label scan and the evaluator know nothing but these. Only what moves addresses around has a word of
its own: everything else is ``Lose``, which says that registers now hold something unknown. A
decoder that does not know an instruction answers ``Stop``: following code past it would be a guess.

Registers are small integers in the machine's own numbering; ``SCRATCH`` is one more, used within
one instruction only (the memory operand of a compare, say). Sizes are bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

SCRATCH: Final = 40  # above every general register of both machines
UNKNOWN_INDEX: Final = -2  # as the counter of an operand: something unknown is added


class Memory(NamedTuple):
    """``base + counter * scale + displacement``; a register is -1 where there is none."""

    base: int
    displacement: int
    counter: int = -1
    scale: int = 1


class Set(NamedTuple):
    """A register becomes a constant: an immediate, or an address next to the program counter."""

    target: int
    value: int


class Move(NamedTuple):
    """A register becomes a copy of the low ``size`` bytes of another one."""

    target: int
    source: int
    size: int


class Add(NamedTuple):
    """``target = source + amount``, all 64 bits."""

    target: int
    source: int
    amount: int


class Point(NamedTuple):
    """``target`` becomes the address that ``memory`` names (lea)."""

    target: int
    memory: Memory


class Load(NamedTuple):
    """``target`` becomes what memory holds; -1: a vector register, of which we keep nothing."""

    target: int
    memory: Memory
    size: int


class Store(NamedTuple):
    """Memory receives a register, or the constant ``value`` where ``source`` is -1."""

    memory: Memory
    size: int
    source: int
    value: int | None = None


class Copy(NamedTuple):
    """A block is copied from where ``source`` points to where ``target`` points."""

    target: int
    source: int


class Compare(NamedTuple):
    """The flags now say how two things compare; ``right`` is -1 for the constant ``value``.

    ``test`` is true for a bitwise and, where only comparing a register with itself is understood.
    ``size`` says how many bytes are compared.
    """

    left: int
    right: int
    value: int
    test: bool = False
    size: int = 8


class Forget(NamedTuple):
    """The flags now say something else."""


class Branch(NamedTuple):
    """Control may go to ``target``: ``taken_if`` equal, unequal, or (None) by another condition."""

    target: int
    taken_if: bool | None


class Choose(NamedTuple):
    """``target`` becomes ``first`` or ``second``; ``first_if`` as ``Branch.taken_if``."""

    target: int
    first: int
    second: int
    first_if: bool | None


class Call(NamedTuple):
    """A call; ``target`` is None where the address comes from a register or from memory."""

    target: int | None


class Jump(NamedTuple):
    """Control goes to ``target``; None where the address comes from a register or from memory."""

    target: int | None


class Lose(NamedTuple):
    """These registers now hold something unknown."""

    registers: tuple[int, ...]


class Return(NamedTuple):
    """The function returns."""


class Stop(NamedTuple):
    """Nothing is known from here on: a trap, or an instruction that is not understood."""


Operation = (
    Set
    | Move
    | Add
    | Point
    | Load
    | Store
    | Copy
    | Compare
    | Forget
    | Branch
    | Choose
    | Call
    | Jump
    | Lose
    | Return
    | Stop
)


class Instruction(NamedTuple):
    """One decoded instruction: where the next one starts, and what this one does, in order."""

    end: int
    operations: tuple[Operation, ...]


@dataclass(frozen=True, slots=True)
class Convention:
    """Which registers carry what across a call (System V AMD64 ABI 3.2.3; AAPCS64 6.1)."""

    arguments: tuple[int, ...]
    result: int
    stack: int
    clobbered: frozenset[int]
    return_slot: int  # bytes that a call has pushed when the function starts


AMD64: Final = Convention(
    arguments=(7, 6, 2, 1, 8, 9),
    result=0,
    stack=4,
    clobbered=frozenset({0, 1, 2, 6, 7, 8, 9, 10, 11}),
    return_slot=8,
)
AAPCS64: Final = Convention(
    arguments=(0, 1, 2, 3, 4, 5, 6, 7),
    result=0,
    stack=31,
    clobbered=frozenset({*range(19), 30}),
    return_slot=0,
)
