# SPDX-License-Identifier: Apache-2.0
"""Where libraries keep version and cipher; that it is true is shown where they are captured."""

import sys
from pathlib import Path

import pytest

from ecapture.binary.elf import ElfFile
from ecapture.binary.loader import closure
from ecapture.binary.secrets.negotiated import Negotiated, negotiated


def loaded_by_python(prefix):
    """The path of a library that this interpreter's ``_ssl`` would load."""
    import _ssl  # noqa: PLC0415

    if not hasattr(_ssl, "__file__"):
        pytest.skip("this interpreter has _ssl built in")
    return next(path for path in closure(_ssl.__file__, ()) if Path(path).name.startswith(prefix))


def test_the_walks_of_the_system_s_openssl_are_found():
    with ElfFile(loaded_by_python("libssl")) as elf:
        found = negotiated(elf)
    assert (found.version.length, found.cipher.length) == (4, 4)
    assert len(found.version.offsets) == 1
    assert len(found.cipher.offsets) == 3
    # Only where the version does not come first does something else.
    assert (found.object_type is None) == (found.version.offsets == (0,))


@pytest.mark.parametrize("path", [sys.executable, "/bin/sh"])
def test_a_program_without_such_functions_has_no_answer(path):
    with ElfFile(path) as elf:
        assert negotiated(elf) == Negotiated()


def test_damaged_code_has_no_answer(tmp_path):
    whole = Path(loaded_by_python("libssl")).read_bytes()
    with ElfFile(loaded_by_python("libssl")) as elf:
        places = [elf.file_offset(elf.symbol(n).address, executable=True) for n in ("SSL_version",)]
    for filler in (b"\xcc", b"\xff", b"\x0f", b"\xe8"):
        damaged = bytearray(whole)
        for place in places:
            damaged[place : place + 64] = filler * 64
        path = tmp_path / "damaged.so"
        path.write_bytes(damaged)
        with ElfFile(path) as elf:
            assert negotiated(elf).version is None
