# SPDX-License-Identifier: Apache-2.0
"""Which servers and sessions are seen: older ones, chosen ones, of every version and kernel."""

from __future__ import annotations

import json
import subprocess
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from asked import by_session, told
from harness import CAPTURES, run_ecapture
from postgres_servers import VERSIONS, distribution, of_version, running

from ecapture.binary.elf import ElfFile
from ecapture.binary.postgres import read_session

pytestmark = [CAPTURES, pytest.mark.needs("program:psql")]


def test_sessions_that_were_there_before(asked, server):
    with ExitStack() as stack:
        plain = stack.enter_context(server.connect(application_name="first"))
        secret = stack.enter_context(server.connect(sslmode="require", user="a b", dbname="c d"))
        local = stack.enter_context(server.connect(host=str(server.folder)))
        for session in (plain, secret, local):
            session.execute("SELECT %s", ("before",), prepare=True)
        captured = asked()
        for number in range(3):
            for session in (plain, secret, local):
                session.execute(f"SELECT 'now {number}'")
        plain.execute("SELECT %s", ("again",), prepare=True)
        captured.wait_for(10, server="postgresql")
        pids = [session.info.backend_pid for session in (plain, secret, local)]
    captured.wait_for(3, kind="disconnect")
    statements = captured.statements()
    sessions = by_session(statements, lambda one: one["session"])
    names = [("admin", "postgres"), ("a b", "c d"), ("admin", "postgres")]
    for pid, (user, database) in zip(pids, names, strict=True):
        found = sessions[pid]
        assert told(found, "text")[:3] == [f"SELECT 'now {number}'" for number in range(3)]
        assert {(one["user"], one["database"], one["no_identity"]) for one in found} == {
            (user, database, "")
        }
        assert found[-1]["kind"] == "disconnect"
        assert found[-1]["duration_ns"] is None
        assert all(one["duration_ns"] > 0 for one in found[:-1])
    again = sessions[pids[0]][3]
    assert (again["kind"], again["name"], again["text"], again["missing"]) == (
        "execute", "_pg3_0", "", "unseen",
    )  # fmt: skip
    assert again["parameters"] == ["again"]
    assert {one["application"] for one in sessions[pids[0]]} == {"first"}
    assert {one["client"] for one in sessions[pids[2]]} == {"local"}
    assert told(statements, "kind").count("connect") == 0


def test_replication_that_was_there_before_has_a_user(server):
    with (
        server.connect(replication="database") as decodes,
        server.connect(replication="true", dbname="no such database") as copies,
    ):
        found = [read_session(int(one.info.backend_pid)) for one in (decodes, copies)]
    assert [(one.user, one.database, one.reason) for one in found] == [
        ("admin", "postgres", ""),
        ("admin", "", ""),
    ]


def test_the_postmasters_process_stands_for_all_its_sessions(asked, server):
    with running(distribution()) as other, server.connect() as before, other.connect() as stranger:
        captured = asked("--pid", server.pid)
        before.execute("SELECT 'before'")
        stranger.execute("SELECT 'stranger'")
        with server.connect() as after, other.connect() as second_stranger:
            second_stranger.execute("SELECT 'stranger'")
            after.execute("SELECT 'after'")
        captured.wait_for(1, kind="disconnect")
        statements = captured.statements()
    assert "no PostgreSQL server" not in captured.stderr
    assert told(statements, "kind", "text") == [
        ("query", "SELECT 'before'"),
        ("connect", ""),
        ("query", "SELECT 'after'"),
        ("disconnect", ""),
    ]


def test_one_session_by_its_process(asked, server):
    with server.connect() as one, server.connect() as other:
        captured = asked("--pid", one.info.backend_pid)
        other.execute("SELECT 'other'")
        one.execute("SELECT 'one'")
        captured.wait_for(1, kind="query")
        assert told(captured.statements(), "text") == ["SELECT 'one'"]


@pytest.mark.parametrize(
    "without",
    ["uprobe_multi", "uprobe_multi,attach_cookie,bpf_loop", "btf"],
)
def test_as_on_older_kernels(asked, server, without):
    with server.connect() as before:
        captured = asked(env={"ECAPTURE_WITHOUT": without})
        before.execute("SELECT 'before'")
        with server.connect() as after:
            after.execute("SELECT %s", ("after",))
        captured.wait_for(1, kind="disconnect")
        statements = captured.statements()
    assert told(statements, "kind", "text", "parameters") == [
        ("query", "SELECT 'before'", []),
        ("connect", "", []),
        ("execute", "SELECT $1", ["after"]),
        ("disconnect", "", []),
    ]
    assert {one["user"] for one in statements} == {"admin"}
    if without == "btf":
        assert statements[0]["client"].startswith("127.0.0.1:")  # from the title of the process
        assert "type information" in statements[1]["no_identity"]
    else:
        assert all(one["client"].startswith("127.0.0.1:") for one in statements)


def test_every_major_version(asked, open_folder):
    captured = asked()
    for major in VERSIONS:
        mark = f"version {major}"
        folder = open_folder / f"postgres-{major}"
        folder.mkdir(mode=0o755)
        with running(of_version(major, folder)) as other:
            with other.connect() as one:
                one.execute(f"SET application_name = '{mark}'")
                one.execute(f"SELECT 'simple {major}'")
                one.execute("SELECT %s", (mark,))
                with pytest.raises(psycopg.errors.UndefinedTable):
                    one.execute("SELECT * FROM nope WHERE a = %s", (1,))
            captured.wait_for(1, kind="disconnect", application=mark)
    statements = captured.statements()
    for major in VERSIONS:
        mark = f"version {major}"
        found = [one for one in statements if one["application"] == mark]
        assert told(found, "kind", "text", "parameters", "tag", "error") == [
            ("query", f"SET application_name = '{mark}'", [], "SET", ""),
            ("query", f"SELECT 'simple {major}'", [], "SELECT 1", ""),
            ("execute", "SELECT $1", [mark], "SELECT 1", ""),
            ("execute", "SELECT * FROM nope WHERE a = $1", ["1"], "", "42P01"),
            ("disconnect", "", [], "", ""),
        ]
        assert {(one["user"], one["database"]) for one in found} == {("admin", "postgres")}
        assert all(one["client"].startswith("127.0.0.1:") for one in found)


def test_latecomers_of_every_major_version(asked, open_folder):
    """Names come from title and memory; where they stand in it differs between versions."""
    for major in (min(VERSIONS), max(VERSIONS)):
        folder = open_folder / f"late-{major}"
        folder.mkdir(mode=0o755)
        with running(of_version(major, folder), settings="cluster_name = 'a: b c'\n") as other:
            with other.connect() as owner:
                owner.execute('CREATE ROLE "x: y" LOGIN')
            with other.connect(user="x: y", application_name="é") as session:
                captured = asked()
                session.execute("SELECT 'late'")
                captured.wait_for(1, kind="query")
            (found,) = captured.statements(kind="query")
        assert (found["text"], found["user"], found["database"]) == (
            "SELECT 'late'",
            "x: y",
            "postgres",
        )
        assert found["no_identity"] == ""


def test_replayed_filtered_and_redacted(asked, server, tmp_path):
    with server.connect() as before:
        recorded, live = asked(mode="record"), asked()
        before.execute("SELECT 'before'")
        with server.connect(application_name="shop") as session:
            session.execute("SELECT %s, 'literal', 7", ("secret",))
            with pytest.raises(psycopg.errors.InvalidTextRepresentation):
                session.execute("SELECT 'secret'::int")
        live.wait_for(1, kind="disconnect")
        recorded.finish()
        statements = live.statements()
    shown = run_ecapture("replay", recorded.path, "-m", "jsonl")
    again = [json.loads(line) for line in shown.stdout.splitlines()]
    # Two captures see the same calls, each at its own moment.
    for one in (*statements, *again):
        for name in ("time", "time_ns", "started_ns", "session_ns", "duration_ns"):
            one.pop(name)
    assert again == statements
    assert statements[0]["user"] == "admin"
    chosen = run_ecapture("replay", recorded.path, "--filter", "error == 22P02", "--redact")
    header, text, message = chosen.stdout.decode().splitlines()
    assert " query user=admin database=postgres client=127.0.0.1:" in header
    assert " application=shop " in header
    assert " error=22P02 " in header
    assert text == "SELECT ?::int"
    assert message == "  error: invalid input syntax for type integer: ?"
    everything = run_ecapture("replay", recorded.path, "--redact").stdout
    assert b"secret" not in everything
    assert b"SELECT $1, ?, ?\n  $1 = ?\n" in everything


def test_what_is_refused(server):
    refused = run_ecapture("postgres", "-m", "har")
    assert refused.returncode == 2
    assert b"none are observed here" in refused.stderr
    refused = run_ecapture("postgres", "--postgres", "/bin/true")
    assert refused.returncode == 4
    assert b"secure_read" in refused.stderr


def test_a_server_that_starts_later(asked):
    captured = asked("-d")
    with running(distribution()) as later:
        captured.wait_attached(later.programs.server)
        subprocess.run([*later.psql(), "-c", "SELECT 'first words'"], check=True)
        captured.wait_for(1, text="SELECT 'first words'")
    assert told(captured.statements(application="psql"), "kind") == [
        "connect",
        "query",
        "disconnect",
    ]


def test_new_sessions_of_an_older_server_meet_two_probes_and_no_more(asked, server):
    program = ElfFile(server.programs.server)
    inner = ("secure_raw_read", "be_tls_read")
    captured = asked()
    with server.connect(sslmode="require") as session:
        session.execute("SELECT 'asked'")
        for pid in (server.pid, session.info.backend_pid):
            for name in inner:
                symbol = program.symbol(name)
                assert symbol is not None, name
                place = program.file_offset(symbol.address, executable=True)
                assert code_of(pid, server.programs.server, place) == code_in(
                    server.programs.server, place
                ), (pid, name)
        hooked = program.file_offset(program.symbol("secure_read").address, executable=True)
        pid = session.info.backend_pid
        in_file = code_in(server.programs.server, hooked)
        assert code_of(pid, server.programs.server, hooked) != in_file
    captured.wait_for(1, kind="disconnect")
    assert told(captured.statements(kind="query"), "text") == ["SELECT 'asked'"]


def code_in(path, place):
    """The first bytes of a function as they stand in the file."""
    with path.open("rb") as file:
        file.seek(place)
        return file.read(8)


def code_of(pid, path, place):
    """The same bytes as a process has them: a probe is a breakpoint there."""
    for start, end, offset in mapped_regions(pid, path):
        if offset <= place < offset + end - start:
            with Path(f"/proc/{pid}/mem").open("rb") as memory:
                memory.seek(start + place - offset)
                return memory.read(8)
    raise AssertionError(f"process {pid} has not mapped {path}")


def mapped_regions(pid, path):
    """Where a process has the code of a file: beginning, end, and offset in the file."""
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        words = line.split(None, 5)
        if len(words) == 6 and "x" in words[1] and words[5] == str(path):
            start, end = (int(word, 16) for word in words[0].split("-"))
            yield start, end, int(words[2], 16)
