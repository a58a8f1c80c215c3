# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from ecapture.binary.secrets.functions import ListedFunctions, is_stub, likely_start


def test_starts_and_ranges_come_from_the_frame_table(assemble):
    code = assemble(f="nop\nnop\nret", g="xor %eax, %eax\nret")
    first, second = code.address("f"), code.address("g")
    assert code.functions.known
    assert code.functions.is_start(first)
    assert code.functions.is_start(second)
    assert not code.functions.is_start(first + 1)
    assert code.functions.range_of(first + 2) == (first, first + 3)
    assert code.functions.range_of(second) == (second, second + 3)
    assert code.functions.range_of(0) is None
    assert not code.functions.is_start(1 << 40)


def test_without_a_table_nothing_is_a_start(assemble):
    code = assemble("-Wl,--no-eh-frame-hdr", f="ret")
    assert not code.functions.known
    assert not code.functions.is_start(code.address("f"))
    assert code.functions.range_of(code.address("f")) is None


def test_without_a_table_the_records_themselves_tell(assemble):
    code = assemble("-Wl,--no-eh-frame-hdr", f="nop\nnop\nret", g="xor %eax, %eax\nret")
    functions = ListedFunctions(code.elf, code.image)
    first, second = code.address("f"), code.address("g")
    assert functions.known
    assert functions.is_start(first)
    assert functions.is_start(second)
    assert not functions.is_start(first + 1)
    assert functions.range_of(first + 2) == (first, first + 3)
    assert functions.range_of(second + 3) is None
    assert functions.range_of(0) is None


def test_where_there_is_a_table_it_is_asked(assemble):
    code = assemble(f="nop\nret")
    functions = ListedFunctions(code.elf, code.image)
    assert functions.known
    assert functions.range_of(code.address("f") + 1) == (code.address("f"), code.address("f") + 2)


def test_stubs_jump_through_memory(assemble):
    code = assemble(
        stub="jmp *0x1000(%rip)",
        marked="endbr64\n.byte 0xf2\njmp *0x1000(%rip)",
        table="jmp *%rax",
        method="mov 8(%rdi), %rax\njmp *0x38(%rax)",
        plain="mov 8(%rdi), %rax\nret",
        calls="mov 8(%rdi), %rax\ncall *%rax\nret",
    )
    answers = {
        name: is_stub(code.image, code.address(name))
        for name in ("stub", "marked", "table", "method", "plain", "calls")
    }
    assert answers == {
        "stub": True,
        "marked": True,
        "table": False,
        "method": False,
        "plain": False,
        "calls": False,
    }
    assert not is_stub(code.image, 0)


def test_likely_start_is_behind_padding(assemble):
    body = "push %rbx\nmov $0x90909090, %ebx\nnop\nnop\nret\n.p2align 4, 0xcc"
    code = assemble(before="ret\n.p2align 4, 0xcc", f=body)
    start = code.address("f")
    assert likely_start(code.image, start + 7) == start
    assert likely_start(code.image, start + 3) is None  # the middle of an instruction
