# SPDX-License-Identifier: Apache-2.0
"""Finds the functions of a Go program, stripped or not, and the places where they return.

Every Go program carries the table of its functions that its runtime needs for stack traces
(``.gopclntab``). Strategy: find the table by its section or, where sections are gone, by its magic;
look the names up; then prove each address by its code. What is taken for the start of a function
must begin with the check of the stack's limit that Go's compiler puts there, which also tells the
calling convention: it reaches the goroutine through a register (Go 1.17 and later on x86-64, 1.18
on AArch64) or through thread-local storage, in which case arguments are on the stack.

A function is read from its first to its last byte, instruction by instruction: returns are those
that decoding met, and every jump inside of the function must lead to an instruction that it met.

Invariants: nothing is named whose code was not checked; only NotExecutable leaves this module; all
loops are bounded by the constants below.

Layouts: Go 1.2 to 1.15, 1.16, 1.18 and 1.20 (src/debug/gosym/pclntab.go and src/runtime/symtab.go
of each). A text start of 0 means that the program knows it by other means, as since Go 1.26.
"""

from __future__ import annotations

import re
import struct
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import islice
from typing import Final, Literal, NamedTuple

from ecapture.binary.elf import ElfFile
from ecapture.binary.secrets.image import Image
from ecapture.binary.secrets.operations import Branch, Jump, Return
from ecapture.errors import NotExecutable

Convention = Literal["register", "stack"]

READ: Final = "crypto/tls.(*Conn).Read"
WRITE: Final = "crypto/tls.(*Conn).Write"
KEY_LOG: Final = "crypto/tls.(*Config).writeKeyLog"
FUNCTIONS: Final = (
    READ,
    WRITE,
    "crypto/tls.(*Conn).Close",
    "crypto/tls.(*Conn).clientHandshake",
    "crypto/tls.(*Conn).serverHandshake",
    KEY_LOG,
)
"""What is worth hooking in crypto/tls."""

SOCKET_READ: Final = "net.(*TCPConn).Read"
"""In the method table of an interface it proves that the interface holds a TCP connection."""

_MAX_TABLE = 1 << 29
_MAX_FUNCTIONS = 1 << 21
_MAX_TABLES = 64  # places that look like a table
_MAX_NAME_HITS = 64
_MAX_RECORD_HITS = 1 << 16
_MAX_FUNCTION = 1 << 16  # bytes
_BASE_SEARCH = 1 << 20  # bytes of a program in which its Go code must begin
_MAX_BASES = 1 << 16  # places where it could; of a megabyte of code at most
_MAX_TEXT = 64
_STEP = 1 << 14
_ALIGNMENT = 16  # of functions, at least
_BEGINNING = 32  # bytes that hold the check of the stack

_HEADER = struct.Struct("<IBBBB")
_WORD = struct.Struct("<Q")
_SECTIONS = (".gopclntab", ".data.rel.ro.gopclntab")

# How functions of Go begin: the limit of the stack is compared with the stack pointer, or with what
# it would become. By machine and convention.
_BEGINNINGS: Final[dict[str, dict[Convention, re.Pattern[bytes]]]] = {
    "x86_64": {
        "register": re.compile(
            rb"(?:\x4c\x8d\x64\x24.|\x4c\x8d\xa4\x24.{4}|\x49\x89\xe4\x49\x81\xec.{4}.{2,6})?"
            rb"[\x49\x4d]\x3b\x66\x10",  # [lea r12, [rsp-N]]; cmp rsp or r12, [r14+16]
            re.DOTALL,
        ),
        "stack": re.compile(
            rb"(?:\x64\x48\x8b\x0c\x25.{4}"  # mov rcx, fs:OFFSET
            rb"|(?:\x48\x8b\x0d.{4}|\x48\xc7\xc1.{4})\x64\x48\x8b\x09)"  # that from elsewhere
            rb"(?:\x48\x8d\x44\x24.|\x48\x8d\x84\x24.{4})?"  # [lea rax, [rsp-N]]
            rb"\x48\x3b[\x61\x41]\x10",  # cmp rsp or rax, [rcx+16]
            re.DOTALL,
        ),
    },
    # ldr xN, [x28, #16]. N is 16 since arguments are in registers, of which x1 was one.
    "aarch64": {
        "register": re.compile(rb"\x90\x0b\x40\xf9"),
        "stack": re.compile(rb"[\x80-\x8f\x91-\x9f]\x0b\x40\xf9"),
    },
}


class Span(NamedTuple):
    """A function: addresses of its first byte and of the next function."""

    start: int
    end: int


class GoCode(NamedTuple):
    """What was proven, as offsets in the file.

    ``reason``: why nothing was, else empty. ``absent``: because crypto/tls is not in the program.
    """

    convention: Convention | Literal[""] = ""
    functions: dict[str, int] = {}  # noqa: RUF012 - never written to
    returns: dict[str, tuple[int, ...]] = {}  # noqa: RUF012
    reason: str = ""
    absent: bool = False


class _Layout(NamedTuple):
    # How a version of the table is built. Widths in bytes.
    fields: int  # words of the header after the number of functions
    width: int  # of one number in the table of functions
    relative: bool  # to the start of the text


_LAYOUTS = {
    0xFFFFFFFB: _Layout(0, 8, relative=False),  # Go 1.2
    0xFFFFFFFA: _Layout(6, 8, relative=False),  # Go 1.16
    0xFFFFFFF0: _Layout(7, 4, relative=True),  # Go 1.18
    0xFFFFFFF1: _Layout(7, 4, relative=True),  # Go 1.20
}


class Table:
    """The function table at a file offset; it ends before ``end`` at the latest.

    Raises:
        NotExecutable: there is none.
    """

    def __init__(self, elf: ElfFile, start: int, end: int) -> None:
        self._elf = elf
        self._start, self._end = start, min(end, elf.size, start + _MAX_TABLE)
        magic, zero, zeros, quantum, pointer = _HEADER.unpack(elf.read(start, _HEADER.size))
        layout = _LAYOUTS.get(magic)
        if layout is None or zero or zeros or quantum not in (1, 4) or pointer != 8:
            elf.refuse("not a Go function table")
        self._layout = layout
        size = 8 * (1 + layout.fields)
        words = [word[0] for word in _WORD.iter_unpack(elf.read(start + _HEADER.size, size))]
        self.count = words[0]
        self.text_start = 0
        if layout.fields:
            if layout.relative:
                self.text_start = words[2]
            names, after_names, functions = words[-5], words[-4], words[-1]
            self._names = self._part(names, after_names)
            self._functions = self._records = start + functions
        else:
            self._names = (start, self._end)
            self._records = start
            self._functions = start + _HEADER.size + size
        after = self._functions + (2 * self.count + 1) * layout.width
        if not 0 < self.count <= _MAX_FUNCTIONS or after > self._end:
            elf.refuse("a Go function table that does not fit into its file")

    @property
    def relative(self) -> bool:
        """Whether addresses count from the start of the text."""
        return self._layout.relative

    def _part(self, start: int, end: int) -> tuple[int, int]:
        if not 0 < start <= end <= self._end - self._start:
            self._elf.refuse("a Go function table whose parts are elsewhere")
        return self._start + start, self._start + end

    def find(self, names: Iterable[str]) -> dict[str, Span]:
        """Return the functions of these names. One that is there twice is left out."""
        places = self._name_places(names)
        found: dict[str, Span | None] = {}
        for name, row in self._rows(places):
            found[name] = None if name in found else self._span(row)
        return {name: span for name, span in found.items() if span is not None}

    def _name_places(self, names: Iterable[str]) -> dict[int, str]:
        # Where the names stand, as records refer to them.
        wanted = [(name, name.encode() + b"\0") for name in names]
        longest = max(len(text) for _, text in wanted)
        start, end = self._names
        origin = start if self._layout.fields else self._start
        places: dict[int, str] = {}
        for offset, block in self._elf.blocks(start, end - start, longest):
            for name, text in wanted:
                at = block.find(text)
                while at >= 0 and len(places) < _MAX_NAME_HITS:
                    places[offset + at - origin] = name
                    at = block.find(text, at + 1)
        return places

    def _rows(self, places: dict[int, str]) -> Iterator[tuple[str, int]]:
        # Every record that has one of the names, as its row in the table of functions.
        field = self._layout.width  # the name follows the address
        wanted = [(name, place.to_bytes(4, "little")) for place, name in places.items()]
        seen: set[int] = set()
        hits = 0
        for offset, block in self._elf.blocks(self._records, self._end - self._records, 3):
            for name, text in wanted:
                at = block.find(text)
                while at >= 0:
                    record = offset + at - field - self._records
                    if record % 4 == 0:
                        hits += 1
                        if hits > _MAX_RECORD_HITS:
                            self._elf.refuse("a Go function table that repeats itself without end")
                        row = self._row_of(record)
                        if row is not None and row not in seen:
                            seen.add(row)
                            yield name, row
                    at = block.find(text, at + 1)

    @cached_property
    def _pairs(self) -> memoryview:
        # Address and record of every function, and at last the address behind all of them.
        width = self._layout.width
        size = (2 * self.count + 1) * width
        blocks = self._elf.blocks(self._functions, size, 0)
        return memoryview(b"".join(block for _, block in blocks)).cast("I" if width == 4 else "Q")

    def _row_of(self, record: int) -> int | None:
        # Records stand in the order of their functions.
        records = self._pairs[1::2]
        row = bisect_left(records, record)
        return row if row < self.count and records[row] == record else None

    def _span(self, row: int) -> Span:
        return Span(self._pairs[2 * row], self._pairs[2 * row + 2])


def find_table(elf: ElfFile) -> Table | None:
    """Return the program's function table, by its section or by its magic; None if it has none."""
    for name in _SECTIONS:
        if section := elf.section(name):
            try:
                return Table(elf, section.offset, section.offset + section.size)
            except NotExecutable:
                continue
    quantum = 4 if elf.machine == "aarch64" else 1
    heads = {_HEADER.pack(magic, 0, 0, quantum, 8) for magic in _LAYOUTS}
    # All but the first byte is the same, and a search for one text is several times faster.
    (rest,) = {head[1:] for head in heads}
    tries = 0
    for start, length in _loaded(elf):
        for offset, block in elf.blocks(start, length, _HEADER.size - 1):
            at = -1
            while (at := block.find(rest, at + 1)) >= 0:
                place = offset + at - 1
                if place % 8 or block[max(0, at - 1) : at + len(rest)] not in heads:
                    continue
                tries += 1
                if tries > _MAX_TABLES:
                    return None
                try:
                    return Table(elf, place, start + length)
                except NotExecutable:
                    continue
    return None


def _loaded(elf: ElfFile) -> list[tuple[int, int]]:
    # Parts of the file that could hold the table, smallest section first where there are sections.
    return [(part.offset, part.size) for part in Image(elf).parts]


def text_at(elf: ElfFile, address: int) -> str:
    """Return what the string variable at an address holds in the file; empty if that is no text."""
    image = Image(elf)
    words = image.bytes_at(address, 2 * _WORD.size)
    if len(words) < 2 * _WORD.size:
        return ""
    start, length = (word[0] for word in _WORD.iter_unpack(words))
    text = image.bytes_at(start, length) if length <= _MAX_TEXT else b""
    return text.decode("ascii", "replace") if text.isascii() else ""


def locate(elf: ElfFile, table: Table | None = None) -> GoCode:
    """Return where crypto/tls reads and writes in a program, and where those calls return.

    Raises:
        NotExecutable: the file contradicts itself.
    """
    table = table or find_table(elf)
    if table is None:
        return GoCode(reason="its table of functions was not found")
    spans = table.find((*FUNCTIONS, SOCKET_READ))
    missing = [name for name in (READ, WRITE) if name not in spans]
    if missing:
        reason = f"has no function {' and '.join(missing)}"
        return GoCode(reason=reason, absent=len(missing) == 2)
    image = Image(elf)
    based = _placed(image, table, spans)
    if based is None:
        return GoCode(reason="the functions that its table names do not begin where it says")
    spans, convention = based
    returns = {}
    for name in (READ, WRITE):
        sites = _returns(image, spans[name])
        if not sites:
            return GoCode(reason=f"the returns of {name} cannot be told for sure")
        returns[name] = tuple(_offset(elf, site) for site in sites)
    functions = {name: _offset(elf, span.start) for name, span in spans.items()}
    return GoCode(convention, functions, returns)


def _offset(elf: ElfFile, address: int) -> int:
    return elf.file_offset(address, executable=True)


# Proof


def _placed(
    image: Image, table: Table, spans: dict[str, Span]
) -> tuple[dict[str, Span], Convention] | None:
    # The functions where they are, once their code agrees.
    checked = [spans[name] for name in FUNCTIONS if name in spans]
    if not table.relative:
        bases = {0}
    elif table.text_start:
        bases = {table.text_start}
    else:
        found = list(islice(_searched(image, checked[0].start), _MAX_BASES + 1))
        if len(found) > _MAX_BASES:  # no compiler's: more would have to be tried than is worth it
            return None
        bases = set(found)
    fitting = [
        (base, convention)
        for base in bases
        if (convention := _convention_of_all(image, base, checked))
    ]
    if len(fitting) != 1:
        return None
    base, convention = fitting[0]
    moved = {name: Span(base + span.start, base + span.end) for name, span in spans.items()}
    return {n: s for n, s in moved.items() if image.part_of(s.start, executable=True)}, convention


def _searched(image: Image, distance: int) -> Iterator[int]:
    # Where the text may start if a function is so many bytes behind: with its section or, where a
    # C compiler has put code of its own in front, somewhat later.
    patterns = _BEGINNINGS.get(image.machine, {})
    for part in image.parts:
        first = part.address + distance
        last = min(first + _BASE_SEARCH, part.address + part.size) if part.executable else first
        for address in range(first, last, _STEP):
            block = image.bytes_at(address, _STEP + _BEGINNING)
            for pattern in patterns.values():
                for match in pattern.finditer(block):
                    if match.start() < _STEP and (address + match.start()) % _ALIGNMENT == 0:
                        yield address + match.start() - distance


def _convention_of_all(image: Image, base: int, spans: list[Span]) -> Convention | None:
    # None: not all of them begin as functions of Go do, or not all in the same way.
    found: set[Convention | None] = set()
    for span in spans:
        if not 0 < span.end - span.start <= _MAX_FUNCTION:
            return None
        if image.part_of(base + span.start, executable=True) is None:
            return None
        found.add(_convention(image.machine, image.bytes_at(base + span.start, _BEGINNING)))
    return found.pop() if len(found) == 1 else None


def _convention(machine: str, code: bytes) -> Convention | None:
    for convention, pattern in _BEGINNINGS.get(machine, {}).items():
        if pattern.match(code):
            return convention
    return None


def _returns(image: Image, span: Span) -> list[int]:
    # The return instructions of a function; none if reading it leaves any doubt.
    starts: set[int] = set()
    targets: set[int] = set()
    found: list[int] = []
    address = span.start
    while address < span.end:
        starts.add(address)
        instruction = image.instruction(address)
        if instruction.end <= address:
            return []
        for operation in instruction.operations:
            if isinstance(operation, Return):
                found.append(address)
            elif isinstance(operation, (Branch, Jump)) and operation.target is not None:
                targets.add(operation.target)
        address = instruction.end
    # A jump out of the function would be a return that we cannot see.
    return found if address == span.end and targets <= starts else []
