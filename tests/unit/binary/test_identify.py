# SPDX-License-Identifier: Apache-2.0
"""What a file contains is found out from its exports, its symbol table, or its constants."""

from __future__ import annotations

import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from ecapture.binary.elf import ElfFile
from ecapture.binary.identify import identify
from ecapture.binary.library import Library

Compile = Callable[..., Path]

LIBRARIES = Path("/usr/lib/x86_64-linux-gnu")

STATIC = subprocess.run(
    ["pkg-config", "--static", "--libs", "openssl"], check=True, capture_output=True, text=True
).stdout.split()

OWN_OPENSSL = """
#define PUBLIC __attribute__((noinline))
PUBLIC int SSL_read(void *s, void *b, int n) { return n + 1; }
PUBLIC int SSL_write(void *s, const void *b, int n) { return n + 2; }
PUBLIC int SSL_set_fd(void *s, int fd) { return fd + 3; }
"""
CALLER = """
#include <openssl/ssl.h>
#include <stdio.h>
int main(int argc, char **argv) {
    char place[16];
    SSL *ssl = SSL_new(SSL_CTX_new(TLS_method()));
    puts(OpenSSL_version(OPENSSL_VERSION));
    return SSL_read(ssl, place, argc) + SSL_write(ssl, place, argc);
}
"""


def look(path: Path) -> Library | None:
    with ElfFile(path) as elf:
        return identify(elf)


def found(path: Path) -> Library:
    library = look(path)
    assert library is not None
    assert library.visible is (library.reason == "")
    return library


def nm_offsets(path: Path, *options: str) -> dict[str, int]:
    """File offsets of functions by binutils: nm's address, moved as readelf says its part is."""
    command = ["nm", "--defined-only", *options, str(path)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    parts = []
    command = ["readelf", "-lW", str(path)]
    for line in subprocess.run(command, check=True, capture_output=True, text=True).stdout.split(
        "\n"
    ):
        words = line.split()
        if words[:1] == ["LOAD"]:
            offset, address, _, size = (int(word, 16) for word in words[1:5])
            parts.append((offset, address, size))
    offsets = {}
    for line in lines:
        address = int(line.split()[0], 16)
        for offset, start, size in parts:
            if start <= address < start + size:
                offsets[line.split()[2].partition("@")[0]] = address - start + offset
    return offsets


def test_knows_the_system_openssl() -> None:
    path = LIBRARIES / "libssl.so.3"
    library = found(path)
    version = subprocess.run(["openssl", "version"], check=True, capture_output=True, text=True)
    assert library.kind == "openssl"
    assert library.version == " ".join(version.stdout.split()[:2])
    assert (library.linkage, library.how, library.visible) == ("shared", "dynsym", True)
    assert library.soname == "libssl.so.3"
    assert library.machine == platform.machine()
    truth = nm_offsets(path, "-D")
    exported = {name: at for name, at in library.functions.items() if "internal" not in name}
    assert exported == {name: truth[name] for name in exported}
    assert {"SSL_read", "SSL_read_ex", "SSL_write", "SSL_write_ex"} <= set(library.through)
    assert set(library.through.values()) == set(library.functions) - set(exported)
    assert set(library.evidence) == set(library.functions) - set(exported)
    assert {"SSL_read", "SSL_read_ex", "SSL_write", "SSL_write_ex", "SSL_set_fd", "SSL_free"} <= (
        set(library.functions)
    )


def test_knows_openssl_inside_a_program() -> None:
    path = Path("/usr/bin/node")
    if path.stat().st_size < 10_000_000:
        pytest.skip("the node of this distribution has its OpenSSL in a library")
    start = time.perf_counter()
    library = found(path)
    assert time.perf_counter() - start < 10.0, "60 ms on a quiet machine"
    assert (library.kind, library.linkage, library.how) == ("openssl", "executable", "dynsym")
    command = [str(path), "-p", "process.versions.openssl"]
    version = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    assert library.version == f"OpenSSL {version}"
    truth = nm_offsets(path)
    assert library.functions == {name: truth[name] for name in library.functions}


@pytest.mark.parametrize(
    ("name", "kind", "version"),
    [
        ("libgnutls.so.30", "gnutls", "GnuTLS 3."),
        ("libssl3.so", "nss", "NSS 3."),
        ("libsoftokn3.so", "softoken", "NSS 3."),
        ("libgnutls-openssl.so.27", "gnutls", ""),
    ],
)
def test_knows_the_other_libraries(name: str, kind: str, version: str) -> None:
    library = found(LIBRARIES / name)
    assert library.kind == kind
    assert library.version.startswith(version)
    # what only translates to GnuTLS has none of its functions
    assert library.visible == (name != "libgnutls-openssl.so.27")


@pytest.mark.parametrize(
    "path",
    [
        LIBRARIES / "libcrypto.so.3",
        LIBRARIES / "libc.so.6",
        LIBRARIES / "libcurl.so.4",
        Path("/usr/bin/curl"),
        Path("/usr/bin/openssl"),
        Path("/usr/bin/python3"),
        Path("/bin/ls"),
    ],
    ids=lambda path: path.name,
)
def test_takes_no_user_of_tls_for_a_library(path: Path) -> None:
    assert look(path) is None


def test_takes_no_import_for_a_definition(compile_c: Compile) -> None:
    for options in ((), ("-no-pie",), ("-Wl,-z,lazy",)):
        assert look(compile_c(CALLER, "-lssl", "-lcrypto", *options)) is None


def test_finds_hidden_functions_of_a_static_library(compile_c: Compile) -> None:
    path = compile_c(CALLER, "-static", *STATIC)
    library = found(path)
    assert (library.kind, library.how, library.visible) == ("openssl", "symtab", True)
    assert library.linkage == "executable"
    assert library.version.startswith("OpenSSL 3.")
    truth = nm_offsets(path)
    assert library.functions["SSL_read"] == truth["SSL_read"]
    hidden = found(compile_c(OWN_OPENSSL, "-shared", "-fPIC", "-fvisibility=hidden"))
    assert (hidden.how, hidden.linkage, hidden.visible) == ("symtab", "static-hidden", True)


def test_says_why_a_stripped_static_library_is_invisible(compile_c: Compile) -> None:
    library = found(compile_c(CALLER, "-static", "-s", *STATIC))
    assert (library.kind, library.how, library.visible) == ("openssl", "content", False)
    assert library.linkage == "static-hidden"
    assert "stripped" in library.reason
    assert library.version.startswith("OpenSSL 3.")
    assert library.functions == {}


@pytest.mark.parametrize(
    ("extra", "kind"),
    [
        ("int SSL_CTX_set_custom_verify(void) { return 4; }", "boringssl"),
        ("int SSL_CTX_use_certificate_chain_mem(void) { return 4; }", "libressl"),
        ('const char *text = "OpenSSL 1.1.1w  11 Sep 2023";', "openssl"),
    ],
)
def test_tells_the_descendants_of_openssl_apart(compile_c: Compile, extra: str, kind: str) -> None:
    for options in (("-fPIC",), ("-fPIC", "-fvisibility=hidden")):
        library = found(compile_c(OWN_OPENSSL + extra, "-shared", *options))
        assert library.kind == kind
        assert library.visible
        assert library.version == ("OpenSSL 1.1.1w" if kind == "openssl" else "")


@pytest.mark.parametrize(
    ("texts", "kind", "version"),
    [
        (["%-23s Kx=%-8s Au=%-4s", "ssl/ssl_lib.cc", "BoringSSL"], "boringssl", ""),
        (["x Kx=%-8s Au=%-4s", "OpenSSL 1.0.2u  20 Dec 2019"], "openssl", "OpenSSL 1.0.2u"),
        (["x Kx=%-8s Au=%-4s", "LibreSSL 3.8.2"], "libressl", "LibreSSL 3.8.2"),
        (["/reg/rustls-0.23.5/src/conn.rs"], "rustls", "rustls-0.23.5"),
        (["mbedtls_ssl_handshake", "Mbed TLS 3.6.0"], "mbedtls", "Mbed TLS 3.6.0"),
        (["wolfSSL error"], "wolfssl", ""),
        (["Enabled GnuTLS 3.8.3 logging..."], "gnutls", "GnuTLS 3.8.3"),
        ([], "unknown", ""),
    ],
)
def test_knows_stripped_code_by_its_constants(
    compile_c: Compile, texts: list[str], kind: str, version: str
) -> None:
    constants = ["TLS 1.3, client CertificateVerify", *texts]
    lines = [f'const char *text{n} = "{text}";' for n, text in enumerate(constants)]
    library = found(compile_c("\n".join([*lines, "int main(void) { return 0; }"]), "-s"))
    assert (library.kind, library.how, library.visible) == (kind, "content", False)
    assert library.version == version


def test_knows_go_programs(compile_c: Compile) -> None:
    text = """
    __attribute__((section(".go.buildinfo"), aligned(16))) char made[] =
        "\\xff Go buildinf:\\x08\\x02" "0123456789abcdef" "\\x08go1.23.4";
    const char *names = "%s";
    int main(void) { return made[0]; }
    """
    with_tls = text % "TLS 1.3, client CertificateVerify"
    library = found(compile_c(with_tls, "-s"))
    assert (library.kind, library.version, library.visible) == ("go", "go1.23.4", False)
    nameless = with_tls.replace('section(".go.buildinfo"), ', "")
    assert found(compile_c(nameless, "-s")).kind == "go"
    assert look(compile_c(text % "no TLS here", "-s")) is None
    table = '__attribute__((section(".gopclntab"))) const char table[] = "crypto/tls.(*Conn).Read";'
    damaged = found(compile_c(with_tls + table, "-s"))
    assert (damaged.kind, damaged.functions) == ("go", {})
    assert damaged.reason == "its table of functions was not found"


def test_refuses_libraries_of_another_machine(tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text(OWN_OPENSSL)
    command = ["aarch64-linux-gnu-gcc", "-shared", "-fPIC", "-nostdlib", "-o", "a.so", "a.c"]
    subprocess.run(command, check=True, cwd=tmp_path)
    library = found(tmp_path / "a.so")
    assert (library.kind, library.visible, library.machine) == ("openssl", False, "aarch64")
    assert "aarch64" in library.reason


def test_asks_the_neighbour_for_the_version_only(compile_c: Compile) -> None:
    asked = []

    def neighbour(soname: str) -> ElfFile | None:
        asked.append(soname)
        return None

    with ElfFile(LIBRARIES / "libssl.so.3") as elf:
        library = identify(elf, neighbour)
    assert asked == ["libcrypto.so.3"]
    assert library is not None
    assert library.version == ""
    assert library.visible


def test_object_files_are_no_libraries(compile_c: Compile) -> None:
    assert look(compile_c(OWN_OPENSSL, "-c")) is None


def test_survives_json() -> None:
    library = found(LIBRARIES / "libssl.so.3")
    assert msgspec.json.decode(msgspec.json.encode(library), type=Library) == library
