# SPDX-License-Identifier: Apache-2.0
"""Which function is handed the labels: every call that passes one as second argument votes.

From an instruction that forms a label's address, code is followed in a straight line: through
unconditional jumps nearby, past conditional ones, at most ``_STEPS`` instructions. Constants in
registers are tracked; a direct call while the second argument's register holds a label is a vote
for its target, and so is a jump to another function (a tail call).

Only the second argument counts. What else takes a label: ``strlen`` (first), and calls that leave
a stale one in the third.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from ecapture.binary.secrets.functions import Functions
from ecapture.binary.secrets.image import Image
from ecapture.binary.secrets.labels import Reference
from ecapture.binary.secrets.operations import (
    Add,
    Branch,
    Call,
    Jump,
    Lose,
    Move,
    Operation,
    Return,
    Set,
    Stop,
)

_STEPS: Final = 40
_NEAR: Final = 32 << 10  # a jump within a function
_FAR: Final = 16 << 10  # a jump to another function, where nothing says where functions start


class Vote(NamedTuple):
    """A call, by its address, that hands ``label`` to ``target`` as second argument."""

    target: int
    label: str
    call: int


def collect_votes(
    image: Image, functions: Functions, references: Iterable[Reference], labels: Mapping[int, str]
) -> list[Vote]:
    """Return the votes that follow from instructions which form addresses of ``labels``."""
    found = set()
    for address in {reference.address for reference in references if reference.target in labels}:
        vote = _follow(image, functions, address, labels)
        if vote is not None:
            found.add(vote)
    return sorted(found)


def _follow(
    image: Image, functions: Functions, address: int, labels: Mapping[int, str]
) -> Vote | None:
    second = image.convention.arguments[1]
    constants: dict[int, int] = {}
    for _ in range(_STEPS):
        here, instruction = address, image.instruction(address)
        address = instruction.end
        for operation in instruction.operations:
            label = labels.get(constants.get(second, -1))
            match operation:
                case Call(int(target)) if label is not None:
                    return Vote(target, label, here)
                case Call():
                    for register in image.convention.clobbered:
                        constants.pop(register, None)
                case Jump(int(target)):
                    if label is not None and _leaves(functions, here, target):
                        return Vote(target, label, here)
                    if abs(target - here) > _NEAR:
                        return None
                    address = target
                case Jump() | Return() | Stop():
                    return None
                case _:
                    _track(constants, operation)
    return None


def _leaves(functions: Functions, here: int, target: int) -> bool:
    if functions.known:
        return functions.is_start(target) and functions.range_of(here) != functions.range_of(target)
    return abs(target - here) > _FAR


def _track(constants: dict[int, int], operation: Operation) -> None:
    if isinstance(operation, Set):
        constants[operation.target] = operation.value
    elif isinstance(operation, Move | Add):
        value = constants.get(operation.source)
        if isinstance(operation, Add) and value is not None:
            value += operation.amount
        elif isinstance(operation, Move) and operation.size < 8 and value is not None:
            value &= 0xFFFFFFFF
        if value is None:
            constants.pop(operation.target, None)
        else:
            constants[operation.target] = value
    elif isinstance(operation, Lose):
        for register in operation.registers:
            constants.pop(register, None)
    elif not isinstance(operation, Branch):
        constants.pop(getattr(operation, "target", -1), None)
