# SPDX-License-Identifier: Apache-2.0
"""What parsing conversations adds to showing them as they are.

    sudo python benchmarks/parsing.py [--rounds 5] [--seconds 2] [--live] [--rate 10000]

nginx under wrk is recorded once with small answers and once with a file that goes out in pieces of
16 KiB. Each recording is then replayed unparsed and parsed in turn, all in one process and without
writing, and the least CPU time of each is taken, as everything else the machine does only adds to
it. ``--live`` counts what is shown while wrk asks as fast as it can, against what wrk counted, and
while h2load asks ``--rate`` times a second.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from ecapture.events import Summary
from ecapture.formats.conversation import ConversationFormat
from ecapture.formats.text import TextFormat
from ecapture.pipeline.messages import Messages
from ecapture.session import Replay, pump
from watch import BenchmarkError, Watcher
from web import Nginx, missing_programs

HERE = Path(__file__).resolve().parent


class Case(NamedTuple):
    """What is asked for, and what parsing may add (microseconds for each event)."""

    name: str
    path: str
    budget: float


CASES = (Case("small events", "/", 25.0), Case("16-KiB events", "/file", 40.0))


class Cost(NamedTuple):
    """CPU time (microseconds) for each event, of a recording of so many with so many bytes."""

    events: int
    size: float
    raw: float
    parsed: float


def record(tool: Path, nginx: Nginx, case: Case, seconds: int, target: Path) -> None:
    """Record nginx under wrk."""
    words = [str(tool), "tls", "-m", "record", "-w", str(target), "--pid", str(nginx.worker)]
    watcher = Watcher([*words, "--mapsize", "256m"])
    watcher.start()
    nginx.load(seconds, case.path)
    watcher.stop()
    if watcher.summary.get("lost"):
        raise BenchmarkError(f"{watcher.summary['lost']} records were lost")


def replay(source: Path, *, parsed: bool) -> tuple[Summary, float]:
    """Replay into a format and forget it; the CPU time in seconds."""
    summary = Summary()
    stages = (Messages(),) if parsed else ()
    form = ConversationFormat() if parsed else TextFormat()
    with Replay(str(source)) as recording:
        start = time.process_time()
        for events in pump(recording, summary, stages):
            form.encode(events)
        return summary, time.process_time() - start


def measure(source: Path, rounds: int) -> Cost:
    """The least of so many rounds."""
    raw = parsed = float("inf")
    summary = Summary()
    for _ in range(rounds):
        summary, spent = replay(source, parsed=False)
        raw = min(raw, spent)
        summary, spent = replay(source, parsed=True)
        parsed = min(parsed, spent)
    events = max(summary.events, 1)
    return Cost(events, summary.bytes / events, raw / events * 1e6, parsed / events * 1e6)


def live(tool: Path, nginx: Nginx, seconds: int, rate: int, target: Path) -> list[str]:
    """Run wrk without and with the tool, and h2load with it; how much was shown of it."""
    _, alone = nginx.load(seconds)
    return [
        f"live: {alone:.0f} requests/s alone",
        _watched(tool, nginx, lambda: nginx.load(seconds), target),
        _watched(tool, nginx, lambda: nginx.load_at(rate, seconds), target),
    ]


def _watched(tool: Path, nginx: Nginx, load: Callable[[], tuple[int, float]], target: Path) -> str:
    words = [str(tool), "tls", "--brief", "-w", str(target), "--pid", str(nginx.worker)]
    watcher = Watcher(words)
    watcher.start()
    answered, watched = load()
    watcher.stop()
    with target.open(encoding="latin-1") as shown:
        count = sum(1 for line in shown if re.search(r" GET \S+ 200 request=0 response=\d+ ", line))
    lost = watcher.summary.get("lost", 0)
    return (
        f"live: {watched:.0f} requests/s watched; {answered} answered, {count} shown,"
        f" records lost {lost}, CPU {watcher.cpu_s / max(count, 1) * 1e6:.1f} us for"
        f" each request, peak {watcher.peak_mb:.0f} MB"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tool", type=Path, default=HERE.parent / ".venv/bin/ecapture")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--live", action="store_true", help="also count while wrk runs")
    parser.add_argument("--rate", type=int, default=10_000, help="requests a second of h2load")
    options = parser.parse_args()
    if missing := missing_programs():
        print(f"missing: {', '.join(missing)}", file=sys.stderr)
        return 1
    table = Table("case", "events", "bytes each", "raw us", "parsed us", "added us", "budget us")
    over = False
    with tempfile.TemporaryDirectory() as directory:
        nginx = Nginx(Path(directory))
        try:
            for case in CASES:
                recording = Path(directory) / "recording"
                record(options.tool, nginx, case, options.seconds, recording)
                cost = measure(recording, options.rounds)
                added = cost.parsed - cost.raw
                over |= added > case.budget
                figures = (cost.size, cost.raw, cost.parsed, added, case.budget)
                table.add_row(case.name, str(cost.events), *(f"{x:.1f}" for x in figures))
            words = []
            if options.live:
                target = Path(directory) / "shown"
                words += live(options.tool, nginx, max(options.seconds, 5), options.rate, target)
        finally:
            nginx.stop()
    Console().print(table)
    for line in words:
        print(line)
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
