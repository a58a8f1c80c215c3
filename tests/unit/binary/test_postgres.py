# SPDX-License-Identifier: Apache-2.0
"""Sessions are read from servers in the tests of captures; here is what is none."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ecapture.binary.postgres import _TITLE, _address, _fits, read_session

# Not ended before its standard input is; its title is what is asked for.
_WAITING = "import sys; sys.stdin.read()"
_MOVES = r"""
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
int main(void)
{
    char line[512], own[256] = "", permissions[8];
    unsigned long start, end;
    FILE *maps = fopen("/proc/self/maps", "r");
    if (readlink("/proc/self/exe", own, sizeof own - 1) < 0) return 1;
    while (fgets(line, sizeof line, maps))
        if (strstr(line, own) && sscanf(line, "%lx-%lx %7s", &start, &end, permissions) == 3
            && permissions[2] == 'x') {
            void *copy = mmap(0, end - start, PROT_READ | PROT_WRITE | PROT_EXEC,
                              MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            memcpy(copy, (void *)start, end - start);
            mremap(copy, end - start, end - start, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)start);
        }
    return write(1, "\n", 1) - 1 + read(0, line, 1);
}
"""


@pytest.mark.parametrize(
    ("title", "who", "client"),
    [
        ("postgres: alice shop [local] idle", "alice shop", "[local]"),
        ("postgres: 15/x: a b 10.0.0.1(5000) SELECT", "15/x: a b", "10.0.0.1(5000)"),
        ("postgres: walsender bob ::1(7) streaming 0/1", "walsender bob", "::1(7)"),
        ("postgres: a b c [local] idle in transaction", "a b c", "[local]"),
    ],
)  # fmt: skip
def test_titles(title: str, who: str, client: str) -> None:
    found = _TITLE.match(title)
    assert found is not None
    assert (found["who"], found["client"]) == (who, client)


@pytest.mark.parametrize(
    "title", ["postgres: checkpointer", "postgres: 15/main: autovacuum launcher ", "bash", ""]
)
def test_titles_of_no_session(title: str) -> None:
    assert _TITLE.match(title) is None


@pytest.mark.parametrize(
    ("who", "user", "database", "fits"),
    [
        ("alice shop", "alice", "shop", True),
        ("c: alice shop", "alice", "shop", True),
        ("a b c", "a b", "c", True),
        ("a b c", "a", "b c", True),
        ("alice shop", "lice", "shop", False),
        ("alice shop", "", "shop", False),
        ("walsender bob", "bob", "", True),
        ("c: walsender bob", "bob", "", True),
        ("walsender bob", "bob", "shop", True),
        ("alice", "alice", "", False),
        ("alice shop", "shop", "alice", False),
    ],
)
def test_memory_and_title_must_agree(who: str, user: str, database: str, *, fits: bool) -> None:
    assert _fits(who, user, database) is fits


def test_addresses() -> None:
    assert _address("10.0.0.1(5000)") == "10.0.0.1:5000"
    assert _address("::1(5000)") == "[::1]:5000"


def test_a_process_that_is_gone() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert "is over" in read_session(process.pid).reason


def test_a_process_that_serves_no_session() -> None:
    assert "says no user" in read_session(os.getpid()).reason


def test_a_process_that_only_calls_itself_so() -> None:
    process = subprocess.Popen(
        ["postgres: alice shop [local] idle", "-c", _WAITING],
        executable=sys.executable,
        stdin=subprocess.PIPE,
    )
    title = Path(f"/proc/{process.pid}/cmdline")
    deadline = time.monotonic() + 30
    try:
        while not title.read_bytes().startswith(b"postgres: ") and time.monotonic() < deadline:
            os.sched_yield()  # between fork and exec it is still us
        found = read_session(process.pid)
    finally:
        process.communicate()
    assert (found.user, found.database, found.client) == ("", "", "local")
    assert "cannot be looked into" in found.reason


def test_a_process_that_runs_what_is_not_its_program(tmp_path: Path) -> None:
    """It moves its code to memory of nobody's, so that no file is mapped that could be read."""
    (tmp_path / "moves.c").write_text(_MOVES)
    subprocess.run(["cc", "-O1", "-o", tmp_path / "moves", tmp_path / "moves.c"], check=True)
    process = subprocess.Popen(
        ["postgres: alice shop 10.0.0.1(5000) idle"],
        executable=tmp_path / "moves",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n", "it has moved"
        found = read_session(process.pid)
    finally:
        process.communicate()
    assert (found.user, found.database, found.client) == ("", "", "10.0.0.1:5000")
    assert found.reason.endswith("cannot be looked into: it has no program mapped")
