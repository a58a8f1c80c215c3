# SPDX-License-Identifier: Apache-2.0
"""NSS of other releases and of the other machine: what is found in Debian's stripped libraries.

That the places are the right ones, tests/capture shows for the release that is installed. Here the
question is whether the same evidence is in older and newer ones, and in code for aarch64.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "vm"))

import archive
import guest

from ecapture.binary.elf import ElfFile
from ecapture.binary.nss import VALUE_SETTER, tls_layer, value_setter
from ecapture.binary.secrets.locate import locate
from ecapture.binary.secrets.sites import Library, Proof, SecretSites

SUITES = [("bullseye", "amd64"), ("trixie", "arm64")]


@pytest.fixture(scope="module", params=SUITES, ids="-".join)
def unpacked(request, tmp_path_factory) -> Path:
    """The package libnss3 of a suite, unpacked."""
    suite, machine = request.param
    into = tmp_path_factory.mktemp(suite)
    try:
        packages = archive.Suite(guest.vm_home(), archive.host_mirrors(), suite, machine)
        packages.update()
    except archive.CannotRun as why:
        pytest.skip(f"cannot run here: {why}")
    packages.unpack(["libnss3"], into)
    return into


def test_the_tls_layer(unpacked):
    [path] = unpacked.rglob("libssl3.so")
    with ElfFile(path) as elf:
        assert elf.symbol("ssl_SecureRecv") is None
        found = tls_layer(elf)
        sites = locate(elf)
    assert found.reason == ""
    assert set(found.functions) == {"ssl_SecureRecv", "ssl_SecureSend", "ssl_SecureClose"}
    assert isinstance(sites, SecretSites)
    assert (sites.library, sites.log.proof) == (Library.NSS, Proof.FRAME_TABLE)
    assert sites.chains["client_random"].length == 32
    assert sites.log.address not in found.functions.values()


def test_softoken(unpacked):
    [path] = unpacked.rglob("libsoftokn3.so")
    with ElfFile(path) as elf:
        found = value_setter(elf)
    assert (found.reason, set(found.functions)) == ("", {VALUE_SETTER})
