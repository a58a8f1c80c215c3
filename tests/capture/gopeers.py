# SPDX-License-Identifier: Apache-2.0
"""gopeer as a process, and what a capture of it must look like."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from harness import DEADLINE, Lines, Shown, joined

# Loads a shared library that was made of Go, and lets it play.
_IN_PYTHON = "import ctypes, sys; ctypes.CDLL(sys.argv[1]).Play(' '.join(sys.argv[2:]).encode())"


class GoPeer:
    """A running gopeer. What it prints are its reports."""

    def __init__(self, command: Sequence[object], *words: object) -> None:
        self.process = subprocess.Popen(
            [str(word) for word in (*command, *words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self.process.pid
        self._lines = Lines(self.process.stdout)
        self.reports: list[dict] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdin.close()

    def ready(self) -> dict:
        """Returns when it waits for the word."""
        return json.loads(self._lines.wait_for(lambda line: '"ready"' in line, "ready"))

    def go(self) -> None:
        """Says the word."""
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def wait_told(self, kind: str) -> dict:
        """The first report of a kind, now or later."""
        return json.loads(self._lines.wait_for(lambda line: f'"{kind}"' in line, kind))

    def end(self, deadline: float = DEADLINE) -> Self:
        """Waits for the end, which must be a good one."""
        assert self.process.wait(deadline) == 0, self._lines.so_far()[-3:]
        self.reports = [json.loads(line) for line in self._lines.all()]
        return self

    def of(self, kind: str) -> list[dict]:
        """The reports of a kind."""
        return [report for report in self.reports if report["event"] == kind]


def command_for(mode: str, program: Path) -> list[object]:
    """How to start what ``toolchains.gopeer`` built."""
    if mode == "c-shared":
        return [sys.executable, "-c", _IN_PYTHON, program]
    if mode == "plugin":
        release = program.name.removeprefix("gopeer-").removesuffix("-plugin")
        return [program.with_name(f"gohost-{release}"), program]
    return [program]


Streams = dict[tuple[int, str, str, str], list[Shown]]


def streams(shown: Sequence[Shown]) -> Streams:
    """What was shown, by process, direction and ends."""
    found: Streams = {}
    for event in shown:
        key = event.pid, event.direction, event.source, event.destination
        found.setdefault(key, []).append(event)
    return found


def stream_of(found: Streams, done: dict, direction: str) -> list[Shown]:
    """What was shown of one direction of one end."""
    source, destination = done["local"], done["remote"]
    if direction == "read":
        source, destination = destination, source
    return found.get((done["pid"], direction, source, destination), [])


def assert_told(events: Sequence[Shown], told: dict) -> None:
    """These events are what the program says that it moved: bytes and calls."""
    content = joined(events)
    assert len(content) == told["bytes"]
    assert hashlib.sha256(content).hexdigest() == told["sha256"]
    assert sum(event.call_offset == 0 for event in events) == told["calls"]
    assert not any(event.missing or event.assumed for event in events)


def assert_exact(shown: Sequence[Shown], peer: GoPeer, connections: int = 1) -> None:
    """Both directions of both ends of every connection: every byte, once, and nothing else."""
    dones = peer.of("done")
    assert len(dones) == 2 * connections
    found = streams(shown)
    for done in dones:
        for direction in ("read", "write"):
            assert_told(stream_of(found, done, direction), done[direction])
    moved = sum(done[d]["bytes"] for done in dones for d in ("read", "write"))
    assert sum(len(event.payload) for event in shown if event.pid == peer.pid) == moved
