# SPDX-License-Identifier: Apache-2.0
"""What PostgreSQL servers are asked: exactly that, once, with who, how it ended, and how long."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import socket
import subprocess
import sys
from pathlib import Path

import asyncpg
import jsonschema
import psycopg
import pytest
from asked import by_session, told
from harness import CAPTURES, DEADLINE, wait_until
from programs import postgres_crowd as crowd

pytestmark = [CAPTURES, pytest.mark.needs("program:psql")]
SCHEMA = Path(__file__).parents[2] / "docs" / "reference" / "jsonl.schema.json"


def run(*command: object, **how: object) -> subprocess.CompletedProcess[str]:
    """Runs a client to its end."""
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        timeout=2 * DEADLINE,
        check=False,
        **how,
    )
    assert "could not connect" not in done.stderr, done.stderr
    return done


SCRIPT = r"""
create table t(a int, b text);
insert into t values (1,'x'),(2,'y');
copy t from stdin;
3	z
\.
copy t to stdout;
select * from nope;
begin; declare c cursor for select * from t; fetch 2 from c; fetch 9 from c; commit;
prepare p(int) as select * from t where a=$1; execute p(3);
set application_name = 'two';
select 1\; select 2\; update t set b='';
-- nothing

select 'a
b';
set client_encoding = 'LATIN1';
select 'é';
\lo_unlink 4242
drop table t;
"""
SAID = [
    ("connect", "", "", None, "psql"),
    ("query", "create table t(a int, b text);", "CREATE TABLE", None, "psql"),
    ("query", "insert into t values (1,'x'),(2,'y');", "INSERT 0 2", 2, "psql"),
    ("query", "copy t from stdin;", "COPY 1", 1, "psql"),
    ("query", "copy t to stdout;", "COPY 3", 3, "psql"),
    ("query", "select * from nope;", "", None, "psql"),
    ("query", "begin;", "BEGIN", None, "psql"),
    ("query", "declare c cursor for select * from t;", "DECLARE CURSOR", None, "psql"),
    ("query", "fetch 2 from c;", "FETCH 2", 2, "psql"),
    ("query", "fetch 9 from c;", "FETCH 1", 1, "psql"),
    ("query", "commit;", "COMMIT", None, "psql"),
    ("query", "prepare p(int) as select * from t where a=$1;", "PREPARE", None, "psql"),
    ("query", "execute p(3);", "SELECT 1", 1, "psql"),
    ("query", "set application_name = 'two';", "SET", None, "two"),
    ("query", "select 1; select 2; update t set b='';", "SELECT 1; SELECT 1; UPDATE 3", 5, "two"),
    ("query", "select 'a\nb';", "SELECT 1", 1, "two"),
    ("query", "set client_encoding = 'LATIN1';", "SET", None, "two"),
    ("query", "select 'Ã©';", "SELECT 1", 1, "two"),
    ("query", "BEGIN", "BEGIN", None, "two"),
    ("call", "", "", None, "two"),
    ("query", "ROLLBACK", "ROLLBACK", None, "two"),
    ("query", "drop table t;", "DROP TABLE", None, "two"),
    ("disconnect", "", "", None, "two"),
]  # fmt: skip


@pytest.mark.parametrize("where", ["127.0.0.1", "socket"])
def test_a_session_of_psql(asked, server, where):
    captured = asked()
    host = str(server.folder) if where == "socket" else where
    run(*server.psql(host=host, sslmode="disable"), input=SCRIPT)
    captured.wait_for(1, kind="disconnect")
    statements = captured.statements()
    # before its first call of a function psql asks for the numbers of such functions
    statements = [one for one in statements if not one["text"].startswith("select proname")]
    names = ("kind", "text", "tag", "rows", "application")
    assert told(statements, *names) == SAID
    assert {one["user"] for one in statements} == {"admin"}
    assert {one["database"] for one in statements} == {"postgres"}
    (client,) = {one["client"] for one in statements}
    assert client == "local" if where == "socket" else client.startswith("127.0.0.1:")
    failed = [(one["text"], one["error"], one["message"]) for one in statements if one["error"]]
    assert failed == [
        ("select * from nope;", "42P01", 'relation "nope" does not exist'),
        ("", "42704", "large object 4242 does not exist"),
    ]
    assert told(statements, "name")[19] == "964"  # lo_unlink
    ends = [one["time_ns"] for one in statements]
    assert ends == sorted(ends)
    assert all(
        0 < one["duration_ns"] == one["time_ns"] - one["started_ns"] < DEADLINE * 1e9
        for one in statements
    )
    schema = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
    for one in statements:
        schema.validate(one)


def test_prepared_statements_and_parameters(asked, server):
    captured = asked()
    with server.connect() as session:
        for number in range(3):
            session.execute("SELECT %s::int, %s", (number, None), prepare=True)
        with pytest.raises(psycopg.errors.DivisionByZero):
            session.execute("SELECT 1/%s::int", (0,))
        with pytest.raises(psycopg.errors.SyntaxError):
            session.execute("SELEC %s", ("é",))
        with session.transaction(), session.cursor("portion") as cursor:
            cursor.execute("SELECT generate_series(1, %s)", (5,))
            assert len(cursor.fetchmany(2)) == 2
    captured.wait_for(1, kind="disconnect")
    statements = captured.statements()
    names = ("kind", "name", "text", "parameters", "rows", "error")
    assert [one for one in told(statements, *names) if one[0] not in ("connect", "disconnect")] == [
        ("prepare", "_pg3_0", "SELECT $1::int, $2", [], None, ""),
        ("execute", "_pg3_0", "SELECT $1::int, $2", ["0", None], 1, ""),
        ("execute", "_pg3_0", "SELECT $1::int, $2", ["1", None], 1, ""),
        ("execute", "_pg3_0", "SELECT $1::int, $2", ["2", None], 1, ""),
        ("execute", "", "SELECT 1/$1::int", ["0"], None, "22012"),
        ("execute", "", "SELEC $1", ["é"], None, "42601"),
        ("query", "", "BEGIN", [], None, ""),
        *cursors(statements),
        ("query", "", "COMMIT", [], None, ""),
    ]


def cursors(statements):
    """A cursor of psycopg's is declared, described, fetched from and closed."""
    texts = [
        'DECLARE "portion" CURSOR FOR SELECT generate_series(1, $1)',
        'FETCH FORWARD 2 FROM "portion"',
        'CLOSE "portion"',
    ]
    found = [one for one in statements if "portion" in one["text"]]
    assert [one["text"] for one in found if one["text"] in texts] == texts
    assert told(found, "parameters")[0] == ["5"]
    return told(found, "kind", "name", "text", "parameters", "rows", "error")


def test_a_pipeline_in_which_one_fails(asked, server):
    captured = asked()
    with server.connect() as session:
        # Sent in one piece: a client that has read of the failure does not send the third any more.
        talk = session.pgconn
        talk.enter_pipeline_mode()
        for number in (b"1", b"0", b"2"):
            talk.send_query_params(b"SELECT 6/$1::int", [number])
        talk.pipeline_sync()
        results = [talk.get_result() for _ in range(7)]  # each is followed by none, but the sync
        talk.exit_pipeline_mode()
    assert [result and result.status for result in results] == [
        *(psycopg.pq.ExecStatus.TUPLES_OK, None, psycopg.pq.ExecStatus.FATAL_ERROR, None),
        *(psycopg.pq.ExecStatus.PIPELINE_ABORTED, None, psycopg.pq.ExecStatus.PIPELINE_SYNC),
    ]
    captured.wait_for(1, kind="disconnect")
    found = captured.statements(kind="execute")
    assert told(found, "parameters", "outcome", "error") == [
        (["1"], "ok", ""),
        (["0"], "error", "22012"),
        (["2"], "unknown", ""),
    ]
    assert all("pipelined" in one["marks"] for one in found)
    assert "skipped" in found[2]["marks"]


VALUES = [
    ("int2", -3), ("int4", 1 << 30), ("int8", -(1 << 60)), ("oid", 4_000_000_000),
    ("bool", True), ("float4", 0.25), ("float8", -1.5e-9), ("text", "é'\\"), ("varchar", ""),
    ("bytea", b"\x00\xff"), ("json", '{"a": [1]}'), ("jsonb", '{"a": 1}'),
    ("uuid", "7d444840-9dc0-11d1-b245-5ffdce74fad2"), ("inet", "10.0.0.1"), ("cidr", "10.0.0.0/8"),
    ("numeric", "-12345.678900"), ("numeric", "0.00001"), ("numeric", "1e30"), ("numeric", "NaN"),
    ("int4[]", [[1, 2], [3, 4]]), ("text[]", ["a b", 'q"', None, "", "null"]),
    ("text[]", ["a@b", "x/y", "é", "{}", "a,b", "\t", "\\"]), ("float4[]", [10.0, 1e20, -0.0]),
    ("float4", 10.0), ("float4", 100_000.0), ("float4", 1_234_567.0), ("float4", 1e-5),
    ("float4", 0.1), ("float4", 0.0001), ("float8", 1e15), ("float8", 123_456_789_012_345.0),
    ("float8", 1_234_567_890_123_456.0), ("float8", 5e-324), ("float8", 0.0001),
]  # fmt: skip
TIMES = [
    ("date", "1999-12-31"), ("time", "23:59:59.25"), ("timestamp", "2024-02-29 01:02:03.000004"),
    ("timestamptz", "1970-01-01 00:00:00+00"), ("interval", "1 year 3 days 04:05:06.7"),
    ("interval", "-1 day -00:00:00.5"), ("timetz", "01:02:03+05:30"),
    ("timetz", "01:02:03+01:00:15"), ("timestamptz", "1500-01-01 00:00:00+00"),
]  # fmt: skip


def test_binary_parameters_read_as_the_server_would_show_them(asked, server):
    captured = asked()

    async def talk():
        session = await asyncpg.connect(
            host="127.0.0.1", port=server.port, user="admin", database="postgres", ssl=False
        )
        shown = [
            await session.fetchval(f"SELECT format('%s', $1::{kind})", v) for kind, v in VALUES
        ]
        for kind, text in TIMES:
            value = await session.fetchval(f"SELECT '{text}'::{kind}")
            shown.append(await session.fetchval(f"SELECT format('%s', $1::{kind})", value))
        await session.close()
        return shown

    shown = asyncio.run(talk())
    captured.wait_for(1, kind="disconnect")
    executed = [one for one in captured.statements(kind="execute") if "format(" in one["text"]]
    kinds = [kind for kind, _value in VALUES + TIMES]
    assert [(one["text"], one["parameters"][0]) for one in executed] == [
        (f"SELECT format('%s', $1::{kind})", text) for kind, text in zip(kinds, shown, strict=True)
    ]


def test_texts_up_to_the_limit_are_whole(asked, server):
    whole, over = "SELECT '" + "é" * 30_000 + "'", "SELECT '" + "x" * 70_000 + "'"
    captured = asked()
    with server.connect() as session:
        session.execute(whole)
        session.execute(whole + " || %s", ("p" * 60_000,))
        session.execute(over)
        session.execute(over + " || %s", ("p",))
        session.execute("SELECT %s, %s::text", (1, "x" * 70_000))
        session.execute("SELECT 1")
    captured.wait_for(1, kind="disconnect")
    found = captured.statements(server="postgresql")[1:-1]
    size = len(over)
    assert told(found, "text", "length", "missing") == [
        (whole, 60_009, ""),
        (whole + " || $1", 60_015, ""),
        (over[:65_536], size, "truncated"),
        (over[:65_536], 0, "truncated"),
        ("SELECT $1, $2::text", 19, ""),
        ("SELECT 1", 8, ""),
    ]
    assert found[1]["parameters"] == ["p" * 60_000]
    assert found[3]["parameters"] == ["p"]
    assert (found[4]["parameters"], found[4]["marks"]) == (["1"], ["parameters truncated"])
    assert captured.summary["truncated"] == 3


def test_the_limit_is_an_option(asked, server):
    captured = asked("--truncate", "20")
    with server.connect() as session:
        session.execute("SELECT 'é', 1, 22222222")
    captured.wait_for(1, kind="disconnect")
    (found,) = captured.statements(kind="query")
    assert (found["text"], found["length"]) == ("SELECT 'é', 1, 2222", 24)


def packet(kind: bytes, content: bytes) -> bytes:
    return kind + (len(content) + 4).to_bytes(4, "big") + content


def test_no_answer_is_given_by_guess_where_pipelined_statements_are_lost(asked, server):
    """Of a buffer with many long texts, the cut ones beyond the fourth are lost, and said to be."""
    captured = asked("--truncate", "20")

    def asking(number):
        text = f"/*{number:03}*/ SELECT generate_series(1, {number}) -- {'x' * 1100}"
        return packet(b"Q", text.encode() + b"\0")

    with socket.create_connection(("127.0.0.1", server.port)) as talk, talk.makefile("rb") as heard:

        def wait_ready(count):
            while count:
                kind = heard.read(1)
                assert kind, "the server has hung up"
                heard.read(int.from_bytes(heard.read(4), "big") - 4)
                count -= kind == b"Z"

        names = b"user\0admin\0database\0postgres\0\0"
        talk.sendall(packet(b"", (3 << 16).to_bytes(4, "big") + names))
        wait_ready(1)
        talk.sendall(b"".join(map(asking, range(1, 41))))
        wait_ready(40)
        for number in 101, 102:
            talk.sendall(asking(number))
            wait_ready(1)
        talk.sendall(packet(b"X", b""))
    captured.wait_for(1, kind="disconnect")
    captured.finish()
    found = captured.so_far(kind="query")
    assert captured.summary["lost"] > 0
    known = [(int(one["text"][2:5]), one["rows"]) for one in found if one["outcome"] == "ok"]
    assert [rows for _, rows in known] == [number for number, _ in known]
    assert known[:4] == [(number, number) for number in range(1, 5)]
    assert known[-1] == (102, 102)
    assert "gap" in found[-1]["marks"] or "gap" in found[-2]["marks"]


async def copy_with_asyncpg(server):
    session = await asyncpg.connect(
        host="127.0.0.1", port=server.port, user="admin", database="postgres", ssl=False
    )
    await session.execute("CREATE TEMP TABLE c(a int, b text)")
    await session.copy_records_to_table("c", records=[(1, "a"), (2, "b")])
    with contextlib.suppress(asyncpg.PostgresError):
        await session.copy_to_table("c", source=io.BytesIO(b"no number\tx\n"))
    await session.copy_from_query("SELECT * FROM c", output=io.BytesIO())
    await session.execute("SELECT 'behind'")
    await session.close()


def test_copies_behind_a_describe_without_sync(asked, server):
    """What asyncpg asks of a table before it copies has no Sync: the COPY ends it."""
    captured = asked()
    asyncio.run(copy_with_asyncpg(server))
    captured.wait_for(1, kind="disconnect")
    found = [one for one in captured.statements(kind="query") if one["application"] == ""]
    assert {one["outcome"] for one in found} == {"ok", "error"}
    assert [(one["text"].split(" (F")[0].strip(), one["tag"], one["error"]) for one in found] == [
        ("CREATE TEMP TABLE c(a int, b text)", "CREATE TABLE", ""),
        ('COPY "c" FROM STDIN', "COPY 2", ""),
        ('COPY "c" FROM STDIN', "", "22P02"),
        ("COPY (SELECT * FROM c) TO STDOUT", "COPY 2", ""),
        ("SELECT 'behind'", "SELECT 1", ""),
    ]


def test_copies_in_the_extended_protocol(asked, server):
    """Of two Syncs the server takes no notice of the one that it finds while it copies."""
    captured = asked()
    with server.connect() as session:
        session.execute("CREATE TEMP TABLE c(a int)")
        low = session.pgconn
        for content, error in ((b"1\n2\n", None), (b"nonsense\n", None), (b"3\n", b"given up")):
            low.exec_params(b"COPY c FROM STDIN", [])
            low.put_copy_data(content)
            low.put_copy_end(error)
            while low.get_result() is not None:
                pass
            session.execute("SELECT 'behind'")
    captured.wait_for(1, kind="disconnect")
    found = captured.statements(server="postgresql")[2:-1]
    assert told(found, "text", "outcome", "tag", "error") == [
        ("COPY c FROM STDIN", "ok", "COPY 2", ""),
        ("SELECT 'behind'", "ok", "SELECT 1", ""),
        ("COPY c FROM STDIN", "error", "", "22P02"),
        ("SELECT 'behind'", "ok", "SELECT 1", ""),
        ("COPY c FROM STDIN", "error", "", "57014"),
        ("SELECT 'behind'", "ok", "SELECT 1", ""),
    ]


def test_large_results_and_copies_are_counted_and_not_carried(asked, server):
    captured = asked()
    with server.connect() as session:
        rows = session.execute("SELECT repeat('r', 100) FROM generate_series(1, 50000)").fetchall()
        assert len(rows) == 50_000
        session.execute("CREATE TEMP TABLE big(a text)")
        with session.cursor().copy("COPY big FROM STDIN") as copy:
            for _ in range(2000):
                copy.write("c" * 999 + "\n")
    captured.wait_for(1, kind="disconnect")
    found = captured.statements(server="postgresql")[1:-1]
    assert told(found, "tag", "rows") == [
        ("SELECT 50000", 50_000),
        ("CREATE TABLE", None),
        ("COPY 2000", 2000),
    ]
    assert captured.summary["bytes"] < 100_000


def test_log_ins(asked, server, tmp_path):
    """Over TLS, with a password in plaintext inside; it is nowhere in what was recorded."""
    captured = asked()
    recorded = asked(mode="record")
    how = {"user": "locked", "sslmode": "require", "application_name": "opener"}
    server.connect(password="open sesame", **how).close()
    for changes, code in (
        (how | {"password": "open barley"}, "28P01"),
        ({"dbname": "missing"}, "3D000"),
        ({"user": "nobody"}, "28000"),
    ):
        with pytest.raises(psycopg.OperationalError):
            server.connect(**changes)
        captured.wait_for(1, error=code)
    captured.wait_for(1, kind="disconnect")
    statements = captured.statements()
    assert told(statements, "kind", "outcome", "error", "user", "database") == [
        ("connect", "ok", "", "locked", "postgres"),
        ("disconnect", "ok", "", "locked", "postgres"),
        ("connect", "error", "28P01", "locked", "postgres"),
        ("connect", "error", "3D000", "admin", "missing"),
        ("connect", "error", "28000", "nobody", "postgres"),
    ]
    assert {one["application"] for one in statements[:3]} == {"opener"}
    recorded.finish()
    content = Path(recorded.path).read_bytes()
    assert b"opener" in content
    assert b"open sesame" not in content
    assert b"open barley" not in content


def test_sessions_that_end_otherwise(asked, server):
    captured = asked()
    with server.connect() as session, server.connect() as killer:
        pid = session.info.backend_pid
        killer.execute("SELECT pg_terminate_backend(%s::int)", (pid,))
        captured.wait_for(1, kind="disconnect", session=pid)
        waiting = server.connect()
        run("kill", "-STOP", waiting.info.backend_pid)
        waiting.pgconn.send_query(b"SELECT 'never answered'")
        run("kill", "-CONT", waiting.info.backend_pid)
        captured.wait_for(1, kind="connect", session=waiting.info.backend_pid)
        waiting.close()
        sleeping = server.connect()
        sleeping.pgconn.send_query(b"SELECT pg_sleep(600)")
        server_sees(killer, "SELECT pg_sleep(600)")
        captured.finish()
        sleeping.cancel()
        sleeping.close()
    (ended,) = captured.so_far(kind="disconnect", session=pid)
    assert (ended["outcome"], ended["error"]) == ("error", "57P01")
    (unanswered,) = captured.so_far(text="SELECT pg_sleep(600)")
    assert (unanswered["outcome"], unanswered["duration_ns"]) == ("unknown", None)


def server_sees(session: psycopg.Connection, text: str) -> None:
    """Returns when the server is busy with a statement."""
    busy = "SELECT count(*) FROM pg_stat_activity WHERE query = %s AND state = 'active'"
    wait_until(lambda: session.execute(busy, (text,)).fetchone() == (1,), text)


def test_every_way_of_pgbench(asked, server):
    bench = server.programs.binaries / "pgbench"
    where = ["-h", "127.0.0.1", "-p", str(server.port), "-U", "admin"]
    environment = {"PATH": "/usr/bin:/bin", "PGSSLMODE": "disable", "PGDATABASE": "postgres"}
    made = run(bench, "-i", "-q", "-s", "1", *where, env=environment)
    assert made.returncode == 0, made.stderr
    captured = asked()
    for mode in ("simple", "extended", "prepared"):
        words = ["-n", "-S", "-c", "4", "-j", "2", "-t", "50", "-M", mode]
        done = run(bench, *words, *where, env=environment | {"PGAPPNAME": mode})
        assert "number of transactions actually processed: 200/200" in done.stdout
    captured.wait_for(15, kind="disconnect")  # pgbench has one more session of its own
    statements = captured.statements()
    for mode, kind in (("simple", "query"), ("extended", "execute"), ("prepared", "execute")):
        found = [one for one in statements if one["application"] == mode and one["kind"] == kind]
        selects = [one for one in found if one["text"].startswith("SELECT abalance")]
        assert len(selects) == 200
        assert {(one["rows"], one["outcome"], one["tag"]) for one in selects} == {
            (1, "ok", "SELECT 1")
        }
        if mode == "simple":
            assert len({one["text"] for one in selects}) > 100
        else:
            (text,) = {one["text"] for one in selects}
            assert text == "SELECT abalance FROM pgbench_accounts WHERE aid = $1;"
            assert all(one["parameters"][0].isdecimal() for one in selects)
        names = {one["name"] for one in selects}
        assert (names == {""}) is (mode != "prepared")
    prepared = [one for one in statements if one["kind"] == "prepare"]
    assert {one["text"] for one in prepared} == {text}
    assert len(prepared) == 4


def test_thirty_two_sessions_at_once(asked, server):
    with server.connect() as owner:
        for name in ("d0", "d1"):
            owner.execute(f"CREATE DATABASE {name}")
        for number in range(crowd.SESSIONS):
            owner.execute(f"CREATE ROLE u{number} LOGIN")
    captured = asked()
    run(sys.executable, crowd.__file__, server.port, server.programs.binaries)
    sessions = sum(2 if crowd.way(n) == "pgbench" else 1 for n in range(crowd.SESSIONS))
    captured.wait_for(sessions, kind="disconnect")  # pgbench has one more of its own
    users = by_session(captured.statements(), lambda one: one["user"])
    clients = set()
    for number in range(crowd.SESSIONS):
        found = [one for one in users[f"u{number}"] if one["text"].startswith(f"SELECT {number},")]
        found = [one for one in found if one["kind"] != "prepare"]
        assert [
            (one["text"], one["parameters"], one["outcome"] == "error") for one in found
        ] == crowd.said(number), (number, crowd.way(number))
        assert {one["database"] for one in found} == {crowd.database(number)}
        assert {one["error"] for one in found} <= {"", "22012"}
        assert all(one["duration_ns"] > 0 and not one["missing"] for one in found)
        assert len({(one["session"], one["client"]) for one in found}) == 1
        clients.add(found[0]["client"])
    assert len(clients) == crowd.SESSIONS
