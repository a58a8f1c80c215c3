# SPDX-License-Identifier: Apache-2.0
"""Writes src/ecapture/_wire.py from the BTF of the compiled bpf/wire.bpf.c.

Usage: gen_wire.py OBJECT [OUTPUT]   (without OUTPUT: to standard output)

BTF is documented in the kernel's Documentation/bpf/btf.rst. Only what wire.h can contain is
understood: fixed-width integers, arrays of bytes, nested structs and enums; anything else, and any
hole between members, is an error.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

BTF_MAGIC = 0xEB9F
INT, ARRAY, STRUCT, ENUM, TYPEDEF, ENUM64 = 1, 3, 4, 6, 8, 19
CODES = {
    (1, False): "B",
    (2, False): "H",
    (4, False): "I",
    (8, False): "Q",
    (4, True): "i",
    (8, True): "q",
}
# Kept as raw bytes inside other types: they are compared, cached or packed as one value.
OPAQUE = {"ec_tuple_value", "ec_chain", "ec_operand", "ec_walk"}
SKIPPED_PREFIX = "ec_"


def section(image: bytes, wanted: str) -> bytes:
    """Contents of one section of an ELF64 little-endian file."""
    table = struct.unpack_from("<Q", image, 40)[0]
    size, count, names = struct.unpack_from("<HHH", image, 58)
    headers = [struct.unpack_from("<IIQQQQIIQQ", image, table + i * size) for i in range(count)]
    strings = headers[names][4]
    for header in headers:
        start = strings + header[0]
        if image[start : image.index(b"\0", start)].decode() == wanted:
            return image[header[4] : header[4] + header[5]]
    raise SystemExit(f"no section {wanted}")


class Types:
    """The types of one BTF section, by id."""

    def __init__(self, raw: bytes) -> None:
        magic, _version, _flags, header, type_at, type_size, string_at, string_size = (
            struct.unpack_from("<HBBIIIII", raw)
        )
        if magic != BTF_MAGIC:
            raise SystemExit("not BTF")
        self.strings = raw[header + string_at : header + string_at + string_size]
        self.entries: list[tuple[str, int, int, object]] = [("void", 0, 0, None)]
        at, end = header + type_at, header + type_at + type_size
        while at < end:
            at = self._entry(raw, at)

    def _text(self, at: int) -> str:
        return self.strings[at : self.strings.index(b"\0", at)].decode()

    def _entry(self, raw: bytes, at: int) -> int:
        name, packed, size = struct.unpack_from("<III", raw, at)
        kind, count, flag = (packed >> 24) & 0x1F, packed & 0xFFFF, packed >> 31
        at += 12
        extra: object = None
        if kind == INT:
            extra = bool((struct.unpack_from("<I", raw, at)[0] >> 24) & 1)
            at += 4
        elif kind == ARRAY:
            extra = struct.unpack_from("<III", raw, at)
            at += 12
        elif kind in (STRUCT, 5):
            members = [struct.unpack_from("<III", raw, at + 12 * i) for i in range(count)]
            extra = [(self._text(n), t, (o & 0xFFFFFF) if flag else o) for n, t, o in members]
            at += 12 * count
        elif kind == ENUM:
            extra = [
                (self._text(n), v)
                for n, v in (struct.unpack_from("<Ii", raw, at + 8 * i) for i in range(count))
            ]
            at += 8 * count
        elif kind == ENUM64:
            at += 12 * count
        elif kind == 13:  # FUNC_PROTO
            at += 8 * count
        elif kind == 15:  # DATASEC
            at += 12 * count
        elif kind in (14, 17):  # VAR, DECL_TAG
            at += 4
        self.entries.append((self._text(name), kind, size, extra))
        return at

    def resolve(self, number: int) -> tuple[str, int, int, object]:
        """The entry behind typedefs and qualifiers: (name, kind, size, what the kind adds)."""
        entry = self.entries[number]
        return self.resolve(entry[2]) if entry[1] in (TYPEDEF, 9, 10, 11) else entry

    def size(self, number: int) -> int:
        """Bytes of one value of the type."""
        _name, kind, size, extra = self.resolve(number)
        if kind == ARRAY:
            element, _index, count = extra  # type: ignore[misc]
            return self.size(element) * count
        return size

    def flatten(self, number: int, prefix: str = "") -> list[tuple[str, str]]:
        """(name, struct code) of each member; holes and unknown types end the program."""
        name, _kind, size, members = self.resolve(number)
        fields: list[tuple[str, str]] = []
        expected = 0
        for member, member_type, bits in members:  # type: ignore[attr-defined]
            if bits != expected * 8:
                raise SystemExit(f"{name}.{member}: hole before it")
            expected += self.size(member_type)
            inner_name, inner_kind, inner_size, extra = self.resolve(member_type)
            if member.startswith("_padding"):
                fields.append(("", f"{self.size(member_type)}x"))
            elif inner_kind == STRUCT and inner_name in OPAQUE:
                fields.append((prefix + member, f"{inner_size}s"))
            elif inner_kind == STRUCT:
                fields += self.flatten(member_type, prefix)
            elif inner_kind == ARRAY:
                fields.append((prefix + member, f"{self.size(member_type)}s"))
            elif inner_kind == INT:
                fields.append((prefix + member, CODES[inner_size, bool(extra)]))
            else:
                raise SystemExit(f"{name}.{member}: kind {inner_kind} has no place on the wire")
        if expected != size:
            raise SystemExit(f"{name}: hole at the end")
        return fields


def camel(name: str) -> str:
    return "".join(word.capitalize() for word in name.removeprefix(SKIPPED_PREFIX).split("_"))


def common_prefix(members: list[tuple[str, int]]) -> str:
    """What the enumerators share, up to the last underscore."""
    first, last = min(m for m, _ in members), max(m for m, _ in members)
    same = 0
    while same < min(len(first), len(last)) and first[same] == last[same]:
        same += 1
    return first[: first[:same].rfind("_") + 1]


def generate(image: bytes) -> str:
    """The text of _wire.py."""
    types = Types(section(image, ".BTF"))
    named = sorted(
        {
            e[0]: i
            for i, e in enumerate(types.entries)
            if e[0].startswith("ec_") and e[1] in (STRUCT, ENUM)
        }.items()
    )
    out = [
        "# SPDX-License-Identifier: Apache-2.0",
        '"""GENERATED by tools/gen_wire.py from bpf/wire.h; do not edit.',
        "",
        "Change the header and run `make wire`.",
        '"""',
        "",
        "from enum import IntEnum, IntFlag",
        "from struct import Struct",
    ]
    for name, number in named:
        _name, kind, _size, extra = types.entries[number]
        if kind != ENUM:
            continue
        members: list[tuple[str, int]] = extra  # type: ignore[assignment]
        if name == "ec_constants":
            out += ["", *(f"{member.removeprefix('EC_')} = {value}" for member, value in members)]
            continue
        prefix = common_prefix(members) if len(members) > 1 else "EC_"
        base = "IntFlag" if name.endswith("flag") else "IntEnum"
        out += ["", "", f"class {camel(name)}({base}):", f'    """enum {name}."""', ""]
        out += [f"    {member.removeprefix(prefix)} = {value}" for member, value in members]
    out += ["", ""]
    for name, number in named:
        if types.entries[number][1] != STRUCT:
            continue
        fields = types.flatten(number)
        codes = "".join(code for _field, code in fields)
        upper = name.removeprefix(SKIPPED_PREFIX).upper()
        shown = ", ".join(f'"{field}"' for field, _code in fields if field)
        out += [f'{upper} = Struct("<{codes}")', f"{upper}_FIELDS = ({shown},)", ""]
    return "\n".join(out)


if __name__ == "__main__":
    text = generate(Path(sys.argv[1]).read_bytes())
    if len(sys.argv) > 2:
        Path(sys.argv[2]).write_text(text)
    else:
        sys.stdout.write(text)
