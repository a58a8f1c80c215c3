# SPDX-License-Identifier: Apache-2.0
"""What the subcommands for databases refuse, and what they make of their options."""

from __future__ import annotations

import logging
import os
import subprocess

import pytest

from ecapture.cli.databases import _server_options, _with_sessions
from ecapture.errors import UsageError
from ecapture.kernel.feature import feature

GIVEN = {"model": "text", "keylogfile": None, "pids": (), "follow": False, "btf": 0}


def test_without_a_process_nothing_changes() -> None:
    assert _with_sessions(GIVEN) is GIVEN
    assert _with_sessions(GIVEN | {"pids": (0,)})["follow"] is False


def test_the_sessions_of_a_server_are_its_descendants() -> None:
    found = _with_sessions(GIVEN | {"pids": (os.getpid(),)})
    assert found["follow"] is bool(feature("btf"))
    assert os.getpid() in found["pids"]


def test_a_process_that_is_no_server_is_said(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The command line, where it ran in this process, keeps messages to itself.
    monkeypatch.setattr(logging.getLogger("ecapture"), "propagate", True)
    # Not this process: the servers of other tests may be children of it.
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as no_server:
        _with_sessions(GIVEN | {"pids": (no_server.pid,)})
        no_server.communicate()
    assert "no PostgreSQL server" in caplog.text


def test_without_types_they_are_those_that_there_are() -> None:
    found = _with_sessions(GIVEN | {"pids": (os.getpid(),), "btf": 2})
    assert found["follow"] is False
    assert os.getpid() in found["pids"]


def test_a_function_of_a_mysql_server_that_is_named_by_hand() -> None:
    assert _server_options(("/a",), None, None) == {}
    by_name = _server_options(("/a",), "run", None)
    assert by_name == {"libraries": ("/a",), "server_function": "run", "server_offset": None}
    assert _server_options(("/a",), None, "0x10")["server_offset"] == 16
    assert _server_options(("/a",), None, "10")["server_offset"] == 10


@pytest.mark.parametrize(
    ("files", "symbol", "offset", "problem"),
    [
        (("/a",), "run", "0x10", "names the function already"),
        (("/a", "/b"), "run", None, "2 were found"),
        (("/a",), None, "ten", "is no offset"),
        (("/a",), None, "-1", "is no offset"),
        (("/a",), None, "0", "is no offset"),
    ],
)
def test_what_of_it_makes_no_sense(
    files: tuple[str, ...], symbol: str | None, offset: str | None, problem: str
) -> None:
    with pytest.raises(UsageError, match=problem):
        _server_options(files, symbol, offset)
