# SPDX-License-Identifier: Apache-2.0
"""The locator on real builds: the right function, the right walks, nothing where nothing is.

Walks were first measured by running the libraries (their own handshakes compared with their
memory), so they are an independent truth: ``a+b`` means load the pointer at a, then add b.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from packages import fetch

from ecapture.binary.elf import ElfFile
from ecapture.binary.secrets.locate import locate
from ecapture.binary.secrets.sites import How, Library, NotLocated, Proof, SecretSites

# What is promised of a machine with nothing else to do; any other gets ten times as much.
LIBSSL_BUDGET_S = 0.050
PROGRAM_BUDGET_S = 2.0


def found(path: Path) -> SecretSites:
    with ElfFile(path) as elf:
        sites = locate(elf)
    assert isinstance(sites, SecretSites), sites
    return sites


def walks(text: str) -> dict[str, str]:
    return dict(pair.split("=") for pair in text.split())


# Per row of measured versions: what is the same in every build of it.
OPENSSL_1_0_2 = walks(
    "version=0 rbio=10 is_server=38 client_random=80+c4 session=130 master_key=130+14"
)
OPENSSL_1_1_0 = walks(
    "version=0 rbio=10 is_server=38 client_random=90+b0 session=178 master_key=178+8"
    " cipher_id=178+d8+10"
)
OPENSSL_1_1_1B = walks(
    "version=0 rbio=10 is_server=38 client_random=a8+b8 session=508 master_key=508+50"
    " cipher_id=508+1f8+18 handshake_secret=174 handshake_hash=2f4 client_application=334"
    " server_application=374 exporter=3b4"
)
OPENSSL_1_1_1L = walks(
    "version=0 rbio=10 is_server=38 client_random=a8+b8 session=510 master_key=510+50"
    " cipher_id=510+1f0+18 handshake_secret=17c handshake_hash=2fc client_application=33c"
    " server_application=37c exporter=3bc"
)
OPENSSL_3_0 = walks(
    "version=0 rbio=10 is_server=38 client_random=160 session=918 master_key=918+50"
    " cipher_id=918+2f8+18 handshake_secret=584 handshake_hash=704 client_application=744"
    " server_application=784 exporter=7c4"
)
OPENSSL_3_0_QUIC = walks(  # a fork with other offsets under the same version number
    "version=0 rbio=10 client_random=160 session=9d8 master_key=9d8+50 cipher_id=9d8+2f8+18"
    " handshake_secret=584 handshake_hash=704 client_application=744 server_application=784"
    " exporter=884"
)
OPENSSL_3_2 = walks(
    "version=40 rbio=48 is_server=70 client_random=140 session=880 master_key=880+50"
    " cipher_id=880+300+18 handshake_secret=53c handshake_hash=6bc client_application=6fc"
    " server_application=73c exporter=77c"
)
OPENSSL_3_4_1 = walks(
    "version=48 rbio=50 is_server=78 client_random=148 session=888 master_key=888+50"
    " cipher_id=888+2f8+18 handshake_secret=544 handshake_hash=6c4 client_application=704"
    " server_application=744 exporter=784"
)
OPENSSL_3_5 = walks(
    "version=48 rbio=50 is_server=78 client_random=188 session=900 master_key=900+50"
    " cipher_id=900+2f8+18 handshake_secret=5bc handshake_hash=73c client_application=77c"
    " server_application=7bc exporter=7fc"
)
BORINGSSL = walks(
    "client_random=30+30 exporter=30+182 read_application=30+151 write_application=30+120"
)
BORINGSSL_SYMBOLS = BORINGSSL | walks("rbio=18 master_key=30+1d0+a")
GNUTLS = walks("client_random=50 master_key=20")

TRUTHS = {
    "openssl-1.0.2q": OPENSSL_1_0_2,
    "openssl-1.1.0g-static": OPENSSL_1_1_0,
    "openssl-1.1.1b": OPENSSL_1_1_1B,
    "openssl-1.1.1l": OPENSSL_1_1_1L,
    "openssl-1.1.1l-static": OPENSSL_1_1_1L,
    "openssl-3.2.1-static": OPENSSL_3_2,
    "openssl-3.3.1": OPENSSL_3_2,
    "openssl-3.4.1": OPENSSL_3_4_1,
    "openssl-3.5.4": OPENSSL_3_5,
    "openssl-3.6.5": OPENSSL_3_5,
    "openssl-4.0.3-static": OPENSSL_3_5,
    # One data model, one layout: what was measured on x86_64 holds on aarch64.
    "arm64-openssl-1.1.0l": OPENSSL_1_1_0,
    "arm64-openssl-3.5.4": OPENSSL_3_5,
    "arm64-openssl-4.0.3-static": OPENSSL_3_5,
    "musl-openssl-3.5.4": {k: v for k, v in OPENSSL_3_5.items() if k != "rbio"},
    "node-18": OPENSSL_3_0_QUIC,
    "node-20": OPENSSL_3_0,
    "node-24": OPENSSL_3_5,
    "boringssl-curl_cffi": BORINGSSL_SYMBOLS,
    "boringssl-grpcio": BORINGSSL,
    "boringssl-bun": BORINGSSL,
    "arm64-boringssl-grpcio": BORINGSSL,
    "gnutls": GNUTLS,
}


@pytest.mark.parametrize("key", TRUTHS)
def test_walks_are_those_that_were_measured(key):
    chains = found(fetch(key)).chains
    expected = TRUTHS[key]
    assert {name: str(chains.get(name)) for name in expected} == expected


def test_objects_have_a_type_since_openssl_3_2():
    typed = {key: "object_type" in found(fetch(key)).chains for key in ("node-20", "openssl-3.3.1")}
    assert typed == {"node-20": False, "openssl-3.3.1": True}


NAMED = [
    "openssl-1.1.1l-static",
    "openssl-3.2.1-static",
    "openssl-3.4.1",
    "openssl-4.0.3-static",
    "node-18",
    "node-20",
    "node-24",
    "boringssl-curl_cffi",
    "arm64-openssl-4.0.3-static",
]


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


@pytest.mark.parametrize("key", NAMED)
def test_labels_alone_lead_to_the_function_that_has_the_name(key, tmp_path):
    original = fetch(key)
    named = found(original).log
    assert named is not None
    assert named.how is How.SYMBOL

    stripped = tmp_path / "stripped"
    stripped.write_bytes(without_names(original.read_bytes()))
    unnamed = found(stripped).log
    assert unnamed is not None
    assert unnamed.how is How.LABEL
    assert (unnamed.address, unnamed.offset) == (named.address, named.offset)


@pytest.mark.parametrize("key", [key for key in TRUTHS if key.startswith(("boring", "arm64-b"))])
def test_boringssl_is_told_from_openssl(key):
    assert found(fetch(key)).library is Library.BORINGSSL


@pytest.mark.parametrize(
    ("key", "proof"),
    [
        ("openssl-3.5.4", Proof.FRAME_TABLE),
        ("boringssl-grpcio", Proof.FRAME_TABLE),
        ("arm64-openssl-3.5.4", Proof.FRAME_TABLE),
        ("boringssl-bun", Proof.CALL_TARGET),
    ],
)
def test_address_is_proven(key, proof):
    path = fetch(key)
    log = found(path).log
    assert log is not None
    assert log.proof is proof
    assert len(log.labels) >= 2
    assert path.read_bytes()[log.offset : log.offset + len(log.head)] == log.head


def test_libraries_without_log_function_have_the_master_function_instead():
    for key in ("openssl-1.0.2q", "openssl-1.1.0g-static"):
        sites = found(fetch(key))
        assert sites.log is None
        assert sites.master is not None
        assert sites.master.how is How.SYMBOL


@pytest.mark.parametrize(
    "source", ["libcrypto-3.5.4", "libcurl", "arm64-libcrypto-3.5.4", "/usr/bin/python3", "openssl"]
)
def test_nothing_is_found_where_nothing_is(source):
    path = Path("/usr/bin/openssl") if source == "openssl" else Path(source)
    with ElfFile(path if path.is_absolute() else fetch(source)) as elf:
        assert isinstance(locate(elf), NotLocated)


SLOW = 10


def spent(path: Path, record_property: Callable[[str, object], None]) -> float:
    # Processor time, the best of three, to be read in the report.
    best = float("inf")
    for _ in range(3):
        started = time.process_time()
        found(path)
        best = min(best, time.process_time() - started)
    record_property("seconds", best)
    print(f"{path.name} took {best * 1e3:.1f} ms")
    return best


@pytest.mark.parametrize(
    "key", ["openssl-1.1.1l", "openssl-3.5.4", "arm64-openssl-3.5.4", "gnutls"]
)
def test_a_library_is_located_at_once(key, record_property):
    assert spent(fetch(key), record_property) <= SLOW * LIBSSL_BUDGET_S


@pytest.mark.parametrize("key", ["node-20", "node-24", "boringssl-bun"])
def test_a_large_program_is_located_soon(key, record_property):
    assert spent(fetch(key), record_property) <= SLOW * PROGRAM_BUDGET_S
