# SPDX-License-Identifier: Apache-2.0
"""Which processes run a file. That they are hooked is tested with a server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ecapture.kernel.latecomers import back_ends, processes_of


def test_processes_are_found_by_the_file_itself() -> None:
    assert os.getpid() in processes_of(Path("/proc/self/exe").stat())


def test_a_file_that_nobody_runs(tmp_path: Path) -> None:
    assert processes_of(tmp_path.stat()) == []


@pytest.fixture
def family(tmp_path: Path) -> Iterator[tuple[int, dict[str, int]]]:
    """A process, and what it forked: one that has a socket, and one that has none."""
    script = (
        "import os, socket, sys, time\n"
        "ours, theirs = socket.socketpair()\n"
        "for name in ('with', 'without'):\n"
        "    if (pid := os.fork()) == 0:\n"
        "        theirs.close()\n"
        "        if name == 'without': ours.close()\n"
        "        os.write(1, f'{name} {os.getpid()}\\n'.encode())\n"
        "        os.read(0, 1)\n"
        "        os._exit(0)\n"
        "os.read(0, 1)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        told = [process.stdout.readline().decode().split() for _ in range(2)]
        yield process.pid, {name: int(pid) for name, pid in told}
        process.stdin.close()


def test_back_ends_are_children_of_a_server_that_hold_a_socket(
    family: tuple[int, dict[str, int]],
) -> None:
    first, children = family
    assert back_ends([first, *children.values()]) == [children["with"]]


def test_whoever_has_no_parent_in_the_family_is_no_back_end(
    family: tuple[int, dict[str, int]],
) -> None:
    _first, children = family
    assert back_ends(children.values()) == []


def test_processes_that_are_gone_are_none() -> None:
    assert back_ends([2**22 + 1]) == []
