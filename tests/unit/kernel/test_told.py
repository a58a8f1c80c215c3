# SPDX-License-Identifier: Apache-2.0
"""What the kernel programs are told of places, and which files are refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from ecapture._wire import OPERAND, OPERAND_CONSTANT, TOLD_ROW, TOLD_ROW_FIELDS, Label
from ecapture.binary.cache import identity
from ecapture.binary.secrets.sites import Proof
from ecapture.binary.secrets.telling import Operand, Telling, TellingSite, go_operands
from ecapture.kernel import told as module
from ecapture.kernel.told import (
    TOLD,
    LocatedTelling,
    TellingCache,
    TellingKeys,
    told_row,
)

GO = go_operands("x86_64", "register")
FILE = "/proc/self/exe"


def site(offset=0, head=b"\x7fELF", told=GO):
    return TellingSite(0x400000 + offset, offset, head, told, Proof.FUNCTION_TABLE)


def fields(row):
    return dict(zip(TOLD_ROW_FIELDS, TOLD_ROW.unpack(row), strict=True))


class TestRows:
    def test_registers_stand_where_ptrace_has_them(self):
        row = fields(told_row(site(), Telling((), {}), "x86_64"))
        # bx, cx; di, si; r9, r10 of struct pt_regs
        assert [OPERAND.unpack(row[name])[3] for name in TOLD_ROW_FIELDS[:6]] == [
            *(5, 11, 14, 13, 8, 7)
        ]
        row = fields(told_row(site(), Telling((), {}), "aarch64"))
        assert OPERAND.unpack(row["label"]) == (0, 0, 0, 3, 0)

    def test_walks_and_constants(self):
        told = GO.__class__(
            Operand(4, (16,)),
            Operand(None, (), 13),
            Operand(5, (-8, 0x30), 4),
            Operand(None, (), 32),
            Operand(4, (), 0x80),
            Operand(14, (0x40,)),
        )
        row = fields(told_row(site(told=told), Telling((), {}), "x86_64"))
        assert OPERAND.unpack(row["label"]) == (16, 0, 0, 19, 1)
        assert OPERAND.unpack(row["label_length"]) == (13, 0, 0, OPERAND_CONSTANT, 0)
        assert OPERAND.unpack(row["random"]) == (-8, 0x30, 4, 4, 2)
        assert OPERAND.unpack(row["secret"]) == (0x80, 0, 0, 19, 0)
        assert OPERAND.unpack(row["secret_length"]) == (0x40, 0, 0, 1, 1)

    def test_labels_are_known_by_their_place_in_a_page(self):
        row = fields(told_row(site(), Telling((), {"CLIENT_RANDOM": (0x12345,)}), "x86_64"))
        assert row["label_place"] == bytes.fromhex("4503").ljust(32, b"\0")
        assert row["label_number"] == bytes([Label.CLIENT_RANDOM]).ljust(16, b"\0")


class Programs(dict):
    """Programs, as far as rows go."""

    hooks = (SimpleNamespace(shape=None), TOLD)

    def set_row(self, table, row, content):
        assert table == "told_rows"
        assert row == len(self)
        self[row] = content


def remembered(answer):
    cache = TellingCache(None)
    cache._used[identity(Path(FILE).stat())] = answer
    return cache


def places(programs, answer):
    library = SimpleNamespace(kind="go", functions={}, convention="", reason="")
    return TellingKeys(programs, remembered(answer)).places(FILE, "file", library)


class TestPlaces:
    def test_places_of_one_make_share_a_row(self):
        programs = Programs()
        other = GO.__class__(*[Operand(1)] * 6)
        head = Path(FILE).read_bytes()[:8]
        telling = Telling((site(), site(4, head[4:]), site(0, head, other)), {})
        found = places(programs, LocatedTelling(telling))
        assert [(p.row, p.offset, p.file_row) for p in found] == [(1, 0, 0), (1, 4, 0), (1, 0, 1)]
        assert len(programs) == 2

    def test_what_is_remembered_must_be_what_is_there(self, caplog):
        answer = LocatedTelling(Telling((site(), site(4, b"not the bytes...")), {}))
        assert places(Programs(), answer) == []
        assert "it is not the file it was" in caplog.text

    def test_reasons_are_said_once(self, caplog):
        keys = TellingKeys(Programs(), remembered(LocatedTelling(reason="for a reason")))
        library = SimpleNamespace(kind="go")
        for _ in range(2):
            assert keys.places(FILE, "file", library) == []
        assert caplog.text.count("file: its keys cannot be read: for a reason") == 1

    def test_what_is_not_to_be_had_is_said(self, caplog):
        telling = Telling((site(),), {}, ("half of it", "another half"))
        assert len(places(Programs(), LocatedTelling(telling))) == 1
        assert "not all of its keys can be read: half of it" in caplog.text
        assert "another half" in caplog.text

    def test_more_ways_than_rows(self, caplog, without):
        without("attach_cookie")
        ways = tuple(site(told=GO.__class__(*[Operand(n)] * 6)) for n in range(9))
        assert len(places(Programs(), LocatedTelling(Telling(ways, {})))) == 8
        assert "too many places" in caplog.text

    def test_a_program_whose_functions_were_not_found(self, caplog):
        library = SimpleNamespace(kind="go", functions={}, convention="", reason="why not")
        keys = TellingKeys(Programs(), TellingCache(None))
        assert keys.places(FILE, "file", library) == []
        assert "why not" in caplog.text


@pytest.mark.parametrize("kind, size", [("go", 64 << 20), ("rustls", 16 << 20)])
def test_large_files_are_quick_only_if_they_are_known(kind, size):
    keys = TellingKeys(Programs(), remembered(LocatedTelling(reason="x")))
    library = SimpleNamespace(kind=kind)
    unknown = dict.fromkeys(("st_dev", "st_ino", "st_mtime_ns", "st_ctime_ns"), 1)
    assert keys.quick(SimpleNamespace(st_size=size, **unknown), library)
    assert not keys.quick(SimpleNamespace(st_size=size + 1, **unknown), library)
    assert keys.quick(Path(FILE).stat(), library)


def test_answers_survive_the_cache():
    import msgspec  # noqa: PLC0415

    answer = LocatedTelling(Telling((site(),), {"CLIENT_RANDOM": (1,)}, ("note",)))
    assert module.LocatedTelling is TellingCache.judgement
    assert msgspec.json.decode(msgspec.json.encode(answer), type=LocatedTelling) == answer
