# SPDX-License-Identifier: Apache-2.0
"""A small TLS library in C, shaped like the real ones, whose every offset is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ecapture.binary.elf import ElfFile
from ecapture.binary.secrets.evaluate import Evaluator, Trace
from ecapture.binary.secrets.functions import Functions
from ecapture.binary.secrets.image import Image

LIBRARY = r"""
#include <string.h>
typedef unsigned char byte;
struct cipher { char before[0x18]; unsigned id; };
struct session { char before[0x50]; byte master[80]; char between[0x60]; struct cipher *cipher; };
struct method { char before[0x28]; int (*change)(void *); };
struct context { char before[0x78]; void (*callback)(const void *, const char *); };
struct ssl {
    int type; int version; struct context *context; struct method *method;
    int server; int state; int in_init; char a[0x100 - 0x24]; byte random[32];
    byte handshake_secret[64]; char b[0x180 - 0x40]; byte hash[64];
    byte client_app[64]; byte server_app[64]; byte exporter[64]; byte early[64];
    struct session *session;
};
int hex(char *, const void *, unsigned long);
int digits(char *, byte);
int derive(struct ssl *, const char *, byte *);
int derive_from(struct ssl *, const byte *, byte *, const char *, int);
void fail(int);

#define HIDDEN __attribute__((visibility("hidden"), noinline, noipa))
HIDDEN int LOG(const struct ssl *s, const char *label, const byte *secret, unsigned long size)
{
    char line[512];
    if (s->context->callback == 0) return 1;
    strcpy(line, label);
    unsigned long at = strlen(line);
    for (int i = 0; i < 32; i++) at += digits(line + at, s->random[i]);
    hex(line + at, secret, size);
    s->context->callback(s, line);
    return 1;
}
int finish_key_exchange(struct ssl *s)
{
    if (s->method->change(s) == 0) { fail(1); return 0; }
    return LOG(s, "CLIENT_RANDOM", s->session->master, 48);
}
int change_state(struct ssl *s, int which)
{
    const char *label = "CLIENT_TRAFFIC_SECRET_0";
    byte *secret = s->client_app;
    if (which & 4) { label = "SERVER_TRAFFIC_SECRET_0"; secret = s->server_app; }
    if (which & 8) {
        if (!derive(s, "e exp master", s->early)) { fail(2); return 0; }
        if (!LOG(s, "EARLY_EXPORTER_SECRET", s->early, 32)) return 0;
    }
    if (!derive(s, "exp master", s->exporter)) { fail(3); return 0; }
    if (!LOG(s, "EXPORTER_SECRET", s->exporter, 32)) return 0;
    return LOG(s, label, secret, 32);
}
void cleanse(void *, int);
int update_key(struct ssl *s, int sending)
{
    byte *old = s->server == sending ? s->server_app : s->client_app, fresh[64];
    if (!derive_from(s, old, fresh, "traffic upd", 11)) { fail(4); return 0; }
    memcpy(old, fresh, 32);
    cleanse(fresh, 64);
    return 1;
}
#ifdef ACCESSORS
unsigned long SSL_get_client_random(const struct ssl *s, byte *out, unsigned long size)
{
    if (size == 0) return 32;
    if (size > 32) size = 32;
    memcpy(out, s->random, size);
    return size;
}
struct session *SSL_get_session(const struct ssl *s) { return s->type == 0 ? s->session : 0; }
int SSL_version(const struct ssl *s) { return s->type == 0 ? s->version : 0; }
int SSL_is_server(const struct ssl *s) { return s->server; }
struct cipher *SSL_get_current_cipher(const struct ssl *s)
{
    return s->session ? s->session->cipher : 0;
}
unsigned SSL_CIPHER_get_id(const struct cipher *c) { return c->id; }
unsigned long SSL_SESSION_get_master_key(const struct session *s, byte *out, unsigned long size)
{
    if (size == 0) return 48;
    if (size > 48) size = 48;
    memcpy(out, s->master, size);
    return size;
}
#endif
"""

# What the structures above say, in the notation of ``str(Chain)``.
WALKS = {
    "client_random": "100",
    "master_key": "3e0+50",
    "handshake_secret": "120",
    "handshake_hash": "2a0",
    "client_application": "2e0",
    "server_application": "320",
    "exporter": "360",
    "session": "3e0",
}
ACCESSOR_WALKS = {
    "version": "4",
    "is_server": "18",
    "object_type": "0",
    "cipher_id": "3e0+100+18",
}

Build = Callable[..., Path]


@pytest.fixture(scope="session")
def library(compile_c) -> Build:
    """Return a function that builds the library: more C text, and options for the compiler."""

    def build(more: str = "", *options: str, log: str = "ssl_log_secret") -> Path:
        shared = ("-shared", "-fPIC", "-O2", "-s", f"-DLOG={log}")
        return compile_c(LIBRARY + more, *shared, *options, name="libssl.so")

    return build


class Assembled:
    """Functions written in assembly, seen by address."""

    def __init__(self, path: Path) -> None:
        self.elf = ElfFile(path)
        self.image = Image(self.elf)
        self.functions = Functions(self.image)
        self.evaluator = Evaluator(self.image, self.functions)

    def address(self, name: str) -> int:
        symbol = self.elf.symbol(name)
        assert symbol is not None, name
        return symbol.address

    def trace(self, name: str) -> Trace:
        return self.evaluator.trace(self.address(name))


@pytest.fixture(scope="session")
def assemble(compile_c) -> Callable[..., Assembled]:
    """Return a function that assembles named bodies of functions into a library."""

    def build(*options: str, **bodies: str) -> Assembled:
        lines = []
        for name, body in bodies.items():
            lines += [f".globl {name}", f".type {name},@function", f"{name}:", ".cfi_startproc"]
            lines += [*body.strip().splitlines(), ".cfi_endproc", f".size {name}, .-{name}"]
        text = "\n".join(f'"{line.strip()}\\n"' for line in lines)
        return Assembled(compile_c(f"asm({text});", "-shared", "-fPIC", *options))

    return build
