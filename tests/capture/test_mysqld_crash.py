# SPDX-License-Identifier: Apache-2.0
"""What a database server was at when it ended by itself: whoever looks for the cause needs it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import mysql_servers
import pymysql
import pytest
from harness import CAPTURES, DEADLINE, wait_until

from ecapture.config import CaptureConfig, Scope
from ecapture.events import Statement

pytestmark = [
    CAPTURES,
    pytest.mark.needs("program:mariadb-install-db", "tp_btf:sched_process_exit"),
]
ENDLESS = "select sleep(1000)"


def is_at(server: mysql_servers.Server, number: int) -> str | None:
    """What a session of the server is at."""
    with server.connect() as session, session.cursor() as cursor:
        cursor.execute("show full processlist")
        return {row[0]: row[7] for row in cursor.fetchall()}.get(number)


def test_what_a_server_was_at_is_told_when_it_is_gone(watch, tmp_path):
    with mysql_servers.mariadb(tmp_path) as server:
        session = server.connect()
        number = session.thread_id()
        run = watch(CaptureConfig(probes=("mysqld",), scope=Scope(pids=(server.pid,))))

        def ask() -> None:
            with pytest.raises(pymysql.MySQLError, match="2013"):
                session.cursor().execute(ENDLESS)

        def of_session(events):
            return [e for e in events if type(e) is Statement and e.session == number]

        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(ask)
            wait_until(lambda: is_at(server, number) == ENDLESS, "the statement")
            server.process.kill()
            asked.result(DEADLINE)
        run.wait_for(of_session, "the statement, before the capture ends")
        (found,) = of_session(run.finish())
    assert (found.text, found.outcome, found.marks) == (ENDLESS, "unknown", ("process ended",))
