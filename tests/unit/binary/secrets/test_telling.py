# SPDX-License-Identifier: Apache-2.0
"""Places where secrets are told: the texts of labels, and Go's function."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from ecapture.binary.elf import ElfFile
from ecapture.binary.secrets import image as image_module
from ecapture.binary.secrets.image import Image
from ecapture.binary.secrets.sites import NotLocated
from ecapture.binary.secrets.telling import (
    Operand,
    TellingSite,
    go_operands,
    label_places,
    locate_go,
)

TEXT, OFFSET = 0x401000, 0x1000
MACHINES = {"x86_64": 62, "aarch64": 183}


def program(folder: Path, content: bytes, machine: str = "x86_64") -> ElfFile:
    """An ELF file with one loaded part, which is code."""
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01".ljust(16, b"\0"),
        *(2, MACHINES[machine], 1, TEXT, 64, 0, 0, 64, 56, 1, 64, 0, 0),
    )
    size = len(content)
    segment = struct.pack("<IIQQQQQQ", 1, 5, OFFSET, TEXT, TEXT, size, size, 0x1000)
    path = folder / "program"
    path.write_bytes((header + segment).ljust(OFFSET, b"\0") + content)
    return ElfFile(path)


class TestLabels:
    def places(self, folder, content):
        with program(folder, content) as elf:
            return {k: tuple(a - TEXT for a in v) for k, v in label_places(Image(elf)).items()}

    def test_back_to_back(self, tmp_path):
        content = b"xCLIENT_TRAFFIC_SECRET_0SERVER_TRAFFIC_SECRET_0EXPORTER_SECRETCLIENT_RANDOM!"
        assert self.places(tmp_path, content) == {
            "CLIENT_TRAFFIC_SECRET_0": (1,),
            "SERVER_TRAFFIC_SECRET_0": (24,),
            "EXPORTER_SECRET": (47,),
            "CLIENT_RANDOM": (62,),
        }

    def test_the_tail_of_a_longer_label_is_not_a_label(self, tmp_path):
        content = b"EARLY_EXPORTER_SECRET CLIENT_EARLY_TRAFFIC_SECRET EXPORTER_SECRET"
        assert self.places(tmp_path, content) == {
            "EARLY_EXPORTER_SECRET": (0,),
            "CLIENT_EARLY_TRAFFIC_SECRET": (22,),
            "EXPORTER_SECRET": (50,),
        }

    def test_words_that_are_no_labels(self, tmp_path):
        assert self.places(tmp_path, b"NO_SECRET my_SECRET_0 CLIENT RANDOM _SECRET") == {}

    def test_across_the_blocks_of_a_scan(self, tmp_path, monkeypatch):
        monkeypatch.setattr(image_module, "_SCAN", 64)
        label = b"CLIENT_HANDSHAKE_TRAFFIC_SECRET"
        for before in range(40, 90):
            found = self.places(tmp_path, bytes(before) + label + bytes(100))
            assert found == {label.decode(): (before,)}

    def test_a_file_full_of_labels_is_cut(self, tmp_path):
        found = self.places(tmp_path, b"CLIENT_RANDOM" * 10_000)
        assert found == {"CLIENT_RANDOM": tuple(range(0, 8 * 13, 13))}


# The check of the stack as compilers write it, and a ret behind it.
CHECKS = {
    "Go 1.27, x86-64": ("x86_64", "493b6610 0f8600010000", "55c3"),
    "a large frame": ("x86_64", "4c8da42400ffffff 4d3b6610 0f8600010000", "55c3"),
    "Go 1.15, x86-64": ("x86_64", "64488b0c25f8ffffff 483b6110 0f8600010000", "4883ec10c3"),
    "position independent": ("x86_64", "48c7c1f8ffffff 64488b09 483b6110 7610", "c3"),
    "Go 1.27, AArch64": ("aarch64", "900b40f9 ff6330eb 49090054", "fe0f1ef8c0035fd6"),
}


@pytest.mark.parametrize("name", CHECKS)
def test_the_place_is_behind_the_check_of_the_stack(name, tmp_path):
    machine, check, behind = CHECKS[name]
    convention = "stack" if "1.15" in name else "register"
    code = bytes.fromhex(check + behind).ljust(64, b"\0")
    with program(tmp_path, bytes(64) + code + b"CLIENT_RANDOM", machine) as elf:
        found = locate_go(elf, OFFSET + 64, convention)
    length = len(bytes.fromhex(check))
    (site,) = found.sites
    assert isinstance(site, TellingSite)
    assert (site.address, site.offset) == (TEXT + 64 + length, OFFSET + 64 + length)
    assert site.head == code[length : length + 16]
    assert found.labels == {"CLIENT_RANDOM": (TEXT + 128,)}


@pytest.mark.parametrize(
    "code", ["c3", "e900000000", "ff25 00000000", "0f0b", "90" * 12 + "7610"], ids=str
)
def test_what_does_not_begin_with_a_check_is_refused(code, tmp_path):
    with program(tmp_path, bytes.fromhex(code).ljust(64, b"\x90")) as elf:
        found = locate_go(elf, OFFSET, "register")
    assert isinstance(found, NotLocated)
    assert "does not begin" in found.reason


def test_an_offset_outside_of_the_file_is_refused(tmp_path):
    with program(tmp_path, bytes(64)) as elf:
        assert isinstance(locate_go(elf, 1 << 40, "register"), NotLocated)


def test_operands_on_the_stack_follow_the_return_address_and_the_receiver():
    told = go_operands("x86_64", "stack")
    assert told.label == Operand(4, (16,))
    assert told.secret_length == Operand(4, (64,))
    assert go_operands("aarch64", "stack").random == Operand(31, (32,))


def test_operands_in_registers():
    assert go_operands("x86_64", "register").random == Operand(7)
    assert go_operands("aarch64", "register").secret == Operand(6)
