# SPDX-License-Identifier: Apache-2.0
"""The function table of Go programs, in every layout, on programs made up byte by byte."""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from ecapture.binary import golang
from ecapture.binary.elf import ElfFile
from ecapture.binary.golang import GoCode
from ecapture.binary.identify import identify
from ecapture.errors import NotExecutable, TargetError

LAYOUTS = {"1.2": 0xFFFFFFFB, "1.16": 0xFFFFFFFA, "1.18": 0xFFFFFFF0, "1.20": 0xFFFFFFF1}
TEXT_OFFSET, TEXT, TABLE_OFFSET, TABLE = 0x1000, 0x401000, 0x3000, 0x603000
OFFSET_OF = TEXT_OFFSET - TEXT  # from an address to the place in the file

# The check of the stack at the beginning, a body that has returns and bytes that look like some.
REGISTER = bytes.fromhex("493b6610")  # cmp rsp, [r14+16]
REGISTER_LARGE = bytes.fromhex("4c8da42400ffffff 4d3b6610")  # lea r12, [rsp-256]; cmp
STACK = bytes.fromhex("64488b0c25f8ffffff 483b6110")  # mov rcx, fs:-8; cmp rsp, [rcx+16]
STACK_PIC = bytes.fromhex("488b0d11223300 64488b09 488d842400ffffff 483b4110")
STACK_PIE = bytes.fromhex("48c7c1f8ffffff 64488b09 483b6110")


def body(start: bytes) -> tuple[bytes, list[int]]:
    """A function of x86-64, and where its returns are."""
    # mov eax, 0xc3c3c3c3; je to the second ret's block; ret; jmp to the start; ret
    code = start + bytes.fromhex("b8c3c3c3c3") + bytes.fromhex("7406") + b"\xc3"
    code += b"\xe9" + struct.pack("<i", -(len(code) + 5)) + b"\xc3"
    first = len(start) + 7
    return code, [first, first + 6]


def padded(code: bytes, fill: bytes = b"\xcc") -> bytes:
    return code + fill * (-len(code) % 32 // len(fill))


class Program:
    """A Go program: functions of a name and code each, in one of the layouts of the table."""

    def __init__(
        self,
        layout: str,
        functions: Sequence[tuple[str, bytes]],
        *,
        base: int = TEXT,
        text_start: int | None = None,
        machine: int = 62,
        before: bytes = b"",
    ) -> None:
        self.layout, self.machine = layout, machine
        self.text = before
        self.starts = []
        for _, code in functions:
            self.starts.append(TEXT + len(self.text))
            self.text += padded(code, b"\0\0\0\0" if machine == 183 else b"\xcc")
        self.end = TEXT + len(self.text)
        self.base = base
        self.text_start = base if text_start is None else text_start
        self.names = [name for name, _ in functions]
        self.table = self._table()

    def _table(self) -> bytes:
        quantum = 4 if self.machine == 183 else 1
        head = struct.pack("<IBBBB", LAYOUTS[self.layout], 0, 0, quantum, 8)
        texts = b"".join(name.encode() + b"\0" for name in self.names)
        places = [0]
        for name in self.names:
            places.append(places[-1] + len(name) + 1)
        count = len(self.names)
        if self.layout == "1.2":
            rows_at = 16
            records_at = rows_at + 16 * count + 8 + 8
            texts_at = records_at + 40 * count
            rows, records = self._rows("<QQ", records_at), b""
            for start, place in zip(self.starts, places, strict=False):
                records += struct.pack("<Qi28x", start, texts_at + place)
            return head + struct.pack("<Q", count) + rows + bytes(8) + records + texts
        relative = self.layout != "1.16"
        width = 4 if relative else 8
        rows_size = 2 * width * count + width
        names_at = 8 + 8 * (8 if relative else 7)
        texts += bytes(-(names_at + len(texts)) % 8)
        functions_at = names_at + len(texts) + 24
        rows_size += -rows_size % 8
        form = "<II" if relative else "<QQ"
        rows = self._rows(form, rows_size).ljust(rows_size, b"\0")
        records = b""
        for start, place in zip(self.starts, places, strict=False):
            shape, at = ("<Ii32x", start - self.base) if relative else ("<Qi28x", start)
            records += struct.pack(shape, at, place)
        words = [count, 1, *([self.text_start] if relative else []), names_at]
        words += [names_at + len(texts), functions_at - 16, functions_at - 8, functions_at]
        return head + struct.pack(f"<{len(words)}Q", *words) + texts + bytes(24) + rows + records

    def _rows(self, form: str, records_at: int) -> bytes:
        base = self.base if form == "<II" else 0
        rows = b"".join(
            struct.pack(form, start - base, records_at + 40 * number)
            for number, start in enumerate(self.starts)
        )
        return rows + struct.pack(form[:2], self.end - base)

    def file(self, *, constants: bytes = b"") -> bytes:
        """An ELF file without section headers: one part of code, one of constants."""
        head = b"\x7fELF\x02\x01\x01" + bytes(9)
        head += struct.pack(
            "<HHIQQQIHHHHHH", 2, self.machine, 1, TEXT, 64, 0, 0, 64, 56, 2, 0, 0, 0
        )
        table = self.table + constants
        for flags, offset, address, size in (
            (5, TEXT_OFFSET, TEXT, len(self.text)),
            (4, TABLE_OFFSET, TABLE, len(table)),
        ):
            head += struct.pack("<IIQQQQQQ", 1, flags, offset, address, address, size, size, 4096)
        content = head.ljust(TEXT_OFFSET, b"\0") + self.text
        return content.ljust(TABLE_OFFSET, b"\0") + table


@pytest.fixture
def locate(tmp_path: Path) -> Callable[[bytes], GoCode]:
    def run(content: bytes) -> GoCode:
        (tmp_path / "program").write_bytes(content)
        with ElfFile(tmp_path / "program") as elf:
            return golang.locate(elf)

    return run


def crypto_tls(start: bytes) -> list[tuple[str, bytes]]:
    code, _ = body(start)
    names = [*golang.FUNCTIONS, golang.SOCKET_READ]
    sized = [(name, code + b"\x90" * (n * n % 7 * 20)) for n, name in enumerate(names)]
    return [("main.main", start + b"\xc3"), *sized, ("runtime.morestack", b"\xc3")]


def assert_found(found: GoCode, program: Program, start: bytes, convention: str) -> None:
    assert found.reason == ""
    assert found.convention == convention
    places = dict(zip(program.names, program.starts, strict=True))
    wanted = (*golang.FUNCTIONS, golang.SOCKET_READ)
    assert found.functions == {name: places[name] + OFFSET_OF for name in wanted}
    _, returns = body(start)
    for name in (golang.READ, golang.WRITE):
        assert found.returns[name] == tuple(places[name] + OFFSET_OF + at for at in returns)


STARTS = {
    "register": (REGISTER, "register"),
    "register-large": (REGISTER_LARGE, "register"),
    "stack": (STACK, "stack"),
    "stack-pic": (STACK_PIC, "stack"),
    "stack-pie": (STACK_PIE, "stack"),
}


@pytest.mark.parametrize(("start", "convention"), STARTS.values(), ids=STARTS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_and_convention(locate, layout, start, convention):
    program = Program(layout, crypto_tls(start))
    assert_found(locate(program.file()), program, start, convention)


@pytest.mark.parametrize("distance", [0, 256, 0x1000 - 32])
def test_code_that_begins_elsewhere_is_found_by_its_functions(locate, distance):
    before = bytes.fromhex("f30f1efa c3").ljust(distance, b"\xcc") if distance else b""
    functions = crypto_tls(REGISTER)
    program = Program("1.20", functions, base=TEXT + distance, text_start=0, before=before)
    assert_found(locate(program.file()), program, REGISTER, "register")


def test_code_that_could_begin_in_two_places_is_not_taken(locate):
    functions = [(name, body(REGISTER)[0]) for name in (*golang.FUNCTIONS, "main.main")]
    found = locate(Program("1.20", functions, text_start=0).file())
    assert found.reason == "the functions that its table names do not begin where it says"


def test_code_that_could_begin_in_very_many_places_is_not_tried(locate, monkeypatch):
    monkeypatch.setattr(golang, "_MAX_BASES", 4)
    program = Program("1.20", crypto_tls(REGISTER), text_start=0)
    found = locate(program.file())
    assert found.reason == "the functions that its table names do not begin where it says"
    program = Program("1.20", crypto_tls(REGISTER))
    assert_found(locate(program.file()), program, REGISTER, "register")


def aarch64(*words: int) -> bytes:
    return b"".join(word.to_bytes(4, "little") for word in words)


@pytest.mark.parametrize(("scratch", "convention"), [(16, "register"), (1, "stack")])
def test_aarch64(locate, scratch, convention):
    # ldr xN, [x28, #16]; ret; b to the start; ret
    code = aarch64(0xF9400B80 | scratch, 0xD65F03C0, 0x17FFFFFE, 0xD65F03C0)
    names = [*golang.FUNCTIONS, golang.SOCKET_READ]
    program = Program("1.18", [(name, code) for name in names], machine=183)
    found = locate(program.file())
    assert (found.convention, found.reason) == (convention, "")
    start = found.functions[golang.READ]
    assert found.returns[golang.READ] == (start + 4, start + 12)


def test_a_program_without_tls_has_none(locate):
    found = locate(Program("1.20", [("main.main", body(REGISTER)[0])]).file())
    assert found.absent
    assert locate(Program("1.20", crypto_tls(REGISTER)[:2]).file()).absent is False


def test_what_is_not_go_has_no_table(locate):
    program = Program("1.20", crypto_tls(REGISTER))
    found = locate(program.file().replace(program.table[:4], b"none"))
    assert (found.reason, found.functions) == ("its table of functions was not found", {})


def doubtful() -> dict[str, list[tuple[str, bytes]]]:
    code, _ = body(REGISTER)
    changed = {
        "another beginning": bytes.fromhex("554889e5c3"),
        "two conventions": body(STACK)[0],
        "no return": REGISTER + b"\x0f\x0b",
        "leaves by a jump": REGISTER + bytes.fromhex("e900100000 c3"),
        "jumps into an instruction": REGISTER + bytes.fromhex("b8c3c3c3c3 ebfa c3"),
        "no instruction": REGISTER + b"\x06\xc3",
    }
    names = [name for name in golang.FUNCTIONS if name != golang.READ]
    return {
        what: [(golang.READ, other), *((name, code) for name in names)]
        for what, other in changed.items()
    }


@pytest.mark.parametrize("functions", doubtful().values(), ids=doubtful())
def test_no_proof_no_place(locate, functions):
    found = locate(Program("1.20", functions).file())
    assert found.reason
    assert (found.functions, found.returns, found.convention) == ({}, {}, "")


def test_a_name_that_is_there_twice_names_nothing(locate):
    functions = crypto_tls(REGISTER)
    found = locate(Program("1.20", [*functions, functions[1]]).file())
    assert golang.READ in found.reason


def test_a_table_behind_false_ones(locate):
    program = Program("1.20", crypto_tls(REGISTER))
    false = program.table[:8] + b"\xff" * 120
    program.table = 3 * false + program.table
    assert_found(locate(program.file()), program, REGISTER, "register")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_damaged_files_yield_nothing_else_than_our_error(tmp_path, layout):
    whole = Program(layout, crypto_tls(REGISTER)).file(
        constants=b"TLS 1.3, client CertificateVerify"
    )
    chance = random.Random(layout)
    path = tmp_path / "program"
    begun = time.process_time()
    for _ in range(400):
        content = bytearray(whole)
        for _ in range(chance.choice((1, 2, 8))):
            at = chance.choice((chance.randrange(200), TABLE_OFFSET + chance.randrange(600)))
            content[at : at + 4] = chance.choice(
                (b"\xff\xff\xff\xff", bytes(4), chance.randbytes(4))
            )
        path.write_bytes(
            bytes(content[: chance.choice((len(content), chance.randrange(len(content))))])
        )
        try:
            with ElfFile(path) as elf:
                found = golang.locate(elf)
                identify(elf)
        except TargetError:
            continue
        for offset in (
            *found.functions.values(),
            *(r for rs in found.returns.values() for r in rs),
        ):
            assert 0 <= offset < len(content)
    assert time.process_time() - begun < 20


def test_a_table_that_repeats_itself_is_refused_in_time(tmp_path):
    program = Program("1.20", crypto_tls(REGISTER))
    place = program.table.index(golang.READ.encode()) - program.table.index(b"main.main")
    program.table += struct.pack("<I", place) * (1 << 18)
    (tmp_path / "program").write_bytes(program.file())
    begun = time.process_time()
    with ElfFile(tmp_path / "program") as elf, pytest.raises(NotExecutable):
        golang.locate(elf)
    assert time.process_time() - begun < 20


def test_a_stripped_program_is_known_without_build_information(tmp_path):
    program = Program("1.20", crypto_tls(REGISTER))
    (tmp_path / "program").write_bytes(program.file(constants=b"TLS 1.3, client CertificateVerify"))
    with ElfFile(tmp_path / "program") as elf:
        library = identify(elf)
    assert library is not None
    assert (library.kind, library.how, library.convention) == ("go", "gopclntab", "register")
    assert set(library.returns) == {golang.READ, golang.WRITE}
    assert all(a < b for a, b in pairwise(library.returns[golang.READ]))


def test_an_experimental_calling_convention_is_refused(tmp_path, monkeypatch):
    program = Program("1.20", crypto_tls(REGISTER))
    said = b"go1.22.1 X:noregabi"
    information = b"\xff Go buildinf:\x08\x02".ljust(32, b"\0") + bytes((len(said),)) + said
    content = bytearray(program.file(constants=bytes(64) + information))
    content[64 + 56 + 4 : 64 + 56 + 8] = struct.pack("<I", 6)  # the second part may be written to
    at = content.index(b"\xff Go buildinf:")
    assert at - TABLE_OFFSET < 1 << 16
    (tmp_path / "program").write_bytes(content)
    with ElfFile(tmp_path / "program") as elf:
        library = identify(elf)
    assert library is not None
    assert not library.visible
    assert "experimental" in library.reason


@pytest.mark.parametrize(
    ("address", "length", "version"),
    [(TABLE, 9, "go1.16.15"), (TABLE, 5000, ""), (1 << 62, 9, ""), (TABLE, 0, "")],
)
def test_the_version_of_older_programs_is_behind_a_pointer(tmp_path, address, length, version):
    program = Program("1.16", crypto_tls(STACK))
    program.table = b"go1.16.15".ljust(16, b"\0") + program.table
    there = TABLE + len(program.table)  # of the string variable
    information = struct.pack("<QQ", address, length) + b"\xff Go buildinf:\x08\x00"
    content = bytearray(program.file(constants=information + struct.pack("<QQ", there, 0)))
    content[64 + 56 + 4 : 64 + 56 + 8] = struct.pack("<I", 6)  # the second part may be written to
    (tmp_path / "program").write_bytes(content)
    with ElfFile(tmp_path / "program") as elf:
        library = identify(elf)
    assert library is not None
    assert (library.version, library.convention) == (version, "stack")
