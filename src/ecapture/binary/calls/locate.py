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

from ecapture.binary.calls import boringssl, methods, openssl
from ecapture.binary.calls.pointers import Pointers
from ecapture.binary.calls.reports import Code
from ecapture.binary.calls.rustls import ENCRYPT, locate_methods
from ecapture.binary.elf import ElfFile
from ecapture.binary.library import BUILT_IN, NAMELESS, Kind, Library
from ecapture.binary.secrets.functions import is_stub
from ecapture.binary.secrets.image import Image

_READING: Final = ("SSL_read", "ssl_read_internal", methods.OPEN)
_WRITING: Final = ("SSL_write", "ssl_write_internal", "ssl_write_internal+flags", methods.WRITE)
_RULES: Final[dict[Kind, tuple[str, Callable[[Code], openssl.Recognised]]]] = {
    "openssl": (openssl.SOURCE, openssl.recognise),
    "boringssl": (boringssl.SOURCE, boringssl.recognise),
}


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
    functions, evidence = _placed(code, recognise(code))
    if missing := _missing(functions):
        if library.kind == "boringssl":  # built into what calls them (Chromium)
            functions, evidence = _placed(code, methods.recognise(code, Pointers(elf, code.image)))
        if library.kind != "boringssl" or _missing(functions):
            return _refused(library, f"no function of it proves to be the one that {missing}")
    labelled = any("names itself" in signs for signs in evidence.values())
    return msgspec.structs.replace(
        library,
        how="label" if labelled else "fingerprint",
        visible=True,
        reason="",
        functions=functions,
        evidence=evidence,
    )


def _placed(code: Code, found: openssl.Recognised) -> tuple[dict[str, int], dict[str, str]]:
    # Offsets of functions, and what is evidence for them.
    functions, evidence = {}, {}
    for name, (entry, signs) in found.items():
        offset = code.image.offset_of(entry.address)
        if offset is not None and not is_stub(code.image, entry.address):
            functions[name] = offset
            evidence[name] = f"{signs}; starts there by {entry.proof}"
    return functions, evidence


def _missing(functions: dict[str, int]) -> str:
    # What none of these functions does.
    for wanted, what in ((_READING, "reads"), (_WRITING, "writes")):
        if not any(name in functions for name in wanted):
            return what
    return ""


def _with_methods(elf: ElfFile, library: Library) -> Library:
    located = locate_methods(elf)
    if located.reason:
        why = f"{BUILT_IN}; {located.reason}; its keys can be had"
        return msgspec.structs.replace(library, reason=why)
    places = {
        name: tuple(elf.file_offset(address, executable=True) for address in addresses)
        for name, addresses in located.places.items()
    }
    signs = f"{', '.join(located.versions)}; starts there by {located.proof}"
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
