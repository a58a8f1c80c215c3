# SPDX-License-Identifier: Apache-2.0
"""Where rustls tells secrets in real programs: every label, at places that symbols confirm."""

from __future__ import annotations

import subprocess
import time
from bisect import bisect_right

import pytest
from packages import fetch

from ecapture.binary.calls.locate import complete
from ecapture.binary.calls.rustls import DECRYPT, DECRYPT_OLDER, ENCRYPT, locate_methods
from ecapture.binary.elf import ElfFile
from ecapture.binary.identify import identify
from ecapture.binary.secrets.operations import AAPCS64, AMD64
from ecapture.binary.secrets.rustls import locate_rustls
from ecapture.binary.secrets.sites import NotLocated, Proof

TLS_1_3 = {
    "CLIENT_EARLY_TRAFFIC_SECRET",
    "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
    "SERVER_HANDSHAKE_TRAFFIC_SECRET",
    "CLIENT_TRAFFIC_SECRET_0",
    "SERVER_TRAFFIC_SECRET_0",
    "EXPORTER_SECRET",
}
# calls of log (TLS 1.2: client and server, full and resumed), places of TLS 1.3, how proven
BUILDS = {
    "rustls-uv-0.9.5": (2, 1, {Proof.FRAME_TABLE}),
    "rustls-uv-0.13.8": (2, 6, {Proof.FRAME_TABLE}),
    "rustls-deno": (4, 1, {Proof.POINTER, Proof.CALL_TARGET}),
    "rustls-primp": (4, 12, {Proof.FRAME_TABLE}),
    "rustls-rtls": (4, 6, {Proof.FRAME_TABLE}),
    "rustls-hf_xet": (2, 1, {Proof.FRAME_TABLE}),
    "arm64-rustls-uv": (2, 1, {Proof.FRAME_TABLE}),
    "arm64-rustls-rtls": (4, 1, {Proof.FRAME_TABLE}),
}
BUDGET_S = 10.0  # a hundred megabytes on a machine that does other things as well


@pytest.mark.parametrize("key", BUILDS)
def test_every_label_is_found(key):
    calls, behind, proofs = BUILDS[key]
    with ElfFile(fetch(key)) as elf:
        before = time.process_time()
        found = locate_rustls(elf)
        assert time.process_time() - before < BUDGET_S
        assert identify(elf).kind == "rustls"
        machine = elf.machine
    assert not isinstance(found, NotLocated), found
    assert found.notes == ()
    older = [site for site in found.sites if site.labels == ("CLIENT_RANDOM",)]
    newer = [site for site in found.sites if site not in older]
    assert (len(older), len(newer)) == (calls, behind)
    assert {label for site in newer for label in site.labels} == TLS_1_3
    assert {site.proof for site in found.sites} == proofs
    assert set(found.labels) == {"CLIENT_RANDOM", *TLS_1_3}
    lost = (AMD64 if machine == "x86_64" else AAPCS64).clobbered
    for site in newer:
        operands = (site.told.random, site.told.secret, site.told.secret_length)
        assert not {operand.register for operand in operands} & (lost | {None})
        # of OkmBlock { buf: [u8; 64], used: usize } both members
        one, other = site.told.secret, site.told.secret_length
        assert one.register == other.register
        assert other.path == (one.offset + 64,)


def symbols(path):
    """Starts of functions, sorted, and their names, demangled."""
    listed = subprocess.run(["nm", "-C", path], check=True, capture_output=True, text=True).stdout
    rows = sorted(
        (int(words[0], 16), words[2])
        for line in listed.splitlines()
        if len(words := line.split(maxsplit=2)) == 3 and words[1] in "tT"
    )
    return [row[0] for row in rows], [row[1] for row in rows]


@pytest.mark.needs("program:nm")
def test_symbols_confirm_the_places():
    path = fetch("rustls-hf_xet")
    starts, names = symbols(path)
    with ElfFile(path) as elf:
        found = locate_rustls(elf)
    for site in found.sites:
        name = names[bisect_right(starts, site.address) - 1]
        part = "tls12" if site.labels == ("CLIENT_RANDOM",) else "key_schedule"
        assert "rustls" in name
        assert part in name, f"{site.address:#x} is in {name}"


@pytest.mark.parametrize("key", ["libcurl", "openssl-3.5.4", "boringssl-curl_cffi"])
def test_nothing_is_found_where_nothing_is(key):
    with ElfFile(fetch(key)) as elf:
        assert isinstance(locate_rustls(elf), NotLocated)


# how many methods encrypt, decrypt TLS 1.3, decrypt TLS 1.2; a program may have two providers
METHODS = {
    "rustls-uv-0.9.5": (3, 1, 2),
    "rustls-uv-0.13.8": (4, 2, 2),
    "rustls-deno": (4, 2, 2),
    "rustls-primp": (8, 2, 3),
    "rustls-rtls": (4, 2, 2),
    "rustls-hf_xet": (4, 2, 2),
    "rustls-obstore": (4, 2, 2),
    "arm64-rustls-uv": (3, 1, 2),
    "arm64-rustls-rtls": (4, 2, 2),
}


@pytest.mark.parametrize("key", METHODS)
def test_methods_of_all_suites_are_found(key):
    with ElfFile(fetch(key)) as elf:
        before = time.process_time()
        found = locate_methods(elf)
        assert time.process_time() - before < BUDGET_S
    assert found.reason == ""
    counts = tuple(len(found.places[name]) for name in (ENCRYPT, DECRYPT, DECRYPT_OLDER))
    assert counts == METHODS[key]
    assert found.versions == ("TLS 1.3", "TLS 1.2 with AES-GCM", "TLS 1.2 with ChaCha20")


@pytest.mark.needs("program:nm")
@pytest.mark.parametrize("key", ["rustls-hf_xet", "rustls-obstore"])
def test_symbols_confirm_the_methods(key):
    path = fetch(key)
    starts, names = symbols(path)
    truth = dict(zip(starts, names, strict=True))
    with ElfFile(path) as elf:
        found = locate_methods(elf)
    parts = {
        ENCRYPT: ("MessageEncrypter>::encrypt", "tls1"),
        DECRYPT: ("MessageDecrypter>::decrypt", "tls13"),
        DECRYPT_OLDER: ("MessageDecrypter>::decrypt", "tls12"),
    }
    for name, (method, version) in parts.items():
        for address in found.places[name]:
            assert truth[address].endswith(method)
            assert version in truth[address]
    wanted = [n for n in names if n.endswith(("Encrypter>::encrypt", "Decrypter>::decrypt"))]
    known = [n for n in wanted if "Invalid" not in n]
    assert len(known) == sum(map(len, found.places.values()))


@pytest.mark.parametrize("key", ["libcurl", "openssl-3.5.4", "boringssl-curl_cffi", "node-24"])
def test_no_methods_are_found_where_none_are(key):
    with ElfFile(fetch(key)) as elf:
        assert locate_methods(elf).reason == "it has no suites as rustls has them since 0.23"


def test_a_judgement_about_rustls_is_completed():
    with ElfFile(fetch("rustls-hf_xet")) as elf:
        judged = complete(elf, identify(elf))
    assert judged.visible
    assert len(judged.copies[ENCRYPT]) == 3
