# SPDX-License-Identifier: Apache-2.0
"""Server programs that nobody has seen before, started while a capture runs.

Looking into such a file takes its time, and a server does not wait for that. What may be promised
is that it is hooked while it runs, that what passed until then is told of, and that the next to be
started from the same file is seen from its first session on.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from pathlib import Path

import mysql_servers
import pytest
from harness import CAPTURES, wait_until

pytestmark = [CAPTURES, pytest.mark.needs("program:mariadb-install-db")]


@pytest.fixture
def program(tmp_path):
    """A server's program that nobody has seen."""
    copy = tmp_path / "mariadbd"
    shutil.copyfile("/usr/sbin/mariadbd", copy)
    copy.chmod(0o755)
    return copy


@pytest.fixture
def run(capture, tmp_path):
    """A capture of all such servers, which remembers nothing of earlier ones."""
    env = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    with capture("--comm", "mariadbd", "-d", probe="mysqld", mode="jsonl", env=env) as run:
        yield run


def shown(run, pid: int) -> list[dict[str, object]]:
    """What was shown of one process, in the order in which it began."""
    lines = [json.loads(line) for line in Path(run.path).read_text().splitlines()]
    return sorted((one for one in lines if one["pid"] == pid), key=lambda one: one["started_ns"])


def wait_shown(run, pid: int, text: str) -> None:
    """Returns when a statement of a process is in the output."""
    told = f'"pid":{pid},'
    wait_until(
        lambda: any(told in s and text in s for s in Path(run.path).read_text().splitlines()),
        f"{text} of {pid}",
    )


def test_a_new_program_is_seen_and_the_next_from_its_first_session(run, program, tmp_path):
    with mysql_servers.mariadb(tmp_path, program=program) as server:
        first = server.pid
        run.wait_attached(program)
        server.run("select 'since it was looked into'")
        wait_shown(run, first, "since it was looked into")
    log = tmp_path / "general.log"
    options = ("--general-log=1", f"--general-log-file={log}")  # what the server itself says
    with mysql_servers.mariadb(tmp_path, *options, program=program) as server:
        second = server.pid
        server.run("select 'at the end'")
        wait_shown(run, second, "at the end")
    run.finish()
    once = [one for one in shown(run, first) if one["text"] == "select 'since it was looked into'"]
    assert [(one["outcome"], one["rows"], one["user"]) for one in once] == [("ok", 1, "root")]
    found = [one for one in shown(run, second) if one["kind"] in ("connect", "query")]
    logged = re.findall(
        r"^[\d: \t]*\t *(\d+) (Connect|Query)\t(.*)$", log.read_text(), re.MULTILINE
    )
    assert len(logged) > 2
    assert [(one["session"], one["kind"], one["text"]) for one in found] == [
        (int(number), kind.lower(), text if kind == "Query" else "")
        for number, kind, text in logged
    ]


def test_what_looks_into_new_files_goes_ahead_of_them(run):
    """Or it would be as late as the machine is busy."""

    def nice() -> list[int]:
        tasks = Path(f"/proc/{run.process.pid}/task").glob("*/stat")
        return sorted(int(task.read_text().rpartition(")")[2].split()[16]) for task in tasks)

    usual = os.nice(0)
    wait_until(lambda: nice().count(-10) == 1, "a thread in front")
    assert set(nice()) == {-10, usual}
    run.finish()


def test_what_passed_before_is_told_of(run, program, tmp_path):
    """The capture is stopped while a server starts: as if looking into it had taken that long."""
    run.process.send_signal(signal.SIGSTOP)
    try:
        with mysql_servers.mariadb(tmp_path, program=program) as server:
            server.run("select 'too early'")
            run.process.send_signal(signal.SIGCONT)
            run.wait_attached(program)
            server.run("select 'in time'")
            wait_shown(run, server.pid, "in time")
    finally:
        run.process.send_signal(signal.SIGCONT)
    run.finish()
    texts = [one["text"] for one in shown(run, server.pid)]
    assert texts.count("select 'in time'") == 1
    assert "select 'too early'" not in texts
    told = re.compile(rf"{re.escape(str(program))} is new .* process (\d+) did .* first (\S+) s is")
    (found,) = [m for line in run.stderr.splitlines() if (m := told.search(line))]
    assert int(found[1]) == server.pid
    assert float(found[2]) > 0
