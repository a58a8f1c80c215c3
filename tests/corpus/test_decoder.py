# SPDX-License-Identifier: Apache-2.0
"""The x86-64 decoder against an independent disassembler, over the whole code of libraries.

Two things must hold for every instruction: it ends where the other says, and every general
register that the other says it writes is reported as written.
"""

from __future__ import annotations

import capstone
import pytest
from packages import fetch

from ecapture.binary.elf import ElfFile
from ecapture.binary.secrets import x86
from ecapture.binary.secrets.operations import Branch, Call, Jump, Lose, Stop

FAMILIES = (
    "rax eax ax al ah",
    "rcx ecx cx cl ch",
    "rdx edx dx dl dh",
    "rbx ebx bx bl bh",
    "rsp esp sp spl",
    "rbp ebp bp bpl",
    "rsi esi si sil",
    "rdi edi di dil",
    *(f"r{number} r{number}d r{number}w r{number}b" for number in range(8, 16)),
)
NUMBERS = {name: number for number, names in enumerate(FAMILIES) for name in names.split()}
STACK_POINTER = 4
UNREAL = {"test"}  # reported as a write by the other one, which it is not


def written(operations) -> set[int]:
    registers: set[int] = set()
    for operation in operations:
        if isinstance(operation, Lose):
            registers |= set(operation.registers)
        elif not isinstance(operation, (Branch, Call, Jump)):
            registers.add(getattr(operation, "target", -1))
    return registers


def code_of(path) -> tuple[int, bytes]:
    with ElfFile(path) as elf:
        text = elf.section(".text")
        assert text is not None
        return text.address, path.read_bytes()[text.offset : text.offset + text.size]


@pytest.mark.parametrize("key", ["openssl-1.0.2q", "openssl-1.1.1b", "openssl-3.5.4"])
def test_lengths_and_written_registers_agree(key):
    start, code = code_of(fetch(key))
    other = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    other.detail = True
    checked, wrong = 0, []
    for instruction in other.disasm(code, start):
        at = instruction.address - start
        mine = x86.decode(code[at : at + 15], instruction.address)
        checked += 1
        if mine.end - instruction.address != instruction.size:
            wrong.append((hex(instruction.address), instruction.mnemonic, "length"))
            continue
        names = (instruction.reg_name(number) for number in instruction.regs_access()[1])
        expected = {NUMBERS[name] for name in names if name in NUMBERS}
        if instruction.mnemonic in UNREAL:
            continue
        if instruction.group(capstone.CS_GRP_CALL) or "ret" in instruction.mnemonic:
            expected -= {STACK_POINTER}
        stops = any(isinstance(operation, Stop) for operation in mine.operations)
        if not stops and not expected <= written(mine.operations):
            wrong.append((hex(instruction.address), instruction.mnemonic, expected))
    assert checked > 50_000
    assert wrong == []
