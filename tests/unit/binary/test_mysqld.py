# SPDX-License-Identifier: Apache-2.0
"""Servers of the MySQL family, known by the shape of their names and the code of their accessors.

The programs here have the mangled names of the real ones and code of the same shape; that what is
found in the real ones is right is for tests/capture to show.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ecapture._wire import CHAIN, SERVER_ROW, SERVER_ROW_FIELDS, WALK, Dispatch
from ecapture.binary.elf import ElfFile
from ecapture.binary.identify import identify, identify_server
from ecapture.binary.library import Library
from ecapture.binary.mysqld import locate
from ecapture.binary.server import Walk
from ecapture.errors import NotExecutable, SymbolNotFound

NAMED = "#define NAMED(X) __asm__(X)\n#define KEEP __attribute__((noinline, noipa))\n"
MARIADB = (
    NAMED
    + r"""
struct context { char *host, *user, *ip; };
struct text { char *str; unsigned long length; };
struct thd { long first[13]; struct text query; long more[5]; struct text db; long gap[100];
             struct context *context; long rows, examined; unsigned long id; };
KEEP int dispatch(int c, struct thd *t, char *p, unsigned n, char b)
    NAMED("_Z16dispatch_command19enum_server_commandP3THDPcjb");
int dispatch(int c, struct thd *t, char *p, unsigned n, char b) { t->rows = c + n; return b; }
KEEP int inner(struct thd *t) NAMED("_Z24do_dispatch_command_slowP3THD");
int inner(struct thd *t) { return t->rows; }
KEEP int ok(void *p, struct thd *t, unsigned s, unsigned w, long a, long i, char *m, char eof)
    NAMED("_ZN8Protocol11net_send_okEP3THDjjyyPKcb");
int ok(void *p, struct thd *t, unsigned s, unsigned w, long a, long i, char *m, char eof)
{ return t->rows + a + eof; }
KEEP int local(void *p, struct thd *t) NAMED("_ZN14Protocol_local11net_send_okEP3THDjjyyPKcb");
int local(void *p, struct thd *t) { return t->rows; }
struct protocol { int (**methods)(struct protocol *, struct thd *, unsigned, unsigned);
                  struct thd *thd; };
KEEP int old(struct protocol *p, unsigned s, unsigned w) NAMED("_ZN8Protocol7send_okEjjyyPKc");
int old(struct protocol *p, unsigned s, unsigned w) { return p->methods[2](p, p->thd, s, w); }
KEEP int end(struct protocol *p, struct thd *t, unsigned s, unsigned w)
    NAMED("_ZN8Protocol12net_send_eofEP3THDjj");
int end(struct protocol *p, struct thd *t, unsigned s, unsigned w) { return t->rows + s; }
KEEP int old_end(struct protocol *p, unsigned s, unsigned w) NAMED("_ZN8Protocol8send_eofEjj");
int old_end(struct protocol *p, unsigned s, unsigned w)
{ int (*method)(struct protocol *, struct thd *, unsigned, unsigned) = p->methods[30];
  if (method == end) return end(p, p->thd, s, w); return method(p, p->thd, s, w); }
unsigned long thd_get_thread_id(struct thd *t) { return t->id; }
char *thd_user_name(struct thd *t) { return t->context ? t->context->user : 0; }
char *thd_client_host(struct thd *t) { return t->context ? t->context->host : 0; }
char *thd_client_ip(struct thd *t) { return t->context ? t->context->ip : 0; }
char *thd_current_db(struct thd *t) { return t->db.str; }
struct text *thd_query_string(struct thd *t) { return &t->query; }
KEEP void rows(struct thd *t, unsigned long n) NAMED("_ZN3THD18set_sent_row_countEy");
void rows(struct thd *t, unsigned long n) { t->rows = n; }
const char version[] __attribute__((used)) = "MariaDB 10.11.6";
int main(int n, char **v) { return dispatch(n, (void *)v, v[0], n, 0); }
"""
)
MYSQL = (
    NAMED
    + r"""
struct text { const char *str; unsigned long length; };
struct context { struct text user; long charset; struct text host; long more; struct text ip; };
struct thd { long first[50]; struct text query; struct text db; char gap[4000];
             struct context *context; unsigned id; long rows; struct { long all, rows; } *psi; };
KEEP int dispatch(struct thd *t, void *d, int c)
    NAMED("_Z16dispatch_commandP3THDPK8COM_DATA19enum_server_command");
int dispatch(struct thd *t, void *d, int c) { t->rows = c; return 0; }
KEEP int ok(void *p, unsigned s, unsigned w, long a, long i, char *m)
    NAMED("_ZN16Protocol_classic7send_okEjjyyPKc");
int ok(void *p, unsigned s, unsigned w, long a, long i, char *m) { return a + i; }
KEEP int ok_of_plugins(void *p, unsigned s) NAMED("_ZN17Protocol_callback7send_okEjjyyPKc");
int ok_of_plugins(void *p, unsigned s) { return s; }
KEEP int error(void *p, unsigned n, char *m) NAMED("_ZN16Protocol_classic10send_errorEjPKcS1_");
int error(void *p, unsigned n, char *m) { return n; }
unsigned thd_get_thread_id(struct thd *t) { return t->id; }
KEEP int context(struct thd *t, struct context **c)
    NAMED("_Z24thd_get_security_contextP3THDPP16Security_context");
int context(struct thd *t, struct context **c) { *c = t->context; return 0; }
KEEP struct text user(struct context *c) NAMED("_ZNK16Security_context4userEv");
struct text user(struct context *c) { return c->user; }
KEEP struct text host(struct context *c) NAMED("_ZNK16Security_context4hostEv");
struct text host(struct context *c) { return c->host; }
KEEP const char *ip(struct context *c) NAMED("_ZNK16Security_context2ipEv");
const char *ip(struct context *c) { return c->ip.str; }
KEEP struct text query(struct thd *t) NAMED("_Z16thd_query_unsafeP3THD");
struct text query(struct thd *t) { return t->query; }
KEEP int db(struct thd *t, struct text *n) NAMED("_ZN3THD6set_dbERK17MYSQL_LEX_CSTRING");
int db(struct thd *t, struct text *n)
{ if (n->str) t->db.str = n->str + 1; t->db.length = n->length; return !t->db.str; }
KEEP void rows(struct thd *t, unsigned long n) NAMED("_ZN3THD18set_sent_row_countEy");
void rows(struct thd *t, unsigned long n) { t->rows = n; if (t->psi) t->psi->rows = n; }
int main(int n, char **v) { return dispatch((void *)v, v[0], n); }
"""
)
MYSQL_56 = (
    NAMED
    + r"""
#include <stdlib.h>
#include <string.h>
struct text { char *str; unsigned length, room; char own; };
struct context { struct text host, ip; char *user; long rights; };
struct thd { long first[15]; char *db; size_t db_length; char gap[4000]; struct context *context;
             unsigned long id; };
KEEP int dispatch(int c, struct thd *t, char *p, unsigned n)
    NAMED("_Z16dispatch_command19enum_server_commandP3THDPcj");
int dispatch(int c, struct thd *t, char *p, unsigned n) { t->id = c + n; return 0; }
unsigned long thd_get_thread_id(struct thd *t) { return t->id; }
KEEP void back(struct context *c, struct thd *t, struct context *b)
    NAMED("_ZN16Security_context24restore_security_contextEP3THDPS_");
void back(struct context *c, struct thd *t, struct context *b) { if (b) t->context = b; }
KEEP void user(struct context *c, char *u) NAMED("_ZN16Security_context8set_userEPc");
void user(struct context *c, char *u) { free(c->user); c->user = strdup(u); }
KEEP void set_host(struct context *c, const char *h) NAMED("_ZN16Security_context8set_hostEPKc");
void set_host(struct context *c, const char *h)
{ unsigned n = h ? strlen(h) : 0; if (c->host.own) free(c->host.str);
  c->host.str = (char *)h; c->host.length = n; c->host.room = 0; c->host.own = 0; }
KEEP struct text *host(struct context *c) NAMED("_ZN16Security_context8get_hostEv");
struct text *host(struct context *c) { return &c->host; }
KEEP void set_ip(struct context *c, const char *i) NAMED("_ZN16Security_context6set_ipEPKc");
void set_ip(struct context *c, const char *i) { c->ip.str = (char *)i; c->ip.length = strlen(i); }
KEEP struct text *ip(struct context *c) NAMED("_ZN16Security_context6get_ipEv");
struct text *ip(struct context *c) { return &c->ip; }
KEEP int is_db(const char *d, size_t n, const struct thd *t)
    NAMED("_Z16db_is_default_dbPKcmPK3THD");
int is_db(const char *d, size_t n, const struct thd *t)
{ return d && t->db && n == t->db_length && !memcmp(d, t->db, n); }
int main(int n, char **v) { return dispatch(n, (void *)v, v[0], n); }
"""
)


def look(path: Path, **how: object) -> Library | None:
    with ElfFile(path) as elf:
        return identify_server(elf, **how) if how else identify(elf)


@pytest.fixture(scope="module")
def mariadb(compile_c) -> Path:
    return compile_c(MARIADB, "-rdynamic", "-s", name="mariadbd")


@pytest.fixture(scope="module")
def mysql(compile_c) -> Path:
    return compile_c(MYSQL, "-rdynamic", "-s", name="mysqld")


def test_mariadb(mariadb):
    found = look(mariadb)
    assert (found.kind, found.visible, found.version) == ("mysqld", True, "MariaDB 10.11.6")
    # the protocol of clients, as the newer functions tell it, and nothing of internal protocols
    assert set(found.functions) == {"dispatch_command", "net_send_ok_marked", "net_send_eof"}
    assert found.server.dispatch == Dispatch.PACKET
    assert found.server.walks == {
        "connection": Walk((1000,), 8),
        "user": Walk((976, 8), 0),
        "host": Walk((976, 0), 0),
        "address": Walk((976, 16), 0),
        "database": Walk((160,), 0),
        "executed": Walk((104,), 8),
        "rows": Walk((984,), 8),
    }  # fmt: skip
    assert found.server.absent == {}


def test_a_function_that_has_another_built_in_is_kept_beside_it(compile_c):
    """The compiler guessed whose method is called, and put that one's code in its place."""
    built_in = MARIADB.replace("return end(p, p->thd, s, w)", "return p->thd->rows + s")
    found = look(compile_c(built_in, "-rdynamic", "-s", name="mariadbd"))
    assert set(found.functions) == {
        *("dispatch_command", "net_send_ok_marked", "net_send_eof", "send_eof")
    }


def test_mysql(mysql):
    found = look(mysql)
    assert found.kind == "mysqld"
    assert set(found.functions) == {
        "dispatch_command",
        "send_ok",
        "send_error",
        "plugin_send_ok",
    }
    assert found.server.dispatch == Dispatch.PARSED
    walks = found.server.walks
    assert walks["connection"] == Walk((4440,), 4)
    assert walks["user"] == Walk((4432, 0), 8)
    assert walks["host"] == Walk((4432, 24), 8)
    assert walks["database"] == Walk((416,), 8)
    assert walks["executed"] == Walk((400,), 8)
    assert walks["rows"] == Walk((4448,), 8)
    # whose length is not read is not known to have one: nothing is made of it
    assert "address" not in walks
    assert "address" not in found.server.absent, "the host is shown instead"


def test_mysql_56(compile_c):
    walks = look(compile_c(MYSQL_56, "-rdynamic", "-s", name="mysqld")).server.walks
    assert walks["user"] == Walk((4136, 48), 0)
    assert walks["host"] == Walk((4136, 0), 0)
    assert walks["address"] == Walk((4136, 24), 0)
    assert walks["database"] == Walk((120,), 8)


@pytest.mark.parametrize(
    ("code", "other", "hidden"),
    [
        ("return &c->host;", "return &c->ip;", "host"),
        ("c->user = strdup(u);", "c->user = strdup(u); c->rights = 7 + (long)u;", "user"),
        ("n == t->db_length &&", "n == t->db_length && t->id &&", "database"),
        ("if (b) t->context = b;", "t->context = b; t->db = (char *)b;", "user"),
    ],
)
def test_what_two_functions_disagree_about_is_absent(compile_c, code, other, hidden):
    assert code in MYSQL_56
    server = look(compile_c(MYSQL_56.replace(code, other), "-rdynamic", name="mysqld")).server
    assert hidden not in server.walks
    assert set(server.walks) | set(server.absent) >= {"user", "database"}


def test_what_is_farther_away_than_a_walk_goes_is_absent(compile_c):
    code = MYSQL_56.replace("char gap[4000]", "char gap[70000]")
    server = look(compile_c(code, "-rdynamic", name="mysqld")).server
    assert server.absent.keys() >= {"user", "host"}
    assert len(server.pack()) == SERVER_ROW.size


def test_what_no_function_shows_is_absent_with_the_reason(compile_c):
    text = MYSQL
    for name in ("_ZNK16Security_context4userEv", "_ZN3THD6set_dbERK17MYSQL_LEX_CSTRING"):
        text = text.replace(name, "_Z7another" + name[-4:])
    found = look(compile_c(text, "-rdynamic", name="mysqld"))
    assert set(found.server.absent) == {"user", "database"}
    assert "user" in found.server.absent["user"]


def test_an_accessor_that_may_return_two_things_shows_nothing(compile_c):
    text = MARIADB.replace(
        "{ return t->context ? t->context->user : 0; }",
        "{ return (int)t->rows ? t->context->user : t->context->host; }",
    )
    found = look(compile_c(text, "-rdynamic", name="mariadbd"))
    assert "user" in found.server.absent
    assert "host" in found.server.walks


def test_the_row_is_what_the_kernel_reads(mariadb):
    row = dict(zip(SERVER_ROW_FIELDS, SERVER_ROW.unpack(look(mariadb).server.pack()), strict=True))
    chain, size = WALK.unpack(row["user"])
    assert CHAIN.unpack(chain) == (976, 8, 0, 0, 2)
    assert size == 0
    assert row["dispatch"] == Dispatch.PACKET


def test_a_name_of_a_release_to_come_is_told_apart_while_it_runs(compile_c):
    text = MARIADB.replace("19enum_server_commandP3THDPcjb", "19enum_server_commandP3THDRK6Packet")
    found = look(compile_c(text, "-rdynamic", name="mariadbd"))
    assert found.server.dispatch == Dispatch.ANY


def test_a_stripped_server_without_exports_is_refused_with_the_reason(compile_c):
    found = look(compile_c(MARIADB, "-s", name="mariadbd"))
    assert not found.visible
    assert "exports none of its functions" in found.reason
    assert look(compile_c(MARIADB, "-s", name="another")) is None


def test_a_program_that_merely_exports_such_names_is_none(compile_c):
    text = "int thd_get_thread_id(void) { return 1; } int main(void) { return 0; }"
    assert look(compile_c(text, "-rdynamic", name="backup")) is None


class TestNamedByHand:
    def test_a_symbol_of_the_table_that_strip_removes(self, compile_c):
        path = compile_c(MARIADB, "-rdynamic", name="odd")
        assert look(path, named="main").server.dispatch == Dispatch.ANY

    def test_a_symbol_that_tells_how_it_is_called(self, mariadb):
        name = "_Z16dispatch_command19enum_server_commandP3THDPcjb"
        assert look(mariadb, named=name).server.dispatch == Dispatch.PACKET

    def test_a_symbol_that_is_not_there(self, mariadb):
        with pytest.raises(SymbolNotFound, match="no_such_function"):
            look(mariadb, named="no_such_function")

    def test_an_offset(self, mariadb):
        at = look(mariadb).functions["dispatch_command"]
        found = look(mariadb, at=at)
        assert found.functions["dispatch_command"] == at
        assert found.server.dispatch == Dispatch.ANY
        assert found.server.walks == look(mariadb).server.walks

    @pytest.mark.parametrize("by", [1, -1, 1 << 40])
    def test_an_offset_where_no_function_starts(self, mariadb, by):
        at = look(mariadb).functions["dispatch_command"]
        with pytest.raises(NotExecutable, match="no function starts"):
            look(mariadb, at=at + by)


def test_names_agree_with_binutils(mariadb):
    listed = subprocess.run(
        ["nm", "-D", mariadb], capture_output=True, text=True, check=True
    ).stdout.split()
    with ElfFile(mariadb) as elf:
        names = elf.exported_names(b"dispatch_command")
        assert names == {name for name in listed if "dispatch_command" in name}
        assert all(elf.symbol(name) for name in names)


def test_damaged_files_are_refused_and_nothing_else(mariadb, tmp_path):
    whole = mariadb.read_bytes()
    for cut in range(64, len(whole), 997):
        path = tmp_path / "mariadbd"
        path.write_bytes(whole[:cut])
        try:
            with ElfFile(path) as elf:
                locate(elf)
        except NotExecutable:
            continue
