# SPDX-License-Identifier: Apache-2.0
"""What the kernel programs are told of where a library keeps version and cipher."""

import subprocess

import pytest

from ecapture._wire import CHAIN, PARAMETER_ROW
from ecapture.binary.elf import ElfFile
from ecapture.binary.secrets.sites import Chain, How
from ecapture.kernel.parameters import Parameters, packed_chain

# int SSL_version(const SSL *) of OpenSSL 1.1.0 to 3.1: a field of the object.
SOURCE = "int SSL_version(const int *ssl) { return *ssl; }"


@pytest.fixture
def library(tmp_path, monkeypatch):
    built = tmp_path / "library.so"
    command = ["gcc", "-O2", "-shared", "-fPIC", "-x", "c", "-", "-o", built]
    subprocess.run(command, input=SOURCE, text=True, check=True)
    settled = built.stat().st_ctime_ns + 10_000_000_000
    monkeypatch.setattr("time.time_ns", lambda: settled)
    return built


def test_a_row_is_found_out_once_and_kept(library, tmp_path, monkeypatch):
    first = Parameters(tmp_path / "cache")
    with ElfFile(library) as elf:
        row = first.row(elf)
    version = PARAMETER_ROW.unpack(row)[0]
    assert CHAIN.unpack(version) == (0, 0, 0, 0, 1)
    first.save()
    monkeypatch.setattr("ecapture.binary.secrets.negotiated.negotiated", None)
    with ElfFile(library) as elf:
        assert Parameters(tmp_path / "cache").row(elf) == row


def test_a_row_that_was_kept_in_another_size_is_found_out_anew(library, tmp_path):
    cache = Parameters(tmp_path / "cache")
    cache.remember(library.stat(), b"short")
    with ElfFile(library) as elf:
        assert len(cache.row(elf)) == PARAMETER_ROW.size


@pytest.mark.parametrize("offsets", [(), (1, 2, 3, 4, 5)])
def test_a_walk_that_cannot_be_told_is_not_known(offsets):
    assert packed_chain(Chain(offsets, 4, How.EVALUATED)) == bytes(CHAIN.size)
    assert packed_chain(None) == bytes(CHAIN.size)
