# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct

import pytest

from ecapture.binary.calls.methods import FREE, OPEN, WRITE
from ecapture.binary.calls.pointers import Pointers
from ecapture.binary.elf import ElfFile
from ecapture.binary.secrets.image import Image

TABLE = "tls_table"
WAYS = pytest.mark.parametrize(
    "options",
    [("-shared", "-fPIC"), ("-shared", "-fPIC", "-Wl,-z,pack-relative-relocs"), ("-no-pie",)],
    ids=["made-by-loader", "packed", "fixed-address"],
)


def built(records, options):
    return records(*options, *(("-DPROGRAM",) if "-no-pie" in options else ()))


@WAYS
def test_pointers_are_found_by_where_they_lead(records, options):
    library = built(records, options)
    table, at = library.truth[TABLE], library.truth[OPEN]
    with ElfFile(library.path) as elf:
        found = Pointers(elf, Image(elf)).into([(at, at)])
    assert set(found) == {at}
    # where nothing is made by the loader, the symbol of the function has the same number
    assert [place for place in found[at] if table <= place < table + 136] == [table + 8 * 8]


@WAYS
def test_words_are_what_a_loaded_file_has(records, options):
    library = built(records, options)
    with ElfFile(library.path) as elf:
        words = Pointers(elf, Image(elf)).words(library.truth[TABLE], 10)
    wanted = (library.truth[name] for name in ("tls_new", FREE, OPEN, WRITE))
    assert (words[0], words[1], words[2], words[8], words[9]) == (0, *wanted)


def test_windows_are_apart_and_what_is_between_them_is_not_meant(records):
    library = records("-shared", "-fPIC")
    wanted = sorted(library.truth[name] for name in (OPEN, WRITE))
    with ElfFile(library.path) as elf:
        pointers = Pointers(elf, Image(elf))
        assert set(pointers.into([(at, at) for at in wanted])) == set(wanted)
        assert set(pointers.into([(wanted[0], wanted[1])])) >= set(wanted)
        assert pointers.into([]) == {}
        assert pointers.into([(1 << 62, (1 << 62) + 1)]) == {}


def test_outside_of_the_file_words_are_zero(records):
    library = records("-shared", "-fPIC")
    with ElfFile(library.path) as elf:
        assert Pointers(elf, Image(elf)).words(1 << 40, 3) == [0, 0, 0]


def test_a_list_that_is_longer_than_the_file_is_cut(records, tmp_path):
    library = records("-shared", "-fPIC")
    content = bytearray(library.path.read_bytes())
    sections, _, size, count = *struct.unpack_from("<QIHHHH", content, 0x28)[:2], 64, content[0x3C]
    with ElfFile(library.path) as elf:
        listed = elf.section(".rela.dyn")
    for at in range(sections, sections + size * count, size):
        if struct.unpack_from("<Q", content, at + 24)[0] == listed.offset:
            struct.pack_into("<Q", content, at + 32, 1 << 60)
    damaged = tmp_path / "damaged"
    damaged.write_bytes(content)
    at = library.truth[OPEN]
    with ElfFile(damaged) as elf:
        assert Pointers(elf, Image(elf)).into([(at, at)]) == {at: [library.truth[TABLE] + 64]}
