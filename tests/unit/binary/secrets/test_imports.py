# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess

import pytest

from ecapture.binary.elf import ElfFile
from ecapture.binary.secrets.image import Image
from ecapture.binary.secrets.imports import called_by_stub, import_slot
from ecapture.binary.secrets.operations import Call, Jump

SOURCE = """
int first(int), second(int);
int exported(int a) { return first(a) + 1; }
int caller(int a) { return second(a) + exported(a) + 2; }
"""
COMPILERS = {"x86_64": "gcc", "aarch64": "aarch64-linux-gnu-gcc"}
PROTECTIONS = {"x86_64": "-fcf-protection=", "aarch64": "-mbranch-protection="}


@pytest.fixture(scope="module", params=["x86_64", "x86_64 marked", "aarch64", "aarch64 marked"])
def library(request, tmp_path_factory):
    """A stripped library that calls three functions by way of the loader."""
    machine, _, marked = request.param.partition(" ")
    compiler = COMPILERS[machine]
    folder = tmp_path_factory.mktemp("imports")
    (folder / "a.c").write_text(SOURCE)
    standard = "full" if machine == "x86_64" else "standard"
    words = [PROTECTIONS[machine] + (standard if marked else "none")]
    if marked:
        words.append("-Wl,-z,ibtplt" if machine == "x86_64" else "-Wl,-z,force-bti")
    command = [compiler, "-shared", "-fPIC", "-nostdlib", "-O2", "-s", *words, "-o", "a.so", "a.c"]
    subprocess.run(command, check=True, cwd=folder)
    return folder / "a.so"


def test_stubs_lead_to_names(library):
    with ElfFile(library) as elf:
        image = Image(elf)
        stubs = targets(image)
        names = {called_by_stub(image, stub) for stub in stubs}
        assert names - {""} == {"first", "second", "exported"}


def targets(image: Image) -> set[int]:
    """Where the library's code calls and jumps to."""
    found = set()
    for part in image.parts:
        address = part.address
        while part.executable and address < part.address + part.size:
            instruction = image.instruction(address)
            for operation in instruction.operations:
                if isinstance(operation, Call | Jump) and operation.target is not None:
                    found.add(operation.target)
            address = max(instruction.end, address + 1)
    return found


def test_slots_are_found_by_name(library):
    with ElfFile(library) as elf:
        image = Image(elf)
        slots = {import_slot(image, name) for name in (b"first\0", b"second\0", b"exported\0")}
        assert len(slots) == 3
        assert None not in slots
        assert import_slot(image, b"firs\0") is None


def test_what_is_no_stub_leads_nowhere(library):
    with ElfFile(library) as elf:
        image = Image(elf)
        symbol = elf.symbol("caller")
        assert symbol is not None
        assert called_by_stub(image, symbol.address) == ""
        assert called_by_stub(image, 0) == called_by_stub(image, 1 << 40) == ""
