# SPDX-License-Identifier: Apache-2.0
"""Commands of MySQL's protocol that no driver here sends, byte by byte, to real servers."""

from __future__ import annotations

import struct

import mysql_servers
import pytest
from harness import CAPTURES, DEADLINE

from ecapture.config import CaptureConfig, Scope
from ecapture.events import Statement

pytestmark = [CAPTURES, pytest.mark.needs("program:mariadb-install-db")]
QUERY, FIELD_LIST, PREPARE, EXECUTE, LONG_DATA, FETCH = 3, 4, 22, 23, 24, 28
RESET_CONNECTION, PING = 31, 14
READ_ONLY_CURSOR = 1


@pytest.fixture(scope="module", params=("mariadb", "mysql"))
def server(request, tmp_path_factory):
    start = getattr(mysql_servers, request.param)
    with start(tmp_path_factory.mktemp(request.param)) as server:
        server.run("create database shop", "create table shop.t (a int)")
        server.run("insert into shop.t values (1), (2), (3)")
        yield server


class Raw:
    """A session whose packets are made here."""

    def __init__(self, server: mysql_servers.Server) -> None:
        self.session = server.connect(database="shop", autocommit=True)
        self._socket = self.session._sock
        self._socket.settimeout(DEADLINE)

    def ask(self, command: int, content: bytes = b"", *, answered: bool = True) -> list[bytes]:
        """The packets that the server answers. A ping, which is not shown, tells where they end."""
        for number, body in ((command, content), (PING, b"")):
            head = struct.pack("<I", len(body) + 1)[:3] + b"\0"
            self._socket.sendall(head + bytes([number]) + body)
        found: list[bytes] = []
        firsts = 0
        while True:
            head = self._take(4)
            firsts += head[3] == 1  # the number of a packet in its answer
            content = self._take(int.from_bytes(head[:3], "little"))
            if firsts > answered:
                assert content[0] == 0
                return found
            found.append(content)

    def _take(self, size: int) -> bytes:
        taken = b""
        while len(taken) < size:
            more = self._socket.recv(size - len(taken))
            assert more, "the server hangs up"
            taken += more
        return taken


def execution(number: int, cursor: int = 0, content: bytes = b"") -> bytes:
    return struct.pack("<IBI", number, cursor, 1) + content


def test_cursors_long_data_and_what_is_unknown(watch, server):
    run = watch(CaptureConfig(probes=("mysqld",), scope=Scope(pids=(server.pid,))))
    raw = Raw(server)
    assert raw.ask(PREPARE, b"select a from t where a > ?")[0][0] == 0
    integer = b"\0\1" + struct.pack("<BB", 3, 0) + struct.pack("<i", 0)
    raw.ask(EXECUTE, execution(1, READ_ONLY_CURSOR, integer))
    assert raw.ask(FETCH, struct.pack("<II", 1, 2))[-1][0] == 0xFE
    assert raw.ask(FETCH, struct.pack("<II", 1, 2))[-1][0] == 0xFE
    raw.ask(LONG_DATA, struct.pack("<IH", 1, 0) + b"5", answered=False)
    text = b"\0\1" + struct.pack("<BB", 253, 0)
    raw.ask(EXECUTE, execution(1, 0, text))
    assert raw.ask(EXECUTE, execution(99))[0][1:3] == struct.pack("<H", 1243)
    assert raw.ask(QUERY, b"")[0][1:3] == struct.pack("<H", 1065)
    assert raw.ask(QUERY, b"select '\xff'")[-1][0] == 0xFE
    assert raw.ask(RESET_CONNECTION)[0][0] == 0
    raw.session.close()

    def ended(events: list[object]) -> bool:
        return any(isinstance(e, Statement) and e.kind == "disconnect" for e in events)

    run.wait_for(ended, "the end of the session")
    found = [e for e in run.finish() if isinstance(e, Statement)]
    assert run.capture.summary.lost == run.capture.summary.malformed == 0
    told = [(s.kind, s.name, s.outcome, s.rows, s.error) for s in found if "SET " not in s.text]
    assert told == [
        ("connect", "", "ok", None, ""),
        ("prepare", "1", "ok", None, ""),
        ("execute", "1", "ok", 0, ""),
        ("fetch", "1", "ok", 2, ""),
        ("fetch", "1", "ok", 1, ""),
        ("execute", "1", "ok", 0, ""),
        ("execute", "99", "error", None, "1243"),
        ("query", "", "error", None, "1065"),
        ("query", "", "ok", 1, ""),
        ("command", "RESET_CONNECTION", "ok", 0, ""),
        ("disconnect", "", "ok", None, ""),
    ]
    first, second, unknown = (s for s in found if s.kind == "execute")
    if first.parameters:  # MariaDB: as bound
        assert (first.text, first.parameters) == ("select a from t where a > ?", ("0",))
        assert (second.parameters, second.marks) == ((), ("parameters sent apart",))
    else:
        assert first.text == "select a from t where a > 0"
        assert second.text == "select a from t where a > '5'"
    assert (unknown.text, unknown.missing, unknown.parameters) == ("", "unseen", ())
    assert [s.text for s in found if s.kind == "query"][-1] == "select '\\xff'"
