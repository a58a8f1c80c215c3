# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from ecapture.binary.calls.methods import FREE, OPEN, WRITE, recognise
from ecapture.binary.calls.pointers import Pointers
from ecapture.binary.calls.reports import Code
from ecapture.binary.elf import ElfFile
from ecapture.binary.secrets.image import Image
from ecapture.binary.secrets.sites import Proof


def recognised(path):
    with ElfFile(path) as elf:
        image = Image(elf)
        return recognise(Code(image), Pointers(elf, image))


def places(path):
    return {name: entry.address for name, (entry, _) in recognised(path).items()}


@pytest.mark.parametrize(
    "options",
    [
        ("-shared", "-fPIC"),
        ("-shared", "-fPIC", "-Wl,-z,pack-relative-relocs"),
        ("-no-pie", "-DPROGRAM"),
    ],
    ids=["made-by-loader", "packed", "fixed-address"],
)
@pytest.mark.parametrize(
    "more, proof",
    [((), Proof.FRAME_TABLE), (("-Wl,--no-eh-frame-hdr",), Proof.POINTER)],
    ids=["table", "pointers"],
)
def test_the_functions_of_the_table_are_told_from_all_others(records, options, more, proof):
    library = records(*options, *more)
    found = recognised(library.path)
    assert {name: entry.address for name, (entry, _) in found.items()} == {
        name: library.truth[name] for name in (OPEN, WRITE, FREE)
    }
    assert {entry.proof for entry, _ in found.values()} == {proof}
    assert "in a table of methods" in found[OPEN][1]


@pytest.mark.parametrize(
    "word",
    [
        "-DIS_DTLS=1",
        "-DFEW_BEFORE",
        "-DTURNED",
        "-DNO_SPAN",
        "-DNO_COUNT",
        "-DOTHER_REASON",
        "-DTWO_TABLES",
        "-DTWICE",
    ],
)
def test_a_sign_that_is_missing_is_no_proof(records, word):
    assert places(records("-shared", "-fPIC", word).path) == {}


@pytest.mark.parametrize("more", [(), ("-Wl,--no-eh-frame-hdr",)], ids=["table", "pointers"])
def test_pointers_may_lead_to_jumps_that_guard_functions(records, more):
    library = records("-no-pie", "-DPROGRAM", "-DGUARDED", *more)
    found = places(library.path)
    assert found == {name: library.truth[name] for name in (OPEN, WRITE, FREE)}


def test_what_does_not_give_up_the_state_frees_nothing(records):
    library = records("-shared", "-fPIC", "-DKEEPS")
    assert places(library.path) == {name: library.truth[name] for name in (OPEN, WRITE)}


def test_other_libraries_have_no_such_table(nameless):
    assert recognised(nameless("boringssl").path) == {}
