# SPDX-License-Identifier: Apache-2.0
"""What being watched costs, and what the watcher costs: one table.

    sudo python benchmarks/bench.py [--rounds 5] [--seconds 2] [--tool .venv/bin/ecapture]

Conditions take turns in every round, so that whatever else the machine does falls on all of them
alike: no probes; an empty program on the exported functions, where tracers commonly put theirs; an
empty program on the very places that the tool hooks (the price of the kernel's trap); the tool;
the tool with its hooks on the exported functions, too, for comparison with the empty program there.
Figures are medians; the spread behind +- is half the distance from least to greatest, in per cent
of the median. Ratios are made within a round, and only they travel between machines.

Cases: the writer with payloads of 100 bytes and 16 KiB; the same writer while the tool watches
another process; nginx under wrk. Every output file is read back: order, content, and whether what
is shown and what is said to be lost make up what was written.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from account import read_account
from ecapture.binary.elf import ElfFile
from ecapture.binary.identify import identify
from watch import DEADLINE_S, BenchmarkError, Watcher, Writer
from web import Nginx, missing_programs

HERE = Path(__file__).resolve().parent
NONE, EXPORTED, EMPTY, TOOL = "no probes", "empty, exported", "empty", "ecapture"
TOOL_EXPORTED = "ecapture, exported"
# What a condition is compared with: the empty program on the same hooks.
FLOORS = {EXPORTED: EMPTY, TOOL: EMPTY, TOOL_EXPORTED: EXPORTED}
BUILDS = {
    "writer": ["-pthread", "-lssl", "-lcrypto"],
    "empty_probe": ["-lbpf", "-lelf"],
}


@dataclass(slots=True)
class Sample:
    """One run under one condition. Times in the unit of the name; zero where it has no meaning."""

    per_second: float
    calls: int
    events: int = 0
    lost: int = 0
    truncated: int = 0
    cpu_us_per_event: float = 0.0
    ready_ms: float = 0.0
    stop_ms: float = 0.0
    rss_mb: float = 0.0
    peak_mb: float = 0.0
    ordered: bool = True
    accounted: bool = True
    unmarked: int = 0  # bytes whose loss the summary states, but no line of the output
    problem: str = ""


@dataclass(slots=True)
class Case:
    """All samples of one case, by condition, in the order of the runs."""

    name: str
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    first_event_ms: list[float] = field(default_factory=list)

    def add(self, condition: str, sample: Sample) -> None:
        """Append one run."""
        self.samples.setdefault(condition, []).append(sample)

    def values(self, condition: str, name: str) -> list[float]:
        """Return one figure of every run under a condition."""
        return [getattr(sample, name) for sample in self.samples.get(condition, [])]

    def median(self, condition: str, name: str) -> float:
        """Return the median of one figure, 0 if there was no run."""
        return statistics.median(self.values(condition, name) or [0.0])


class Bench:
    """The programs, the place for outputs, and how a condition is brought about."""

    def __init__(self, options: argparse.Namespace, directory: Path) -> None:
        self._options = options
        self._directory = directory
        self.writer = self._compile("writer")
        self._empty = self._compile("empty_probe")
        self._library = options.library or _libssl_of(self.writer)
        self._places = _places(self._library)
        self.has_tool = os.access(options.tool, os.X_OK)
        self._conditions = [NONE, EXPORTED, EMPTY] + [TOOL, TOOL_EXPORTED] * self.has_tool

    def _compile(self, name: str) -> Path:
        target = self._directory / name
        command = ["gcc", "-O2", "-o", target, HERE / f"{name}.c", *BUILDS[name]]
        subprocess.run(command, check=True)
        return target

    def _watcher(self, condition: str, pid: int, output: Path) -> Watcher | None:
        if condition == NONE:
            return None
        if condition in {EXPORTED, EMPTY}:
            words = [str(self._empty), "--library", str(self._library), "--pid", str(pid)]
            if condition == EMPTY:
                words += ["--offsets", ",".join(map(str, self._places))]
            return Watcher(words)
        words = [str(self._options.tool)]
        if condition == TOOL_EXPORTED:
            python = self._options.tool.with_name("python")
            words = [str(python), str(HERE / "exported.py")]
        words += ["tls", "-m", "text", "--raw", "-w", str(output)]
        return Watcher([*words, "--pid", str(pid), *self._options.tool_option])

    @contextmanager
    def _output(self) -> Iterator[Path]:
        path = self._directory / "output"
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def calls(self, name: str, *words: str, size: int) -> Case:
        """Run the writer under every condition in turn."""
        case = Case(name)
        words = ("--size", str(size), "--seconds", str(self._options.seconds), *words)
        for number in range(self._options.rounds):
            for condition in self._conditions:
                _progress(f"{name}: round {number + 1}, {condition}")
                case.add(condition, self._write_once(condition, size, words))
        if self.has_tool:
            case.first_event_ms = [
                self._first_event(size) for _ in range(min(3, self._options.rounds))
            ]
        return case

    def _write_once(self, condition: str, size: int, words: tuple[str, ...]) -> Sample:
        writer = Writer(self.writer, *words)
        with self._output() as output:
            try:
                watcher = self._watcher(condition, writer.pid, output)
                if watcher:
                    watcher.start()
            except BaseException:
                writer.kill()
                raise
            writer.go()
            result = writer.result()
            sample = Sample(result["calls"] / result["seconds"], result["calls"])
            if watcher:
                watcher.stop()
                _take_from(watcher, sample)
            if watcher and condition in {TOOL, TOOL_EXPORTED}:
                _judge(output, size, watcher, sample)
        return sample

    def _first_event(self, size: int) -> float:
        """Milliseconds from starting the tool to the first byte of output, of a slow connection."""
        words = ("--size", str(size), "--seconds", "5", "--rate", "500", "--sink", "socket")
        writer = Writer(self.writer, *words)
        writer.go()
        with self._output() as output:
            watcher = self._watcher(TOOL, writer.pid, output)
            assert watcher is not None
            watcher.start(await_ready=False)
            deadline = time.monotonic() + DEADLINE_S
            while not (output.exists() and output.stat().st_size) and time.monotonic() < deadline:
                time.sleep(0.0005)
            elapsed = (time.monotonic_ns() - watcher.started_ns) / 1e6
            watcher.await_ready()
            watcher.stop()
        writer.kill()
        return elapsed

    def outside(self, size: int) -> Case:
        """Measure the writer while somebody else is watched; that one says nothing."""
        case = Case(f"{size} B, other pid watched")
        words = ("--size", str(size), "--seconds", str(self._options.seconds))
        for number in range(self._options.rounds):
            for condition in self._conditions:
                _progress(f"{case.name}: round {number + 1}, {condition}")
                with self._output() as output:
                    idle, busy = Writer(self.writer), Writer(self.writer, *words)
                    watcher = self._watcher(condition, idle.pid, output)
                    if watcher:
                        watcher.start()
                    busy.go()
                    result = busy.result()
                    sample = Sample(result["calls"] / result["seconds"], result["calls"])
                    if watcher:
                        watcher.stop()
                        _take_from(watcher, sample)
                    if sample.events:
                        sample.accounted = False
                        sample.problem = f"{sample.events} events of a process that is not watched"
                    idle.kill()
                case.add(condition, sample)
        return case

    def web(self, seconds: int) -> Case:
        """Put nginx under wrk; each request is at least one read and one write."""
        case = Case("nginx + wrk, requests")
        directory = self._directory / "nginx"
        directory.mkdir()
        nginx = Nginx(directory)
        try:
            for number in range(self._options.rounds):
                for condition in self._conditions:
                    _progress(f"{case.name}: round {number + 1}, {condition}")
                    case.add(condition, self._load_once(nginx, condition, seconds))
        finally:
            nginx.stop()
        return case

    def _load_once(self, nginx: Nginx, condition: str, seconds: int) -> Sample:
        with self._output() as output:
            watcher = self._watcher(condition, nginx.worker, output)
            if watcher:
                watcher.start()
            requests, rate = nginx.load(seconds)
            sample = Sample(rate, requests)
            if watcher:
                watcher.stop()
                _take_from(watcher, sample)
            if condition in {TOOL, TOOL_EXPORTED}:
                sample.accounted = sample.events + sample.lost >= 2 * requests
        return sample


def _places(library: Path) -> list[int]:
    """Where the tool hooks the calls of a libssl: the exported functions, or what they share."""
    with ElfFile(library) as elf:
        found = identify(elf)
    if found is None:
        raise BenchmarkError(f"{library}: no TLS library")
    names = ("SSL_read", "SSL_read_ex", "SSL_write", "SSL_write_ex")
    return sorted({found.functions[found.through.get(name, name)] for name in names})


def _libssl_of(program: Path) -> Path:
    """Return the libssl that the dynamic loader gives to a program."""
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    for line in listed.splitlines():
        if line.strip().startswith("libssl"):
            return Path(line.split("=>")[1].split()[0]).resolve()
    raise BenchmarkError("the writer is not linked with a shared libssl")


def _take_from(watcher: Watcher, sample: Sample) -> None:
    sample.events = watcher.summary.get("events", 0)
    sample.lost = watcher.summary.get("lost", 0)
    sample.truncated = watcher.summary.get("truncated", 0)
    sample.ready_ms = watcher.ready_ms
    sample.stop_ms = watcher.stop_ms
    sample.rss_mb = watcher.rss_mb
    sample.peak_mb = watcher.peak_mb
    if sample.events:
        sample.cpu_us_per_event = watcher.cpu_s * 1e6 / sample.events


def _judge(output: Path, size: int, watcher: Watcher, sample: Sample) -> None:
    """Hold the file and the summary line against what was written."""
    account = read_account(output, size)
    lost_bytes = watcher.summary.get("lost_bytes", sample.lost * size)
    sample.ordered = account.ordered
    sample.problem = account.problem
    sample.accounted = (
        not account.silent
        and account.events == sample.events
        and sample.events + sample.lost == sample.calls
        and account.shown + lost_bytes == sample.calls * size
    )
    sample.unmarked = sample.calls * size - account.shown - account.marked
    if not sample.accounted and not sample.problem:
        sample.problem = (
            f"written {sample.calls}, in the file {account.events}, summary events={sample.events}"
            f" lost={sample.lost} lost_bytes={lost_bytes}, marked in the file {account.marked}"
        )


def _progress(text: str) -> None:
    print(text, file=sys.stderr)


def _spread(values: list[float]) -> str:
    middle = statistics.median(values)
    if not middle:
        return "0"
    around = (max(values) - min(values)) / 2 / middle * 100
    return f"{middle:,.0f} ±{around:.0f}%"


def _ratios(case: Case, condition: str) -> list[str]:
    """Speed against none; time of a call against empty; what is added against what empty adds.

    Empty is the empty program on the same hooks; for itself on exported ones, that on the tool's.

    Each ratio is made within a round and the median taken after, so that a machine that is slower
    for some rounds does not show as a cost.
    """
    if condition == NONE:
        return ["1", "", ""]
    floor = FLOORS.get(condition, EMPTY)
    rounds = list(
        zip(*(case.values(name, "per_second") for name in (NONE, floor, condition)), strict=True)
    )
    slower = f"{statistics.median(own / none for none, _, own in rounds):.3f}"
    if condition == EMPTY:
        return [slower, "1", "1"]
    to_empty = f"{statistics.median(empty / own for _, empty, own in rounds):.2f}"
    # Where the empty program costs nothing measurable there is no ratio to speak of.
    added = [
        (1 / own - 1 / none) / (1 / empty - 1 / none)
        for none, empty, own in rounds
        if 1 / empty > 1.1 / none
    ]
    return [
        slower,
        to_empty,
        f"{statistics.median(added):.2f}" if len(added) == len(rounds) else "-",
    ]


def _row(case: Case, condition: str) -> list[str]:
    def middle(name: str, form: str = "{:.0f}") -> str:
        return form.format(case.median(condition, name))

    cells = [case.name, condition, _spread(case.values(condition, "per_second"))]
    cells += _ratios(case, condition)
    if condition == NONE:
        return cells
    times = [middle("ready_ms"), middle("stop_ms")]
    memory = f"{middle('rss_mb')}/{middle('peak_mb')}"
    if condition in {EXPORTED, EMPTY}:
        return [*cells, "", "", "", "", "", times[0], "", times[1], memory]
    samples = case.samples[condition]
    shows_first = condition == TOOL and case.first_event_ms
    first = f"{statistics.median(case.first_event_ms):.0f}" if shows_first else ""
    return [
        *cells,
        middle("events", "{:,.0f}"),
        f"{sum(sample.lost for sample in samples):,}",
        _share(samples, lambda sample: sample.ordered),
        _share(samples, lambda sample: sample.accounted),
        middle("cpu_us_per_event", "{:.1f}"),
        times[0],
        first,
        times[1],
        memory,
    ]


def _share(samples: list[Sample], good: Callable[[Sample], bool]) -> str:
    return f"{sum(map(good, samples))}/{len(samples)}"


def _table(cases: list[Case]) -> Table:
    table = Table(title="medians; ± half the range")
    for heading in (
        "case", "condition", "per second", "to none", "call/\nempty", "added/\nempty",
        "events", "lost", "in\norder", "accoun-\nted", "CPU µs/\nevent", "ready\nms",
        "first\nms", "stop\nms", "MB idle/\npeak",
    ):  # fmt: skip
        table.add_column(heading, justify="left" if heading in {"case", "condition"} else "right")
    for case in cases:
        for condition in case.samples:
            table.add_row(*_row(case, condition))
        table.add_section()
    return table


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tool", type=Path, default=HERE.parent / ".venv/bin/ecapture")
    parser.add_argument("--tool-option", action="append", default=[], help="may repeat")
    parser.add_argument("--library", type=Path, help="libssl to put the empty program on")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each run")
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 16384])
    parser.add_argument("--sink", choices=["discard", "socket"], default="discard")
    parser.add_argument("--rate", type=float, default=0.0, help="calls a second; 0: no limit")
    parser.add_argument("--only", choices=["calls", "outside", "web"], action="append")
    parser.add_argument(
        "--directory",
        type=Path,
        help="where outputs go (several GB); default: where temporary files go",
    )
    parser.add_argument("--json", type=Path, help="write every sample there")
    return parser.parse_args()


def main() -> int:
    options = _options()
    only = options.only or ["calls", "outside", "web"]
    cases = []
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        bench = Bench(options, Path(directory))
        if not bench.has_tool:
            _progress(f"{options.tool} is not there: only the floor is measured")
        words = ("--sink", options.sink, "--rate", str(options.rate))
        if "calls" in only:
            cases += [bench.calls(f"{size} B", *words, size=size) for size in options.sizes]
        if "outside" in only:
            cases.append(bench.outside(options.sizes[0]))
        if "web" in only:
            missing = missing_programs()
            if missing:
                _progress(f"no web case: {', '.join(missing)} missing")
            else:
                cases.append(bench.web(5))
    console = Console(width=None if sys.stdout.isatty() else 190)
    console.print(_table(cases))
    runs = [
        (case.name, sample)
        for case in cases
        for samples in case.samples.values()
        for sample in samples
    ]
    faults = [f"{name}: {sample.problem}" for name, sample in runs if sample.problem]
    notes = [
        f"{name}: {sample.unmarked} bytes are lost by the summary and by no line of the output"
        for name, sample in runs
        if sample.unmarked and not sample.problem
    ]
    for line in faults + notes:
        console.print(line, markup=False)
    if options.json:
        options.json.write_text(json.dumps([asdict(case) for case in cases], indent=1))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
