# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import random

import msgspec
import pytest

from ecapture.binary.calls.completion import is_open
from ecapture.binary.calls.locate import complete
from ecapture.binary.elf import ElfFile
from ecapture.binary.library import NAMELESS, Library
from ecapture.errors import NotExecutable

OPEN = Library(
    kind="openssl",
    linkage="static-hidden",
    how="content",
    visible=False,
    reason=NAMELESS,
    machine="x86_64",
)


def completed(library, judgement=OPEN):
    with ElfFile(library.path) as elf:
        return complete(elf, judgement)


@pytest.mark.parametrize(
    "kind, owner, how",
    [
        ("named", "openssl", "label"),
        ("numbered", "openssl", "fingerprint"),
        ("boringssl", "boringssl", "fingerprint"),
    ],
)
def test_a_completed_judgement_says_how_and_why(nameless, kind, owner, how):
    found = completed(nameless(kind), msgspec.structs.replace(OPEN, kind=owner))
    assert (found.visible, found.reason, found.how) == (True, "", how)
    assert set(found.evidence) == set(found.functions) != set()
    assert all("starts there by frame-table" in text for text in found.evidence.values())
    assert not is_open(found)


def test_a_file_of_which_nothing_is_known_stays_invisible(nameless):
    found = completed(nameless("boringssl"))  # OpenSSL's source file is not named in it
    assert (found.visible, found.functions) == (False, {})
    assert found.reason == f"{NAMELESS}, and no function of it tells that it is from ssl_lib.c"
    assert not is_open(found)


def test_reading_and_writing_must_both_be_proven(nameless):
    library = nameless("named", more="/* damaged below */")
    content = library.path.read_bytes().replace(b"SSL_write\0", b"SSL_writE\0")
    library.path.write_bytes(content.replace(b"ssl_write_internal\0", b"ssl_write_internaL\0"))
    found = completed(library)
    assert (found.visible, found.functions) == (False, {})
    assert found.reason.endswith("and no function of it proves to be the one that writes")


def test_damaged_files_end_in_a_judgement_or_are_refused(nameless, tmp_path):
    rng = random.Random(5)
    original = nameless("named").path.read_bytes()
    for number in range(60):
        content = bytearray(original)
        for _ in range(rng.choice((1, 20, 400))):
            content[rng.randrange(len(content))] = rng.randrange(256)
        path = tmp_path / str(number)
        path.write_bytes(content)
        try:
            with ElfFile(path) as elf:
                found = complete(elf, OPEN)
        except NotExecutable:
            continue
        assert all(0 < at < len(content) for at in found.functions.values())
