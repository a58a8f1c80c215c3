# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from ecapture.binary.calls.reports import Code
from ecapture.binary.elf import ElfFile
from ecapture.binary.secrets.image import Image


def reporters(library, tail):
    with ElfFile(library.path) as elf:
        found = Code(Image(elf)).reporters(tail)
    names = {address: name for name, address in library.truth.items()}
    return {names[address]: reporter for address, reporter in found.items()}


def test_functions_that_name_themselves(nameless):
    found = reporters(nameless("named"), "ssl_lib.c")
    assert found["SSL_read"].names == {"SSL_read"}
    assert found["ssl_write_internal"].names == {"ssl_write_internal"}
    assert found["SSL_peek"].codes == set()


def test_functions_that_report_by_number(nameless):
    found = reporters(nameless("numbered"), "ssl_lib.c")
    assert found["SSL_read"].codes == {(20, 223, 271)}
    assert found["ssl_write_internal"].codes == {(20, 524, 276)}
    assert found["SSL_peek"].names == set()


def test_functions_that_give_memory_back(nameless):
    found = reporters(nameless("named"), "ssl_lib.c")
    assert {name for name, reporter in found.items() if reporter.frees} == {
        "SSL_free",
        "free_context",
    }


def test_all_ways_of_failing_are_seen(nameless):
    found = reporters(nameless("boringssl"), "ssl_lib.cc")
    assert {reason for _, _, reason in found["SSL_write"].codes} == {226, 215, 111}


@pytest.mark.parametrize("tail", ["ssl_lib.cc", "lib.c.", "other.c"])
def test_other_files_are_not_meant(nameless, tail):
    assert reporters(nameless("named"), tail) == {}
