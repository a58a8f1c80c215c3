# SPDX-License-Identifier: Apache-2.0
"""Code that tells secrets as rustls does, in assembler, so that every detail is known.

``{...}`` in ``TELLS`` are the details that a test may change.
"""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import pytest

from ecapture.binary.elf import ElfFile

needs_x86_64 = pytest.mark.skipif(platform.machine() != "x86_64", reason="assembles x86-64")

LABELS = """
.section .rodata
random_text: .ascii "CLIENT_RANDOM"
early_text: .ascii "CLIENT_EARLY_TRAFFIC_SECRET"
client_text: .ascii "CLIENT_HANDSHAKE_TRAFFIC_SECRET"
server_text: .ascii "SERVER_HANDSHAKE_TRAFFIC_SECRET"
lengths: .quad 27, 31, 31
"""
TABLE = """
.section .data.rel.ro, "aw"
.balign 8
methods: .quad handshake, by_table
table: .quad early_text, client_text, server_text
.section .note.GNU-stack, "", @progbits
"""

# TLS 1.2: the call of log is made whatever the program asked for.
LOGS = """
.text
.type handshake, @function
handshake:
    .cfi_startproc
    push %rbx
    .cfi_def_cfa_offset 16
    mov %rdi, %rbx
    mov 0x18(%rbx), %rax
    lea 0x40(%rbx), %rcx
    lea 0x80(%rbx), %r9
    lea {label}(%rip), %rsi
    mov ${label_length}, %edx
    mov ${random_length}, %r8d
    push $48
    .globl log_call
    .type log_call, @function
log_call:
    call *%rax
    pop %rax
    pop %rbx
    ret
    .cfi_endproc
.size handshake, .-handshake
"""

# TLS 1.3: log is called only where will_log said yes, with a secret that was made before.
TELLS = """
.text
.type derive, @function
derive:
    .cfi_startproc
    sub $0x78, %rsp
    .cfi_def_cfa_offset 128
    {before}
    lea client_text(%rip), %rsi
    mov $31, %edx
    mov %r13, %rdi
    call *0x68(%rsp)
    .globl {site}
    .type {site}, @function
{site}:
    test %al, %al
    {branch} 2f
    {between}
    mov 0x50(%rsp), %rax
    cmp $0x41, %rax
    jae 3f
    mov %rax, (%rsp)
    lea {second}(%rip), %rsi
    mov $31, %edx
    mov {random}, %rcx
    lea 0x10(%rsp), %r9
    mov ${random_length}, %r8d
    mov %r13, %rdi
    call *0x60(%rsp)
2:  add $0x78, %rsp
    ret
3:  call panic
    ud2
    .cfi_endproc
.size derive, .-derive
.type accessor, @function
accessor:
    .cfi_startproc
    mov %rdi, %rax
    ret
    .cfi_endproc
.type deeper, @function
deeper:
    .cfi_startproc
    call accessor
    ret
    .cfi_endproc
.type panic, @function
panic:
    .cfi_startproc
    ud2
    .cfi_endproc
"""

# The same where the label comes from a table.
LOOKS_UP = """
.text
.type by_table, @function
by_table:
    .cfi_startproc
    push %r14
    sub $0x70, %rsp
    .cfi_def_cfa_offset 128
    lea table{shift}(%rip), %rax
    mov {index}(%rax,%rbx,8), %r15
    lea lengths(%rip), %rax
    mov (%rax,%rbx,8), %r12
    mov %r13, %rdi
    mov %r15, %rsi
    mov %r12, %rdx
    call *0x60(%rsp)
    .globl table_site
    .type table_site, @function
table_site:
    test %al, %al
    je 2f
    mov %r14, %rdi
    call get
    mov %rdx, (%rsp)
    push $0x20
    pop %r8
    mov %rax, %r9
    mov 0x58(%rbp), %rcx
    mov %r13, %rdi
    mov {told_label}, %rsi
    mov %r12, %rdx
    call *0x68(%rsp)
2:  add $0x70, %rsp
    pop %r14
    ret
    .cfi_endproc
.size by_table, .-by_table
.type get, @function
get:
    .cfi_startproc
    mov 0x40(%rdi), %rdx
    cmp $0x41, %rdx
    jae 4f
    mov %rdi, %rax
    ret
4:  ud2
    .cfi_endproc
"""
PLAIN = {
    "label": "random_text",
    "label_length": "13",
    "random_length": "32",
    "before": "",
    "site": "site",
    "branch": "je",
    "between": "",
    "second": "client_text",
    "random": "0x58(%rsp)",
    "shift": "",
    "index": "0",
    "told_label": "%r15",
}


def assembled(
    folder: Path,
    *parts: str,
    options: tuple[str, ...] = (),
    shared: str = "-shared",
    **details: str,
) -> ElfFile:
    """A shared library of these parts, with their details changed; or what ``options`` say."""
    source = folder / "code.s"
    source.write_text("".join(part.format(**(PLAIN | details)) for part in (*parts, LABELS, TABLE)))
    path = folder / "code.so"
    # fmt: off
    subprocess.run(
        ["cc", *filter(None, [shared]), "-nostdlib", "-o", path, source, *options],
        check=True, capture_output=True,
    )
    # fmt: on
    return ElfFile(path)
