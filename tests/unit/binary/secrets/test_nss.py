# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from ecapture.binary.elf import ElfFile
from ecapture.binary.secrets.image import Image
from ecapture.binary.secrets.imports import called_by_stub, import_slot
from ecapture.binary.secrets.locate import locate
from ecapture.binary.secrets.nss import calls_to, stubs_of
from ecapture.binary.secrets.sites import Library, SecretSites

SOURCE = r"""
int PK11_GenerateRandom(void *, int);
int send(void *, const void *, int);
#define HIDDEN __attribute__((noinline, noipa, visibility("hidden")))
HIDDEN void log_key(void *s, const char *label, void *key) { }
HIDDEN int new_random(char *where)
{
    if (PK11_GenerateRandom(where, 32) == 0) return 0;
    return -1;
}
int send_server_hello(char *s) { return new_random(s + 0x600) || send(s, s + 0x600, 32); }
int send_client_hello(char *s) { return new_random(s + 0x620) || send(s, s + 0x620, 32); }
#ifdef INNER
int send_inner_hello(char *s) { return new_random(s + 0x640) || send(s, s + 0x640, 32); }
#endif
int ticket(char *s) { return send(s, s + 8, 16) || PK11_GenerateRandom(s + 0x40, 16); }
int finish(char *s) { log_key(s, "CLIENT_RANDOM", *(void **)(s + 0x5a8)); return 1; }
void *SSL_ImportFD(void *model, void *fd) { return fd; }
"""


@pytest.fixture(scope="session")
def nss(compile_c):
    def build(*options):
        return compile_c(SOURCE, "-shared", "-fPIC", "-O2", "-s", *options)

    return build


def test_import_is_followed_to_its_stub_and_calls(nss):
    with ElfFile(nss("-DINNER")) as elf:
        image = Image(elf)
        slot = import_slot(image, b"PK11_GenerateRandom\0")
        assert slot is not None
        assert import_slot(image, b"PK11_Generate\0") is None
        (stub,) = stubs_of(image, slot)
        assert len(list(calls_to(image, stub))) >= 1
        assert called_by_stub(image, stub) == "PK11_GenerateRandom"
        assert called_by_stub(image, next(calls_to(image, stub))) == ""


@pytest.mark.parametrize("protection", ["none", "full"])
def test_client_random_is_the_middle_one_of_three(nss, protection):
    with ElfFile(nss("-DINNER", f"-fcf-protection={protection}")) as elf:
        sites = locate(elf)
    assert isinstance(sites, SecretSites)
    assert sites.library is Library.NSS
    assert sites.log is not None
    assert sites.log.labels == ("CLIENT_RANDOM",)
    assert {name: str(chain) for name, chain in sites.chains.items()} == {"client_random": "620"}


def test_two_randoms_are_no_answer(nss):
    with ElfFile(nss()) as elf:
        sites = locate(elf)
    assert isinstance(sites, SecretSites)
    assert "client_random" not in sites.chains
    assert any("client random" in note for note in sites.notes)
