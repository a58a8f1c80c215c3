# SPDX-License-Identifier: Apache-2.0
"""The TLS layer and the keys of NSS, found in small libraries that are shaped like the real ones.

The real ones are stripped; that what is found in them is right is for tests/capture to show.
"""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import pytest

from ecapture.binary.elf import ElfFile
from ecapture.binary.identify import identify
from ecapture.binary.nss import VALUE_SETTER, Found, tls_layer, value_setter

LAYER = r"""
typedef struct fd { const struct methods *methods; void *secret; struct fd *lower; } fd;
struct methods { long type; int (*close)(fd *); int (*read)(fd *, void *, int); void *more[20];
                 int (*recv)(fd *, void *, int, int, int); };
typedef struct socket { fd *fd; const void *ops; int timeout, state; } sock;
int gather(sock *, void *, int, int); int put(sock *, const void *, int, int);
void tell(sock *, int);
#define STATIC static __attribute__((noinline, noipa))
#define PLAIN(X) STATIC int plain_##X(sock *s) { tell(s, __LINE__); return s->state + __LINE__; }
PLAIN(connect) PLAIN(bind)
PLAIN(listen) PLAIN(shutdown)
PLAIN(peer) PLAIN(name)
STATIC int plain_close(sock *s) { int r = s->fd->methods->close(s->fd); tell(s, 1); return r; }
STATIC int plain_recv(sock *s, void *b, int n, int f)
{ fd *l = s->fd->lower; int r = l->methods->recv(l, b, n, f, s->timeout); return r > n ? -1 : r; }
STATIC int plain_read(sock *s, void *b, int n)
{ fd *l = s->fd->lower; return l->methods->read(l, b, n); }
STATIC int plain_send(sock *s, const void *b, int n, int f) { return put(s, b, n, f | 64); }
STATIC int plain_write(sock *s, const void *b, int n) { return put(s, b, n, 65); }
STATIC int tls_connect(sock *s) { tell(s, 2); return gather(s, 0, 0, 0); }
STATIC int tls_shutdown(sock *s) { tell(s, 3); return gather(s, 0, 1, 0); }
STATIC int tls_close(sock *s) { if (s->state) put(s, 0, 0, 1); return plain_close(s); }
STATIC int tls_recv(sock *s, void *b, int n, int f)
{ if (f & ~2) return -1; if (!n) return 0; return gather(s, b, n, f); }
STATIC int tls_send(sock *s, const void *b, int n, int f)
{ if (f) return -1; if (n > 0) tell(s, 4); return put(s, b, n, 0); }
#ifdef INLINED
STATIC int tls_read(sock *s, void *b, int n) { if (!n) return 0; return gather(s, b, n, 0); }
STATIC int tls_write(sock *s, const void *b, int n)
{ if (n > 0) tell(s, 4); return put(s, b, n, 0); }
#else
STATIC int tls_read(sock *s, void *b, int n) { return tls_recv(s, b, n, 0); }
STATIC int tls_write(sock *s, const void *b, int n) { return tls_send(s, b, n, 0); }
#endif
#define TABLE(X) { X##_connect, 0, plain_bind, plain_listen, X##_shutdown, X##_close, X##_recv, \
                   X##_send, X##_read, X##_write, plain_peer, plain_name }
static const void *const plain[12] = TABLE(plain);
#ifndef ALONE
static const void *const tls[12] = TABLE(tls);
#else
static const void *const tls[1];
#endif
#ifdef THIRD
const void *const third[12] = { tls_connect, 0, plain_bind, plain_listen, tls_shutdown, plain_close,
    tls_recv, tls_send, plain_read, plain_write, plain_peer, plain_name };
#endif
void choose(sock *s, int on) { s->ops = on ? tls : plain; }
fd *SSL_ImportFD(fd *model, fd *given) { choose(given->secret, model != 0); return given; }
int SSL_ForceHandshake(fd *given) { return gather(given->secret, 0, 0, 0); }
"""

SOFTOKEN = r"""
#include <string.h>
typedef struct object { void *next, *prev; unsigned long klass, handle; int users; void *lock;
                        struct slot *slot; } object;
typedef struct { unsigned long type; void *value; unsigned length; char space[50]; } attribute;
attribute *lookup(object *, unsigned long);
int add(object *, unsigned long, const void *, unsigned);
int token(struct slot *, unsigned long, const void *, unsigned); void *grab(unsigned);
#define HIDDEN __attribute__((noinline, noipa, visibility("hidden")))
HIDDEN attribute *find(object *o, unsigned long type)
{ return o->handle >> 31 & 1 ? 0 : lookup(o, type); }
HIDDEN int force(object *o, unsigned long type, const void *value, unsigned length)
{
    if (!o || !o->users || !o->slot) return 5;
    if (o->handle & 0x80000000ul) return token(o->slot, type, value, length);
    attribute *a = lookup(o, type);
    if (!a) return add(o, type, value, length);
    void *to = length <= 50 ? a->space : grab(length);
    if (!to) return 2;
    memcpy(to, value, length);
    a->value = to; a->length = length;
    return 0;
}
#define DERIVE(N) int derive_##N(object *o, const char *b) \
    { attribute *a = find(o, 0x11); return a ? N : force(o, 0x11, b, N); }
DERIVE(16) DERIVE(32)
DERIVE(48)
#ifndef FEW
DERIVE(12) DERIVE(20)
#endif
int NSC_GetFunctionList(void **list) { *list = derive_16; return 0; }
int FC_GetFunctionList(void **list) { *list = derive_32; return 0; }
"""

OPTIONS = ("-shared", "-fPIC", "-O2")


def truth(path: Path) -> dict[str, int]:
    """Addresses of functions, by what the linker has to say."""
    lines = subprocess.run(["nm", path], check=True, capture_output=True, text=True).stdout
    rows = [line.split() for line in lines.splitlines()]
    return {row[2]: int(row[0], 16) for row in rows if len(row) == 3}


def stripped(path: Path) -> Path:
    """The same without names."""
    bare = path.with_suffix(".stripped")
    subprocess.run(["strip", "-o", bare, path], check=True)
    return bare


@pytest.mark.parametrize(
    "options",
    [(), ("-Wl,-z,pack-relative-relocs",), ("-fcf-protection=full",), ("-O3", "-fno-plt")],
    ids=lambda options: " ".join(options) or "plain",
)
def test_finds_the_tls_layer(compile_c, options) -> None:
    path = compile_c(LAYER, *OPTIONS, *options)
    names = truth(path)
    with ElfFile(stripped(path)) as elf:
        found = tls_layer(elf)
    assert found == Found(
        {
            "ssl_SecureRecv": names["tls_recv"],
            "ssl_SecureSend": names["tls_send"],
            "ssl_SecureClose": names["tls_close"],
        }
    )


def test_reading_that_does_not_forward_is_a_function_of_its_own(compile_c) -> None:
    path = compile_c(LAYER, *OPTIONS, "-DINLINED")
    names = truth(path)
    with ElfFile(path) as elf:
        found = tls_layer(elf).functions
    assert found["ssl_SecureRead"] == names["tls_read"]
    assert found["ssl_SecureWrite"] == names["tls_write"]
    assert len(found) == 5


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("-DALONE",), "no pair"),
        (("-DTHIRD",), "several pairs"),
        (("-fno-asynchronous-unwind-tables",), "where its functions start"),
    ],
)
def test_what_is_not_certain_is_not_found(compile_c, options, reason) -> None:
    path = compile_c(LAYER, *OPTIONS, "-nostdlib", "-Wl,--no-ld-generated-unwind-info", *options)
    with ElfFile(path) as elf:
        found = tls_layer(elf)
        library = identify(elf)
    assert found.functions == {}
    assert reason in found.reason
    assert (library.kind, library.visible, library.reason) == ("nss", False, found.reason)


def test_a_layer_is_visible(compile_c) -> None:
    with ElfFile(stripped(compile_c(LAYER, *OPTIONS))) as elf:
        library = identify(elf)
        offset = elf.file_offset(tls_layer(elf).functions["ssl_SecureRecv"])
    assert (library.kind, library.how, library.visible) == ("nss", "fingerprint", True)
    assert library.functions["ssl_SecureRecv"] == offset


@pytest.mark.parametrize("level", ["-O1", "-O2", "-O3"])
def test_finds_where_objects_get_their_bytes(compile_c, level) -> None:
    path = compile_c(SOFTOKEN, *OPTIONS, level)
    names = truth(path)
    with ElfFile(stripped(path)) as elf:
        assert value_setter(elf) == Found({VALUE_SETTER: names["force"]})
        assert identify(elf).kind == "softoken"


def test_few_calls_are_no_evidence(compile_c) -> None:
    with ElfFile(compile_c(SOFTOKEN, *OPTIONS, "-DFEW")) as elf:
        found = value_setter(elf)
    assert found.functions == {}
    assert "no function" in found.reason


@pytest.mark.parametrize("name", ["libcrypto.so.3", "libgnutls.so.30", "libnspr4.so", "libnss3.so"])
def test_finds_nothing_elsewhere(name) -> None:
    with ElfFile(f"/usr/lib/{platform.machine()}-linux-gnu/{name}") as elf:
        assert tls_layer(elf).functions == {}
        assert value_setter(elf).functions == {}
