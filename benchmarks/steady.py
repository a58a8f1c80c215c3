# SPDX-License-Identifier: Apache-2.0
"""Whether the tool's memory stays where it is: over minutes of traffic, over one huge body.

    sudo python benchmarks/steady.py [--minutes 5] [--rate 5000] [--gigabytes 5]

Two runs, one line each: many small writes at a steady rate, watched for some minutes; and one
response of some gigabytes on one connection, with its parser at work. Memory is resident memory,
looked at every half second; "settled" is the median of the first tenth, "middle" and "end" are
those of the tenths in the middle and at the end.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from bench import HERE
from watch import Watcher, Writer, memory_mb
from web import Nginx

_EVERY_S = 0.5


class Memory(threading.Thread):
    """Looks at a process's resident memory until ``end``."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self._over = threading.Event()
        self.seen: list[float] = []

    def run(self) -> None:
        """Look, and wait."""
        while not self._over.wait(_EVERY_S):
            self.seen.append(memory_mb(self._pid, "VmRSS"))

    def end(self) -> str:
        """Say what was seen."""
        self._over.set()
        self.join()
        tenth = max(len(self.seen) // 10, 1)
        starts = {"settled": 0, "middle": (len(self.seen) - tenth) // 2, "end": -tenth}
        medians = {
            name: statistics.median(self.seen[at : at + tenth or None])
            for name, at in starts.items()
        }
        told = ", ".join(f"{name} {median:.1f} MB" for name, median in medians.items())
        return f"{told}, most {max(self.seen):.1f} MB ({len(self.seen)} looks)"


def _watch(tool: Path, output: Path, *words: str) -> tuple[Watcher, Memory]:
    watcher = Watcher([str(tool), "tls", "-m", "text", "-w", str(output), *words])
    watcher.start()
    memory = Memory(watcher.pid)
    memory.start()
    return watcher, memory


def _told(watcher: Watcher) -> str:
    return ", ".join(f"{watcher.summary.get(name, 0):,} {name}" for name in ("events", "lost"))


def minutes(options: argparse.Namespace, directory: Path) -> str:
    """Watch a steady writer."""
    program = directory / "writer"
    source = HERE / "writer.c"
    build = ["gcc", "-O2", "-pthread", "-o", program, source, "-lssl", "-lcrypto"]
    subprocess.run(build, check=True)
    seconds = str(60 * options.minutes)
    writer = Writer(program, "--size", "100", "--rate", str(options.rate), "--seconds", seconds)
    watcher, memory = _watch(options.tool, directory / "small", "--pid", str(writer.pid))
    writer.go()
    writer.wait()
    said = memory.end()
    watcher.stop()
    return f"{options.minutes:g} minutes of {options.rate:,} writes/s: {said}; {_told(watcher)}"


def gigabytes(options: argparse.Namespace, directory: Path) -> str:
    """Watch one connection that moves one huge body."""
    place = directory / "nginx"
    place.mkdir()
    nginx = Nginx(place)
    try:
        with (place / "file").open("wb") as file:
            file.truncate(int(options.gigabytes * (1 << 30)))
        watcher, memory = _watch(options.tool, directory / "large", "--comm", "curl")
        url = f"https://localhost:{nginx.port}/file"
        curl = ["curl", "-sf", "--cacert", place / "certificate.pem", "-o", "/dev/null", url]
        subprocess.run(curl, check=True)
        said = memory.end()
        watcher.stop()
    finally:
        nginx.stop()
    return f"{options.gigabytes:g} GB on one connection: {said}; {_told(watcher)}"


def main() -> int:
    """Both runs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tool", type=Path, default=HERE.parent / ".venv/bin/ecapture")
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--rate", type=int, default=5000, help="writes a second, 100 bytes each")
    parser.add_argument("--gigabytes", type=float, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        for case in (minutes, gigabytes):
            print(case(options, Path(directory)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
