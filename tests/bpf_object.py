# SPDX-License-Identifier: Apache-2.0
"""What is inside a compiled BPF object, read without libbpf: programs, their sections and helpers.

ELF64, little-endian. A program is a global function symbol in a section of its own kind; the helper
numbers are the constants of its call instructions (UAPI linux/bpf.h: opcode 0x85, source register
0). Functions in .text are shared by all programs, so their helpers count for every one.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

import ecapture

SHIPPED = Path(ecapture.__file__).parent / "objects"
_SYMBOLS, _FUNCTION = 2, 2
_CALL = 0x85


class Program(NamedTuple):
    """One program: the section says what it attaches to."""

    name: str
    section: str
    helpers: frozenset[int]


def shipped(machine: str | None = None) -> list[Path]:
    """Installed objects that hold programs, of one architecture or of all."""
    found = sorted(SHIPPED.glob(f"*.{machine or '*'}.bpf.o"))
    return [path for path in found if not path.name.startswith("wire.")]


def programs(path: Path) -> list[Program]:
    """All programs of one object."""
    image = path.read_bytes()
    table = struct.unpack_from("<Q", image, 40)[0]
    size, count, names_at = struct.unpack_from("<HHH", image, 58)
    headers = [struct.unpack_from("<IIQQQQIIQQ", image, table + i * size) for i in range(count)]

    def text(strings: int, at: int) -> str:
        start = headers[strings][4] + at
        return image[start : image.index(b"\0", start)].decode()

    def helpers(section: int, at: int, length: int) -> set[int]:
        code = image[headers[section][4] + at :][:length]
        instructions = struct.iter_unpack("<BBhi", code[: len(code) // 8 * 8])
        return {
            imm for op, registers, _off, imm in instructions if (op, registers >> 4) == (_CALL, 0)
        }

    found, shared = [], set()
    for header in headers:
        if header[1] != _SYMBOLS:
            continue
        symbols = image[header[4] : header[4] + header[5]]
        for name, kind, _other, section, value, length in struct.iter_unpack("<IBBHQQ", symbols):
            if kind & 15 != _FUNCTION:
                continue
            place = text(names_at, headers[section][0])
            used = helpers(section, value, length)
            if place == ".text":
                shared |= used
            elif kind >> 4:
                found.append(Program(text(header[6], name), place, frozenset(used)))
    return [program._replace(helpers=program.helpers | shared) for program in found]
