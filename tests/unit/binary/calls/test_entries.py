# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from ecapture.binary.calls.entries import entries_around
from ecapture.binary.elf import ElfFile
from ecapture.binary.secrets.functions import Functions
from ecapture.binary.secrets.image import Image
from ecapture.binary.secrets.sites import Proof


def around(library, *names, distance=5):
    """The entries found for places shortly behind the starts of functions."""
    with ElfFile(library.path) as elf:
        image = Image(elf)
        places = {}
        for name in names:
            place = library.truth[name]
            while place < library.truth[name] + distance:
                place = image.instruction(place).end
            places[name] = place
        found = entries_around(image, Functions(image), places.values())
        return {name: found.get(place) for name, place in places.items()}


def test_the_frame_table_proves_where_functions_start(nameless):
    library = nameless("named")
    found = around(library, "SSL_read", "ssl_read_internal")
    assert found["SSL_read"] == (library.truth["SSL_read"], Proof.FRAME_TABLE)
    assert found["ssl_read_internal"] == (library.truth["ssl_read_internal"], Proof.FRAME_TABLE)


def test_without_a_table_calls_do(nameless):
    library = nameless("named", "-Wl,--no-eh-frame-hdr", calls=True)
    found = around(library, "SSL_read", "SSL_write")
    assert found["SSL_read"] == (library.truth["SSL_read"], Proof.CALL_TARGET)
    assert found["SSL_write"] == (library.truth["SSL_write"], Proof.CALL_TARGET)


def test_what_nobody_calls_has_no_proof(nameless):
    library = nameless("named", "-Wl,--no-eh-frame-hdr")
    assert around(library, "SSL_free")["SSL_free"] is None


@pytest.mark.parametrize("place", [0, 1 << 40, 0x40])
def test_places_outside_of_code_have_no_entry(nameless, place):
    with ElfFile(nameless("named").path) as elf:
        image = Image(elf)
        assert entries_around(image, Functions(image), [place]) == {}
