# SPDX-License-Identifier: Apache-2.0
"""What a MariaDB server loses while its statements are captured.

    sudo python benchmarks/mysqld.py [--rounds 5] [--statements 40000] [--sessions 8]

Conditions take turns in every round: no probes, an empty program on the same hooks (the price of
the kernel's trap), the tool, which writes JSON lines to a file, and the empty program once more:
what that differs from itself is the machine, and no smaller difference means anything. Which comes
first changes from round to round. ``mariadb-slap`` sends
``select 1`` as fast as the server answers, which is the least work a statement can be, hence the
dearest for a tracer. Every statement is looked for in the output: shown and lost must make up what
was sent. Ratios are made within a round, and only they travel between machines.

Throughput is at the mercy of whatever else the machine does. The last lines are less so: processor
time for a statement of server and client, and of ecapture itself; and what server and client take
under the empty program over what all three take, which is what the ratio of throughputs is where
processors are all that limits it.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from watch import BenchmarkError, Watcher, cpu_seconds

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "capture"))

import mysql_servers  # noqa: E402

from ecapture.binary.elf import ElfFile  # noqa: E402
from ecapture.binary.mysqld import locate  # noqa: E402

STATEMENT = "select 1"


def main() -> int:
    """Measure, print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--statements", type=int, default=40_000)
    parser.add_argument("--sessions", type=int, default=8)
    parser.add_argument("--tool", default=str(HERE.parent / ".venv" / "bin" / "ecapture"))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ecapture-bench-") as folder:
        home = Path(folder)
        empty = _compile(home)
        with mysql_servers.mariadb(home) as server:
            server.run("create database mysqlslap")
            conditions = {
                "no probes": [],
                "empty": _empty_commands(empty, server),
                "ecapture": [[asked.tool, "mysqld", "--pid", str(server.pid), "-m", "jsonl"]],
                "empty again": _empty_commands(empty, server),
            }
            _measure(asked, server, conditions, home)
    return 0


def _compile(home: Path) -> Path:
    built = home / "empty_probe"
    source = HERE / "empty_probe.c"
    subprocess.run(["gcc", "-O2", "-o", built, source, "-lbpf", "-lelf"], check=True)
    return built


def _empty_commands(empty: Path, server: mysql_servers.Server) -> list[list[str]]:
    """An empty program on entry and return of commands, and one on the entry of answers."""
    with ElfFile(server.file) as elf:
        located = locate(elf)
    if located is None:
        raise BenchmarkError(f"{server.file} is no server that is understood")
    both, entry = [], []
    for role, symbol in located.functions.items():
        (both if role in ("dispatch_command", "acl_authenticate") else entry).append(symbol.name)
    common = [str(empty), "--library", str(server.file), "--pid", str(server.pid), "--functions"]
    return [[*common, ",".join(both)], [*common, ",".join(entry), "--entry-only"]]


def _measure(
    asked: argparse.Namespace,
    server: mysql_servers.Server,
    conditions: dict[str, list[list[str]]],
    home: Path,
) -> None:
    rates: dict[str, list[float]] = {name: [] for name in conditions}
    costs: dict[str, list[float]] = {name: [] for name in conditions}
    own: list[float] = []
    shown = lost = 0
    for number in range(asked.rounds):
        turns = list(conditions.items())
        for name, commands in turns if number % 2 == 0 else reversed(turns):
            output = home / "shown.jsonl"
            output.unlink(missing_ok=True)
            words = [[*c, "-w", str(output)] if name == "ecapture" else c for c in commands]
            rate, cost, watchers = _run(asked, server, words)
            rates[name].append(rate)
            costs[name].append(cost)
            if name == "ecapture":
                summary = watchers[0].summary
                own.append(watchers[0].work_s * 1e6 / asked.statements)
                shown += _count(output)
                lost += summary["lost"]
    sent = asked.rounds * asked.statements
    print(f"{'condition':12} {'per second':>12} {'to none':>9} {'to empty':>9}  in single rounds")
    for name, found in rates.items():
        to_none = statistics.median(a / b for a, b in zip(found, rates["no probes"], strict=True))
        single = [a / b for a, b in zip(found, rates["empty"], strict=True)]
        print(
            f"{name:12} {statistics.median(found):12.0f} {to_none:9.2f}"
            f" {statistics.median(single):9.2f}  {min(single):.2f} to {max(single):.2f}"
        )
    print(f"sent={sent} shown={shown} records lost={lost}")
    taken = ", ".join(f"{statistics.median(us):.1f} {name}" for name, us in costs.items())
    print(f"server and client, us for each: {taken}; ecapture itself {statistics.median(own):.1f}")
    shares = [
        empty / (work + tool)
        for empty, work, tool in zip(costs["empty"], costs["ecapture"], own, strict=True)
    ]
    print(f"empty over ecapture, its own time included: {statistics.median(shares):.2f}", end="")
    print(f" ({min(shares):.2f} to {max(shares):.2f})")


def _run(
    asked: argparse.Namespace, server: mysql_servers.Server, commands: Sequence[list[str]]
) -> tuple[float, float, list[Watcher]]:
    """Statements a second under these watchers, processor time for each in us, and the watchers."""
    watchers = [Watcher(command) for command in commands]
    for watcher in watchers:
        watcher.start()
    cpu_s = cpu_seconds(server.pid) + _clients_s()
    began = time.monotonic()
    subprocess.run(
        [
            "mariadb-slap",
            "--no-defaults",
            f"--socket={server.socket}",
            "--user=root",
            f"--concurrency={asked.sessions}",
            f"--number-of-queries={asked.statements}",
            f"--query={STATEMENT}",
        ],
        check=True,
        capture_output=True,
    )
    elapsed = time.monotonic() - began
    cpu_s = cpu_seconds(server.pid) + _clients_s() - cpu_s
    for watcher in watchers:
        watcher.settle()
        watcher.stop()
    return asked.statements / elapsed, cpu_s * 1e6 / asked.statements, watchers


def _clients_s() -> float:
    """Processor time in seconds of all programs that ended here."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _count(output: Path) -> int:
    with output.open("rb") as lines:
        return sum(json.loads(line)["text"] == STATEMENT for line in lines)


if __name__ == "__main__":
    sys.exit(main())
