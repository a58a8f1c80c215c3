# SPDX-License-Identifier: Apache-2.0
"""Processes that a benchmark starts, watches and ends.

Everything is awaited with a deadline, ended by its own process id, and measured from outside: CPU
time by ``wait4``, memory by ``/proc/PID/status``.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

DEADLINE_S = 60.0
_TICK = 1.0 / os.sysconf("SC_CLK_TCK")
_PAIR = re.compile(r"(\w+)=(\d+)")


class BenchmarkError(Exception):
    """A program under measurement did not do what it has to do."""


def cpu_seconds(pid: int) -> float:
    """User and system time of a live process so far, in seconds (proc(5), fields 14 and 15)."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) * _TICK


def memory_mb(pid: int, field: str) -> float:
    """``VmRSS`` or ``VmHWM`` of a live process, in units of 10^6 bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


class Watcher:
    """A tracer: started until its ``ready:`` line, stopped by SIGINT, measured on the way.

    After ``stop``: ``summary`` has the numbers of the summary line, ``cpu_s`` the CPU time after
    ``ready:``, ``work_s`` that until ``settle``, ``stop_ms`` the time from SIGINT to the end,
    ``rss_mb`` and ``peak_mb`` the memory.
    """

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self.lines: list[str] = []
        self.summary: dict[str, int] = {}
        self.ready_ms = self.stop_ms = self.cpu_s = self.rss_mb = self.peak_mb = 0.0
        self.work_s = 0.0
        self.started_ns = 0

    def start(self, *, await_ready: bool = True) -> None:
        """Start the program, as a rule up to its ``ready:`` line."""
        self.started_ns = time.monotonic_ns()
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        self.pid = self._process.pid
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read_lines, daemon=True)
        self._reader.start()
        if await_ready:
            self.await_ready()

    def _read_lines(self) -> None:
        for line in self._process.stderr:
            if line.startswith("ready:"):
                self.ready_ms = (time.monotonic_ns() - self.started_ns) / 1e6
                self._ready.set()
            if len(self.lines) < 1000:
                self.lines.append(line.rstrip())
            if line.startswith("summary:"):
                self.summary = {key: int(value) for key, value in _PAIR.findall(line)}
        self._ready.set()

    def await_ready(self) -> None:
        """Wait for ``ready:``. Raises ``BenchmarkError`` if it does not come."""
        self._ready.wait(DEADLINE_S)
        if not self.ready_ms:
            self._process.kill()
            self._process.wait()
            raise BenchmarkError(f"{self._command[0]} did not get ready: {self.lines[-5:]}")
        self.rss_mb = memory_mb(self.pid, "VmRSS")
        self._cpu_at_ready = cpu_seconds(self.pid)

    def settle(self) -> None:
        """Wait until it has nothing to do. ``work_s`` is then the CPU time since ``ready:``.

        Unlike ``cpu_s`` that has nothing of its end, which costs the same after any load.
        """
        deadline = time.monotonic() + DEADLINE_S
        before = -1.0
        while (now := cpu_seconds(self.pid)) - before > _TICK:
            if time.monotonic() > deadline:
                raise BenchmarkError(f"{self._command[0]} does not come to rest")
            before = now
            time.sleep(0.1)
        self.work_s = now - self._cpu_at_ready

    def stop(self) -> None:
        """Interrupt it and wait. Raises ``BenchmarkError`` if it does not exit with 0."""
        self.peak_mb = memory_mb(self.pid, "VmHWM")
        killer = threading.Timer(DEADLINE_S, self._process.kill)
        killer.start()
        start = time.monotonic_ns()
        self._process.send_signal(signal.SIGINT)
        _, status, usage = os.wait4(self.pid, 0)
        self.stop_ms = (time.monotonic_ns() - start) / 1e6
        killer.cancel()
        self._process.returncode = os.waitstatus_to_exitcode(status)
        self._reader.join(DEADLINE_S)
        self._process.stderr.close()
        self.cpu_s = usage.ru_utime + usage.ru_stime - self._cpu_at_ready
        if self._process.returncode:
            code = self._process.returncode
            raise BenchmarkError(f"{self._command[0]} ended with {code}: {self.lines[-5:]}")


class Writer:
    """The TLS writer, waiting for its word until ``go``."""

    def __init__(self, program: Path, *words: str) -> None:
        self._process = subprocess.Popen(
            [program, "--wait-go", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = int(json.loads(self._process.stdout.readline())["pid"])

    def go(self) -> None:
        """Let it write."""
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def result(self) -> dict[str, Any]:
        """Wait for the end and return what the writer says about its run."""
        out, _ = self._process.communicate(timeout=DEADLINE_S)
        if self._process.returncode:
            raise BenchmarkError("the writer failed")
        return json.loads(out)

    def wait(self) -> None:
        """Wait for the end, however long it takes."""
        self._process.communicate()

    def kill(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.communicate(timeout=DEADLINE_S)
