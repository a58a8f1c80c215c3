# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time

from ecapture.binary.secrets.evaluate import Invocation, Limits, Pointer, Read, Scalar, Write


def field(*offsets) -> Pointer:
    *path, offset = offsets
    return Pointer(0, tuple(path), offset)


def test_chains_of_loads_are_followed_to_the_result(assemble):
    code = assemble(f="mov 0x918(%rdi), %rax\nmov 0x2f8(%rax), %rax\nret")
    trace = code.trace("f")
    assert list(trace.results) == [Pointer(0, (0x918, 0x2F8), 0)]
    assert list(trace.reads) == [Read(field(0x918), 8), Read(field(0x918, 0x2F8), 8)]
    assert trace.complete


def test_small_loads_are_scalars(assemble):
    trace = assemble(f="mov 0x48(%rdi), %eax\nret").trace("f")
    assert list(trace.results) == [Scalar(field(0x48), 4)]


def test_values_survive_the_stack(assemble):
    body = """
    push %rbx
    sub $0x20, %rsp
    mov %rdi, 0x8(%rsp)
    call *%rax
    mov 0x8(%rsp), %rax
    mov 0x10(%rax), %rax
    add $0x20, %rsp
    pop %rbx
    ret
    """
    assert list(assemble(f=body).trace("f").results) == [Pointer(0, (0x10,), 0)]


def test_an_overwritten_half_of_a_slot_is_unknown(assemble):
    body = "mov %rdi, -8(%rsp)\nmovl $1, -4(%rsp)\nmov -8(%rsp), %rax\nret"
    assert list(assemble(f=body).trace("f").results) == [None]


def test_a_call_gets_its_arguments_and_loses_registers(assemble):
    body = """
    lea 0x160(%rdi), %rsi
    mov $32, %edx
    mov %rdi, %rbx
    call g
    mov %rsi, %rax
    ret
    """
    code = assemble("-Wl,-Bsymbolic", f=body, g="ret")
    trace = code.trace("f")
    (call,) = trace.calls
    assert call.arguments[:3] == (field(0), field(0x160), 32)
    assert list(trace.results) == [None]


def test_arguments_and_pointers_are_not_null(assemble):
    body = """
    test %rdi, %rdi
    je 1f
    mov 0x10(%rdi), %rax
    test %rax, %rax
    je 1f
    mov 0x20(%rax), %eax
    ret
    1: xor %eax, %eax
    ret
    """
    assert list(assemble(f=body).trace("f").results) == [Scalar(field(0x10, 0x20), 4)]


def test_an_object_is_of_the_plain_kind(assemble):
    # ssl->type == 0 ? ssl : ssl->type == 0x80 ? ssl->inner : NULL
    body = """
    mov (%rdi), %eax
    test %eax, %eax
    je 1f
    cmp $0x80, %eax
    jne 2f
    mov 0x40(%rdi), %rdi
    1: mov 0x900(%rdi), %rax
    ret
    2: xor %eax, %eax
    ret
    """
    assert list(assemble(f=body).trace("f").results) == [Pointer(0, (0x900,), 0)]


def test_a_number_among_the_arguments_may_be_0(assemble):
    body = "mov $0x120, %eax\nmov $0x151, %ecx\ntest %esi, %esi\ncmove %rcx, %rax\nret"
    assert set(assemble(f=body).trace("f").results) == {0x120, 0x151}


def test_a_conditional_move_keeps_the_pointer(assemble):
    body = "xor %eax, %eax\ncmpl $0, (%rdi)\ncmove %rdi, %rax\nmov 8(%rax), %rax\nret"
    assert list(assemble(f=body).trace("f").results) == [Pointer(0, (8,), 0)]


def test_both_ways_of_an_open_condition_are_followed_and_stay_decided(assemble):
    body = """
    cmpl $1, 0x78(%rdi)
    je 1f
    mov $2, %eax
    jmp 2f
    1: mov $3, %eax
    2: cmpl $1, 0x78(%rdi)
    jne 3f
    add $0x10, %rax
    3: ret
    """
    assert set(assemble(f=body).trace("f").results) == {2, 0x13}


def test_a_loop_runs_twice(assemble):
    body = """
    xor %ecx, %ecx
    1: movzbl 0x188(%rdi,%rcx), %eax
    inc %rcx
    cmp %rdx, %rcx
    jne 1b
    ret
    """
    reads = list(assemble(f=body).trace("f").reads)
    assert reads == [Read(field(0x188), 1), Read(field(0x189), 1)]


def test_stores_and_block_moves_are_recorded(assemble):
    body = "lea 0x50(%rdi), %rax\nmov %rax, (%rsi)\nmov %rax, %rsi\nrep movsb\nret"
    trace = assemble(f=body).trace("f")
    assert Write(Pointer(1, (), 0), field(0x50), 8) in trace.writes
    assert list(trace.copies) == [(field(0), field(0x50))]


def test_a_tail_call_is_a_call_and_a_second_part_is_entered(assemble):
    code = assemble("-Wl,-Bsymbolic", f="add $8, %rsi\njmp g", g="mov (%rdi), %rax\nret")
    trace = code.trace("f")
    (call,) = trace.calls
    assert (call.target, call.arguments[1]) == (code.address("g"), Pointer(1, (), 8))
    assert list(trace.results) == [Pointer(0, (0,), 0)]


ARRIVE = """
    mov %rdi, %rbx
    {branches}
    mov 0x918(%rbx), %rdx
    add $0x50, %rdx
    mov %rbx, %rdi
    .globl site
    site: call g
    ret
    9: xor %eax, %eax
    ret
"""


def test_only_ways_to_the_call_are_followed(assemble):
    # 40 failing branches: 2^40 paths if failures were followed
    branches = "\n".join("call *%rax\ntest %eax, %eax\nje 9f" for _ in range(40))
    code = assemble("-Wl,-Bsymbolic", f=ARRIVE.format(branches=branches), g="ret")
    start, site = code.address("f"), site_of(code)
    arrivals = list(code.evaluator.arrivals(start, site))
    assert [arrival.arguments[2] for arrival in arrivals] == [field(0x918, 0x50)]
    assert isinstance(arrivals[0], Invocation)


def site_of(code) -> int:
    address = code.address("f")
    while True:
        instruction = code.image.instruction(address)
        for operation in instruction.operations:
            if getattr(operation, "target", None) == code.address("g"):
                return address
        assert instruction.end > address
        address = instruction.end


def test_an_assumption_that_leads_away_from_the_call_is_dropped(assemble):
    # if (ssl->quic != NULL) return 1;
    branches = "mov 0xc80(%rdi), %rax\ntest %rax, %rax\njne 9f"
    code = assemble("-Wl,-Bsymbolic", f=ARRIVE.format(branches=branches), g="ret")
    arrivals = list(code.evaluator.arrivals(code.address("f"), site_of(code)))
    assert [arrival.arguments[2] for arrival in arrivals] == [field(0x918, 0x50)]


def test_limits_end_a_maze(assemble):
    body = (
        "\n".join(f"cmp %r{8 + n % 8}, %rax\njg {n}f\nnop\n{n}: nop" for n in range(60)) + "\nret"
    )
    code = assemble(f=body)
    started = time.process_time()
    trace = code.evaluator.trace(code.address("f"), Limits(paths=50, steps=2000))
    assert not trace.complete
    assert time.process_time() - started < 20


def test_an_endless_loop_ends(assemble):
    trace = assemble(f="1: inc %eax\njmp 1b").trace("f")
    assert not trace.results


def test_with_doubt_pointers_may_be_missing(assemble):
    body = """
    mov 0x8(%rdi), %rax
    test %rax, %rax
    je 1f
    ret
    1: mov $1, %edi
    call g
    ret
    """
    code = assemble(f=body, g="ret")
    address = code.address("f")
    assert not code.evaluator.trace(address).calls
    doubted = code.evaluator.trace(address, Limits(doubt=True))
    assert [call.arguments[0] for call in doubted.calls] == [1]


def test_with_doubt_a_place_that_a_call_was_told_of_is_not_known_behind_it(assemble):
    body = """
    push %rbx
    sub $0x30, %rsp
    mov %rdi, 0x28(%rsp)
    movq $0, 0x8(%rsp)
    movq $0, 0x10(%rsp)
    movq $5, 0x18(%rsp)
    lea 0x8(%rsp), %rsi
    call g
    mov {0}(%rsp), %rax
    add $0x30, %rsp
    pop %rbx
    ret
    """
    wanted = {"0x8": (0, None), "0x10": (0, None), "0x18": (5, 5), "0x28": (field(0), field(0))}
    for place, (assumed, doubted) in wanted.items():
        code = assemble("-Wl,-Bsymbolic", f=body.format(place), g="ret")
        address = code.address("f")
        assert list(code.evaluator.trace(address).results) == [assumed]
        assert list(code.evaluator.trace(address, Limits(doubt=True)).results) == [doubted]
