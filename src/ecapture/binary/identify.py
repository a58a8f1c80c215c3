# SPDX-License-Identifier: Apache-2.0
"""Says which TLS implementation, server or shell a file contains, and where its functions are.

Strategy, cheapest question first:

1. the functions it exports: a few reads per family, answered by a Bloom filter when negative;
2. the functions its full symbol table names: one pass over the names;
3. what its constants say: one pass over them. Every TLS 1.3 implementation must contain the
   context string of its CertificateVerify message (RFC 8446, section 4.4.3), and OpenSSL and its
   descendants format cipher descriptions alike since 1.0, so two markers decide whether there is
   anything to look for at all.

Invariants: what a file merely imports does not make it a TLS library; an offset is that of code in
this very file; ``reason`` is empty exactly if ``visible``.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from ecapture.binary import golang, mysqld, nss, shells
from ecapture.binary.calls.inner import inner_functions
from ecapture.binary.elf import ElfFile, Symbol
from ecapture.binary.file import text_of_name
from ecapture.binary.library import BUILT_IN, NAMELESS, How, Kind, Library, Linkage
from ecapture.errors import NotExecutable, SymbolNotFound, TargetError

Neighbour = Callable[[str], "ElfFile | None"]


class _Family(NamedTuple):
    # A file is this implementation if it defines one function of each of the `anchors`.
    kind: Kind
    anchors: tuple[tuple[str, ...], ...]
    functions: tuple[str, ...]


_FAMILIES = (
    # First: a server that carries its own OpenSSL is seen where its talk is plaintext anyway.
    _Family(
        "postgres",
        (("secure_read",), ("secure_write",), ("PostgresMain",)),
        (
            "secure_read",
            "secure_write",
            "PostgresMain",
            "secure_raw_read",
            "be_tls_read",
            "be_gssapi_read",
        ),
    ),
    _Family(
        "openssl",
        (("SSL_read", "SSL_read_ex"), ("SSL_write", "SSL_write_ex")),
        (
            "SSL_read",
            "SSL_read_ex",
            "SSL_peek",
            "SSL_peek_ex",
            "SSL_write",
            "SSL_write_ex",
            "SSL_read_early_data",
            "SSL_write_early_data",
            "SSL_sendfile",
            "SSL_set_fd",
            "SSL_set_rfd",
            "SSL_set_wfd",
            "SSL_do_handshake",
            "SSL_free",
            "SSL_clear",
        ),
    ),
    _Family(
        "gnutls",
        (("gnutls_record_recv",), ("gnutls_record_send",)),
        (
            "gnutls_record_recv",
            "gnutls_record_recv_seq",
            "gnutls_record_recv_packet",
            "gnutls_record_recv_early_data",
            "gnutls_record_send",
            "gnutls_record_send2",
            "gnutls_record_send_file",
            "gnutls_record_send_range",
            "gnutls_record_send_early_data",
            "gnutls_record_uncork",
            "gnutls_packet_get",
            "gnutls_transport_set_int2",
            "gnutls_transport_set_ptr",
            "gnutls_transport_set_ptr2",
            "gnutls_handshake",
            "gnutls_deinit",
        ),
    ),
    _Family("nss", (("SSL_ImportFD",), ("SSL_ForceHandshake",)), ()),
    _Family("softoken", (("NSC_GetFunctionList",), ("FC_GetFunctionList",)), ()),
    _Family(
        "mbedtls",
        (("mbedtls_ssl_read",), ("mbedtls_ssl_write",)),
        ("mbedtls_ssl_read", "mbedtls_ssl_write", "mbedtls_ssl_free", "mbedtls_ssl_set_bio"),
    ),
    _Family(
        "wolfssl",
        (("wolfSSL_read",), ("wolfSSL_write",)),
        ("wolfSSL_read", "wolfSSL_write", "wolfSSL_set_fd", "wolfSSL_free"),
    ),
)
_OPENSSL = _FAMILIES[1]
_INTERNAL: dict[Kind, Callable[[ElfFile], nss.Found]] = {
    "nss": nss.tls_layer,
    "softoken": nss.value_setter,
}
# Functions that BoringSSL (include/openssl/ssl.h) has and OpenSSL and LibreSSL have not, and one
# that is LibreSSL's alone (lib/libssl/Symbols.list).
_BORINGSSL_ONLY = ("SSL_CTX_set_custom_verify", "SSL_CTX_set_grease_enabled")
_LIBRESSL_ONLY = ("SSL_CTX_use_certificate_chain_mem",)

# Why a kind cannot be shown even where its functions have names. A kind without a row can be.
_REASONS: dict[Kind, str] = {
    "mbedtls": "there is no probe for Mbed TLS",
    "wolfssl": "there is no probe for wolfSSL",
    "unknown": "has TLS 1.3 code of no library known here",
}
_HANDED_ON = "named functions hand object and buffer to it; starts there by frame-table"

_CERTIFICATE_VERIFY = b"TLS 1.3, client CertificateVerify"
_CIPHER_DESCRIPTION = b" Kx=%-8s Au=%-"
_GO_BUILD = b"\xff Go buildinf:"
_MAX_GO_HEAD = 1 << 16

# How each implementation tells its version: the constant prefix, then the whole.
_OPENSSL_TEXT = re.compile(rb"(OpenSSL \d+\.\d+\.\d+[\w.+-]*)  ?\d{1,2} [A-Z][a-z]{2} \d{4}")
_VERSION_TEXTS: dict[Kind, tuple[bytes, re.Pattern[bytes]]] = {
    "openssl": (b"OpenSSL ", _OPENSSL_TEXT),
    "boringssl": (b"AWS-LC ", re.compile(rb"(AWS-LC \d+\.\d+\.\d+)")),
    "libressl": (b"LibreSSL ", re.compile(rb"(LibreSSL \d+\.\d+\.\d+)")),
    "gnutls": (b"Enabled GnuTLS ", re.compile(rb"Enabled (GnuTLS \d+\.\d+\.\d+)")),
    "nss": (b"Version: NS", re.compile(rb"Version: (NSS \d+\.\d+[\d.]*|NSPR \d+\.\d+[\d.]*)")),
    # PG_VERSION_STR; its messages name older releases, too
    "postgres": (
        b"PostgreSQL ",
        re.compile(
            rb"(PostgreSQL \d+(?:\.\d+|beta\d+|rc\d+|devel)+)(?: \([^)]{1,80}\))?(?: on |\0)"
        ),
    ),
    "mbedtls": (b"bed TLS ", re.compile(rb"(bed TLS \d+\.\d+\.\d+)")),
    "rustls": (b"/rustls-", re.compile(rb"/(rustls-\d+\.\d+\.\d+[\w.-]{0,20})/")),
}


def identify(elf: ElfFile, neighbour: Neighbour | None = None) -> Library | None:
    """Return which TLS implementation the file contains, or nothing if it contains none.

    ``neighbour`` opens a library that this one needs, by its soname; only the version text depends
    on it, because OpenSSL keeps it in libcrypto. By default it is sought in the same directory.

    Raises:
        NotExecutable: the file contradicts itself.
    """
    if elf.type not in ("executable", "shared"):
        return None
    found = _tls(elf, neighbour or _sibling(elf))
    server = identify_server(elf)
    if found is None or server is None:
        return found or server
    functions = server.functions | found.functions
    return msgspec.structs.replace(
        found, functions=functions, also=(server.kind,), server=server.server
    )


def identify_server(elf: ElfFile, *, named: str = "", at: int | None = None) -> Library | None:
    """Return what a database server shows, or nothing if the file is none.

    ``named`` is the symbol of the function that carries out commands, ``at`` its offset in the
    file, where the caller knows better than the names that the file exports.

    Raises:
        NotExecutable: the file contradicts itself, or no function starts at the offset.
        SymbolNotFound: there is no function of that name.
    """
    by_hand = bool(named) or at is not None
    called_so = Path(elf.path).name in mysqld.PROGRAMS
    if not (by_hand or called_so or mysqld.is_server(elf)):
        return None
    located = mysqld.locate(elf, named=named, at=at)
    if located is None and named:
        raise SymbolNotFound(
            path=elf.path, symbol=named, hint="`nm -D --defined-only FILE` lists what it exports"
        )
    if located is None:
        if not called_so:
            return None
        return _library(elf, "mysqld", "dynsym", {}, "", reason=mysqld.refusal(elf))
    functions = {
        name: elf.file_offset(symbol.address, executable=True)
        for name, symbol in located.functions.items()
    }
    found = _library(elf, "mysqld", "dynsym", functions, mysqld.version(elf))
    return msgspec.structs.replace(found, server=located.server)


def _tls(elf: ElfFile, neighbour: Neighbour) -> Library | None:
    for family in _FAMILIES:
        if all(any(elf.symbol(name) for name in names) for names in family.anchors):
            functions = {name: elf.symbol(name) for name in family.functions}
            # Programs written in Rust export some functions of their static libraries, not all.
            missing = [name for name, symbol in functions.items() if symbol is None]
            functions.update(elf.symtab(missing))
            return _named(elf, family, "dynsym", functions, neighbour)
    shell = shells.exported(elf)
    if shell is not None:
        return _shell(elf, shell)
    first = elf.symtab([name for family in _FAMILIES for name in family.anchors[0]])
    for family in _FAMILIES:
        if any(name in first for name in family.anchors[0]):
            anchors = [name for names in family.anchors for name in names]
            named = elf.symtab([*family.functions, *anchors])
            if all(any(name in named for name in names) for names in family.anchors):
                functions = {name: named.get(name) for name in family.functions}
                return _named(elf, family, "symtab", functions, neighbour)
    return _by_content(elf)


def _named(
    elf: ElfFile,
    family: _Family,
    how: How,
    symbols: dict[str, Symbol | None],
    neighbour: Neighbour,
) -> Library:
    named = {name: symbol.address for name, symbol in symbols.items() if symbol is not None}
    functions = _offsets(elf, named)
    inner: dict[str, int] = {}
    through: dict[str, str] = {}
    kind = family.kind
    if kind in _INTERNAL:
        return _by_fingerprint(elf, kind)
    if family is _OPENSSL:
        if any(name.startswith("libgnutls.so") for name in elf.needed):
            # libgnutls-openssl: OpenSSL's names, but the objects and the work are GnuTLS's
            return _library(elf, "gnutls", how, {}, "", reason="only translates calls to GnuTLS")
        kind = _descendant(elf, how)
        if kind == "openssl" and elf.machine == platform.machine():
            inner, through = inner_functions(elf, {n: named[n] for n in functions})
            functions |= _offsets(elf, inner)
    reason = ""
    if family.functions and not all(
        any(name in functions for name in names) for names in family.anchors
    ):
        reason = "its functions are not in a part of the file that is code"
    found = _library(elf, kind, how, functions, _version(elf, kind, neighbour), reason=reason)
    evidence = dict.fromkeys(_offsets(elf, inner), _HANDED_ON)
    return msgspec.structs.replace(found, through=through, evidence=evidence) if inner else found


def _offsets(elf: ElfFile, named: Mapping[str, int]) -> dict[str, int]:
    # Where in the file functions are, less those that are not in a part of it that is code.
    functions = {}
    for name, address in named.items():
        with contextlib.suppress(NotExecutable):
            functions[name] = elf.file_offset(address, executable=True)
    return functions


def _by_fingerprint(elf: ElfFile, kind: Kind) -> Library:
    # What it exports says what it is, but the functions of interest have no names.
    found = _INTERNAL[kind](elf)
    functions = {
        name: elf.file_offset(address, executable=True) for name, address in found.functions.items()
    }
    version = _version_text(elf, "nss")
    return _library(elf, kind, "fingerprint", functions, version, reason=found.reason)


def _library(
    elf: ElfFile,
    kind: Kind,
    how: How,
    functions: dict[str, int],
    version: str,
    *,
    reason: str = "",
) -> Library:
    reason = reason or _REASONS.get(kind, "")
    if how == "content":
        reason = reason or (BUILT_IN if kind == "rustls" else NAMELESS)
    linkage: Linkage = "executable" if _is_program(elf) else "shared"
    if how == "content" or (how == "symtab" and not _is_program(elf)):
        linkage = "static-hidden"
    if elf.machine != platform.machine():
        reason = f"made for {elf.machine}, while this machine is {platform.machine()}"
    return Library(
        kind=kind,
        linkage=linkage,
        how=how,
        visible=not reason,
        reason=text_of_name(reason),  # it may name the file
        version=version,
        machine=elf.machine,
        soname=text_of_name(elf.soname),
        build_id=elf.build_id,
        functions=functions,
    )


def _is_program(elf: ElfFile) -> bool:
    return bool(elf.interpreter) or elf.type == "executable" or elf.is_pie


def _shell(elf: ElfFile, shell: shells.Shell) -> Library:
    version = ""
    if shell.kind in shells.VERSIONS:
        prefix, pattern = shells.VERSIONS[shell.kind]
        for match in elf.matches(elf.constants, prefix, pattern):
            version = match[1].decode("ascii", "replace")
            break
    found = _library(elf, shell.kind, shell.how, shell.functions, version, reason=shell.reason)
    linkage: Linkage = "executable" if _is_program(elf) else "shared"
    return msgspec.structs.replace(
        found, linkage=linkage, addresses=shell.addresses, evidence=dict(shell.evidence)
    )


def _descendant(elf: ElfFile, how: How) -> Kind:
    # Which of those that have OpenSSL's functions it is.
    only = (*_BORINGSSL_ONLY, *_LIBRESSL_ONLY)
    present = elf.symtab(only) if how == "symtab" else {n for n in only if elf.symbol(n)}
    if any(name in present for name in _BORINGSSL_ONLY):
        return "boringssl"
    return "libressl" if any(name in present for name in _LIBRESSL_ONLY) else "openssl"


def _version(elf: ElfFile, kind: Kind, neighbour: Neighbour) -> str:
    if version := _version_text(elf, kind):
        return version
    if kind not in ("openssl", "libressl"):
        return ""
    for soname in elf.needed:
        if soname.startswith("libcrypto"):
            try:
                beside = neighbour(soname)
                if beside is not None:
                    with beside:
                        return _version_text(beside, kind)
            except TargetError:
                continue
    return ""


def _version_text(elf: ElfFile, kind: Kind) -> str:
    if kind not in _VERSION_TEXTS:
        return ""
    prefix, pattern = _VERSION_TEXTS[kind]
    for found in elf.matches(elf.constants, prefix, pattern):
        text = found[1].decode("ascii", "replace")
        return f"M{text}" if kind == "mbedtls" else text
    return ""


def _sibling(elf: ElfFile) -> Neighbour:
    folder = Path(elf.path).parent

    def beside(soname: str) -> ElfFile | None:
        return None if os.sep in soname else ElfFile(folder / soname)

    return beside


def _by_content(elf: ElfFile) -> Library | None:
    version = _go_version(elf)
    if version is not None:
        return _go(elf, version, golang.find_table(elf))
    found = elf.search(elf.constants, _CERTIFICATE_VERIFY, _CIPHER_DESCRIPTION, *shells.MARKERS)
    marker = next((marker for marker in shells.MARKERS if marker in found), None)
    if marker is not None and _is_program(elf):
        return _shell(elf, shells.nameless(elf, marker))
    if not found.keys() - shells.MARKERS.keys():
        return None
    if _CIPHER_DESCRIPTION not in found and (table := golang.find_table(elf)):
        return _go(elf, "", table)
    kind = _kind_by_text(elf, openssl_like=_CIPHER_DESCRIPTION in found)
    return _library(elf, kind, "content", {}, _version_text(elf, kind))


def _kind_by_text(elf: ElfFile, *, openssl_like: bool) -> Kind:
    # Runs only on files that do contain TLS code, so a second pass costs little overall.
    texts: dict[bytes, Kind] = {
        b"BoringSSL": "boringssl",
        b"ssl/ssl_lib.cc": "boringssl",
        b"AWS-LC ": "boringssl",
        b"LibreSSL ": "libressl",
        b"Enabled GnuTLS ": "gnutls",
        b"wolfSSL ": "wolfssl",
        b"mbedtls_ssl_": "mbedtls",
    }
    found = elf.search(elf.constants, *texts)
    if openssl_like:
        for text in (b"ssl/ssl_lib.cc", b"AWS-LC ", b"LibreSSL "):
            if text in found:
                return "libressl" if text == b"LibreSSL " else "boringssl"
        if _version_text(elf, "openssl"):
            return "openssl"
        return "boringssl" if b"BoringSSL" in found else "openssl"
    if _version_text(elf, "rustls"):
        return "rustls"
    if _version_text(elf, "openssl"):  # without descriptions of ciphers, which a linker dropped
        return "openssl"
    for text, kind in texts.items():
        if text in found:
            return kind
    return "unknown"


def _go_version(elf: ElfFile) -> str | None:
    # The version of Go that made the file, "" if it does not say, nothing if it was not Go.
    # Layout: debug/buildinfo of Go 1.18: a magic of 14 bytes, the pointer size, flags, and, where
    # bit 1 of the flags is set, at byte 32 the version, its length before it. Before Go 1.18 a
    # pointer to the string variable that has the version follows the flags.
    section = elf.section(".go.buildinfo")
    starts = [section.offset] if section else elf.writable_offsets
    for start in starts:
        try:
            block = elf.read(start, min(_MAX_GO_HEAD, elf.size - start))
        except NotExecutable:
            continue
        at = block.find(_GO_BUILD)
        if at >= 0:
            flags, length = block[at + 15 : at + 16], block[at + 32 : at + 33]
            if flags and flags[0] & 2 and length and length[0] < 0x80:
                return block[at + 33 : at + 33 + length[0]].decode("ascii", "replace")
            pointer = int.from_bytes(block[at + 16 : at + 24], "little")
            return golang.text_at(elf, pointer) if flags == b"\0" else ""
    return None


def _go(elf: ElfFile, version: str, table: golang.Table | None) -> Library | None:
    # A Go program; nothing if crypto/tls is not in it.
    if table is None and not elf.search(elf.constants, _CERTIFICATE_VERIFY):
        return None
    code = golang.locate(elf, table)
    if code.absent:
        return None
    reason = code.reason
    if "noregabi" in version:  # GOEXPERIMENT, in the version since Go 1.18
        reason = "was built with an experimental calling convention"
    found = _library(elf, "go", "gopclntab", code.functions, version, reason=reason)
    return msgspec.structs.replace(found, convention=code.convention, returns=code.returns)
