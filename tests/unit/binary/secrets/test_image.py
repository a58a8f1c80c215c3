# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from ecapture.binary.secrets.operations import Return, Stop


def test_bytes_end_where_the_part_ends(assemble):
    code = assemble(f="ret")
    part = code.image.part_of(code.address("f"), executable=True)
    assert part is not None
    last = part.address + part.size - 1
    assert len(code.image.bytes_at(last, 100)) == 1
    assert code.image.bytes_at(last + (1 << 30), 4) == b""


def test_large_reads_cross_blocks(assemble):
    code = assemble(f=".fill 40000, 1, 0x90\nret")
    start = code.address("f")
    assert code.image.bytes_at(start, 40_001) == b"\x90" * 40_000 + b"\xc3"


def test_instructions_are_only_in_code(assemble):
    code = assemble(f="ret")
    assert code.image.instruction(code.address("f")).operations == (Return(),)
    table = next(part for part in code.image.parts if not part.executable)
    assert code.image.instruction(table.address).operations == (Stop(),)


def test_offsets_are_those_of_the_file(assemble):
    code = assemble(f="mov $0x12345678, %eax\nret")
    offset = code.image.offset_of(code.address("f"))
    assert code.elf.read(offset, 5) == bytes.fromhex("b878563412")
    assert code.image.offset_of(1 << 40) is None


def test_a_scan_sees_every_byte_and_the_overlap(assemble):
    code = assemble(f=".fill 2200000, 1, 0x90\nret")
    part = code.image.part_of(code.address("f"), executable=True)
    whole = code.image.bytes_at(part.address, part.size)
    seen = bytearray(part.size)
    for address, block in code.image.scan(part, 7):
        at = address - part.address
        assert whole[at : at + len(block)] == block
        seen[at : at + len(block)] = b"\1" * len(block)
    assert all(seen)
