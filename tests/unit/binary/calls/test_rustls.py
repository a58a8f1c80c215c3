# SPDX-License-Identifier: Apache-2.0
"""Tables of methods in C, shaped like those of rustls: found where all signs agree, or refused."""

from __future__ import annotations

import random
import re
import subprocess

import pytest

from ecapture.binary.calls.completion import is_open
from ecapture.binary.calls.locate import complete
from ecapture.binary.calls.rustls import DECRYPT, DECRYPT_OLDER, ENCRYPT, locate_methods
from ecapture.binary.elf import ElfFile
from ecapture.binary.library import BUILT_IN, Library
from ecapture.errors import NotExecutable

CODE = r"""
#include <stddef.h>
#define METHOD __attribute__((visibility("hidden"), noinline, noipa))
struct outbound { void *chunks; size_t first, begin, end; unsigned char type, other; };
struct inbound { unsigned char *start; size_t length; unsigned char type, other; short v; };
METHOD void sink(size_t a, size_t b, size_t c) { __asm__ volatile("" :: "r"(a), "r"(b), "r"(c)); }
METHOD void drop(void *self) { sink((size_t)self, 1, 2); }
METHOD void encrypt13(void *out, void *self, struct outbound *m, size_t sequence)
{
    sink(m->chunks ? m->end - m->begin : m->begin, m->type, sequence);
}
METHOD void encrypt12(void *out, void *self, struct outbound *m, size_t sequence)
{
    sink(m->chunks ? m->end - m->begin : m->begin, m->type, sequence + 1);
}
METHOD void decrypt13(void *out, void *self, struct inbound *m, size_t sequence)
{
    if (m->length < 16) { *(char *)out = 6; return; }
    sink((size_t)m->start, m->length, sequence);
}
METHOD void decrypt12(void *out, void *self, struct inbound *m, size_t sequence)
{
    if (m->length < 24) { *(char *)out = 6; return; }
    sink((size_t)m->start + m->type, m->length + m->v, sequence);
}
METHOD size_t longer13(void *self, size_t length) { return length + 17; }
METHOD size_t longer12(void *self, size_t length) { return length + 24; }
#define SUITE(N) struct { void *d_drop; size_t d_size, d_align; void *decrypt; size_t place[3]; \
    void *e_drop; size_t e_size, e_align; void *encrypt, *longer; size_t more[40]; } suite##N = { \
    drop, 40, 8, decrypt##N, {1, 2, 3}, drop, 48, 8, encrypt##N, longer##N, {0} }
SUITE(13);
SUITE(12);
"""
OPEN = Library(
    kind="rustls",
    linkage="static-hidden",
    how="content",
    visible=False,
    reason=BUILT_IN,
    machine="x86_64",
)


@pytest.fixture
def built(compile_c):
    """``built(old=new, ...)`` compiles the code with some of it replaced."""

    def build(*changes):
        text = CODE
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        return compile_c(text, "-shared", "-fPIC", "-O2")

    return build


def located(path):
    with ElfFile(path) as elf:
        return locate_methods(elf)


def addresses(path):
    listed = subprocess.run(["nm", path], check=True, capture_output=True, text=True).stdout
    return {name: int(value, 16) for value, name in re.findall(r"(\w+) t (\w+)", listed)}


def test_methods_are_found_by_their_tables(built):
    path = built()
    found, truth = located(path), addresses(path)
    assert found.reason == ""
    assert found.places == {
        ENCRYPT: tuple(sorted((truth["encrypt13"], truth["encrypt12"]))),
        DECRYPT: (truth["decrypt13"],),
        DECRYPT_OLDER: (truth["decrypt12"],),
    }
    assert found.versions == ("TLS 1.3", "TLS 1.2 with AES-GCM")


@pytest.mark.parametrize(
    "change, reason",
    [
        (("length + 17", "length + 18"), "no function of it proves to be one that encrypts"),
        (("m->type, sequence);", "0, sequence);"), "encrypts TLS 1.3"),
        (("m->chunks ? m->end - m->begin : m->begin, m->type, s", "1, m->type, s"), "TLS 1.3"),
        (("(size_t)m->start, m->length", "((size_t *)m)[5], m->length"), "decrypt TLS 1.3"),
        (("m->length + m->v", "m->length"), "nothing proves to decrypt TLS 1.2 with AES-GCM"),
        (("drop, 40, 8", "drop, 8, 8"), "nothing proves to decrypt TLS 1"),
        (("drop, 48, 8", "drop, 1 << 20, 8"), "no suites"),
        (("drop, 48, 8", "drop, 48, 3"), "no suites"),
    ],
)
def test_what_is_not_proven_is_refused_with_the_reason(built, change, reason):
    found = located(built(change))
    assert reason in found.reason
    assert not found.places


def test_what_needs_no_dropping_is_as_good(built):
    found = located(built(("drop, 40, 8", "NULL, 40, 8"), ("drop, 48, 8", "NULL, 48, 8")))
    assert len(found.places) == 3


def test_a_file_without_any_is_refused(compile_c):
    found = located(compile_c("int f(int a) { return a + 17; }", "-shared", "-fPIC", "-O2"))
    assert found.reason == "it has no suites as rustls has them since 0.23"


def test_a_completed_judgement_says_how_and_why(built):
    path = built()
    assert is_open(OPEN)
    with ElfFile(path) as elf:
        found = complete(elf, OPEN)
        truth = addresses(path)
        encrypt = {elf.file_offset(truth[name]) for name in ("encrypt13", "encrypt12")}
    assert (found.visible, found.reason, found.how) == (True, "", "fingerprint")
    assert set(found.evidence) == set(found.functions) == {ENCRYPT, DECRYPT, DECRYPT_OLDER}
    assert {found.functions[ENCRYPT], *found.copies[ENCRYPT]} == encrypt
    assert not is_open(found)


def test_a_file_that_is_refused_says_what_is_left(compile_c):
    with ElfFile(compile_c("int f(void) { return 1; }", "-shared", "-fPIC")) as elf:
        found = complete(elf, OPEN)
    assert not found.visible
    assert found.reason.startswith(BUILT_IN)
    assert found.reason.endswith("since 0.23; its keys can be had")
    assert not is_open(found)


def test_damaged_files_end_in_an_answer_or_are_refused(built, tmp_path):
    rng = random.Random(7)
    original = built().read_bytes()
    for number in range(60):
        content = bytearray(original)
        for _ in range(rng.choice((1, 20, 400))):
            content[rng.randrange(len(content))] = rng.randrange(256)
        path = tmp_path / str(number)
        path.write_bytes(content)
        try:
            found = located(path)
        except NotExecutable:
            continue
        assert bool(found.places) != bool(found.reason)
