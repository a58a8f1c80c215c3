# SPDX-License-Identifier: Apache-2.0
"""One timeline: what is typed, what that asks of databases, and what it says over TLS."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import mysql_servers
import pytest
from asked import Asked
from harness import CAPTURES
from servers import Certificate, Server, https_server, make_certificate
from terminals import Terminal

pytestmark = [
    CAPTURES,
    pytest.mark.needs(
        "btf", "program:psql", "program:mariadb", "program:mariadbd", "program:curl", "program:bash"
    ),
]
BASH = ("bash", "--norc", "--noprofile")
TYPED = [
    ("$PG -c \"select 'asked of postgres'\"", 0),
    ("$MY -e \"select 'asked of mariadb'\"", 0),
    ("$WEB/first", 0),
    ("false", 1),
    ("$PG -c \"select 'select ' || 6*7\" | $MY; $WEB/second", 0),
    ('$PG -c "selec"', 1),
    ("exit 3", 3),
]
ASKED = {
    "postgresql": [
        ("connect", "", "ok"),
        ("query", "select 'asked of postgres'", "ok"),
        ("disconnect", "", "ok"),
        ("connect", "", "ok"),
        ("query", "select 'select ' || 6*7", "ok"),
        ("disconnect", "", "ok"),
        ("connect", "", "ok"),
        ("query", "selec", "error"),
        ("disconnect", "", "ok"),
    ],
    "mysql": [
        ("query", "select 'asked of mariadb'", "ok"),
        ("query", "select 42", "ok"),
    ],
}
# By which line of what is typed each was asked.
CAUSES = {
    "select 'asked of postgres'": 0,
    "select 'asked of mariadb'": 1,
    "/first": 2,
    "select 'select ' || 6*7": 4,
    "select 42": 4,
    "/second": 4,
    "selec": 5,
}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """What the server over TLS shows."""
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def web(certificate: Certificate) -> Iterator[Server]:
    """A server that answers over TLS."""
    with https_server(certificate) as found:
        yield found


@pytest.fixture(scope="module")
def maria(tmp_path_factory: pytest.TempPathFactory) -> Iterator[mysql_servers.Server]:
    """The distribution's MariaDB."""
    with mysql_servers.mariadb(tmp_path_factory.mktemp("mariadb")) as found:
        yield found


def test_everything_is_in_one_timeline_each_once(server, maria, web, certificate, tmp_path):
    words = {
        "PG": f"{server.programs.binaries}/psql -XqAt -P pager=off -U admin -d postgres"
        f" -h {server.folder} -p {server.port}",
        "MY": f"mariadb --no-defaults -u root -S {maria.socket} -N",
        "WEB": f"curl -sS --cacert {certificate.certificate} https://localhost:{web.port}",
    }
    with (
        Asked(tmp_path, probe="all") as captured,
        Terminal(*BASH, folder=tmp_path, env=words) as shell,
    ):
        shell.ready()
        for line, _status in TYPED[:-1]:
            shell.run(line)
        shell.send(f"{TYPED[-1][0]}\n")
        assert os.waitstatus_to_exitcode(shell.wait()) == TYPED[-1][1]
        captured.wait_for(len(TYPED), type="command", pid=shell.pid)
        captured.wait_for(2, type="exchange", comm="curl")
        captured.wait_for(2, type="exchange", pid=web.pids[0])
        captured.finish()
    assert (captured.summary["lost"], captured.summary["malformed"]) == (0, 0)
    shown = captured.so_far()

    commands = [one for one in shown if one["type"] == "command" and one["pid"] == shell.pid]
    assert [(one["text"], one["status"]) for one in commands] == TYPED

    statements = [one for one in shown if one["type"] == "statement"]
    ours = {
        "postgresql": [one for one in statements if one["application"] == "psql"],
        "mysql": [one for one in statements if one["pid"] == maria.pid and one["kind"] == "query"],
    }
    for name, expected in ASKED.items():
        told = [(one["kind"], one["text"], one["outcome"]) for one in ours[name]]
        own = [one for one in told if not one[1].startswith("select @@")]
        assert own == expected, name

    exchanges = [one for one in shown if one["type"] == "exchange"]
    for who in ({"comm": "curl", "role": "client"}, {"pid": web.pids[0], "role": "server"}):
        own = [one for one in exchanges if who.items() <= one.items()]
        told = [(one["request"]["target"], one["response"]["status"]) for one in own]
        assert told == [("/first", 200), ("/second", 200)], who

    own = [one for one in exchanges if one["comm"] == "curl" or one["pid"] == web.pids[0]]
    for one in (*ours["postgresql"], *ours["mysql"], *own):
        within(one, commands)
    # Of PostgreSQL the answer is seen; of MySQL the end of a function that has sent it by then.
    for one in ours["postgresql"]:
        if one["text"] in CAUSES:
            assert one["time_ns"] <= commands[CAUSES[one["text"]]]["time_ns"]


def within(event: dict[str, Any], commands: list[dict[str, Any]]) -> None:
    """What a line caused began while it was carried out."""
    if event["type"] == "exchange":
        name, began = event["request"]["target"], event["request"]["time_ns"]
    else:
        name, began = event["text"], event["started_ns"]
    if name in CAUSES:
        cause = commands[CAUSES[name]]
        assert cause["started_ns"] <= began <= cause["time_ns"], name
