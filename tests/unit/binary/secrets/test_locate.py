# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import random
import re
import struct
import subprocess
import time

import pytest

from ecapture.binary.elf import ElfFile
from ecapture.binary.secrets.locate import locate
from ecapture.binary.secrets.sites import How, Library, NotLocated, Proof, SecretSites
from ecapture.errors import ECaptureError

from .conftest import ACCESSOR_WALKS, LIBRARY, WALKS

LABELS = ("CLIENT_RANDOM", "EXPORTER_SECRET", "EARLY_EXPORTER_SECRET")


def located(path) -> SecretSites:
    with ElfFile(path) as elf:
        sites = locate(elf)
    assert isinstance(sites, SecretSites), sites
    return sites


def refused(path) -> str:
    with ElfFile(path) as elf:
        sites = locate(elf)
    assert isinstance(sites, NotLocated), sites
    return sites.reason


def address_of(path, name) -> int:
    listing = subprocess.run(["nm", str(path)], check=True, capture_output=True, text=True).stdout
    return int(re.search(rf"^(\w+) \w {name}$", listing, re.MULTILINE)[1], 16)


def walks(sites) -> dict[str, str]:
    return {name: str(chain) for name, chain in sites.chains.items()}


def test_stripped_library_is_located_by_its_labels(library):
    sites = located(library())
    assert sites.library is Library.OPENSSL
    assert sites.log.how is How.LABEL
    assert sites.log.proof is Proof.FRAME_TABLE
    assert set(sites.log.labels) >= set(LABELS)
    assert walks(sites) == WALKS
    assert sites.notes == ()


def test_name_and_labels_agree(compile_c, library):
    stripped = located(library())
    options = ("-shared", "-fPIC", "-O2", "-DLOG=ssl_log_secret")
    named_path = compile_c(LIBRARY, *options, name="libssl.so")
    named = located(named_path)
    assert named.log.how is How.SYMBOL
    assert named.log.address == address_of(named_path, "ssl_log_secret") == stripped.log.address
    assert walks(named) == WALKS


def test_accessors_add_what_only_they_know(library):
    sites = located(library("", "-DACCESSORS"))
    assert walks(sites) == WALKS | ACCESSOR_WALKS
    assert sites.chains["session"].length == 8
    assert sites.chains["session"].how is How.EVALUATED
    assert sites.chains["cipher_id"].length == 4
    assert sites.chains["exporter"].how is How.EVALUATED
    assert sites.chains["client_application"].how is How.EVALUATED
    assert sites.chains["handshake_secret"].how is How.ARITHMETIC


@pytest.mark.parametrize("level", ["-O1", "-O2", "-O3", "-Os"])
def test_optimisation_does_not_matter(library, level):
    sites = located(library("", "-DACCESSORS", level))
    found = walks(sites)
    assert {name: found[name] for name in WALKS} == WALKS


def test_without_frame_table_direct_calls_are_the_proof(library):
    sites = located(library("", "-Wl,--no-eh-frame-hdr"))
    assert sites.log.proof is Proof.CALL_TARGET
    assert sites.log.address == located(library()).log.address


def test_a_comparison_with_the_labels_is_no_logging(library):
    compares = """
    int reads_key_logs(const char *line)
    {
        if (!strcmp(line, "CLIENT_RANDOM")) return 1;
        if (!strcmp(line, "EXPORTER_SECRET")) return 2;
        if (!strcmp(line, "EARLY_EXPORTER_SECRET")) return 3;
        return 0;
    }
    """
    sites = located(library(compares, "-fno-builtin"))
    assert walks(sites) == WALKS


def test_two_candidates_are_refused(library):
    rival = """
    HIDDEN int rival(void *s, const char *label) { return derive(s, label, 0); }
    int claims(void *s)
    {
        return rival(s, "CLIENT_RANDOM") + rival(s, "EXPORTER_SECRET") + 1;
    }
    """
    assert "several functions" in refused(library(rival))


def test_a_name_that_labels_contradict_is_refused(compile_c):
    lie = "int ssl_log_secret(void *s) { return derive(s, 0, 0) + 7; }"
    path = compile_c(LIBRARY + lie, "-shared", "-fPIC", "-O2", "-DLOG=elsewhere")
    assert "several functions" in refused(path)


def test_labels_that_nobody_hands_over_are_refused(compile_c):
    text = 'const char *const all[] = {"CLIENT_RANDOM", "EXPORTER_SECRET"};'
    assert "no function" in refused(compile_c(text, "-shared", "-fPIC"))


def test_one_label_is_not_enough(compile_c):
    text = r"""
    int put(void *, const char *);
    __attribute__((noinline, noipa, visibility("hidden")))
    int once(void *s, const char *label) { return put(s, label) + 1; }
    int a(void *s) { return once(s, "CLIENT_RANDOM") + 1; }
    int b(void *s) { return once(s, "EARLY_EXPORTER") + 1; }
    """
    assert "no function" in refused(compile_c(text, "-shared", "-fPIC", "-O2"))


def test_a_target_inside_a_function_is_refused(compile_c):
    text = r"""
    asm(".text\n.globl caller\n.type caller,@function\ncaller:\n.cfi_startproc\n"
        "lea one(%rip), %rsi\n call inside\n lea two(%rip), %rsi\n call inside\n ret\n"
        ".cfi_endproc\n"
        ".globl whole\nwhole:\n.cfi_startproc\n nop\n nop\n inside: mov %rdi, %rax\n ret\n"
        ".cfi_endproc\n"
        ".section .rodata\none: .asciz \"CLIENT_RANDOM\"\ntwo: .asciz \"EXPORTER_SECRET\"\n"
        ".text\n");
    """
    assert "not the start of a function" in refused(compile_c(text, "-shared", "-fPIC"))


def test_a_file_without_tls_is_refused(compile_c):
    assert "no TLS library" in refused(compile_c("int f(void) { return 1; }", "-shared"))


def test_fixed_address_program_names_labels_by_immediates(compile_c):
    main = r"""
    int derive_from(struct ssl *s, const byte *a, byte *b, const char *l, int n) { return n; }
    void cleanse(void *at, int size) { }
    int digits(char *to, byte from) { return to[0] + from; }
    int hex(char *to, const void *from, unsigned long size) { return to[0] + size; }
    int derive(struct ssl *s, const char *l, byte *o) { return s->server && l && o; }
    void fail(int reason) { }
    int main(int n, char **v)
    {
        return finish_key_exchange((void *)v) + change_state((void *)v, n);
    }
    """
    options = ("-no-pie", "-fno-pie", "-O2", "-DLOG=ssl_log_secret")
    path = compile_c(LIBRARY + main, *options)
    sites = located(path)
    assert sites.log.address == address_of(path, "ssl_log_secret")
    assert len(sites.log.labels) >= 2


def test_gnutls_tells_its_random_through_a_datum(compile_c):
    text = r"""
    typedef struct { void *data; unsigned size; } datum;
    int put(void *, const char *);
    __attribute__((noinline, noipa, visibility("hidden")))
    int keylog(char *s, const char *label, const void *secret, unsigned long n) {
        return put(s, label) + n; }
    int a(char *s) { return keylog(s, "CLIENT_RANDOM", s + 0x20, 48) + 1; }
    int b(char *s) { return keylog(s, "EXPORTER_SECRET", s + 0x90, 32) + 1; }
    void gnutls_session_get_random(char *s, datum *client, datum *server) {
        if (client) { client->data = s + 0x50; client->size = 32; }
        if (server) { server->data = s + 0x70; server->size = 32; } }
    void gnutls_session_get_master_secret(char *s, datum *secret) {
        secret->data = s + 0x20; secret->size = 48; }
    """
    sites = located(compile_c(text, "-shared", "-fPIC", "-O2", "-s"))
    assert sites.library is Library.GNUTLS
    assert walks(sites) == {"client_random": "50", "master_key": "20"}


def test_damaged_files_end_in_an_answer_soon(library, tmp_path):
    # Invariant: whatever the bytes are, there is an answer or one of our errors, in bounded time.
    original = library("", "-DACCESSORS").read_bytes()
    chance = random.Random(4)
    path = tmp_path / "damaged"
    for _ in range(150):
        content = bytearray(original)
        for _ in range(chance.choice((1, 4, 64))):
            at = chance.randrange(0x40, len(content))
            content[at] = chance.randrange(256)
        if chance.random() < 0.5:  # program headers are where it hurts
            table = 0x40 + chance.randrange(0, 56 * 8)
            struct.pack_into("<Q", content, table, chance.getrandbits(chance.choice((8, 32, 64))))
        path.write_bytes(content[: chance.choice((len(content), chance.randrange(len(content))))])
        started = time.process_time()
        try:
            with ElfFile(path) as elf:
                answer = locate(elf)
            assert isinstance(answer, (SecretSites, NotLocated))
        except ECaptureError:
            pass
        assert time.process_time() - started < 20


def test_overlapping_segments_are_refused(library, tmp_path):
    content = bytearray(library().read_bytes())
    table, count = struct.unpack_from("<Q", content, 0x20)[0], content[0x38]
    for at in range(table, table + 56 * count, 56):  # every one maps the whole file
        struct.pack_into("<IIQQQQQ", content, at, 1, 5, 0, 0, 0, len(content), len(content))
    path = tmp_path / "overlapping"
    path.write_bytes(content)
    with ElfFile(path) as elf, pytest.raises(ECaptureError, match="overlap"):
        locate(elf)


def test_a_file_full_of_labels_and_references_ends_soon(tmp_path, library):
    # Every byte of it is a label, or code that forms the address of one and calls itself.
    content = bytearray(library().read_bytes())
    table, count = struct.unpack_from("<Q", content, 0x20)[0], content[0x38]
    start = (len(content) + 4095) & ~4095
    content += bytes(start - len(content))
    labels = b"CLIENT_RANDOM\0EXPORTER_SECRET\0" * 40_000
    code = b"\x48\x8d\x35\x00\x00\x00\x00\xe8\xf4\xff\xff\xff" * 200_000
    content += labels + code
    size = len(content) - start
    last = table + 56 * (count - 1)
    struct.pack_into("<IIQQQQQQ", content, last, 1, 5, start, 1 << 24, 1 << 24, size, size, 4096)
    path = tmp_path / "full"
    path.write_bytes(content)
    started = time.process_time()
    with ElfFile(path) as elf:
        assert isinstance(locate(elf), (SecretSites, NotLocated))
    assert time.process_time() - started < 60
