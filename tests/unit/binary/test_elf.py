# SPDX-License-Identifier: Apache-2.0
"""The ELF reader agrees with binutils on real files, and survives hostile ones."""

from __future__ import annotations

import os
import random
import re
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecapture.binary import elf as module
from ecapture.binary.elf import ElfFile
from ecapture.errors import NotExecutable

Compile = Callable[..., Path]

LIBSSL = Path("/usr/lib/x86_64-linux-gnu/libssl.so.3")
NAMES = ["SSL_read", "SSL_write", "SSL_read_ex", "SSL_write_ex", "SSL_set_fd", "SSL_free"]

VERSIONED = """
__attribute__((noinline)) int old_pick(int x) { return x + 1; }
__attribute__((noinline)) int new_pick(int x) { return x + 2; }
__asm__(".symver old_pick, pick@OLD_1");
__asm__(".symver new_pick, pick@@NEW_2");
int plain(void) { return 7; }
static int used(int x) { return x * 3; }
static void *choose(void) { return (void *)used; }
int chosen(int x) __attribute__((ifunc("choose")));
int number = 5;
extern int imported(void);
int calls(void) { return imported(); }
"""


def nm(path: Path, *options: str) -> dict[str, int]:
    """Defined functions by name, default versions only, as binutils sees them."""
    text = subprocess.run(
        ["nm", "--defined-only", *options, str(path)], check=True, capture_output=True, text=True
    ).stdout
    functions = {}
    for line in text.splitlines():
        address, kind, name = line.split()[:3]
        bare, _, version = name.partition("@")
        if kind in "tTwW" and (not version or version.startswith("@")):
            functions[bare] = int(address, 16)
    return functions


def header(path: Path, option: str) -> str:
    return subprocess.run(
        ["readelf", option, "-W", str(path)], check=True, capture_output=True, text=True
    ).stdout


@pytest.fixture(scope="session")
def versioned(compile_c: Compile, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    script = tmp_path_factory.mktemp("script") / "versions"
    script.write_text(
        "OLD_1 { global: pick; }; NEW_2 { global: pick; plain; chosen; number; local: *; };"
    )

    def build(*options: str) -> Path:
        shared = ("-shared", "-fPIC", f"-Wl,--version-script={script}", "-Wl,-soname,libpick.so.2")
        return compile_c(VERSIONED, *shared, *options, name="libpick.so")

    return build


@pytest.mark.parametrize(
    "path", [LIBSSL, Path("/usr/bin/node"), Path("/bin/bash"), Path("/usr/bin/python3")], ids=str
)
def test_agrees_with_readelf_on_the_headers(path: Path) -> None:
    dynamic, notes = header(path, "-d"), header(path, "-n")
    with ElfFile(path) as elf:
        assert elf.machine == "x86_64"
        assert elf.type in ("shared", "executable")
        assert [elf.build_id] == re.findall(r"Build ID: (\w+)", notes)
        assert list(elf.needed) == re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic)
        assert [elf.soname] == (re.findall(r"\(SONAME\).*\[(.*)\]", dynamic) or [""])
        wanted = re.findall(r"interpreter: (.*)\]", header(path, "-l")) or [""]
        assert [elf.interpreter] == wanted
        rows = re.findall(r"^ *\[ *\d+\] (\S+)", header(path, "-S"), re.MULTILINE)
        assert [section.name for section in elf.sections if section.name] == rows


@pytest.mark.parametrize("path", [LIBSSL, Path("/usr/bin/node")], ids=str)
def test_agrees_with_nm_on_exported_functions(path: Path) -> None:
    truth = nm(path, "-D")
    with ElfFile(path) as elf:
        for name in [*NAMES, *random.Random(7).sample(sorted(truth), min(200, len(truth)))]:
            found = elf.symbol(name)
            if found is None:  # nm does not tell functions from addresses of another kind
                row = re.search(rf" (\w+) +\w+ +\w+ +\w+ {name}(@|$)", header(path, "--dyn-syms"))
                assert row is None or row[1] != "FUNC", name
            else:
                assert found.address == truth[name], name


def test_finds_every_exported_function_and_no_other(versioned: Callable[..., Path]) -> None:
    for style in ("gnu", "sysv", "both"):
        path = versioned(f"-Wl,--hash-style={style}")
        truth = nm(path, "-D")
        with ElfFile(path) as elf:
            assert elf.soname == "libpick.so.2"
            pick = elf.symbol("pick")
            assert pick is not None
            assert pick.address == truth["pick"], "the default version"
            assert elf.symbol("plain") is not None
            for none in ("imported", "chosen", "number", "old_pick", "calls", "", "x" * 5000):
                assert elf.symbol(none) is None, none


def test_needs_no_section_headers(versioned: Callable[..., Path]) -> None:
    path = versioned()
    content = bytearray(path.read_bytes())
    content[0x28:0x30] = bytes(8)  # e_shoff
    content[0x3C:0x40] = bytes(4)  # e_shnum, e_shstrndx
    bare = path.with_name("bare.so")
    bare.write_bytes(content)
    with ElfFile(path) as whole, ElfFile(bare) as elf:
        assert elf.sections == ()
        assert elf.symbol("pick") == whole.symbol("pick")
        assert elf.build_id == whole.build_id != ""
        assert elf.needed == whole.needed
        assert elf.symtab(["pick"]) == {}


def test_finds_hidden_and_local_functions(compile_c: Compile) -> None:
    text = """
    __attribute__((noinline, visibility("hidden"))) int SSL_read(int x) { return x + 1; }
    __attribute__((noinline)) static int my_SSL_read(int x) { return x + 3; }
    __attribute__((noinline)) static int local(int x) { return x + 4; }
    int SSL_write_count = 3;
    extern int puts(const char *);
    int main(int n, char **v) { return SSL_read(my_SSL_read(local(n))) + puts(v[0]); }
    """
    path = compile_c(text)
    truth = nm(path)
    with ElfFile(path) as elf:
        names = ["SSL_read", "local", "SSL_write_count", "puts", "main", "absent"]
        found = elf.symtab(names)
        assert set(found) == {"SSL_read", "local", "main"}
        assert {name: symbol.address for name, symbol in found.items()} == {
            name: truth[name] for name in found
        }
        assert all(symbol.size > 0 for symbol in found.values())
        assert elf.symbol("SSL_read") is None
    subprocess.run(["strip", str(path)], check=True)
    with ElfFile(path) as elf:
        assert elf.symtab(["SSL_read"]) == {}


def test_looks_up_a_large_symbol_table_fast() -> None:
    if Path("/usr/bin/node").stat().st_size < 10_000_000:
        pytest.skip("the node of this distribution is small: its code is in libraries")
    with ElfFile("/usr/bin/node") as elf:
        assert len(header(Path("/usr/bin/node"), "-S")) > 0
        best = 9.0
        for _ in range(5):
            start = time.perf_counter()
            found = elf.symtab(NAMES)
            best = min(best, time.perf_counter() - start)
        truth = nm(Path("/usr/bin/node"))
        assert {name: symbol.address for name, symbol in found.items()} == {
            name: truth[name] for name in NAMES
        }
        assert best < 5, "50 ms on a quiet machine"


def test_translates_addresses_to_offsets(compile_c: Compile) -> None:
    path = compile_c("int f(void) { return 0x11223344; } int main(void) { return f(); }")
    content = path.read_bytes()
    with ElfFile(path) as elf:
        address = elf.symtab(["f"])["f"].address
        offset = elf.file_offset(address, executable=True)
        assert b"\x44\x33\x22\x11" in content[offset : offset + 16]
        for nowhere in (0, 1 << 60, -1):
            with pytest.raises(NotExecutable):
                elf.file_offset(nowhere, executable=True)
        assert elf.file_offset(elf.entry) > 0


def test_reads_files_of_another_machine(tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text("int SSL_read(void) { return 1; }")
    path = tmp_path / "a.so"
    command = ["aarch64-linux-gnu-gcc", "-shared", "-nostdlib", "-o", str(path), "a.c"]
    subprocess.run(command, check=True, cwd=tmp_path)
    with ElfFile(path) as elf:
        assert elf.machine == "aarch64"
        assert elf.symbol("SSL_read") is not None


def test_refuses_what_is_not_elf64_little_endian(tmp_path: Path) -> None:
    good = Path("/bin/bash").read_bytes()[:8192]
    cases = {
        "not an ELF file": b"#!/bin/sh\n",
        "truncated": good[:20],
        "32-bit": good[:4] + b"\x01" + good[5:],
        "big-endian": good[:5] + b"\x02" + good[6:],
        "program headers of": good[:0x36] + b"\x20\x00" + good[0x38:],
        "60000 program headers": good[:0x38] + struct.pack("<H", 60000) + good[0x3A:],
    }
    for reason, content in cases.items():
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(NotExecutable, match=reason) as caught:
            ElfFile(tmp_path / "bad")
        assert caught.value.fields["path"] == str(tmp_path / "bad")
    for empty in (b"", b"\x7f"):
        (tmp_path / "bad").write_bytes(empty)
        with pytest.raises(NotExecutable):
            ElfFile(tmp_path / "bad")


# Hostile files


def exercise(path: Path) -> None:
    """Ask everything. Only one error may come out, and soon."""
    questions: list[Callable[[ElfFile], object]] = [
        lambda elf: elf.build_id,
        lambda elf: elf.soname,
        lambda elf: (elf.needed, elf.rpath, elf.runpath),
        lambda elf: elf.interpreter,
        lambda elf: elf.sections,
        lambda elf: [elf.symbol(name) for name in ("SSL_read", "pick", "plain", "absent")],
        lambda elf: elf.symtab(["pick", "plain", "choose"]),
        lambda elf: elf.file_offset(elf.entry),
        lambda elf: elf.search(elf.constants, b"no such text"),
    ]
    try:
        with ElfFile(path) as elf:
            for question in questions:
                try:
                    question(elf)
                except NotExecutable as error:
                    assert error.fields["reason"]  # noqa: PT017
    except NotExecutable:
        pass


def places_of_interest(content: bytes) -> list[tuple[int, int]]:
    """Offsets and widths of every number that the reader trusts, in a well-formed file."""
    places = [(at, 2) for at in (0x10, 0x12, 0x36, 0x38, 0x3A, 0x3C, 0x3E)]
    places += [(at, 8) for at in (0x18, 0x20, 0x28)]
    table, sections = struct.unpack_from("<QQ", content, 0x20)
    count, _, section_count = struct.unpack_from("<HHH", content, 0x38)
    for row in range(count):
        places += [(table + 56 * row + at, 4) for at in (0, 4)]
        places += [(table + 56 * row + at, 8) for at in (8, 16, 32, 48)]
    for row in range(section_count):
        start = sections + 64 * row
        places += [(start + at, 4) for at in (0, 4, 40)]
        places += [(start + at, 8) for at in (24, 32, 56)]
        kind, offset, size = struct.unpack_from("<I16xQQ", content, start + 4)
        if kind in (5, 6, 7, 11, 0x6FFFFFF6, 0x6FFFFFFF):  # tables of the dynamic part, notes
            places += [(at, 4) for at in range(offset, offset + min(size, 512) - 4, 4)]
    return places


EDGES = (0, 1, 2, 7, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 63, (1 << 64) - 1)


@pytest.fixture(scope="session")
def victims(versioned: Callable[..., Path]) -> list[bytes]:
    return [versioned(f"-Wl,--hash-style={style}").read_bytes() for style in ("gnu", "sysv")]


def test_survives_damage_to_any_number(victims: list[bytes], tmp_path: Path) -> None:
    """Tens of thousands of files, each with one to three numbers replaced."""
    chance = random.Random(20240501)
    path = tmp_path / "damaged"
    cases = 0
    for victim in victims:
        places = places_of_interest(victim)
        path.write_bytes(victim)
        fd = os.open(path, os.O_RDWR)
        try:
            for round_ in range(12_000):
                chosen = [chance.choice(places) for _ in range(1 + round_ % 3)]
                for at, width in chosen:
                    number = chance.choice((*EDGES, len(victim), chance.randrange(1 << 20)))
                    os.pwrite(fd, number.to_bytes(8, "little")[:width], at)
                exercise(path)
                for at, width in chosen:
                    os.pwrite(fd, victim[at : at + width], at)
                cases += 1
        finally:
            os.close(fd)
        assert path.read_bytes() == victim
    assert cases == 24_000


def test_survives_a_cut_at_every_byte(victims: list[bytes], tmp_path: Path) -> None:
    path = tmp_path / "cut"
    for victim in victims:
        path.write_bytes(victim)
        for length in range(len(victim), 0, -1):
            if length > 4096 and length % 7:
                continue
            os.truncate(path, length)
            exercise(path)


@settings(
    max_examples=300,
    deadline=2000,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(changes=st.lists(st.tuples(st.integers(0, 4095), st.binary(min_size=1, max_size=16))))
def test_survives_any_change(
    victims: list[bytes], tmp_path: Path, changes: list[tuple[int, bytes]]
) -> None:
    content = bytearray(victims[0])
    for at, change in changes:
        content[at : at + len(change)] = change
    (tmp_path / "changed").write_bytes(content)
    exercise(tmp_path / "changed")


def tiny(dynamic: list[tuple[int, int]], tables: bytes) -> bytes:
    """A library of one loaded part: headers, then the dynamic rows at 0x200, tables at 0x400."""
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    rows = b"".join(struct.pack("<qQ", tag, value) for tag, value in [*dynamic, (0, 0)])
    size = 0x400 + len(tables)
    head = struct.pack("<16sHHIQQQIHHHHHH", ident, 3, 62, 1, 0, 64, 0, 0, 64, 56, 2, 64, 0, 0)
    head += struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, size, size, 4096)
    head += struct.pack("<IIQQQQQQ", 2, 4, 0x200, 0x200, 0, len(rows), len(rows), 8)
    return head.ljust(0x200, b"\0") + rows.ljust(0x200, b"\0") + tables


STRTAB = {5: 0x800, 10: 0x20, 6: 0x900}  # strings, their size, symbols


def hash_attack(kind: str) -> bytes:
    strings = b"\0SSL_read\0".ljust(0x100, b"\0")
    symbol = struct.pack("<IBBHQQ", 1, 0x12, 0, 1, 0x10, 4)
    wrong = struct.pack("<IBBHQQ", 2, 0x12, 0, 1, 0x10, 4)
    if kind == "sysv cycle":
        table = struct.pack("<IIII", 1, 2, 1, 0) + struct.pack("<I", 1)
        rows = {**STRTAB, 4: 0x400}
        return tiny(list(rows.items()), table.ljust(0x400, b"\0") + strings + wrong * 4)
    rows = {**STRTAB, 0x6FFFFEF5: 0x400}
    words = 0 if kind == "no filter" else 1
    wanted = module._gnu_hash("SSL_read") & ~1
    first = 9 if kind == "bucket too low" else 0
    table = struct.pack("<IIIIQI", 1, first, words, 6, (1 << 64) - 1, 1)
    if kind == "endless chain":
        rows[0x6FFFFEF5] = 0xA00
        return tiny(
            list(rows.items()),
            bytes(0x400) + strings + symbol.ljust(0x100, b"\0") + table + bytes(1 << 18),
        )
    chains = struct.pack("<I", wanted) * 200  # every entry claims to be the name's
    return tiny(
        list(rows.items()), (table + chains).ljust(0x400, b"\0") + strings + wrong * 256 + symbol
    )


@pytest.mark.parametrize(
    "kind", ["sysv cycle", "no filter", "bucket too low", "endless chain", "equal hashes"]
)
def test_refuses_hash_tables_made_to_waste_time(tmp_path: Path, kind: str) -> None:
    (tmp_path / "attack").write_bytes(hash_attack(kind))
    start = time.perf_counter()
    with ElfFile(tmp_path / "attack") as elf, pytest.raises(NotExecutable):
        elf.symbol("SSL_read")
    assert time.perf_counter() - start < 20


def with_symtab(strings: bytes, symbols: bytes) -> bytes:
    content = bytearray(tiny([], strings + symbols))
    sections = struct.pack("<IIQQQQIIQQ", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    start = 0x400 + len(strings)
    sections += struct.pack("<IIQQQQIIQQ", 0, 2, 0, 0, start, len(symbols), 2, 0, 8, 24)
    sections += struct.pack("<IIQQQQIIQQ", 0, 3, 0, 0, 0x400, len(strings), 0, 0, 1, 0)
    struct.pack_into("<Q", content, 0x28, len(content))
    struct.pack_into("<HHH", content, 0x3A, 64, 3, 2)
    return bytes(content) + sections


def test_takes_a_symbol_table_made_to_waste_time_for_none(tmp_path: Path) -> None:
    symbol = struct.pack("<IBBHQQ", 1, 0x12, 0, 1, 0x10, 4)
    for strings, symbols in (
        (b"\0" + b"SSL_read\0" * 500_000, symbol),
        (b"\0SSL_read\0", symbol * 200_000),
    ):
        (tmp_path / "attack").write_bytes(with_symtab(strings, symbols))
        start = time.perf_counter()
        with ElfFile(tmp_path / "attack") as elf:
            assert elf.symtab(["SSL_read"]) == {}
        assert time.perf_counter() - start < 20
    (tmp_path / "honest").write_bytes(with_symtab(b"\0SSL_read\0", symbol))
    with ElfFile(tmp_path / "honest") as elf:
        assert elf.symtab(["SSL_read"])["SSL_read"].address == 0x10


def test_finds_constants_where_the_strings_are(compile_c: Compile) -> None:
    text = 'const char *s = "a certain string"; int main(void) { return s[0]; }'
    for options in ((), ("-s",), ("-static",), ("-Wl,-z,noseparate-code",)):
        path = compile_c(text, *options)
        with ElfFile(path) as elf:
            found = elf.search(elf.constants, b"a certain string", b"another string")
            assert set(found) == {b"a certain string"}
            at = found[b"a certain string"]
            assert path.read_bytes()[at : at + 16] == b"a certain string"


def test_names_that_do_not_end_are_not_looked_at_for_ever(tmp_path: Path) -> None:
    # Dynamic strings of a megabyte in which no name ends.
    strings = b"send_ok" * ((1 << 20) // 7)
    rows = struct.pack("<6q", 5, 0x1000, 10, len(strings), 0, 0)  # DT_STRTAB, DT_STRSZ
    whole = 0x1000 + len(strings)
    header = struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    parts = struct.pack("<IIQQQQQQ", 1, 4, 0, 0, 0, whole, whole, 4096)
    parts += struct.pack("<IIQQQQQQ", 2, 6, 0x800, 0x800, 0x800, len(rows), len(rows), 8)
    head = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + header + parts
    path = tmp_path / "mysqld"
    path.write_bytes((head.ljust(0x800, b"\0") + rows).ljust(0x1000, b"\0") + strings)
    with ElfFile(path) as elf, pytest.raises(NotExecutable, match="without end"):
        elf.exported_names(b"send_ok")


def test_names_are_found_by_their_parts(versioned: Callable[..., Path]) -> None:
    with ElfFile(versioned()) as elf:
        assert elf.exported_names(b"ain") == {"plain"}
        assert elf.exported_names(b"plai", b"chosen", b"none") == {"plain", "chosen"}
