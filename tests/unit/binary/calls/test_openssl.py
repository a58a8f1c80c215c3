# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from ecapture.binary.calls.openssl import recognise
from ecapture.binary.calls.reports import Code
from ecapture.binary.elf import ElfFile
from ecapture.binary.secrets.image import Image


def recognised(library):
    with ElfFile(library.path) as elf:
        found = recognise(Code(Image(elf)))
    return {name: entry.address for name, (entry, _) in found.items()}


@pytest.mark.parametrize("kind, suffix", [("numbered", ""), ("named", ""), ("flags", "+flags")])
def test_the_functions_that_all_calls_share(nameless, kind, suffix):
    library = nameless(kind)
    assert recognised(library) == {
        "ssl_read_internal": library.truth["ssl_read_internal"],
        f"ssl_write_internal{suffix}": library.truth["ssl_write_internal"],
        "SSL_free": library.truth["SSL_free"],
    }


def test_built_into_their_callers_they_are_found_there(nameless):
    library = nameless("named", "-DHIDDEN=__attribute__((always_inline))inline")
    truth = library.truth
    assert recognised(library) == {
        "SSL_read": truth["SSL_read"],
        "ssl_read_internal": truth["SSL_read_ex"],  # which has its arguments
        "SSL_write": truth["SSL_write"],
        "ssl_write_internal": truth["SSL_write_ex"],
        "SSL_free": truth["SSL_free"],
    }


def test_a_name_alone_proves_nothing(nameless):
    # A function that talks about SSL_read, with arguments of its own.
    more = r"""
    int stranger(struct ssl *s, int n) { if (n < 0) { REPORT(223, "SSL_read", 271); } return n; }
    """
    library = nameless("named", more=more)
    found = recognised(library)
    assert found == {name: library.truth[name] for name in found}
    assert set(found) == {"ssl_read_internal", "ssl_write_internal", "SSL_free"}
