# SPDX-License-Identifier: Apache-2.0
"""Where plaintext passes in a file that has OpenSSL, BoringSSL or rustls in it and no names for it.

The answer is a completed judgement about the file: functions with their offsets, how they were
found ("label": they name themselves; "fingerprint": by what they report), and for each the signs
that agreed. Reading and writing must both be found, else the file stays invisible, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from ecapture.binary.calls import boringssl, openssl
from ecapture.binary.calls.reports import Code
from ecapture.binary.calls.rustls import ENCRYPT, locate_methods
from ecapture.binary.elf import ElfFile
from ecapture.binary.library import BUILT_IN, NAMELESS, Kind, Library
from ecapture.binary.secrets.functions import is_stub
from ecapture.binary.secrets.image import Image

_READING: Final = ("SSL_read", "ssl_read_internal")
_WRITING: Final = ("SSL_write", "ssl_write_internal", "ssl_write_internal+flags")
_RULES: Final[dict[Kind, tuple[str, Callable[[Code], openssl.Recognised]]]] = {
    "openssl": (openssl.SOURCE, openssl.recognise),
    "boringssl": (boringssl.SOURCE, boringssl.recognise),
}
_MACHINES: Final = ("x86_64", "aarch64")
_QUICK_BYTES: Final = 16 << 20


def complete(elf: ElfFile, library: Library) -> Library:
    """Return the judgement with the functions found, or with the reason why they were not.

    Takes some tenths of a second for a large program. ``library`` is what ``identify`` said of
    this very file, and ``is_open``.

    Raises:
        NotExecutable: the file contradicts itself.
    """
    if library.kind == "rustls":
        return _with_methods(elf, library)
    source, recognise = _RULES[library.kind]
    code = Code(Image(elf))
    if not code.reporters(source):
        return _refused(library, f"no function of it tells that it is from {source}")
    functions, evidence = {}, {}
    for name, (entry, signs) in recognise(code).items():
        offset = code.image.offset_of(entry.address)
        if offset is not None and not is_stub(code.image, entry.address):
            functions[name] = offset
            evidence[name] = f"{signs}; starts there by {entry.proof}"
    labelled = any("names itself" in signs for signs in evidence.values())
    for wanted, what in ((_READING, "reads"), (_WRITING, "writes")):
        if not any(name in functions for name in wanted):
            why = f"no function of it proves to be the one that {what}"
            if wanted is _READING and any(name in functions for name in _WRITING):
                why += ": it was built into what calls it, or is not as we know it"  # Chromium
            return _refused(library, why)
    return msgspec.structs.replace(
        library,
        how="label" if labelled else "fingerprint",
        visible=True,
        reason="",
        functions=functions,
        evidence=evidence,
    )


def _with_methods(elf: ElfFile, library: Library) -> Library:
    methods = locate_methods(elf)
    if methods.reason:
        why = f"{BUILT_IN}; {methods.reason}; its keys can be had"
        return msgspec.structs.replace(library, reason=why)
    places = {
        name: tuple(elf.file_offset(address, executable=True) for address in addresses)
        for name, addresses in methods.places.items()
    }
    signs = f"{', '.join(methods.versions)}; starts there by {methods.proof}"
    beside = f"alone in a table of methods beside that, and reads a record: {signs}"
    return msgspec.structs.replace(
        library,
        how="fingerprint",
        visible=True,
        reason="",
        functions={name: first for name, (first, *_) in places.items()},
        copies={name: tuple(others) for name, (_, *others) in places.items() if others},
        evidence=dict.fromkeys(places, beside)
        | {ENCRYPT: f"before the method that tells a record's overhead, and reads one: {signs}"},
    )


def _refused(library: Library, why: str) -> Library:
    return msgspec.structs.replace(library, reason=f"{NAMELESS}, and {why}")
