# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from ecapture.binary.calls.boringssl import recognise
from ecapture.binary.calls.reports import Code
from ecapture.binary.elf import ElfFile
from ecapture.binary.secrets.image import Image


def recognised(library):
    with ElfFile(library.path) as elf:
        found = recognise(Code(Image(elf)))
    return {name: entry.address for name, (entry, _) in found.items()}


@pytest.mark.parametrize("around", [(), ("-DAROUND_PEEK",)], ids=["built-in", "around-peek"])
@pytest.mark.parametrize(
    "options, calls", [((), False), (("-Wl,--no-eh-frame-hdr",), True)], ids=["table", "calls"]
)
def test_reading_is_told_from_peeking(nameless, options, calls, around):
    library = nameless("boringssl", *options, *around, calls=calls)
    found = recognised(library)
    wanted = ("SSL_read", "SSL_write", "SSL_new")
    assert found == {name: library.truth[name] for name in wanted}


def test_what_fits_two_functions_is_left_out(nameless):
    more = r"""
    struct ssl *another(void *ctx, int n)
    {
        if (ctx == NULL) { REPORT(185); return NULL; }
        return n ? OPENSSL_zalloc(n) : NULL;
    }
    """
    assert set(recognised(nameless("boringssl", more=more))) == {"SSL_read", "SSL_write"}
