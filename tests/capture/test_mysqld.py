# SPDX-License-Identifier: Apache-2.0
"""Statements to real MariaDB and MySQL servers: each once, whole, with whose it is and its end."""

from __future__ import annotations

import datetime as dt
import decimal
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import mysql.connector
import mysql_servers
import MySQLdb
import pymysql
import pytest
from harness import CAPTURES, DEADLINE, run_ecapture, wait_until
from mysql_servers import Server

from ecapture.binary.elf import ElfFile
from ecapture.binary.identify import identify
from ecapture.config import CaptureConfig, Limits, Scope
from ecapture.events import ProcessExit, Statement

pytestmark = [CAPTURES, pytest.mark.needs("program:mariadb-install-db")]
SESSIONS, NUMBERED, LONG = 32, 12, 60 * 1024
FETCHED_56 = pytest.param("mysql_56", marks=pytest.mark.needs("program:npm"))
MULTI = pymysql.constants.CLIENT.MULTI_STATEMENTS


@pytest.fixture(scope="module")
def mariadb(tmp_path_factory):
    with mysql_servers.mariadb(tmp_path_factory.mktemp("mariadb")) as server:
        server.run("create database shop")
        yield server


@pytest.fixture(scope="module")
def mysql_server(tmp_path_factory):
    with mysql_servers.mysql(tmp_path_factory.mktemp("mysql")) as server:
        server.run("create database shop")
        yield server


@pytest.fixture(scope="module")
def mysql_56(tmp_path_factory):
    with mysql_servers.mysql_56(tmp_path_factory.mktemp("mysql56")) as server:
        server.run("create database shop")
        yield server


@pytest.fixture(scope="module", params=("mariadb", "mysql_server", FETCHED_56))
def server(request):
    """The servers, one after the other."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def watched(watch) -> Callable[..., Statements]:
    """``watched(server)`` captures the statements of one server."""
    return lambda server, **how: Statements(watch, server, **how)


class Statements:
    """What is captured of a server, as statements."""

    def __init__(self, watch, server: Server, limits: Limits | None = None) -> None:
        scope = Scope(pids=(server.pid,))
        self.run = watch(CaptureConfig(probes=("mysqld",), scope=scope, limits=limits or Limits()))

    def finish(self) -> list[Statement]:
        """All statements, once nothing was lost."""
        events = [e for e in self.run.finish() if type(e) is not ProcessExit]
        assert self.run.capture.summary.lost == 0
        assert self.run.capture.summary.malformed == 0
        assert all(type(event) is Statement for event in events)
        return events

    def wait(self, count: int, **wanted: object) -> None:
        """Returns when so many statements are as wanted."""
        seen = found = 0

        def enough(events: Sequence[object]) -> bool:
            nonlocal seen, found
            found += len(select(events[seen:], **wanted))
            seen = len(events)
            return found >= count

        self.run.wait_for(enough, f"{count} of {wanted}")


def select(statements, **wanted: object) -> list[Statement]:
    """Those whose attributes are as wanted, in the order in which they began."""
    found = [s for s in statements if all(getattr(s, k, None) == v for k, v in wanted.items())]
    return sorted(found, key=lambda statement: statement.started_ns)


def doing(server: Server, number: int) -> str | None:
    """What a session is at, as the server says."""
    with server.connect() as session, session.cursor() as cursor:
        cursor.execute("show full processlist")
        return {row[0]: row[7] for row in cursor.fetchall()}.get(number)


# --- many sessions at once ---


def numbered(user: str) -> list[tuple[str, str, int | None, str]]:
    """What one session sends: (text, outcome, rows, error)."""
    sent = []
    for n in range(NUMBERED):
        sent += [
            (f"select '{user}-{n}' union select 'é'", "ok", 2, ""),
            (f"insert into t (v) values ('{user}-{n}'), ('x')", "ok", 2, ""),
            (f"update t set v = '{n}' where id <= {n}", "ok", n, ""),
        ]
    sent.append((f"select nothing_{user} from t", "error", None, "1054"))
    filled = f"select '{user}', length('{'a' * LONG}')"
    sent.append((filled, "ok", 1, ""))
    sent.append((f"select '{user}-last'", "ok", 1, ""))
    return sent


def converse(server: Server, user: str, sent, opened: threading.Barrier) -> int:
    """One session, which begins when all are connected. Returns its number at the server."""
    with server.connect(user=user, database=user, autocommit=True) as session:
        opened.wait(DEADLINE)
        with session.cursor() as cursor:
            cursor.execute("truncate table t")
            for text, outcome, _rows, error in sent:
                failing = outcome == "error"
                with pytest.raises(pymysql.MySQLError, match=error) if failing else nullcontext():
                    cursor.execute(text)
        return session.thread_id()


def assert_sessions(statements, users, numbers, elapsed_ns) -> None:
    """Every session has exactly what it sent, and nothing of another's."""
    housekeeping = 2  # SET NAMES, truncate
    for user, number in zip(users, numbers, strict=True):
        own = select(statements, session=number)
        assert {s.user for s in own} == {user}
        assert {s.client for s in own} == {"localhost"}
        assert {s.no_identity for s in own} == {""}
        assert [own[0].kind, own[-1].kind] == ["connect", "disconnect"]
        queries = own[1:-1]
        assert {s.kind for s in queries} == {"query"}
        got = [(s.text, s.outcome, s.rows, s.error) for s in queries[housekeeping:]]
        assert got == numbered(user)
        assert {s.database for s in queries} == {user}
        assert {(s.missing, s.marks) for s in queries} == {("", ())}
        assert all(s.length == len(s.text.encode()) for s in queries)
        assert all(s.duration_ns > 0 for s in queries)
        assert sum(s.duration_ns for s in queries) <= elapsed_ns
        ends = [s.time_ns for s in queries]
        assert ends == sorted(ends)
    expected = len(users) * (len(numbered("u")) + housekeeping + 2)
    assert len(statements) == expected


def test_32_sessions_are_never_mixed(watched, server):
    users = server.make_users(SESSIONS)
    run = watched(server)
    began = time.monotonic_ns()
    opened = threading.Barrier(SESSIONS)
    with ThreadPoolExecutor(SESSIONS) as pool:
        numbers = list(pool.map(lambda user: converse(server, user, numbered(user), opened), users))
    run.wait(SESSIONS, kind="disconnect")
    assert_sessions(run.finish(), users, numbers, time.monotonic_ns() - began)


def test_32_sessions_of_a_pool_of_threads(watched, tmp_path):
    """One thread serves many sessions, and one session many threads."""
    options = ("--thread-handling=pool-of-threads", "--thread-pool-size=2")
    # where a commit waits for the disk, the server takes the command up again afterwards
    options = (*options, "--innodb-flush-log-at-trx-commit=1")
    with mysql_servers.mariadb(tmp_path, *options) as server:
        users = server.make_users(SESSIONS)
        run = watched(server)
        began = time.monotonic_ns()
        opened = threading.Barrier(SESSIONS)
        with ThreadPoolExecutor(SESSIONS) as pool:
            numbers = list(
                pool.map(lambda user: converse(server, user, numbered(user), opened), users)
            )
        run.wait(SESSIONS, kind="disconnect")
        statements = run.finish()
    assert_sessions(statements, users, numbers, time.monotonic_ns() - began)
    threads = {s.tid for s in statements}
    assert len(threads) < SESSIONS
    assert any(len({s.tid for s in select(statements, session=n)}) > 1 for n in numbers)


# --- drivers ---


def test_the_command_line_client(watched, mariadb):
    run = watched(mariadb)
    script = (
        "use shop; create table c (a int); insert into c values (1),(2),(3);"
        " select * from c where a > 1; delete from c; select nonsense; drop table c"
    )
    done = subprocess.run(
        ["mariadb", "--no-defaults", f"--socket={mariadb.socket}", "-u", "root", "--force"],
        input=script,
        text=True,
        capture_output=True,
        timeout=DEADLINE,
        check=False,
    )
    assert "nonsense" in done.stderr
    run.wait(1, kind="disconnect")
    statements = run.finish()
    (number,) = {s.session for s in statements}
    got = [(s.kind, s.text, s.rows, s.error) for s in select(statements, session=number)]
    wanted = [
        ("use", "shop", 0, ""),
        ("query", "create table c (a int)", 0, ""),
        ("query", "insert into c values (1),(2),(3)", 3, ""),
        ("query", "select * from c where a > 1", 2, ""),
        ("query", "delete from c", 3, ""),
        ("query", "select nonsense", None, "1054"),
        ("query", "drop table c", 0, ""),
        ("disconnect", "", None, ""),
    ]
    # what the client asks on its own account comes in between
    assert [row for row in got if row in wanted] == wanted
    assert got[0][0] == "connect"
    assert {s.database for s in select(statements, text="delete from c")} == {"shop"}


def test_mysqlclient(watched, server):
    run = watched(server)
    session = MySQLdb.connect(unix_socket=str(server.socket), user="root", db="shop")
    number = session.thread_id()
    cursor = session.cursor()
    cursor.execute("select %s, %s", (5, "it's"))
    assert cursor.fetchall() == ((5, "it's"),)
    session.select_db("mysql")
    session.rollback()
    session.close()
    run.wait(1, kind="disconnect")
    own = select(run.finish(), session=number)
    got = [(s.kind, s.text, s.database) for s in own if not s.text.lower().startswith("set ")]
    assert got == [
        ("connect", "", "shop"),
        ("query", "select 5, 'it\\'s'", "shop"),
        ("use", "mysql", "shop"),
        ("query", "ROLLBACK", "mysql"),
        ("disconnect", "", "mysql"),
    ]


@pytest.mark.needs("program:mariadb-slap")
def test_mysqlslap(watched, mariadb):
    run = watched(mariadb)
    subprocess.run(
        [
            "mariadb-slap",
            "--no-defaults",
            f"--socket={mariadb.socket}",
            "--user=root",
            "--concurrency=8",
            "--iterations=5",
            "--number-of-queries=800",
            "--create-schema=slap",
            "--create=create table t (a int, b varchar(99))",
            "--query=insert into t values (23, 'mysqlslap')",
        ],
        check=True,
        capture_output=True,
        timeout=DEADLINE,
    )
    run.wait(4000, text="insert into t values (23, 'mysqlslap')")
    found = select(run.finish(), text="insert into t values (23, 'mysqlslap')")
    assert len(found) == 4000
    assert {(s.outcome, s.rows, s.database) for s in found} == {("ok", 1, "slap")}
    assert len({s.session for s in found}) == 40


# --- prepared statements, procedures, log-ins ---


def test_prepared_statements(watched, server):
    run = watched(server)
    session = mysql.connector.connect(
        unix_socket=str(server.socket), user="root", database="shop", use_pure=True
    )
    cursor = session.cursor(prepared=True)
    values = (
        5,
        "it's é",
        None,
        2.5,
        dt.datetime(2024, 1, 2, 3, 4, 5),  # noqa: DTZ001 - as the database has it
        decimal.Decimal("1.50"),
    )
    cursor.execute("select ?, ?, ?, ?, ?, ?", values)
    cursor.fetchall()
    cursor.execute("create temporary table p (a int, b varchar(99))")
    cursor.execute("insert into p values (?, ?)", (1, "first"))
    cursor.execute("insert into p values (?, ?)", (2, "second"))
    cursor.execute("select a from p where b <> ?", ("third",))
    assert len(cursor.fetchall()) == 2
    with pytest.raises(mysql.connector.Error):
        cursor.execute("select nonsense from p where a = ?", (1,))
    number = session.connection_id
    session.close()
    run.wait(1, kind="disconnect")
    own = select(run.finish(), session=number)
    prepared = [(s.text, s.error) for s in own if s.kind == "prepare"]
    assert prepared == [
        ("select ?, ?, ?, ?, ?, ?", ""),
        ("create temporary table p (a int, b varchar(99))", ""),
        ("insert into p values (?, ?)", ""),
        ("select a from p where b <> ?", ""),
        ("select nonsense from p where a = ?", "1054"),
    ]
    executed = [s for s in own if s.kind == "execute"]
    assert [s.rows for s in executed] == [1, 0, 1, 1, 2]
    assert {s.missing for s in executed} == {""}
    names = {s.text: s.name for s in own if s.kind == "prepare" and not s.error}
    if executed[0].parameters:  # MariaDB: as bound
        assert executed[0].text == "select ?, ?, ?, ?, ?, ?"
        assert [s.parameters for s in executed] == [
            ("5", "it's é", None, "2.5", "2024-01-02 03:04:05", "1.50"),
            (),
            ("1", "first"),
            ("2", "second"),
            ("third",),
        ]
    else:  # MySQL puts the values in
        assert [s.text for s in executed] == [
            "select 5, 'it\\'s é', NULL, 2.5, '2024-01-02 03:04:05.000000', 1.50",
            "create temporary table p (a int, b varchar(99))",
            "insert into p values (1, 'first')",
            "insert into p values (2, 'second')",
            "select a from p where b <> 'third'",
        ]
    assert executed[2].name == executed[3].name == names["insert into p values (?, ?)"]


def test_parameters_above_the_limit_are_cut_and_say_so(watched, mariadb):
    run = watched(mariadb)
    session = mysql.connector.connect(unix_socket=str(mariadb.socket), user="root", use_pure=True)
    cursor = session.cursor(prepared=True)
    cursor.execute("select ?, ?, ?", (5, "it's", "x" * 300_000))
    cursor.fetchall()
    session.close()
    run.wait(1, kind="disconnect")
    (found,) = select(run.finish(), kind="execute")
    assert (found.text, found.parameters) == ("select ?, ?, ?", ("5", "it's"))
    assert (found.marks, found.outcome, found.rows) == (("parameters truncated",), "ok", 1)
    assert run.run.capture.summary.truncated == run.run.capture.losses.truncated_calls == 1


def test_a_statement_prepared_before_the_capture(watched, server):
    session = mysql.connector.connect(
        unix_socket=str(server.socket), user="root", database="shop", use_pure=True
    )
    cursor = session.cursor(prepared=True)
    cursor.execute("select ? + 1", (1,))
    cursor.fetchall()
    run = watched(server)
    cursor.execute("select ? + 1", (41,))
    assert cursor.fetchall() == [(42,)]
    run.wait(1, kind="execute")
    number = session.connection_id
    session.close()
    (found,) = select(run.finish(), kind="execute")
    assert (found.text, found.missing) in (("select ? + 1", ""), ("select 41 + 1", ""))
    if "?" in found.text:
        assert found.parameters in (("41",), ())
        assert found.parameters or found.marks == ("parameters not understood",)
    assert (found.user, found.database, found.session) == ("root", "shop", number)


def test_several_statements_and_procedures(watched, server):
    server.run(
        "drop procedure if exists shop.p",
        "create procedure shop.p() begin select 1; select 2 union select 3; end",
    )
    run = watched(server)
    with server.connect(database="shop", client_flag=MULTI) as session:
        with session.cursor() as cursor:
            for text in ("call p()", "select 1; select 2 union select 3; do 1"):
                cursor.execute(text)
                while cursor.nextset():
                    pass
        number = session.thread_id()
    run.wait(1, kind="disconnect")
    own = select(run.finish(), session=number, kind="query")
    called, several = own[-2:]
    assert (called.text, called.rows, called.marks) == ("call p()", 3, ("3 answers",))
    assert (several.text, several.rows, several.marks) == (
        "select 1; select 2 union select 3; do 1",
        None,
        ("3 answers",),
    )


def test_log_ins(watched, server):
    server.make_users(1)
    run = watched(server)
    with pytest.raises(pymysql.MySQLError, match="Access denied"):
        server.connect(user="mallory", password="guess")
    with pytest.raises(pymysql.MySQLError, match="denied"):
        server.connect(user="u0", database="mysql")
    session = mysql.connector.connect(
        unix_socket=str(server.socket), user="u0", database="u0", use_pure=True
    )
    session.cmd_change_user(username="root", database="shop")
    number = session.connection_id
    session._socket.shutdown()  # without a word
    run.wait(1, kind="disconnect", session=number)
    statements = run.finish()
    refused = select(statements, kind="connect", outcome="error")
    assert [(s.user, s.error) for s in refused] == [("mallory", "1045"), ("u0", "1044")]
    assert "mallory" in refused[0].message
    connects = select(statements, kind="connect", session=number)
    assert [(s.name, s.user, s.database, s.outcome) for s in connects] == [
        ("", "u0", "u0", "ok"),
        ("CHANGE_USER", "root", "shop", "ok"),
    ]
    (ended,) = select(statements, kind="disconnect", session=number)
    assert (ended.user, ended.database) == ("root", "shop")
    assert ended.duration_ns >= connects[1].time_ns - connects[0].time_ns


def test_a_statement_that_is_killed_and_a_session_that_is(watched, server):
    run = watched(server)
    session = server.connect()
    number = session.thread_id()
    every = "information_schema.columns"
    endless = f"select count(*) from {every} a, {every} b, {every} c, {every} d"

    def ask() -> None:
        with pytest.raises(pymysql.MySQLError, match=r"1317|2013"):
            session.cursor().execute(endless)

    with ThreadPoolExecutor(1) as pool:
        for kill in ("kill query", "kill"):
            victim = pool.submit(ask)
            wait_until(lambda: doing(server, number) == endless, "what is to be killed")
            server.run(f"{kill} {number}")
            victim.result(DEADLINE)
            if kill == "kill query":
                session.cursor().execute("select 'it goes on'")
    run.wait(1, kind="disconnect", session=number)
    own = select(run.finish(), session=number, kind="query")
    first, after, last = (s for s in own if not s.text.startswith("SET "))
    assert (first.text, first.outcome, first.error) == (endless, "error", "1317")
    assert (after.text, after.outcome) == ("select 'it goes on'", "ok")
    assert (last.text, last.outcome) in ((endless, "error"), (endless, "unknown"))


def test_what_still_runs_at_the_end_is_shown(watched, mariadb):
    session = mariadb.connect()
    number = session.thread_id()
    run = watched(mariadb)
    done = threading.Thread(target=session.cursor().execute, args=("select sleep(3)",))
    done.start()
    wait_until(lambda: doing(mariadb, number) == "select sleep(3)", "a statement that takes time")
    (found,) = select(run.finish(), session=number)
    assert (found.text, found.outcome, found.marks) == ("select sleep(3)", "unknown", ("running",))
    done.join(DEADLINE)
    session.close()


def test_a_client_that_comes_over_the_network(watched, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ("--skip-networking=0", "--bind-address=127.0.0.1", f"--port={port}")
    with mysql_servers.mariadb(tmp_path, *options, "--skip-name-resolve") as server:
        server.run("create user ada@'127.0.0.1'")
        run = watched(server)
        with server.connect(host="127.0.0.1", port=port, unix_socket=None, user="ada") as session:
            session.cursor().execute("select 'from afar'")
        run.wait(1, kind="disconnect")
        statements = run.finish()
    assert {(s.user, s.client) for s in statements} == {("ada", "127.0.0.1")}
    assert len(select(statements, text="select 'from afar'", outcome="ok", rows=1)) == 1


# --- limits ---


def test_longer_statements_are_cut_and_say_so(watched, server):
    texts = [f"select length('{'b' * size}')" for size in (64 * 1024, 300_000)]
    for limits, kept in ((Limits(), 65536), (Limits(payload=200_000), 200_000)):
        run = watched(server, limits=limits)
        with server.connect() as session, session.cursor() as cursor:
            for text in texts:
                cursor.execute(text)
            number = session.thread_id()
        run.wait(1, kind="disconnect")
        own = [s for s in select(run.finish(), session=number) if "length" in s.text]
        assert [(s.text, s.length) for s in own] == [(t[:kept], len(t)) for t in texts]
        assert [s.missing for s in own] == ["truncated" if len(t) > kept else "" for t in texts]
        assert run.run.capture.losses.truncated_calls == sum(len(t) > kept for t in texts)
        assert run.run.capture.summary.truncated == sum(len(t) > kept for t in texts)


# --- as a user runs it ---


def jsonl(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_text_jsonl_filter_and_redact(capture, mariadb):
    def ask() -> None:
        with mariadb.connect(database="shop") as session, session.cursor() as cursor:
            cursor.execute("select 'secret word', 42")
            with pytest.raises(pymysql.MySQLError):
                cursor.execute("select nonsense")

    who = ("--pid", mariadb.pid)
    with capture(*who, probe="mysqld", raw=False) as shown:
        ask()
        shown.wait_written(200)
        wait_until(lambda: "disconnect" in Path(shown.path).read_text(), "the end")
        shown.finish()
    text = Path(shown.path).read_text()
    assert " query user=root database=shop client=localhost session=" in text
    assert "\nselect 'secret word', 42\n" in text
    assert "  error: Unknown column 'nonsense' in 'SELECT'\n" in text
    with capture(
        *who, "--redact", "--filter", "statement == query and user == root", probe="mysqld",
        mode="jsonl",
    ) as masked:  # fmt: skip
        ask()
        wait_until(lambda: "nonsense" in Path(masked.path).read_text(), "both statements")
        masked.finish()
    lines = jsonl(Path(masked.path))
    assert {line["kind"] for line in lines} == {"query"}
    assert "select ?, ?" in [line["text"] for line in lines]
    assert "secret" not in Path(masked.path).read_text()
    assert {(line["server"], line["user"]) for line in lines} == {("mysql", "root")}


def test_a_recording_is_replayed_to_the_same(capture, mariadb, tmp_path):
    with capture("--pid", mariadb.pid, probe="mysqld", mode="record") as made:
        with mariadb.connect() as session, session.cursor() as cursor:
            cursor.execute(f"select '{'c' * 40_000}'")
        size = Path(made.path).stat().st_size
        made.wait_written(size + 40_000)
        made.finish()
    replayed = tmp_path / "replayed.jsonl"
    done = run_ecapture("replay", made.path, "-m", "jsonl", "-w", replayed)
    assert done.returncode == 0, done.stderr
    (found,) = [line for line in jsonl(replayed) if "ccc" in line["text"]]
    assert found["text"] == f"select '{'c' * 40_000}'"
    assert (found["outcome"], found["rows"]) == ("ok", 1)


def test_servers_without_names_and_functions_named_by_hand(capture, tmp_path):
    """An offset works where no name tells; what is no function is refused before anything."""
    with ElfFile("/usr/sbin/mariadbd") as elf:
        at = identify(elf).functions["dispatch_command"]
    refused = run_ecapture("mysqld", "--mysqld", "/usr/sbin/mariadbd", "--offset", hex(at + 1))
    assert refused.returncode == 4
    assert b"no function starts" in refused.stderr
    refused = run_ecapture("mysqld", "--mysqld", "/usr/sbin/mariadbd", "-f", "no_such_function")
    assert refused.returncode == 4
    assert b"no_such_function" in refused.stderr
    refused = run_ecapture("mysqld", "--mysqld", "/bin/true")
    assert refused.returncode == 4
    with mysql_servers.mariadb(tmp_path) as server:
        options = ("--mysqld", "/usr/sbin/mariadbd", "--offset", hex(at), "--pid", server.pid)
        with capture(*options, probe="mysqld", mode="jsonl") as run:
            server.run("select 'by offset'")
            wait_until(lambda: "by offset" in Path(run.path).read_text(), "the statement")
            run.finish()
    (found,) = [line for line in jsonl(Path(run.path)) if "by offset" in line["text"]]
    assert (found["user"], found["outcome"], found["rows"]) == ("root", "ok", 1)


def test_targets_say_what_can_be_seen(mariadb, mysql_server):
    done = run_ecapture("targets", "--json", "-p", mariadb.pid, "-p", mysql_server.pid)
    found = {t["pid"]: t for t in json.loads(done.stdout) if t["kind"] == "mysqld"}
    assert found[mariadb.pid]["version"].startswith("MariaDB ")
    assert found[mysql_server.pid]["version"].startswith("MySQL ")
    assert {(t["visible"], t["probe"]) for t in found.values()} == {(True, "mysqld")}


def test_nothing_stays_behind(capture, mariadb):
    with capture("--pid", mariadb.pid, probe="mysqld") as run:
        os.kill(run.process.pid, signal.SIGKILL)
        run.process.wait(DEADLINE)
    mariadb.run("select 'afterwards'")
