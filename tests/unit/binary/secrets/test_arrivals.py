# SPDX-License-Identifier: Apache-2.0
"""What is known at the next call through a pointer, of code that begins anywhere."""

from __future__ import annotations

import pytest
from rust_code import assembled, needs_x86_64

from ecapture.binary.secrets import arrivals as module
from ecapture.binary.secrets.arrivals import Entry, arrivals
from ecapture.binary.secrets.evaluate import Pointer
from ecapture.binary.secrets.image import Image

pytestmark = needs_x86_64
RAX, RCX, RDX, RBX, RSP, RSI = 0, 1, 2, 3, 4, 6
WHOLE = """
.text
.globl begin
.type begin, @function
begin:
    %s
    call *%%rax
    ret
.type handshake, @function
handshake: ret
.type by_table, @function
by_table: ret
.type callee, @function
callee:
    lea 8(%%rdi), %%rdx
    ret
.type caller, @function
caller:
    call callee
    ret
"""


def states(folder, code):
    with assembled(folder, (WHOLE % code).replace("{", "{{").replace("}", "}}")) as elf:
        return list(arrivals(Image(elf), elf.symbol("begin").address))


@pytest.mark.parametrize(
    ("code", "register", "value"),
    [
        ("nop", RCX, Pointer(RCX, (), 0)),
        ("mov $7, %edx", RDX, 7),
        ("push $0x20; pop %rdx", RDX, 32),
        ("mov %rbx, %rdx", RDX, Pointer(RBX, (), 0)),
        ("mov %ebx, %edx", RDX, None),
        ("lea 24(%rbx), %rdx", RDX, Pointer(RBX, (), 24)),
        ("mov 24(%rbx), %rdx", RDX, Pointer(RBX, (24,), 0)),
        ("mov 24(%rbx), %rdx; mov 8(%rdx), %rdx; add $4, %rdx", RDX, Pointer(RBX, (24, 8), 4)),
        ("mov 24(%rbx), %edx", RDX, None),
        ("mov %rsi, 16(%rsp); mov 16(%rsp), %rdx", RDX, Pointer(RSI, (), 0)),
        ("mov %esi, 16(%rsp); mov 16(%rsp), %rdx", RDX, None),
        ("mov %rsi, 16(%rsp); movb $0, 20(%rsp); mov 16(%rsp), %rdx", RDX, None),
        ("mov %rsi, 16(%rsp); movb $0, 24(%rsp); mov 16(%rsp), %rdx", RDX, Pointer(RSI, (), 0)),
        ("movups %xmm0, 16(%rsp); mov 24(%rsp), %rdx", RDX, None),
        ("imul %rbx, %rdx", RDX, None),
        ("mov $8, %ecx; mov (%rbx,%rcx,2), %rdx", RDX, Pointer(RBX, (16,), 0)),
        ("mov (%rbx,%rcx,2), %rdx", RDX, None),
        ("mov %rbx, %rdi; call callee", RDX, Pointer(RBX, (), 8)),
        ("mov %rbx, %rdi; call callee", RSP, Pointer(RSP, (), 0)),
        ("cmp %rbx, %rcx; cmove %rbx, %rdx", RDX, None),
    ],
)
def test_values(tmp_path, code, register, value):
    (state,) = states(tmp_path, code)
    assert state.registers[register] == value


def test_an_entry_of_a_table_is_known_by_what_loaded_it(tmp_path):
    code = "lea table(%rip), %rcx; mov -8(%rcx,%rbx,8), %rdx; mov %rdx, %rsi; mov (%rcx,%rbx), %rdi"
    (state,) = states(tmp_path, code)
    entry = state.registers[RDX]
    assert isinstance(entry, Entry)
    assert state.registers[RSI] == entry
    assert state.registers[7] != entry
    assert state.registers[7].table == entry.table == state.registers[RCX]


def test_both_ways_of_a_branch(tmp_path):
    found = states(tmp_path, "mov $1, %edx; je 1f; mov $2, %edx; 1: nop")
    assert {state.registers[RDX] for state in found} == {1, 2}


@pytest.mark.parametrize(
    "code",
    [
        "call caller",  # two deep
        "jmp *%rcx",
        "ud2",
        "ret",
        "rep movsb",
        "imul %rbx, %rcx; mov %rdx, (%rcx)",  # it could have gone anywhere
        "1: jmp 1b",
        ".byte 6",
    ],
)
def test_paths_that_end(tmp_path, code):
    assert states(tmp_path, code) == []


def test_a_loop_is_passed_once(tmp_path):
    (state,) = states(tmp_path, "mov $0, %edx; 1: add $1, %rdx; jne 1b; nop")
    assert state.registers[RDX] == 1


def test_bounds(tmp_path, monkeypatch):
    assert states(tmp_path, "nop; " * (module._STEPS - 2))
    assert not states(tmp_path, "nop; " * module._STEPS)
    monkeypatch.setattr(module, "_PATHS", 3)
    branches = "; ".join(f"mov ${n}, %edx; je 1f" for n in range(9))
    assert len(states(tmp_path, branches + "; 1: nop")) == 3
