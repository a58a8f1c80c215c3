# SPDX-License-Identifier: Apache-2.0
"""Rows of shells say where everything is, and are given out once each."""

from pathlib import Path

import msgspec
import pytest

from ecapture._wire import SECRET_SLOTS, SHELL_ROW, SHELL_ROW_FIELDS, SHELL_ROWS, Shape
from ecapture.binary.elf import ElfFile
from ecapture.binary.identify import identify
from ecapture.binary.library import Library
from ecapture.errors import AttachRefused
from ecapture.kernel.feature import feature
from ecapture.kernel.shells import SHAPES, Shells, shell_row
from ecapture.plan import Hook

BASH = Path("/bin/bash")


class Written:
    """What is written to the map of rows."""

    def __init__(self, *hooks):
        self.hooks = hooks
        self.rows = {}

    def set_shell_row(self, row, content):
        assert row not in self.rows
        self.rows[row] = content


def library(**addresses):
    return Library(
        kind="bash",
        linkage="executable",
        how="dynsym",
        visible=True,
        addresses=addresses,
    )


def test_a_row_has_every_address():
    with ElfFile(BASH) as elf:
        found = identify(elf)
    values = dict(zip(SHELL_ROW_FIELDS, SHELL_ROW.unpack(shell_row(found)), strict=True))
    assert values["reader"] == found.addresses["parse_command"]
    assert values["status"] == found.addresses["last_command_exit_value"]
    assert {name for name, value in values.items() if not value} == {
        "taker",
        "stringer",
        "text",
        "text_end",
        "file",
        "line",
        "loop",
        "loop_end",
        "source",
        "sourced_name",
        "wide_text",
        "wide_status",
        "members",
    }
    assert SHELL_ROW.unpack(shell_row(library())) == (0,) * len(SHELL_ROW_FIELDS)


def test_equal_shells_share_a_row():
    written = Written()
    shells = Shells(written)
    one, other = library(hend=1), library(hend=2)
    assert [shells.row(one), shells.row(other), shells.row(msgspec.structs.replace(one))] == [
        0,
        1,
        0,
    ]
    assert list(written.rows) == [0, 1]


@pytest.mark.parametrize("without", [False, True])
def test_there_are_so_many_rows(monkeypatch, without):
    monkeypatch.setenv("ECAPTURE_WITHOUT", "attach_cookie" if without else "")
    feature.cache_clear()
    if not without and not feature("attach_cookie"):
        pytest.skip("needs attach_cookie")
    shells = Shells(Written())
    limit = SECRET_SLOTS if without else SHELL_ROWS
    assert [shells.row(library(hend=n)) for n in range(limit)] == list(range(limit))
    with pytest.raises(AttachRefused, match="too many"):
        shells.row(library(hend=limit))
    feature.cache_clear()


@pytest.mark.parametrize("shape", [Shape.SHELL_ASH_READ, Shape.SHELL_ASH_LOOPED])
def test_what_reads_files_is_told_where_what_nobody_types_is_wanted(shape):
    written = Written(Hook("parsecmd", shape))
    Shells(written).row(library(**{"parsecmd": 1, "cmdloop": 2, "cmdloop.end": 3}))
    values = dict(zip(SHELL_ROW_FIELDS, SHELL_ROW.unpack(written.rows[0]), strict=True))
    wanted = shape is Shape.SHELL_ASH_LOOPED
    assert (values["loop"], values["loop_end"]) == ((2, 3) if wanted else (0, 0))
    assert values["reader"] == 1


def test_shapes():
    assert Shape.SHELL_READ in SHAPES
    assert Shape.PLAINTEXT not in SHAPES
