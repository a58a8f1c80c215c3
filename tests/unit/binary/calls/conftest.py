# SPDX-License-Identifier: Apache-2.0
"""TLS libraries in C, shaped like the real ones, built and then robbed of their names."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

# What both generations of OpenSSL have: an internal function that the exported ones share.
_COMMON = r"""
#include <stddef.h>
#ifndef HIDDEN
#define HIDDEN __attribute__((visibility("hidden"), noinline, noipa))
#endif
struct ssl; struct method { void *a[7]; int (*read)(struct ssl *, void *, size_t, size_t *);
    int (*write)(struct ssl *, const void *, size_t, size_t *); };
struct ssl { int type; int references; const struct method *method; void *ctx; void *ex_data; };
void CRYPTO_free_ex_data(int, void *, void **); void CRYPTO_free(void *, const char *, int);
void *CRYPTO_zalloc(size_t, const char *, int); void SSL_CTX_free(void *);
HIDDEN int ssl_read_internal(struct ssl *s, void *buf, size_t num, size_t *readbytes)
{
    if (s->method == NULL) { REPORT(523, "ssl_read_internal", 276); return -1; }
    return s->method->read(s, buf, num, readbytes);
}
HIDDEN int ssl_write_internal(struct ssl *s, const void *buf, size_t num, FLAGS size_t *written)
{
    if (s->method == NULL) { REPORT(524, "ssl_write_internal", 276); return -1; }
    return s->method->write(s, buf, num, written);
}
int SSL_read(struct ssl *s, void *buf, int num)
{
    int ret; size_t readbytes;
    if (num < 0) { REPORT(223, "SSL_read", 271); return -1; }
    ret = ssl_read_internal(s, buf, (size_t)num, &readbytes);
    return ret > 0 ? (int)readbytes : ret;
}
int SSL_read_ex(struct ssl *s, void *buf, size_t num, size_t *readbytes)
{
    int ret = ssl_read_internal(s, buf, num, readbytes);
    return ret < 0 ? 0 : ret;
}
int SSL_write(struct ssl *s, const void *buf, int num)
{
    int ret; size_t written;
    if (num < 0) { REPORT(208, "SSL_write", 271); return -1; }
    ret = ssl_write_internal(s, buf, (size_t)num, FLAG &written);
    return ret > 0 ? (int)written : ret;
}
int SSL_write_ex(struct ssl *s, const void *buf, size_t num, size_t *written)
{
    int ret = ssl_write_internal(s, buf, num, FLAG written);
    return ret < 0 ? 0 : ret;
}
int SSL_peek(struct ssl *s, void *buf, int num)
{
    if (num < 0) { REPORT(270, "SSL_peek", 271); return -1; }
    return s->method->read(s, buf, num, NULL);
}
void SSL_free(struct ssl *s)
{
    if (s == NULL || --s->references > 0) return;
    CRYPTO_free_ex_data(0, s, &s->ex_data);
    SSL_CTX_free(s->ctx);
    CRYPTO_free(s, FILE_NAME, 1270);
}
void free_context(struct ssl *s)
{
    if (s == NULL || --s->references > 0) return;
    CRYPTO_free_ex_data(1, s, &s->ex_data);
    CRYPTO_free(s, FILE_NAME, 3300);
}
struct ssl *SSL_new(void *ctx)
{
    if (ctx == NULL) { REPORT(186, "SSL_new", 195); return NULL; }
    return CRYPTO_zalloc(sizeof(struct ssl), FILE_NAME, 700);
}
"""
_NUMBERED = r"""
#define FILE_NAME "../ssl/ssl_lib.c"
void ERR_put_error(int, int, int, const char *, int);
#define REPORT(code, name, reason) ERR_put_error(20, code, reason, FILE_NAME, __LINE__)
"""
_NAMED = r"""
#define FILE_NAME "ssl/ssl_lib.c"
void ERR_new(void); void ERR_set_debug(const char *, int, const char *);
void ERR_set_error(int, int, const char *);
#define REPORT(code, name, reason) \
    (ERR_new(), ERR_set_debug(FILE_NAME, __LINE__, name), ERR_set_error(20, reason, NULL))
"""
_BORINGSSL = r"""
#include <stddef.h>
#include <string.h>
struct state { char a[0x80]; char *pending; size_t left; };
struct ssl; struct method { void *a[9]; int (*write)(struct ssl *, char *, size_t *, const void *,
    size_t); int (*more)(struct ssl *); };
struct ssl { const struct method *method; void *b[5]; struct state *state; void *handshake; };
void ERR_put_error(int, int, int, const char *, unsigned);
void *OPENSSL_zalloc(size_t);
#define REPORT(reason) ERR_put_error(16, 0, reason, "/src/ssl/ssl_lib.cc", __LINE__)
#ifndef HIDDEN
#define HIDDEN __attribute__((visibility("hidden"), noinline, noipa))
#endif
HIDDEN int ssl_read_impl(struct ssl *s)
{
    if (s->handshake == NULL) { REPORT(226); return -1; }
    while (s->state->left == 0) {
        int ret = s->method->more(s);
        if (ret < 0) return ret;
        if (ret == 0) { REPORT(215); return -1; }
    }
    return 1;
}
#ifdef AROUND_PEEK
__attribute__((noinline, noipa))
#endif
int SSL_peek(struct ssl *s, void *buf, int num)
{
    if (s->method->a[0] != NULL) { REPORT(66); return -1; }
    int ret = ssl_read_impl(s);
    if (ret <= 0) return ret;
    size_t todo = s->state->left < (size_t)num ? s->state->left : (size_t)num;
    memcpy(buf, s->state->pending, todo);
    return todo;
}
int SSL_read(struct ssl *s, void *buf, int num)
{
#ifdef AROUND_PEEK
    int peeked = SSL_peek(s, buf, num);
    if (peeked <= 0) return peeked;
    s->state->pending += peeked;
    s->state->left -= peeked;
    return peeked;
#endif
    if (s->method->a[0] != NULL) { REPORT(66); return -1; }
    int ret = ssl_read_impl(s);
    if (ret <= 0) return ret;
    size_t todo = s->state->left < (size_t)num ? s->state->left : (size_t)num;
    memcpy(buf, s->state->pending, todo);
    s->state->pending += todo;
    s->state->left -= todo;
    return todo;
}
int SSL_write(struct ssl *s, const void *buf, int num)
{
    size_t written = 0; char again = 0;
    if (s->handshake == NULL) { REPORT(226); return -1; }
    if (s->state->left == 7) { REPORT(215); return -1; }
    if (num < 0) { REPORT(111); return -1; }
    int ret = s->method->write(s, &again, &written, buf, num);
    return ret <= 0 ? ret : (int)written;
}
struct ssl *SSL_new(void *ctx)
{
    if (ctx == NULL) { REPORT(185); return NULL; }
    return OPENSSL_zalloc(sizeof(struct ssl));
}
"""
# BoringSSL's methods of records, which a table alone leads to; each macro takes one sign away.
_RECORDS = r"""
#include <stddef.h>
typedef unsigned char byte;
#ifndef IS_DTLS
#define IS_DTLS 0
#endif
struct span { byte *start; size_t size; };
struct early { char a[0x40]; unsigned short read, limit; };
struct state { char a[0x90]; size_t unreported; int shutdown; struct early *early; };
struct ssl { const void *method; void *b[5]; struct state *state; unsigned short fragment;
    byte mode; };
void ERR_put_error(int, int, int, const char *, unsigned);
void *OPENSSL_zalloc(size_t); void OPENSSL_free(void *);
int tls_open_record(struct ssl *, byte *, struct span *, size_t *, byte *, struct span);
int do_tls_write(struct ssl *, size_t *, byte, struct span);
int tls_append(struct ssl *, struct span); int SSL_in_early_data(struct ssl *);
#define REPORT(reason) ERR_put_error(16, 0, reason, "../../src/ssl/s3_pkt.cc", __LINE__)
#ifdef OTHER_REASON
#define TOO_MUCH 301
#else
#define TOO_MUCH 300
#endif
#define OPENING(NAME) \
int NAME(struct ssl *ssl, struct span *out, size_t *consumed, byte *alert, struct span in) \
{ \
    byte type = 0; struct span body = { NULL, 0 }; \
    int ret = tls_open_record(ssl, &type, &body, consumed, alert, in); \
    if (ret) return ret; \
    int early = SSL_in_early_data(ssl); \
    if (type == 22) { \
        if (!tls_append(ssl, body)) { *alert = 80; return 4; } \
        return 1; \
    } \
    if (type != 23) { REPORT(225); *alert = 10; return 4; } \
    if (early) { \
        struct early *kept = ssl->state->early; \
        if (body.size > 0x3800 - kept->read) { REPORT(TOO_MUCH); *alert = 10; return 4; } \
        kept->read += body.size; \
    } \
    if (body.size == 0) return 1; \
    TELL; \
    return 0; \
}
#ifdef NO_SPAN
#define TELL (out->size = body.size)
#else
#define TELL (*out = body)
#endif
OPENING(tls_open_app_data)
#ifdef TWICE
OPENING(tls_open_other)
#else
int tls_open_other(struct ssl *ssl) { return SSL_in_early_data(ssl) + 7; }
#endif
int tls_write_app_data(struct ssl *ssl, byte *again, size_t *written, struct span in)
{
    *again = 0;
    if (ssl->state->shutdown) { REPORT(194); return -1; }
    size_t total = ssl->state->unreported;
    if (in.size < total) { REPORT(111); return -1; }
    in.start += total; in.size -= total;
    for (;;) {
        size_t some = in.size < ssl->fragment ? in.size : ssl->fragment, done = 0;
        struct span part = { in.start, some };
        int ret = do_tls_write(ssl, &done, 23, part);
        if (ret <= 0) { ssl->state->unreported = total; return ret; }
        total += done; in.start += done; in.size -= done;
        if (in.size == 0 || (ssl->mode & 1)) {
            ssl->state->unreported = 0;
#ifndef NO_COUNT
            *written = total;
#endif
            return 1;
        }
    }
}
int tls_new(struct ssl *ssl)
{
    struct state *made = OPENSSL_zalloc(sizeof(struct state));
    if (made == NULL) return 0;
    ssl->state = made;
    return 1;
}
void tls_free(struct ssl *ssl)
{
    if (ssl->state == NULL) return;
    OPENSSL_free(ssl->state);
#ifndef KEEPS
    ssl->state = NULL;
#endif
}
int tls_other(struct ssl *ssl) { return ssl->mode + 1; }
#define OTHER tls_other
#ifdef FEW_BEFORE
#define BEFORE OTHER
#else
#define BEFORE OTHER, OTHER, OTHER, OTHER, tls_open_other
#endif
#ifdef TURNED
#define PAIR tls_write_app_data, tls_open_app_data
#else
#define PAIR tls_open_app_data, tls_write_app_data
#endif
#ifdef GUARDED
#define GUARD(NAME) \
    asm(".pushsection .text.guards, \"ax\"\n.p2align 3\nguard_" #NAME ": .byte 0xe9\n" \
        ".long " #NAME " - . - 4\n.byte 0xcc, 0xcc, 0xcc\n.popsection"); \
    void guard_##NAME(void);
GUARD(tls_new) GUARD(tls_free) GUARD(tls_open_app_data) GUARD(tls_write_app_data) GUARD(tls_other)
GUARD(tls_open_other)
#define tls_new guard_tls_new
#define tls_free guard_tls_free
#define tls_open_app_data guard_tls_open_app_data
#define tls_write_app_data guard_tls_write_app_data
#define tls_other guard_tls_other
#define tls_open_other guard_tls_open_other
#endif
#define TABLE(NAME) const struct { long dtls; void *methods[16]; } NAME = \
    { IS_DTLS, { tls_new, tls_free, BEFORE, PAIR, OTHER, OTHER, OTHER, OTHER, OTHER } }
TABLE(tls_table);
#ifdef TWO_TABLES
TABLE(other_table);
#endif
#ifdef PROGRAM
#define APART __attribute__((noipa))
APART void ERR_put_error(int a, int b, int c, const char *d, unsigned e) { }
APART void *OPENSSL_zalloc(size_t n) { return (void *)n; }
APART void OPENSSL_free(void *p) { }
APART int tls_open_record(struct ssl *s, byte *t, struct span *b, size_t *c, byte *a,
    struct span in) { return *t = 1; }
APART int do_tls_write(struct ssl *s, size_t *n, byte t, struct span i) { return *n = 1; }
APART int tls_append(struct ssl *s, struct span b) { return 1; }
APART int SSL_in_early_data(struct ssl *s) { return s->mode; }
int main(void) { return tls_table.dtls; }
#endif
"""
_SOURCES = {
    "numbered": _NUMBERED + "#define FLAGS\n#define FLAG\n" + _COMMON,
    "named": _NAMED + "#define FLAGS\n#define FLAG\n" + _COMMON,
    "flags": _NAMED + "#define FLAGS unsigned long flags,\n#define FLAG 0,\n" + _COMMON,
    "boringssl": _BORINGSSL,
}
# each function called twice, so that calls prove it where no table does
_CALLS = """
int use_{0}(void *a, void *b, int c) {{ return ((int (*)()){0})(a, b, c) + 1; }}
int also_{0}(void *a, void *b, int c) {{ return ((int (*)()){0})(a, b, c) + 2; }}
"""
PUBLIC = ("SSL_read", "SSL_write", "SSL_peek", "SSL_new")


class Nameless(NamedTuple):
    """A stripped library, and where its functions are as linked (which it does not tell)."""

    path: Path
    truth: dict[str, int]


@pytest.fixture(scope="session")
def records(compile_c) -> Callable[..., Nameless]:
    """Return a function that builds BoringSSL's methods of records, with options for gcc."""
    built: dict[tuple[str, ...], Nameless] = {}

    def build(*options: str) -> Nameless:
        if options not in built:
            words = ("-O2", "-fno-ipa-icf", "-falign-functions=16", *options)
            path = compile_c(_RECORDS, *words, *(("-Wl,-Bsymbolic",) * ("-shared" in options)))
            built[options] = Nameless(path, _addresses(path))
        return built[options]

    return build


def _addresses(path: Path) -> dict[str, int]:
    listed = subprocess.run(["nm", path], check=True, capture_output=True, text=True)
    rows = [line.split() for line in listed.stdout.splitlines()]
    return {row[2]: int(row[0], 16) for row in rows if len(row) == 3}


@pytest.fixture(scope="session")
def nameless(compile_c) -> Callable[..., Nameless]:
    """Return a function that builds a kind of library with more options and text."""
    built: dict[tuple[object, ...], Nameless] = {}

    def build(
        kind: str, *options: str, more: str = "", calls: bool = False, replaceable: bool = False
    ) -> Nameless:
        # replaceable: exported functions call each other by way of the loader
        key = (kind, *options, more, calls, replaceable)
        if key not in built:
            text = _SOURCES[kind] + more
            if calls:
                text += "".join(_CALLS.format(name) for name in PUBLIC)
            words = ("-shared", "-fPIC", "-O2", "-fno-ipa-icf", "-falign-functions=16", *options)
            bound = () if replaceable else ("-Wl,-Bsymbolic",)
            path = compile_c(text, *words, *bound, name="whole.so")
            truth = _addresses(path)
            stripped = path.parent / "nameless.so"
            # no symbol table, and no dynamic segment to find exported names by
            content = bytearray(path.read_bytes())
            content[0x28:0x30], content[0x3C:0x40] = bytes(8), bytes(4)
            table = int.from_bytes(content[0x20:0x28], "little")
            for at in range(table, table + 56 * content[0x38], 56):
                if content[at] == 2 and not replaceable:  # PT_DYNAMIC
                    content[at] = 0
            stripped.write_bytes(content)
            built[key] = Nameless(stripped, truth)
        return built[key]

    return build
