# SPDX-License-Identifier: Apache-2.0
"""Words are as an assembler writes them (checked with binutils' objdump)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecapture.binary.secrets.aarch64 import decode
from ecapture.binary.secrets.operations import (
    SCRATCH,
    Add,
    Branch,
    Call,
    Choose,
    Compare,
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

AT = 0x41004
SP = 31


@pytest.mark.parametrize(
    ("word", "operations"),
    [
        (0xB0000001, (Set(1, 0x42000),)),  # adrp x1, +1 page
        (0xF0FFFFE0, (Set(0, 0x40000),)),  # adrp x0, -1 page
        (0x10000080, (Set(0, AT + 16),)),  # adr x0, +16
        (0x1E611000 | 0x400, (Forget(),)),  # fccmp d0, d1, #0, ne
        (0x1E612000, (Forget(),)),  # fcmp d0, d1
        (0x1E612C00, ()),  # fcsel d0, d0, d1, cs
        (0x91062260, (Add(0, 19, 0x188),)),  # add x0, x19, #0x188
        (0xD10083FF, (Add(SP, SP, -32),)),  # sub sp, sp, #32
        (0x910003FD, (Add(29, SP, 0),)),  # mov x29, sp
        (0x91400400, (Add(0, 0, 0x1000),)),  # add x0, x0, #1, lsl #12
        (0xAA0003F3, (Move(19, 0, 8),)),  # mov x19, x0
        (0x2A0103E2, (Move(2, 1, 4),)),  # mov w2, w1
        (0xAA1F03E0, (Set(0, 0),)),  # mov x0, xzr
        (0x52800403, (Set(3, 32),)),  # mov w3, #32
        (0x12800000, (Set(0, 0xFFFFFFFF),)),  # mov w0, #-1
        (0xF9448000, (Load(0, Memory(0, 0x900), 8),)),  # ldr x0, [x0, #0x900]
        (0xB9404800, (Load(0, Memory(0, 0x48), 4),)),  # ldr w0, [x0, #0x48]
        (0x39400001, (Load(1, Memory(0, 0), 1),)),  # ldrb w1, [x0]
        (0xF85F8020, (Load(0, Memory(1, -8), 8),)),  # ldur x0, [x1, #-8]
        (0x38401C22, (Add(1, 1, 1), Load(2, Memory(1, 0), 1))),  # ldrb w2, [x1, #1]!
        (0x38401422, (Load(2, Memory(1, 0), 1), Add(1, 1, 1))),  # ldrb w2, [x1], #1
        (0x38736802, (Load(2, Memory(0, 0, 19, 1), 1),)),  # ldrb w2, [x0, x19]
        (0xF8627820, (Load(0, Memory(1, 0, 2, 8), 8),)),  # ldr x0, [x1, x2, lsl #3]
        (0x3DC00400, (Load(-1, Memory(0, 16), 16),)),  # ldr q0, [x0, #16]
        (0xF9000020, (Store(Memory(1, 0), 8, 0),)),  # str x0, [x1]
        (0xB900083F, (Store(Memory(1, 8), 4, -1, 0),)),  # str wzr, [x1, #8]
        (
            0xA9BE7BFD,  # stp x29, x30, [sp, #-32]!
            (
                Add(SP, SP, -32),
                Store(Memory(SP, 0), 8, 29),
                Store(Memory(SP, 8), 8, 30),
            ),
        ),
        (
            0xA8C27BFD,  # ldp x29, x30, [sp], #32
            (
                Load(SCRATCH, Memory(SP, 0), 8),
                Load(30, Memory(SP, 8), 8),
                Move(29, SCRATCH, 8),
                Add(SP, SP, 32),
            ),
        ),
        (0x94000002, (Call(AT + 8),)),  # bl
        (0x17FFFFFF, (Jump(AT - 4),)),  # b
        (0x54000040, (Branch(AT + 8, True),)),  # b.eq
        (0x54000041, (Branch(AT + 8, False),)),  # b.ne
        (0x5400004B, (Branch(AT + 8, None),)),  # b.lt
        (0xB4000040, (Compare(0, -1, 0), Branch(AT + 8, True), Forget())),  # cbz x0
        (0x35000040, (Compare(0, -1, 0, size=4), Branch(AT + 8, False), Forget())),  # cbnz w0
        (0x36000040, (Branch(AT + 8, None),)),  # tbz w0, #0
        (0x7100801F, (Compare(0, -1, 32, size=4),)),  # cmp w0, #32
        (0xEB01001F, (Compare(0, 1, 0),)),  # cmp x0, x1
        (0x9A810000, (Choose(0, 0, 1, True),)),  # csel x0, x0, x1, eq
        (0xD65F03C0, (Return(),)),
        (0xD63F0040, (Call(None),)),  # blr x2
        (0xD61F0220, (Jump(None),)),  # br x17
        (0xD503245F, ()),  # bti c
        (0xD503233F, ()),  # paciasp
        (0xD53BD041, (Lose((1,)),)),  # mrs x1, tpidr_el0
        (0x8B010000, (Point(0, Memory(0, 0, 1)),)),  # add x0, x0, x1
        (0x8B210000, (Lose((0,)),)),  # add x0, x0, w1, uxtb
        (0x4EA01C00, ()),  # mov v0.16b, v0.16b: no general register
        (0x9E660002, (Lose((2,)),)),  # fmov x2, d0
        (0x00000000, (Stop(),)),  # udf
        (0xD4200000, (Stop(),)),  # brk
    ],
)
def test_meaning(word, operations):
    found = decode(word.to_bytes(4, "little"), AT)
    assert found.operations == operations
    assert found.end == AT + 4


def test_cut_or_misaligned_code_stops():
    assert decode(b"\x00\x00", AT).operations == (Stop(),)
    assert decode(b"\xc0\x03\x5f\xd6", AT + 2).operations == (Stop(),)


@given(st.integers(0, (1 << 32) - 1))
def test_any_word_has_an_answer(word):
    found = decode(word.to_bytes(4, "little"), AT)
    assert found.end == AT + 4
    for operation in found.operations:
        if isinstance(operation, (Branch, Call, Jump)) and operation.target is not None:
            assert operation.target % 4 == 0
