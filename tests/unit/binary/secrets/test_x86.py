# SPDX-License-Identifier: Apache-2.0
"""Encodings are from the SDM's opcode pages; ``tests/corpus`` compares whole libraries."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecapture.binary.secrets.operations import (
    SCRATCH,
    Add,
    Branch,
    Call,
    Choose,
    Compare,
    Copy,
    Forget,
    Jump,
    Load,
    Lose,
    Memory,
    Move,
    Point,
    Return,
    Set,
    Stop,
    Store,
)
from ecapture.binary.secrets.x86 import decode

AT = 0x1000
RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI = range(8)
R8, R9, R10, R11, R12, R13, R14, R15 = range(8, 16)


@pytest.mark.parametrize(
    ("code", "operations"),
    [
        ("48 89 fb", (Move(RBX, RDI, 8),)),  # mov rbx, rdi
        ("89 fb", (Move(RBX, RDI, 4),)),  # mov ebx, edi
        ("4d 89 e6", (Move(R14, R12, 8),)),  # mov r14, r12
        ("48 8b 87 18 09 00 00", (Load(RAX, Memory(RDI, 0x918), 8),)),  # mov rax, [rdi+0x918]
        ("8b 47 48", (Load(RAX, Memory(RDI, 0x48), 4),)),  # mov eax, [rdi+0x48]
        ("48 8b 04 24", (Load(RAX, Memory(RSP, 0), 8),)),  # mov rax, [rsp]
        ("41 8b 45 00", (Load(RAX, Memory(R13, 0), 4),)),  # mov eax, [r13+0]
        ("8b 04 8f", (Load(RAX, Memory(RDI, 0, RCX, 4), 4),)),  # mov eax, [rdi+rcx*4]
        ("8b 04 25 10 00 00 00", (Load(RAX, Memory(-1, 16), 4),)),  # mov eax, [0x10]
        ("48 89 46 08", (Store(Memory(RSI, 8), 8, RAX),)),  # mov [rsi+8], rax
        ("c7 46 08 20 00 00 00", (Store(Memory(RSI, 8), 4, -1, 32),)),  # mov dword [rsi+8], 32
        ("be 20 00 00 00", (Set(RSI, 32),)),  # mov esi, 32
        ("41 b8 ff ff ff ff", (Set(R8, 0xFFFFFFFF),)),  # mov r8d, -1
        ("48 c7 c0 ff ff ff ff", (Set(RAX, 2**64 - 1),)),  # mov rax, -1
        ("48 b8 11 00 00 00 00 00 00 80", (Set(RAX, 1 << 63 | 0x11),)),  # movabs rax
        ("48 8d 35 10 00 00 00", (Set(RSI, AT + 7 + 0x10),)),  # lea rsi, [rip+0x10]
        ("4c 8d 86 60 01 00 00", (Point(R8, Memory(RSI, 0x160)),)),  # lea r8, [rsi+0x160]
        ("48 83 c3 08", (Add(RBX, RBX, 8), Forget())),  # add rbx, 8
        ("48 83 ec 28", (Add(RSP, RSP, -40), Forget())),  # sub rsp, 40
        ("31 c0", (Set(RAX, 0), Forget())),  # xor eax, eax
        ("31 c8", (Lose((RAX,)), Forget())),  # xor eax, ecx
        ("48 85 ff", (Compare(RDI, -1, 0, test=True, size=8),)),  # test rdi, rdi
        ("83 f8 01", (Compare(RAX, -1, 1, size=4),)),  # cmp eax, 1
        (
            "83 3f 00",
            (Load(SCRATCH, Memory(RDI, 0), 4), Compare(SCRATCH, -1, 0, size=4)),
        ),  # cmp [rdi], 0
        ("74 06", (Branch(AT + 8, True),)),  # je
        ("0f 85 00 01 00 00", (Branch(AT + 6 + 0x100, False),)),  # jne
        ("7f fe", (Branch(AT, None),)),  # jg
        ("e8 fb ff ff ff", (Call(AT),)),
        ("e9 00 00 00 00", (Jump(AT + 5),)),
        ("eb fe", (Jump(AT),)),
        ("ff d0", (Call(None),)),
        ("ff 25 00 00 00 00", (Load(SCRATCH, Memory(-1, AT + 6), 8), Jump(None))),
        ("c3", (Return(),)),
        ("f3 c3", (Return(),)),
        ("0f 44 c7", (Choose(RAX, RDI, RAX, True),)),  # cmove eax, edi
        ("0f b6 07", (Load(RAX, Memory(RDI, 0), 1),)),  # movzx eax, byte [rdi]
        ("55", (Add(RSP, RSP, -8), Store(Memory(RSP, 0), 8, RBP))),
        ("41 5c", (Load(R12, Memory(RSP, 0), 8), Add(RSP, RSP, 8))),
        ("f3 48 a5", (Copy(RDI, RSI), Forget(), Lose((RAX, RCX, RSI, RDI)))),  # rep movsq
        ("0f 10 87 88 01 00 00", (Load(-1, Memory(RDI, 0x188), 16), Forget())),  # movups
        ("0f 11 06", (Store(Memory(RSI, 0), 16, -1), Forget())),
        ("c5 fa 6f 47 10", (Load(-1, Memory(RDI, 0x10), 16), Forget())),  # vmovdqu
        ("f3 0f 1e fa", ()),  # endbr64
        ("66 0f 1f 44 00 00", ()),  # nop
        ("cc", (Stop(),)),
        ("0f 0b", (Stop(),)),
        ("f4", (Stop(),)),
    ],
)
def test_meaning_and_length(code, operations):
    content = bytes.fromhex(code)
    found = decode(content + b"\xc3" * 15, AT)
    assert found.operations == operations
    assert found.end == AT + len(content)


@pytest.mark.parametrize(
    "code",
    [
        "06",  # push es: not in 64-bit mode
        "9a 00 00 00 00 00 00",  # far call
        "48 66 89 fb",  # a REX prefix that is not last
        "8f e8 78 c0 c0 00",  # XOP
        "66 e8 00 00 00 00",  # a call whose length depends on the maker of the processor
        "48",  # cut
        "",
    ],
)
def test_what_is_not_understood_stops(code):
    found = decode(bytes.fromhex(code), AT)
    assert found.operations == (Stop(),)
    assert found.end == AT


@pytest.mark.parametrize(
    ("code", "register"),
    [
        ("b4 01", RAX),  # mov ah, 1
        ("40 b4 01", RSP),  # mov spl, 1
        ("66 89 c3", RBX),  # mov bx, ax
        ("0f af c1", RAX),  # imul eax, ecx
        ("d1 e3", RBX),  # shl ebx, 1
        ("0f 94 c2", RDX),  # sete dl
        ("0f c8", RAX),  # bswap eax
        ("66 48 0f 7e c6", RSI),  # movq rsi, xmm0
        ("c4 e2 78 f2 c1", RAX),  # andn eax, eax, ecx
        ("48 98", RAX),  # cdqe
    ],
)
def test_written_registers_are_lost(code, register):
    found = decode(bytes.fromhex(code) + b"\xc3" * 8, AT)
    lost = {r for op in found.operations if isinstance(op, Lose) for r in op.registers}
    assert register in lost
    assert found.end == AT + len(bytes.fromhex(code))


def test_thread_local_operand_is_an_unknown_place():
    found = decode(bytes.fromhex("64 48 8b 04 25 28 00 00 00"), AT)  # mov rax, fs:[0x28]
    assert found.operations[0].memory.counter == -2
    assert found.end == AT + 9


@given(st.binary(max_size=20), st.integers(0, 1 << 48))
def test_any_bytes_have_an_answer_within_them(code, address):
    found = decode(code, address)
    assert address <= found.end <= address + min(len(code), 15)
    assert found.end > address or found.operations == (Stop(),)
