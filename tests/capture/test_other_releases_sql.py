# SPDX-License-Identifier: Apache-2.0
"""MariaDB of other releases, each in a tree of its own: every statement once, with its outcome."""

from __future__ import annotations

import json
import subprocess
from contextlib import contextmanager
from pathlib import Path

import mysql.connector
import pymysql
import pytest
from harness import CAPTURES, DEADLINE, Captured, run_ecapture, wait_until
from mysql_servers import SMALL, Server, data_folder
from suites import tree

pytestmark = [CAPTURES]
VERSIONS = {"bullseye": "MariaDB 10.5.", "trixie": "MariaDB 11.8.", "sid": "MariaDB "}
LONG = 60 * 1024
_SYSTEM = ("system_tables", "performance_tables", "system_tables_data")


@contextmanager
def mariadb(release, folder: Path):
    """A server of the release with its socket in ``folder``; root needs no password."""
    data = folder / "data"
    data.mkdir()
    program = release.root / "usr/sbin/mariadbd"
    shared = next(release.root.glob("usr/share/m*/m*_system_tables.sql")).parent
    texts = [next(shared.glob(f"m*_{name}.sql")).read_text() for name in _SYSTEM]
    words = release.command(folder, "mariadbd", *SMALL, "--datadir=/tmp/data")
    opening = "create database mysql;\nuse mysql;\nset @auth_root_socket = null;\n"
    subprocess.run(
        [*words, "--bootstrap"],
        input=opening + "\n".join(texts),
        text=True,
        check=True,
        capture_output=True,
        timeout=DEADLINE * 2,
    )
    log = folder / "server.log"
    with (
        log.open("wb") as out,
        subprocess.Popen(
            [*words, "--socket=/tmp/s"], stdin=subprocess.DEVNULL, stdout=out, stderr=out
        ) as process,
    ):
        server = Server(process, program, folder / "s")
        try:
            wait_until(lambda: answers(server, log), "a database server", DEADLINE * 2)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                process.kill()


def answers(server: Server, log: Path) -> bool:
    assert server.process.poll() is None, log.read_text(errors="replace")[-2000:]
    try:
        server.connect().close()
    except pymysql.MySQLError:
        return False
    return True


@pytest.fixture(scope="module", params=VERSIONS)
def server(request):
    """The server, and what its version must begin with."""
    release = tree(request.param)
    with data_folder() as folder:
        folder.mkdir()
        with mariadb(release, folder) as found:
            found.run("create database shop")
            found.make_users(1)
            yield found, VERSIONS[request.param]


def captured(server: Server, folder: Path) -> Captured:
    return Captured(folder, "--pid", server.pid, probe="mysqld", mode="jsonl")


def lines_of(run: Captured, session: int) -> list[dict]:
    """The statements of a session in the order in which they began, once it has ended."""
    path = Path(run.path)

    def ended() -> bool:
        lines = path.read_text().splitlines() if path.exists() else ()
        return any(
            line.endswith("}")
            and (json.loads(line)["kind"], json.loads(line)["session"]) == ("disconnect", session)
            for line in lines
        )

    wait_until(ended, "the end of the session")
    run.finish()
    assert run.summary["lost"] == run.summary["malformed"] == 0, run.stderr
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    found = [line for line in lines if line["session"] == session]
    return sorted(found, key=lambda line: line["started_ns"])


def test_every_statement_of_a_session(server, tmp_path):
    found, version = server
    long = f"select 'numbered 4', length('{'a' * LONG}')"
    sent = [
        ("select 'numbered 0' union select 'é'", "ok", 2, ""),
        ("insert into t (v) values ('numbered 1'), ('x')", "ok", 2, ""),
        ("update t set v = 'numbered 2' where id <= 1", "ok", 1, ""),
        ("select nothing_3 from t", "error", None, "1054"),
        (long, "ok", 1, ""),
        ("selec numbered 5", "error", None, "1064"),
        ("do 6", "ok", 0, ""),
    ]
    run = captured(found, tmp_path)
    with run:
        session = found.connect(user="u0", database="u0", autocommit=True)
        number = session.thread_id()
        with session.cursor() as cursor:
            for text, outcome, _rows, error in sent:
                if outcome == "error":
                    with pytest.raises(pymysql.MySQLError, match=error):
                        cursor.execute(text)
                else:
                    cursor.execute(text)
        session.close()
        own = lines_of(run, number)
    assert own[0]["kind"] == "connect"
    assert own[-1]["kind"] == "disconnect"
    queries = [line for line in own if line["kind"] == "query"]
    told = [(line["text"], line["outcome"], line["rows"], line["error"]) for line in queries]
    assert told[-len(sent) :] == sent
    assert all(text.upper().startswith("SET ") for text, *_ in told[: -len(sent)])
    for line in own:
        assert (line["pid"], line["user"], line["database"]) == (found.pid, "u0", "u0")
        assert (line["client"], line["missing"]) == ("localhost", "")
    listed = run_ecapture("targets", "--json", "-p", found.pid)
    [target] = [t for t in json.loads(listed.stdout) if t["kind"] == "mysqld"]
    assert target["version"].startswith(version)
    assert (target["visible"], target["reason"], target["file"]) == (
        *(True, ""),
        "/usr/sbin/mariadbd",
    )


def test_prepared_statements(server, tmp_path):
    found, _version = server
    run = captured(found, tmp_path)
    with run:
        session = mysql.connector.connect(
            unix_socket=str(found.socket), user="root", database="shop", use_pure=True
        )
        cursor = session.cursor(prepared=True)
        cursor.execute("select ?, ?, ?", (5, "it's é", None))
        cursor.fetchall()
        cursor.execute("create temporary table p (a int, b varchar(99))")
        cursor.execute("insert into p values (?, ?)", (1, "first"))
        cursor.execute("insert into p values (?, ?)", (2, "second"))
        with pytest.raises(mysql.connector.Error):
            cursor.execute("select nonsense from p where a = ?", (1,))
        number = session.connection_id
        session.close()
        own = lines_of(run, number)
    assert [(line["text"], line["error"]) for line in own if line["kind"] == "prepare"] == [
        ("select ?, ?, ?", ""),
        ("create temporary table p (a int, b varchar(99))", ""),
        ("insert into p values (?, ?)", ""),
        ("select nonsense from p where a = ?", "1054"),
    ]
    executed = [line for line in own if line["kind"] == "execute"]
    assert [(line["text"], line["parameters"], line["rows"]) for line in executed] == [
        ("select ?, ?, ?", ["5", "it's é", None], 1),
        ("create temporary table p (a int, b varchar(99))", [], 0),
        ("insert into p values (?, ?)", ["1", "first"], 1),
        ("insert into p values (?, ?)", ["2", "second"], 1),
    ]
    assert {(line["user"], line["database"]) for line in executed} == {("root", "shop")}
