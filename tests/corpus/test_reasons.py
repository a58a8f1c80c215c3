# SPDX-License-Identifier: Apache-2.0
"""Every build is either seen, with proof, or has a reason of its own."""

from __future__ import annotations

import platform

import pytest
from packages import PACKAGES, fetch

from ecapture.binary.calls.completion import is_open
from ecapture.binary.calls.locate import complete
from ecapture.binary.elf import ElfFile
from ecapture.binary.identify import identify

NO_TLS = {"libcrypto-3.5.4", "arm64-libcrypto-3.5.4", "libcurl"}


def judged(path):
    with ElfFile(path) as elf:
        library = identify(elf)
        if library is not None and is_open(library):
            library = complete(elf, library)
        return library, elf.machine


@pytest.mark.parametrize("key", PACKAGES)
def test_what_is_seen_has_proof_and_what_is_not_a_reason(key):
    library, machine = judged(fetch(key))
    if key in NO_TLS:
        assert library is None
        return
    assert library is not None
    assert library.kind != "unknown"
    if machine == platform.machine():
        assert library.visible, library.reason
        assert library.functions
        nameless = library.how in ("label", "fingerprint") and library.kind != "nss"
        assert not nameless or set(library.evidence) >= set(library.functions)
    else:
        assert library.reason
    assert bool(library.reason) != library.visible
    assert "unsupported" not in library.reason
