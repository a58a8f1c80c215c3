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
            listed = subprocess.run(["nm", path], check=True, capture_output=True, text=True)
            rows = [line.split() for line in listed.stdout.splitlines()]
            truth = {row[2]: int(row[0], 16) for row in rows if len(row) == 3}
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
