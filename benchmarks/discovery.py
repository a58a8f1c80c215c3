# SPDX-License-Identifier: Apache-2.0
"""How soon everything on a busy host is hooked.

    sudo .venv/bin/python benchmarks/discovery.py [--processes 200] [--runs 3]

So many processes of diverse kinds are started, as far as this machine has them: python3 with ssl,
curl, openssl, node, nginx, bash, perl, sleep, and more; all of them wait. Then ``ecapture all`` is
started, first with nothing remembered of any file, then with what earlier runs learned, and timed
until its ``ready:`` line, behind which nothing common is lost; and until the last of the files that
take long was hooked, as ``-d`` tells it. Most of that is the loading of kernel programs, so it is
done for one process alone as well: what it takes longer is discovery. All lines are figures of this
machine at this moment.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import queue
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ECAPTURE = Path(sys.executable).parent / "ecapture"
_NGINX = """
worker_processes 4; daemon off; pid {0}/pid; error_log {0}/log;
events {{ worker_connections 16; }}
http {{ access_log off; client_body_temp_path {0}/a; proxy_temp_path {0}/b;
    fastcgi_temp_path {0}/c; uwsgi_temp_path {0}/d; scgi_temp_path {0}/e;
    server {{ listen unix:{0}/socket; }} }}
"""
# Every one of them waits for the end of its standard input, or until it is told to end.
_KINDS: dict[str, list[str]] = {
    "python with ssl": ["python3", "-c", "import ssl, sys; sys.stdin.read()"],
    "python": ["python3", "-c", "import sys; sys.stdin.read()"],
    "curl": ["curl", "-sS", "-T", "-", "telnet://127.0.0.1:{port}"],
    "openssl": ["openssl", "s_server", "-accept", "127.0.0.1:0", "-nocert", "-psk", "00"],
    "gnutls": ["gnutls-serv", "--quiet", "--port", "0", "--pskpasswd", "/dev/null"],
    "node": ["node", "-e", "process.stdin.resume()"],
    "bash": ["bash", "-c", "read line"],
    "perl": ["perl", "-e", "<STDIN>"],
    "cat": ["cat"],
    "sleep": ["sleep", "3600"],
}
_SHARES = {"node": 2, "python with ssl": 3, "sleep": 3}  # of a round; 1 where nothing is said


class Timed(NamedTuple):
    """Seconds until ``ready:`` and until the last file was hooked, and how many files were."""

    ready: float
    last: float
    files: int


def population(count: int, folder: Path, port: int) -> Iterator[tuple[str, list[str]]]:
    """Commands of as many kinds as the machine has, in turns."""
    kinds = [name for name, words in _KINDS.items() if shutil.which(words[0])]
    rounds = [name for name in kinds for _ in range(_SHARES.get(name, 1))]
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if nginx:
        (folder / "nginx.conf").write_text(_NGINX.format(folder))
        yield "nginx", [nginx, "-p", str(folder), "-c", str(folder / "nginx.conf")]
        count -= 5  # the workers as well
    for name in itertools.islice(itertools.cycle(rounds), max(0, count)):
        yield name, [word.replace("{port}", str(port)) for word in _KINDS[name]]


@contextmanager
def running(count: int) -> Iterator[Counter[str]]:
    """So many processes, until the block ends."""
    started: list[subprocess.Popen[bytes]] = []
    kinds: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        listener = subprocess.Popen(
            [sys.executable, "-c", _LISTENER], stdout=subprocess.PIPE, stdin=subprocess.PIPE
        )
        port = int(listener.stdout.readline()) if listener.stdout else 0
        try:
            for name, words in population(count, Path(folder), port) if count else ():
                quiet = subprocess.DEVNULL
                how = {"stdin": subprocess.PIPE, "stdout": quiet, "stderr": quiet}
                started.append(subprocess.Popen(words, **how))
                kinds[name] += 1
            settle(started)
            dead = [process for process in started if process.poll() is not None]
            kinds["(ended at once)"] = len(dead)
            yield kinds
        finally:
            for process in [*started, listener]:
                process.terminate()
            for process in [*started, listener]:
                process.wait()


_LISTENER = """
import socket, sys
listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
print(listener.getsockname()[1], flush=True)
sys.stdin.read()
"""


def settle(processes: list[subprocess.Popen[bytes]]) -> None:
    """Wait until nobody starts any more: together they used no processor time for a while."""
    before = -1
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        now = sum(spent(process.pid) for process in processes)
        if now == before:
            return
        before = now
        time.sleep(0.5)


def spent(pid: int) -> int:
    """Ticks of processor time."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


def read_lines(pipe: Iterable[str], lines: queue.SimpleQueue[tuple[float, str]]) -> None:
    """Lines of a pipe with the time of their arrival."""
    for line in pipe:
        lines.put((time.monotonic(), line))


def timed(cache: Path, *options: str) -> Timed:
    """One start of ``ecapture all`` until it has hooked what there is."""
    command = [ECAPTURE, "all", "-d", "-w", os.devnull, "--raw", *options]
    began = time.monotonic()
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"XDG_CACHE_HOME": str(cache)},
    ) as process:
        lines: queue.SimpleQueue[tuple[float, str]] = queue.SimpleQueue()
        reader = threading.Thread(target=read_lines, args=(process.stderr, lines), daemon=True)
        reader.start()
        ready, last, files = 0.0, began, set()
        # quiet for three seconds: then nothing is left to be looked into
        while not ready or time.monotonic() - last < 3:
            with contextlib.suppress(queue.Empty):
                at, line = lines.get(timeout=0.1)
                if line.startswith("ready:"):
                    ready = last = at
                if found := re.search(r"attached (?:file|keys)=(\S+)", line):
                    last = at
                    files.add(found[1])
            if process.poll() is not None:
                raise SystemExit("ecapture ended by itself")
        process.send_signal(signal.SIGINT)
        process.wait()
    return Timed(ready - began, last - began, len(files))


def report(what: str, runs: list[Timed]) -> None:
    """One line."""
    ready, last = (statistics.median(values) for values in list(zip(*runs, strict=True))[:2])
    print(f"{what:44} ready {ready:6.2f} s   last file {last:6.2f} s   files {runs[-1].files:3}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=200)
    parser.add_argument("--runs", type=int, default=3)
    chosen = parser.parse_args()
    with running(chosen.processes) as kinds, tempfile.TemporaryDirectory() as kept:
        total = sum(1 for entry in Path("/proc").iterdir() if entry.name.isdecimal())
        print(", ".join(f"{number} {name}" for name, number in kinds.items() if number))
        runs: dict[str, list[Timed]] = {"alone": [], "cold": [], "warm": []}
        for number in range(chosen.runs):
            cache = Path(kept) / str(number)
            cache.mkdir()
            runs["alone"].append(timed(cache, "--pid", str(os.getpid())))
            shutil.rmtree(cache / "ecapture", ignore_errors=True)
            runs["cold"].append(timed(cache))
            runs["warm"].append(timed(cache))
    report("one process", runs["alone"])
    report(f"{total} processes, nothing remembered", runs["cold"])
    report(f"{total} processes, files seen before", runs["warm"])
    alone = statistics.median(run.ready for run in runs["alone"])
    for name in ("cold", "warm"):
        longer = statistics.median(run.ready for run in runs[name]) - alone
        print(f"discovery, {name}: {longer:.2f} s (budget 1 s)")


if __name__ == "__main__":
    main()
