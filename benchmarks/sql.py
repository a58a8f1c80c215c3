# SPDX-License-Identifier: Apache-2.0
"""What a PostgreSQL server loses while it is watched: pgbench at full speed.

    sudo python benchmarks/sql.py [--rounds 5] [--seconds 5] [--clients 4] [--modes simple,prepared]

No probes, an empty program on the same hooks (the price of the kernel's trap), ``ecapture postgres
-m jsonl``, and the empty program once more, taking turns in every round, every other time in the
opposite order. What matters is the throughput under ecapture over that under the empty program,
within a round; the goal is 0.8. Beside it is what the empty program reaches of itself: what single
rounds of that differ by is the machine. Every statement
that pgbench counts must be in the output, or be counted as lost; the line below says so.

Throughput is at the mercy of whatever else the machine does. The last line is less so: processor
time for a statement, of server and client under the empty program over that of server, client and
ecapture, which is what the ratio of throughputs is where processors are all that limits it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from watch import DEADLINE_S, BenchmarkError, Watcher

HERE = Path(__file__).resolve().parent
NONE, EMPTY, TOOL, AGAIN = "no probes", "empty", "ecapture", "empty again"
NOBODY = 65534
SETTINGS = ("fsync=off", "autovacuum=off", "shared_buffers=64MB", "max_wal_size=512MB")
_PROCESSED = re.compile(r"actually processed: (\d+)")
_RATE = re.compile(r"tps = ([0-9.]+) \(?w?i?t?h?o?u?t? ?initial")


def binaries() -> Path:
    """Where the newest installed server is."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parts[-2]))
    if not found:
        raise BenchmarkError("the package postgresql is not installed")
    return found[-1]


def spent(postmaster: int) -> float:
    """Processor time in seconds of all back-ends that have ended (proc(5), fields 16 and 17)."""
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children")
    deadline = time.monotonic() + DEADLINE_S
    while any(serves(pid) for pid in children.read_text().split()):
        if time.monotonic() > deadline:
            raise BenchmarkError("sessions do not end")
        time.sleep(0.02)
    after_name = Path(f"/proc/{postmaster}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[13]) + int(after_name[14])) / os.sysconf("SC_CLK_TCK")


def serves(pid: str) -> bool:
    """Whether a process of the server's has a client, which its title tells, or had until now."""
    try:
        title = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return not title or b"admin postgres" in title


@contextmanager
def server(folder: Path, programs: Path) -> Iterator[int]:
    """A server with pgbench's tables, on a socket in the folder; its process."""
    os.chown(folder, NOBODY, NOBODY)
    data = folder / "data"
    identity = {"user": NOBODY, "group": NOBODY, "extra_groups": ()}
    command = [programs / "initdb", "-D", data, "-A", "trust", "-U", "admin", "-N"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/", **identity)
    words = [word for setting in SETTINGS for word in ("-c", setting)]
    process = subprocess.Popen(
        [programs / "postgres", "-D", data, "-k", folder, "-h", "", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        **identity,
    )
    try:
        deadline = time.monotonic() + DEADLINE_S
        made = [programs / "pgbench", "-i", "-q", "-s", "5", *where(folder)]
        while subprocess.run(made, check=False, capture_output=True).returncode:
            if time.monotonic() > deadline or process.poll() is not None:
                raise BenchmarkError("the server does not answer")
            time.sleep(0.2)
        yield process.pid
    finally:
        process.send_signal(2)  # SIGINT: without waiting for sessions
        process.wait(DEADLINE_S)


def where(folder: Path) -> list[str]:
    """How clients reach it."""
    return ["-h", str(folder), "-U", "admin", "postgres"]


def watcher(condition: str, options: argparse.Namespace, folder: Path) -> Watcher | None:
    """What watches the server under a condition."""
    program = str(binaries() / "postgres")
    if condition in (EMPTY, AGAIN):
        functions = ["--functions", "secure_read,secure_write"]
        return Watcher([str(folder / "empty_probe"), "--library", program, *functions])
    if condition == TOOL:
        output = str(folder / "output")
        words = ["-m", "jsonl", "-w", output, "--postgres", program, *options.tool_option]
        return Watcher([options.tool, "postgres", *words])
    return None


def once(
    mode: str, condition: str, options: argparse.Namespace, folder: Path, postmaster: int
) -> dict[str, float]:
    """One run of pgbench. Raises BenchmarkError if statements are neither shown nor lost."""
    watching = watcher(condition, options, folder)
    if watching:
        watching.start()
    server_s, client_s = spent(postmaster), clients_s()
    words = ["-n", "-S", "-M", mode, "-c", str(options.clients), "-j", "2"]
    done = subprocess.run(
        [binaries() / "pgbench", *words, "-T", str(options.seconds), *where(folder)],
        capture_output=True,
        text=True,
        check=True,
    )
    processed, rate = _PROCESSED.search(done.stdout), _RATE.search(done.stdout)
    if processed is None or rate is None:
        raise BenchmarkError(f"pgbench said: {done.stdout}")
    found = {"tps": float(rate[1]), "count": float(processed[1]), "shown": 0.0, "lost": 0.0}
    work_s = spent(postmaster) - server_s + clients_s() - client_s
    found["work_us"] = work_s * 1e6 / found["count"]
    if watching:
        watching.settle()
        watching.stop()
    if watching and condition == TOOL:
        found["lost"] = float(watching.summary["lost"])
        found["shown"] = float(shown(folder / "output"))
        found["cpu_us"] = watching.work_s * 1e6 / found["count"]
        found["peak_mb"] = watching.peak_mb
        (folder / "output").unlink()
        if found["shown"] < found["count"] and not found["lost"]:
            raise BenchmarkError(f"{found['count'] - found['shown']:.0f} statements are missing")
    return found


def clients_s() -> float:
    """Processor time in seconds of all programs that ended here."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def shown(output: Path) -> int:
    """How many of pgbench's statements are in the output, each with its answer."""
    count = 0
    with output.open("rb") as file:
        for line in file:
            if b'"text":"SELECT abalance' in line and b'"kind":"prepare"' not in line:
                count += json.loads(line)["rows"] == 1
    return count


def main() -> None:
    """Run every mode and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--modes", default="simple,extended,prepared")
    parser.add_argument("--tool", default=str(HERE.parent / ".venv" / "bin" / "ecapture"))
    parser.add_argument("--tool-option", action="append", default=[])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ecapture-sql-") as name:
        folder = Path(name)
        build = ["gcc", "-O2", "-o", folder / "empty_probe", HERE / "empty_probe.c"]
        subprocess.run([*build, "-lbpf", "-lelf"], check=True)
        with server(folder, binaries()) as postmaster:
            for mode in options.modes.split(","):
                report(mode, options, folder, postmaster)


def report(mode: str, options: argparse.Namespace, folder: Path, postmaster: int) -> None:
    """Run one mode and print its lines."""
    runs: list[dict[str, dict[str, float]]] = []
    for number in range(options.rounds):
        conditions = (NONE, EMPTY, TOOL, AGAIN)
        turns = conditions if number % 2 == 0 else conditions[::-1]
        runs.append({c: once(mode, c, options, folder, postmaster) for c in turns})
        rates = "  ".join(f"{c} {runs[-1][c]['tps']:.0f}/s" for c in conditions)
        print(f"{mode} round {number + 1}: {rates}", file=sys.stderr)

    def ratio(one: str, other: str) -> float:
        return statistics.median(run[one]["tps"] / run[other]["tps"] for run in runs)

    def spread(condition: str) -> str:
        single = [run[condition]["tps"] / run[EMPTY]["tps"] for run in runs]
        return f"{min(single):.2f} to {max(single):.2f} in single rounds"

    def median(condition: str, key: str) -> float:
        return statistics.median(run[condition][key] for run in runs)

    print(
        f"{mode}: {median(NONE, 'tps'):.0f}/s without probes;"
        f" empty {ratio(EMPTY, NONE):.2f} of that, ecapture {ratio(TOOL, NONE):.2f};"
        f" ecapture over empty {ratio(TOOL, EMPTY):.2f} ({spread(TOOL)}),"
        f" empty over itself {ratio(AGAIN, EMPTY):.2f} ({spread(AGAIN)})"
    )
    count, seen, lost = (sum(run[TOOL][key] for run in runs) for key in ("count", "shown", "lost"))
    cost, peak = median(TOOL, "cpu_us"), median(TOOL, "peak_mb")
    print(f"  {count:.0f} statements, {seen:.0f} shown, {lost:.0f} records lost")
    print(f"  {cost:.1f} us of processor time for each, at most {peak:.0f} MB of memory")
    empty, work = median(EMPTY, "work_us"), median(TOOL, "work_us")
    share = statistics.median(
        run[EMPTY]["work_us"] / (run[TOOL]["work_us"] + run[TOOL]["cpu_us"]) for run in runs
    )
    print(
        f"  server and client: {empty:.1f} us for each under the empty program, {work:.1f} under"
        f" ecapture; all of it, ecapture's own included: {share:.2f}"
    )


if __name__ == "__main__":
    main()
