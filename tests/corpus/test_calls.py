# SPDX-License-Identifier: Apache-2.0
"""Reading and writing functions of real builds, robbed of their names: the right ones, or none."""

from __future__ import annotations

import struct
from pathlib import Path

import msgspec
import pytest
from packages import fetch

from ecapture.binary.calls.locate import complete
from ecapture.binary.calls.methods import FREE, OPEN, WRITE, recognise
from ecapture.binary.calls.pointers import Pointers
from ecapture.binary.calls.reports import Code
from ecapture.binary.elf import ElfFile
from ecapture.binary.identify import identify
from ecapture.binary.library import NAMELESS, Library
from ecapture.binary.secrets.image import Image
from ecapture.binary.secrets.sites import Proof

# Functions with the same arguments and the same code in them: either name is right.
ALIKE = {
    "ssl_read_internal": {"ssl_read_internal", "SSL_read_ex"},
    "ssl_write_internal": {"ssl_write_internal", "SSL_write_ex"},
    # what is left of it once gcc has built its first lines into its callers
    "SSL_free": {"SSL_free", "SSL_free.part.0", "SSL_free.part.36"},
}
INNER = {"ssl_read_internal", "ssl_write_internal", "SSL_free"}
FLAGS = {"ssl_read_internal", "ssl_write_internal+flags", "SSL_free"}
BUILT_IN = {"SSL_read", "SSL_read_ex", "SSL_write", "SSL_write_ex"}
# corpus file: how its functions are found, and which
FOUND = {
    "openssl-1.0.2q": ("fingerprint", {"SSL_read", "SSL_write", "SSL_new"}),
    "openssl-1.1.0g-static": ("fingerprint", {"SSL_read", "SSL_write", "SSL_free"}),
    "openssl-1.1.1b": ("fingerprint", INNER),
    "openssl-1.1.1l": ("fingerprint", INNER),
    "openssl-1.1.1l-static": ("fingerprint", INNER),
    "openssl-3.2.1-static": ("label", INNER),
    "openssl-3.3.1": ("label", FLAGS),
    "openssl-3.4.1": ("label", FLAGS),
    "openssl-3.5.4": ("label", FLAGS),
    "openssl-3.6.5": ("label", FLAGS),
    "openssl-4.0.3-static": ("label", FLAGS),
    "musl-openssl-3.5.4": ("label", FLAGS),
    "node-18": ("label", BUILT_IN | INNER),
    "node-20": ("label", BUILT_IN | INNER),
    "node-24": ("label", BUILT_IN - {"SSL_write_ex"} | INNER),
    "boringssl-curl_cffi": ("fingerprint", {"SSL_read", "SSL_write", "SSL_new"}),
    "boringssl-grpcio": ("fingerprint", {"SSL_read", "SSL_write", "SSL_new"}),
    "boringssl-bun": ("fingerprint", {"SSL_read", "SSL_write", "SSL_new"}),
    "boringssl-envoy": ("fingerprint", {"SSL_read", "SSL_write", "SSL_new"}),
    "arm64-openssl-3.5.4": ("label", FLAGS),
    "arm64-openssl-4.0.3-static": ("label", FLAGS),
    "arm64-boringssl-grpcio": ("fingerprint", {"SSL_read", "SSL_write", "SSL_new"}),
}
WITHOUT_TRUTH = {"boringssl-grpcio", "boringssl-bun", "boringssl-envoy", "arm64-boringssl-grpcio"}
# BoringSSL's methods of records, where a symbol table has their names, as these are mangled
METHODS = {
    "boringssl-curl_cffi": Proof.FRAME_TABLE,
    "boringssl-grpcio": Proof.FRAME_TABLE,
    "boringssl-bun": Proof.POINTER,
    "boringssl-envoy": Proof.FRAME_TABLE,
    "arm64-boringssl-grpcio": Proof.FRAME_TABLE,
}
MANGLED = {
    OPEN: "_ZN4bssl17tls_open_app_dataEPNS_7SSLImplEPNS_4SpanIhLm18446744073709551615EEEPmPhS3_",
    WRITE: "_ZN4bssl18tls_write_app_dataEPNS_7SSLImplEPbPmNS_4SpanIKhLm18446744073709551615EEE",
    FREE: "_ZN4bssl8tls_freeEPNS_7SSLImplE",
}


def without_names(original: bytes) -> bytes:
    """Blank what leads to symbols: the section headers and the dynamic segment."""
    content = bytearray(original)
    content[0x28:0x30] = bytes(8)  # e_shoff
    content[0x3C:0x40] = bytes(4)  # e_shnum, e_shstrndx
    table, count = struct.unpack_from("<Q", content, 0x20)[0], content[0x38]
    for at in range(table, table + 56 * count, 56):
        if content[at] == 2:  # PT_DYNAMIC
            content[at] = 0
    return bytes(content)


def truths(path: Path) -> dict[str, int]:
    """Offsets of functions by their names, exported or not."""
    names = [name for wanted in ALIKE.values() for name in wanted]
    names += ["SSL_read", "SSL_write", "SSL_new"]
    with ElfFile(path) as elf:
        found = {name: elf.file_offset(s.address) for name, s in elf.symtab(names).items()}
        for name in names:
            if (symbol := elf.symbol(name)) is not None:
                found[name] = elf.file_offset(symbol.address)
    return found


def completed(path: Path) -> Library:
    with ElfFile(path) as elf:
        judged = identify(elf)
        assert judged is not None
        assert judged.functions == {}
        return complete(elf, msgspec.structs.replace(judged, reason=NAMELESS))


@pytest.mark.parametrize("key", FOUND)
def test_code_alone_leads_to_the_functions_that_have_the_names(key, tmp_path):
    original, stripped = fetch(key), tmp_path / "stripped"
    stripped.write_bytes(without_names(original.read_bytes()))
    found = completed(stripped)
    assert (found.visible, found.reason) == (True, "")
    assert (found.how, set(found.functions)) == FOUND[key]
    assert len(set(found.functions.values())) == len(found.functions)
    if key in WITHOUT_TRUTH:
        return
    named, certain = truths(original), 0
    for name, offset in found.functions.items():
        plain = name.removesuffix("+flags")
        places = {named[other] for other in ALIKE.get(plain, {plain}) if other in named}
        # of an internal function that has no symbol only its callers have names
        assert offset in places or plain not in named, name
        certain += offset in places
    assert certain >= 1


@pytest.mark.parametrize("key", ["libcrypto-3.5.4", "libcurl", "gnutls"])
def test_files_without_these_libraries_are_refused(key):
    path = fetch(key)
    judged = Library(
        kind="openssl", linkage="static-hidden", how="content", visible=False, reason=NAMELESS
    )
    for kind in ("openssl", "boringssl"):
        with ElfFile(path) as elf:
            found = complete(elf, msgspec.structs.replace(judged, kind=kind))
        assert (found.visible, found.functions) == (False, {})
        assert found.reason.startswith(NAMELESS + ", and ")


@pytest.mark.parametrize("key", METHODS)
def test_the_table_of_methods_leads_to_those_that_open_and_write_records(key):
    with ElfFile(fetch(key)) as elf:
        image = Image(elf)
        found = recognise(Code(image), Pointers(elf, image))
        named = elf.symtab(tuple(MANGLED.values()))
    places = {name: entry.address for name, (entry, _) in found.items()}
    assert set(places) == set(MANGLED)
    assert {entry.proof for entry, _ in found.values()} == {METHODS[key]}
    if named:
        assert places == {name: named[text].address for name, text in MANGLED.items()}
    assert bool(named) == (key not in WITHOUT_TRUTH)


@pytest.mark.parametrize("key", ["openssl-3.2.1-static", "libcurl", "rustls-uv-0.9.5"])
def test_other_libraries_have_no_such_table(key):
    with ElfFile(fetch(key)) as elf:
        image = Image(elf)
        assert recognise(Code(image), Pointers(elf, image)) == {}
