# SPDX-License-Identifier: Apache-2.0
"""Reads what uprobes need from an ELF file that nobody vouches for.

What the dynamic loader believes, we believe: names are looked up through ``PT_DYNAMIC`` and its
hash table, so a file without section headers is as good as one with them. Section headers serve
only what the loader does not know (``.symtab``, names of parts), and damage there means "absent".

Invariants:

1. Only ``NotExecutable`` (and, on opening, ``TargetNotFound`` and ``PermissionMissing``) leaves
   this module, whatever the bytes are.
2. Every loop is bounded by a constant below, and no read is longer than ``CHUNK`` bytes.

Layouts are those of the System V ABI, chapters 4 and 5 ("Object Files", "Program Loading and
Dynamic Linking"); the GNU hash table is as binutils 2.40 (bfd/elflink.c) writes it.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from typing import NamedTuple

from ecapture.binary.file import CHUNK, ForeignFile, Ranges, ranges_within
from ecapture.errors import NotExecutable

_HEAD = 4096  # the file header and the program headers of every ordinary file
_MAX_SEGMENTS = 1170  # 65536 // 56, the kernel's own limit (fs/binfmt_elf.c, load_elf_phdrs)
_MAX_SECTIONS = 8192
_MAX_SECTION_NAME = 256
_MAX_DYNAMIC = 4096
_MAX_NOTE_BYTES = 1 << 16
_MAX_CHAIN = 1 << 14
_MAX_EQUAL_HASHES = 64
_MAX_NAME_HITS = 1024
_MAX_NAME_PLACES = 1 << 14  # where a part of a name stands
_LONGEST_NAME = 1 << 12  # of C++: templates have names of hundreds of bytes
_MAX_ROWS = 4096
_MAX_SYMBOL_TABLE = 512 << 20

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_DYNAMIC = struct.Struct("<qQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_NOTE = struct.Struct("<III")
_WORD = struct.Struct("<I")
_WORDS4 = struct.Struct("<IIII")
_LONG = struct.Struct("<Q")

_MACHINES = {62: "x86_64", 183: "aarch64"}
_TYPES = {1: "relocatable", 2: "executable", 3: "shared", 4: "core"}

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP, _PT_NOTE = 1, 2, 3, 4
_PF_X, _PF_W = 1, 2
_SHT_SYMTAB, _SHT_NOTE, _SHT_NOBITS = 2, 7, 8
_DT_NEEDED, _DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_STRSZ = 1, 4, 5, 6, 10
_DT_SONAME, _DT_RPATH, _DT_RUNPATH = 14, 15, 29
_DT_GNU_HASH, _DT_VERSYM, _DT_FLAGS_1 = 0x6FFFFEF5, 0x6FFFFFF0, 0x6FFFFFFB
_DF_1_PIE = 0x08000000
_STT_OBJECT = 1
_STT_FUNC = 2  # 10 is STT_GNU_IFUNC: its value is a resolver, not the function
_STB_LOCAL = 0
_VERSION_HIDDEN = 0x8000


class Segment(NamedTuple):
    """A program header. Offsets, addresses and sizes are in bytes."""

    type: int
    flags: int
    offset: int
    address: int
    file_size: int
    align: int


class Section(NamedTuple):
    """A section header. Offset, address and size are in bytes."""

    name: str
    type: int
    address: int
    offset: int
    size: int
    link: int


class Symbol(NamedTuple):
    """A function or variable that the file defines.

    ``address`` is as the file was linked, ``size`` is 0 where the compiler did not say.
    """

    name: str
    address: int
    size: int


class _Candidate(NamedTuple):
    # A symbol and how much we like it: lower is better.
    rank: int
    symbol: Symbol


class ElfFile(ForeignFile):
    """An ELF64 little-endian file, open for reading.

    ``source`` is a path, or the number of an open descriptor, which is duplicated.

    Raises:
        NotExecutable: the file is not one, or contradicts itself.
        TargetNotFound: there is no such file.
        PermissionMissing: it may not be read.
    """

    def __init__(self, source: str | os.PathLike[str] | int) -> None:
        super().__init__(source)
        try:
            self._read_head()
        except BaseException:
            self.close()
            raise

    # Headers

    def _read_head(self) -> None:
        head = self.read(0, min(_HEAD, self.size))
        if head[:4] != b"\x7fELF":
            self.refuse("not an ELF file")
        if len(head) < _HEADER.size:
            self.refuse("truncated: the file header is cut")
        if head[4] != 2:
            self.refuse("a 32-bit ELF file")
        if head[5] != 1:
            self.refuse("a big-endian ELF file")
        fields = _HEADER.unpack_from(head)
        self.type = _TYPES.get(fields[1], f"type {fields[1]}")
        self.machine = _MACHINES.get(fields[2], f"machine {fields[2]}")
        self.entry: int = fields[4]
        table, self._section_table = fields[5], fields[6]
        entry_size, count, self._section_size, self._section_count, self._section_names = fields[9:]
        if count and entry_size != _SEGMENT.size:
            self.refuse(f"program headers of {entry_size} bytes")
        if count > _MAX_SEGMENTS:
            self.refuse(f"{count} program headers")
        length = count * _SEGMENT.size
        whole = head[table : table + length] if table < _HEAD else b""
        if len(whole) != length:
            whole = self.read(table, length)
        self.segments: tuple[Segment, ...] = tuple(
            Segment(kind, flags, offset, address, file_size, align)
            for kind, flags, offset, address, _, file_size, _, align in _SEGMENT.iter_unpack(whole)
        )

    @cached_property
    def sections(self) -> tuple[Section, ...]:
        """The sections; none if the headers were stripped or make no sense."""
        try:
            return self._read_sections()
        except NotExecutable:
            return ()

    def _read_sections(self) -> tuple[Section, ...]:
        if not self._section_table or self._section_size != _SECTION.size:
            return ()
        count, names = self._section_count, self._section_names
        if not count or names == 0xFFFF:  # SHN_XINDEX: the numbers are in the first section
            first = _SECTION.unpack(self.read(self._section_table, _SECTION.size))
            count, names = count or first[5], first[6] if names == 0xFFFF else names
        if count > _MAX_SECTIONS or names >= count:
            return ()
        rows = list(_SECTION.iter_unpack(self.read(self._section_table, count * _SECTION.size)))
        _, _, _, _, start, length, _, _, _, _ = rows[names]
        texts = self.read(start, min(length, CHUNK))
        return tuple(
            Section(_string_in(texts, row[0]), row[1], row[3], row[4], row[5], row[6])
            for row in rows
        )

    def section(self, name: str) -> Section | None:
        """Return the first section of this name that has bytes in the file, if any."""
        for section in self.sections:
            if section.name == name and section.type != _SHT_NOBITS:
                return section
        return None

    def file_offset(self, address: int, *, executable: bool = False) -> int:
        """Return where in the file the byte at this linked address is.

        With ``executable``, only code counts.

        Raises:
            NotExecutable: no loaded part of the file has it.
        """
        for segment in self.segments:
            if (
                segment.type == _PT_LOAD
                and 0 <= address - segment.address < segment.file_size
                and (segment.flags & _PF_X or not executable)
            ):
                offset = address - segment.address + segment.offset
                if offset < self.size:
                    return offset
        return self.refuse(f"address {address:#x} is in no loaded part of the file")

    def address(self, offset: int) -> int | None:
        """Return the linked address of the code at this offset in the file; None: there is none."""
        for segment in self.segments:
            inside = 0 <= offset - segment.offset < segment.file_size
            if segment.type == _PT_LOAD and inside and segment.flags & _PF_X:
                return offset - segment.offset + segment.address
        return None

    @cached_property
    def build_id(self) -> str:
        """The build id in hexadecimal; empty if the file has none."""
        notes = [(s.offset, s.file_size, s.align) for s in self.segments if s.type == _PT_NOTE]
        for offset, length, align in notes[:16]:
            if found := self._build_id_in(offset, length, align):
                return found
        for section in self.sections:
            if section.type == _SHT_NOTE and section.name == ".note.gnu.build-id":
                return self._build_id_in(section.offset, section.size, 4)
        return ""

    def _build_id_in(self, offset: int, length: int, align: int) -> str:
        # Notes are advice to us, not to the loader: a damaged one is as good as none.
        try:
            block = self.read(offset, min(length, _MAX_NOTE_BYTES))
        except NotExecutable:
            return ""
        mask, at = (7 if align == 8 else 3), 0
        while at + _NOTE.size <= len(block):
            name_size, size, kind = _NOTE.unpack_from(block, at)
            name_at = at + _NOTE.size
            content_at = (name_at + name_size + mask) & ~mask
            content = block[content_at : content_at + size]
            if kind == 3 and block[name_at : name_at + name_size] == b"GNU\0":
                # NT_GNU_BUILD_ID: 20 bytes from ld, 8 or 16 from others, or what the user said
                return content.hex() if 0 < size <= 64 and len(content) == size else ""
            at = (content_at + size + mask) & ~mask
        return ""

    # The dynamic part

    @cached_property
    def _dynamic(self) -> dict[int, int]:
        # Of a repeated tag the last counts, as in the loader (glibc, elf/get-dynamic-info.h).
        return {tag: value for tag, value in self._dynamic_rows if tag != _DT_NEEDED}

    @cached_property
    def _dynamic_rows(self) -> tuple[tuple[int, int], ...]:
        segment = next((s for s in self.segments if s.type == _PT_DYNAMIC), None)
        if segment is None:
            return ()
        length = min(segment.file_size, _MAX_DYNAMIC * _DYNAMIC.size)
        block = self.read(segment.offset, length - length % _DYNAMIC.size)
        rows = []
        for tag, value in _DYNAMIC.iter_unpack(block):
            if tag == 0:  # DT_NULL
                break
            rows.append((tag, value))
        return tuple(rows)

    @cached_property
    def _strings(self) -> tuple[int, int]:
        # Offset and size of .dynstr.
        address = self._dynamic.get(_DT_STRTAB)
        if address is None:
            self.refuse("has no dynamic strings")
        offset = self.file_offset(address)
        return offset, min(self._dynamic.get(_DT_STRSZ, 0), self.size - offset)

    def _string(self, at: int) -> str:
        start, size = self._strings
        if at >= size:
            self.refuse(f"string {at:#x} is outside of the dynamic strings")
        return self.text(start + at, size - at)

    def _string_of(self, tag: int) -> str:
        at = self._dynamic.get(tag)
        return "" if at is None else self._string(at)

    @cached_property
    def soname(self) -> str:
        """The name the file gives itself (``DT_SONAME``), or nothing."""
        return self._string_of(_DT_SONAME)

    @cached_property
    def rpath(self) -> str:
        """Where to look for libraries first, colon-separated (``DT_RPATH``)."""
        return self._string_of(_DT_RPATH)

    @cached_property
    def runpath(self) -> str:
        """Where to look for libraries, colon-separated (``DT_RUNPATH``)."""
        return self._string_of(_DT_RUNPATH)

    @cached_property
    def needed(self) -> tuple[str, ...]:
        """Names of the libraries it is linked with (``DT_NEEDED``), in their order."""
        return tuple(self._string(v) for tag, v in self._dynamic_rows if tag == _DT_NEEDED)

    @cached_property
    def interpreter(self) -> str:
        """The dynamic loader it asks for; empty for libraries and static programs."""
        segment = next((s for s in self.segments if s.type == _PT_INTERP), None)
        return "" if segment is None else self.text(segment.offset, segment.file_size)

    @property
    def is_pie(self) -> bool:
        """Whether its linker says that it is a program which runs at any address (DF_1_PIE)."""
        return bool(self._dynamic.get(_DT_FLAGS_1, 0) & _DF_1_PIE)

    def symbol(self, name: str, *, variable: bool = False) -> Symbol | None:
        """Return the function of this name that the file exports, or nothing if it does not.

        With ``variable`` the variable of this name.

        Of several versions the default one counts. What the file merely imports is not defined by
        it, and an indirect function (``STT_GNU_IFUNC``) has no address to put a probe on.

        Raises:
            NotExecutable: the tables contradict themselves.
        """
        tags = self._dynamic
        if _DT_SYMTAB not in tags or _DT_STRTAB not in tags:
            return None
        if _DT_GNU_HASH in tags:
            rows = self._gnu_rows(name)
        elif _DT_HASH in tags:
            rows = self._sysv_rows(name)
        else:
            return None
        wanted = os.fsencode(name) + b"\0"
        best: _Candidate | None = None
        for tries, row in enumerate(rows):
            if tries >= _MAX_EQUAL_HASHES:
                self.refuse(f"more than {_MAX_EQUAL_HASHES} symbols share a hash")
            found = self._dynamic_symbol(row, name, wanted, _STT_OBJECT if variable else _STT_FUNC)
            if found is not None and (best is None or found.rank < best.rank):
                best = found
        return best.symbol if best else None

    def exported_names(self, *parts: bytes) -> set[str]:
        """Return the dynamic strings that contain one of the parts: candidates for ``symbol``.

        About 10 ms for the 80,000 names of a large program.
        """
        if _DT_STRTAB not in self._dynamic:
            return set()
        found: set[str] = set()
        places = 0
        for _, block in self.blocks(*self._strings, _LONGEST_NAME):
            for part in parts:
                at = block.find(part)
                while at >= 0:
                    places += 1
                    # no farther than the longest name: strings need not end
                    begin = block.rfind(b"\0", max(0, at - _LONGEST_NAME), at) + 1
                    end = block.find(b"\0", at, at + _LONGEST_NAME)
                    if 0 < end - begin <= _LONGEST_NAME:
                        found.add(os.fsdecode(block[begin:end]))
                    if len(found) > _MAX_NAME_HITS or places > _MAX_NAME_PLACES:
                        self.refuse("dynamic strings that repeat names without end")
                    at = block.find(part, max(end, at + 1))
        return found

    @cached_property
    def _symbols_offset(self) -> int:
        return self.file_offset(self._dynamic[_DT_SYMTAB])

    def _dynamic_symbol(
        self, row: int, name: str, wanted: bytes, wanted_kind: int
    ) -> _Candidate | None:
        block = self.read(self._symbols_offset + row * _SYMBOL.size, _SYMBOL.size)
        at, kind, _, section, address, size = _SYMBOL.unpack(block)
        if kind & 15 != wanted_kind or not section or not address:
            return None
        start, length = self._strings
        if at + len(wanted) > length or self.read(start + at, len(wanted)) != wanted:
            return None
        hidden = 0
        if (versions := self._dynamic.get(_DT_VERSYM)) is not None:
            entry = self.read(self.file_offset(versions) + 2 * row, 2)
            hidden = int.from_bytes(entry, "little") & _VERSION_HIDDEN
        return _Candidate(hidden, Symbol(name, address, size))

    @cached_property
    def _gnu_table(self) -> tuple[int, int, int, int, int]:
        # Offset of the Bloom filter, its length in words and its shift, buckets, first symbol.
        offset = self.file_offset(self._dynamic[_DT_GNU_HASH])
        buckets, first, words, shift = _WORDS4.unpack(self.read(offset, _WORDS4.size))
        if not words:
            self.refuse("a symbol hash table without a filter")
        return offset + _WORDS4.size, words, shift, buckets, first

    def _gnu_rows(self, name: str) -> Iterator[int]:
        # Rows of the symbol table whose hash is that of the name.
        bloom, words, shift, buckets, first = self._gnu_table
        if not buckets:
            return
        wanted = _gnu_hash(name)
        word = _LONG.unpack(self.read(bloom + 8 * ((wanted >> 6) % words), 8))[0]
        if not (word >> (wanted & 63)) & (word >> ((wanted >> (shift & 31)) & 63)) & 1:
            return
        table = bloom + 8 * words
        row = _WORD.unpack(self.read(table + 4 * (wanted % buckets), 4))[0]
        if row == 0:
            return
        if row < first:
            self.refuse("a symbol hash bucket leads outside of its chains")
        chains = table + 4 * buckets
        for step in range(_MAX_CHAIN):
            value = _WORD.unpack(self.read(chains + 4 * (row + step - first), 4))[0]
            if value | 1 == wanted | 1:
                yield row + step
            if value & 1:  # the end of the chain
                return
        self.refuse(f"a symbol hash chain of more than {_MAX_CHAIN} entries")

    def _sysv_rows(self, name: str) -> Iterator[int]:
        # The same by DT_HASH, where the hashes themselves are not kept.
        offset = self.file_offset(self._dynamic[_DT_HASH])
        buckets, count = struct.unpack("<II", self.read(offset, 8))
        if not buckets:
            return
        row = _WORD.unpack(self.read(offset + 8 + 4 * (_sysv_hash(name) % buckets), 4))[0]
        chains = offset + 8 + 4 * buckets
        for _ in range(_MAX_EQUAL_HASHES):
            if row == 0:  # STN_UNDEF ends the chain
                return
            if row >= count:
                self.refuse("a symbol hash chain leads outside of its table")
            yield row
            row = _WORD.unpack(self.read(chains + 4 * row, 4))[0]
        self.refuse(f"a symbol hash chain of more than {_MAX_EQUAL_HASHES} entries")

    # The full symbol table

    def symtab(self, names: Iterable[str], *, variables: bool = False) -> dict[str, Symbol]:
        """Return those of the functions that ``.symtab`` defines, hidden and local ones too.

        With ``variables``, variables of these names instead.

        No loop runs over the symbols: the names are searched in the strings, and the places where
        they were found are searched in the column of name offsets. A damaged table is as good as
        none, since nothing that runs the program reads it.
        """
        table = next((s for s in self.sections if s.type == _SHT_SYMTAB), None)
        if table is None or table.link >= len(self.sections):
            return {}
        strings = self.sections[table.link]
        if max(table.size, strings.size) > _MAX_SYMBOL_TABLE:
            return {}
        try:
            places = self._places(strings, [(name, os.fsencode(name) + b"\0") for name in names])
            return self._rows_named(table, places, _kind(variables)) if places else {}
        except NotExecutable:
            return {}

    def _places(self, strings: Section, names: Sequence[tuple[str, bytes]]) -> dict[int, str]:
        # Offsets in the string table where a name ends a string. Linkers let a name share the
        # tail of a longer one, so what stands before it does not matter.
        places: dict[int, str] = {}
        longest = max((len(wanted) for _, wanted in names), default=1)
        for offset, block in self.blocks(strings.offset, strings.size, longest - 1):
            for name, wanted in names:
                at = block.find(wanted)
                while at >= 0:
                    places[offset + at - strings.offset] = name
                    if len(places) > _MAX_NAME_HITS:
                        self.refuse("a symbol table that repeats names without end")
                    at = block.find(wanted, at + 1)
        return places

    def _rows_named(
        self, table: Section, places: dict[int, str], wanted_kind: int
    ) -> dict[str, Symbol]:
        best: dict[str, _Candidate] = {}
        wanted = set(places)
        rows = 0
        whole = table.size - table.size % _SYMBOL.size
        step = CHUNK - CHUNK % _SYMBOL.size
        for offset in range(table.offset, table.offset + whole, step):
            block = self.read(offset, min(step, table.offset + whole - offset))
            column = memoryview(block).cast("I")[:: _SYMBOL.size // 4].tolist()
            for at in wanted.intersection(column):
                for row in _positions(column, at):
                    rows += 1
                    if rows > _MAX_ROWS:
                        self.refuse("a symbol table that repeats symbols without end")
                    found = _candidate(block, row, places[at], wanted_kind)
                    name = places[at]
                    if found and (name not in best or found.rank < best[name].rank):
                        best[name] = found
        return {name: found.symbol for name, found in best.items()}

    # Content

    @cached_property
    def constants(self) -> Ranges:
        """Parts of the file, as (offset, length), in which its string constants are.

        With a ``.rodata`` section that and the loaded parts that are neither code nor writable,
        else every loaded part that is not writable. Sorted, without overlap.
        """
        sections = [
            (section.offset, section.size)
            for section in self.sections
            if section.name.startswith(".rodata") and section.type != _SHT_NOBITS
        ]
        refused = _PF_W | (_PF_X if sections else 0)
        loaded = [
            (segment.offset, segment.file_size)
            for segment in self.segments
            if segment.type == _PT_LOAD and not segment.flags & refused
        ]
        return ranges_within(self.size, sections + loaded)

    @cached_property
    def writable_offsets(self) -> tuple[int, ...]:
        """Where in the file the loaded parts start that the program may write to."""
        return tuple(
            segment.offset
            for segment in self.segments
            if segment.type == _PT_LOAD and segment.flags & _PF_W and segment.file_size
        )[:8]


def _string_in(texts: bytes, at: int) -> str:
    end = texts.find(b"\0", at)
    return os.fsdecode(texts[at : min(end, at + _MAX_SECTION_NAME)]) if at <= end else ""


def _positions(column: Sequence[int], value: int) -> Iterator[int]:
    at = -1
    while True:
        try:
            at = column.index(value, at + 1)
        except ValueError:
            return
        yield at


def _kind(variable: bool) -> int:  # noqa: FBT001 - one word for one bit
    return _STT_OBJECT if variable else _STT_FUNC


def _candidate(block: bytes, row: int, name: str, wanted_kind: int) -> _Candidate | None:
    _, kind, _, section, address, size = _SYMBOL.unpack_from(block, row * _SYMBOL.size)
    if kind & 15 != wanted_kind or not section or not address:
        return None
    return _Candidate(int(kind >> 4 == _STB_LOCAL), Symbol(name, address, size))


@lru_cache(maxsize=256)
def _gnu_hash(name: str) -> int:
    value = 5381
    for byte in os.fsencode(name):
        value = (value * 33 + byte) & 0xFFFFFFFF
    return value


@lru_cache(maxsize=256)
def _sysv_hash(name: str) -> int:
    value = 0
    for byte in os.fsencode(name):
        value = (value << 4) + byte
        high = value & 0xF0000000
        value = (value ^ (high >> 24)) & ~high & 0xFFFFFFFF
    return value
