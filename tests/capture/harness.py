# SPDX-License-Identifier: Apache-2.0
"""Runs ecapture as a user would and reads what it wrote, exactly.

``Captured`` is the command line in a process of its own; ``Watched`` is the library in this one.
The reader of the text format trusts nothing: any byte that is not where the format says it stands
fails the test.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Self, TypeVar

import pytest

ECAPTURE = Path(sys.executable).parent / "ecapture"
CAPTURES = pytest.mark.needs("root", "bpf", "ringbuf", "uprobe")
T = TypeVar("T")
NOTHING: Mapping[str, str] = MappingProxyType({})
_numbers = itertools.count()
# seconds; generous, because the machine may be shared and slow, and an emulated one is slower still
DEADLINE = 90.0 if os.environ.get("ECAPTURE_IN_GUEST") == "1" else 30.0


class Shown(NamedTuple):
    """One event of the text output."""

    pid: int
    tid: int
    comm: str
    direction: str
    source: str
    destination: str
    payload: bytes
    length: int
    call_length: int
    call_offset: int
    missing: str
    assumed: bool


class Lost(NamedTuple):
    """A line that says how much is missing at its place."""

    pid: int
    direction: str
    source: str
    destination: str
    length: int


_HEADER = re.compile(
    rb"--- \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z pid=(\d+)(?: tid=(\d+))? comm=(\S+) (read|write)"
    rb" (\S+) > (\S+) (?:lost=(\d+)|length=(\d+)(?: call_length=(\d+) call_offset=(\d+))?"
    rb"(?: captured=(\d+) (truncated|unreadable|sendfile))?( assumed)?)\n"
)


def parse_text(output: bytes) -> list[Shown | Lost]:
    """All events of a text output written to a file. AssertionError at the first odd byte."""
    found: list[Shown | Lost] = []
    at = 0
    while at < len(output):
        header = _HEADER.match(output, at)
        assert header, f"no header at byte {at}: {output[at : at + 200]!r}"
        pid, tid, comm, direction, source, destination, lost = header.groups()[:7]
        length, call_length, call_offset, captured, missing, assumed = header.groups()[7:]
        at = header.end()
        ends = direction.decode(), source.decode(), destination.decode()
        if lost is not None:
            found.append(Lost(int(pid), *ends, int(lost)))
            continue
        size = int(captured if captured is not None else length)
        payload = output[at : at + size]
        assert output[at + size : at + size + 1] == b"\n", (
            f"payload at byte {at} has not {size} bytes"
        )
        at += size + 1
        found.append(
            Shown(
                int(pid),
                int(tid),
                comm.decode(),
                *ends,
                payload,
                int(length),
                int(call_length or length),
                int(call_offset or 0),
                (missing or b"").decode(),
                assumed is not None,
            )
        )
    return found


def wait_until(
    condition: Callable[[], object], what: str | Callable[[], str], deadline: float = DEADLINE
) -> None:
    """Returns when the condition holds; fails when it has not within the deadline (seconds).

    ``what`` was waited for; as a function it is asked at the end, to say what there was instead.
    """
    end = time.monotonic() + deadline
    pause = threading.Event()
    while not condition():
        if time.monotonic() >= end:
            words = what if isinstance(what, str) else what()
            pytest.fail(f"in vain after {deadline:.0f} s: {words}")
        pause.wait(0.005)


class Lines:
    """The lines of a pipe, read by a thread so that its writer never waits."""

    def __init__(self, pipe: object) -> None:
        self._pipe = pipe
        self._lines: list[str] = []
        self._ended = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        for line in self._pipe:
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def wait_for(self, wanted: Callable[[str], bool], what: str) -> str:
        """The first line that is wanted, now or later. Fails when the pipe ends before."""

        def found() -> list[str]:
            return [line for line in self._lines if wanted(line)][:1]

        with self._changed:
            self._changed.wait_for(lambda: found() or self._ended, DEADLINE)
            assert found(), f"no {what} in: {''.join(self._lines)}"
            return found()[0]

    def all(self) -> list[str]:
        """Every line, once the pipe has ended."""
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive(), "somebody holds the pipe open"
        return list(self._lines)

    def so_far(self) -> list[str]:
        """The lines until now."""
        with self._changed:
            return list(self._lines)


def environment(changes: Mapping[str, str]) -> dict[str, str]:
    """The environment for ecapture: as a shell would give it, without what steers these tests."""
    dropped = {"SUDO_UID", "SUDO_GID", "SUDO_USER", "PYTHONPATH", "ECAPTURE_WITHOUT"}
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return kept | dict(changes)


def run_ecapture(
    *words: object,
    env: Mapping[str, str] = NOTHING,
    prefix: Sequence[object] = (),
    **how: object,
) -> subprocess.CompletedProcess[bytes]:
    """Runs ecapture to its end, through the command ``prefix``; for runs that end by themselves."""
    return subprocess.run(
        [*map(str, prefix), ECAPTURE, *map(str, words)],
        env=environment(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=DEADLINE,
        **how,
    )


class Captured:
    """``ecapture PROBE -w FILE OPTIONS`` running; its probes are in place when it has been made.

    ``finish`` ends it with SIGINT and reads everything. ``output``: where it writes; None leaves
    standard output to be read from ``process.stdout``. Text is unparsed unless ``raw`` is false.

    Unless a test says otherwise, the kernel's buffer has room for all that a test moves: a busy
    machine that lets the reader wait must not look like a loss.
    """

    def __init__(
        self,
        folder: Path,
        *options: object,
        probe: str = "tls",
        mode: str = "text",
        raw: bool = True,
        output: str | None = "",
        env: Mapping[str, str] = NOTHING,
        command: Sequence[object] = (),
        prefix: Sequence[object] = (),
        **how: object,
    ) -> None:
        self.path = output
        if output == "":
            self.path = folder / f"captured-{next(_numbers)}.{mode}"
        self._raw = raw and mode == "text"
        words = [*prefix, ECAPTURE, probe, "-m", mode, *["--raw"] * self._raw, *options]
        if "--mapsize" not in options:
            words += ["--mapsize", "64m"]
        if self.path is not None:
            words += ["-w", self.path]
        if command:
            words += ["--", *command]
        self.process = subprocess.Popen(
            [str(word) for word in words],
            env=environment(env),
            stdin=how.pop("stdin", subprocess.DEVNULL),
            stdout=how.pop("stdout", subprocess.PIPE),
            stderr=subprocess.PIPE,
            text=True,
            **how,
        )
        self.errors = Lines(self.process.stderr)
        self.events: list[Shown | Lost] = []
        try:
            self.ready = self.errors.wait_for(
                lambda line: line.startswith("ready: "), "ready: line"
            )
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def wait_attached(self, path: object, times: int = 1) -> None:
        """Returns when a file of this name was hooked so many times; needs the option -d."""
        told = f"attached file={path} "
        wait_until(lambda: sum(told in s for s in self.errors.so_far()) >= times, f"{told}")

    def wait_written(self, size: int) -> None:
        """Returns when the output has at least so many bytes."""
        path = Path(self.path)
        wait_until(lambda: path.exists() and path.stat().st_size >= size, f"{size} bytes of output")

    def finish(
        self, number: int | None = signal.SIGINT, status: int = 0, text: bytes | None = None
    ) -> Captured:
        """Asks for the end (without a signal: waits for it); checks the status and all output."""
        if number is not None:
            self.process.send_signal(number)
        assert self.process.wait(DEADLINE) == status, self.stderr
        assert "Traceback" not in self.stderr
        assert self.summary["lost"] >= 0
        if text is None and self._raw and str(self.path).endswith(".text"):
            text = Path(self.path).read_bytes()
        self.events = parse_text(text or b"")
        return self

    def stderr_so_far(self) -> str:
        """What was said on standard error until now."""
        return "".join(self.errors.so_far())

    @property
    def stderr(self) -> str:
        """All that was said on standard error."""
        return "".join(self.errors.all())

    @property
    def summary(self) -> dict[str, int]:
        """The last line, as numbers."""
        lines = [line for line in self.errors.all() if line.startswith("summary: ")]
        assert len(lines) == 1, self.stderr
        pairs = (word.split("=") for word in lines[0].split()[1:])
        return {name: int(value) for name, value in pairs}

    def shown(self, **wanted: object) -> list[Shown]:
        """Events with payload whose fields are as wanted, in order."""
        return selected([e for e in self.events if isinstance(e, Shown)], **wanted)

    def lost(self, **wanted: object) -> list[Lost]:
        """Lines of loss whose fields are as wanted, in order."""
        return selected([e for e in self.events if isinstance(e, Lost)], **wanted)


def selected(items: Iterable[T], **wanted: object) -> list[T]:
    """Those items whose attributes are as wanted."""
    return [item for item in items if all(getattr(item, k) == v for k, v in wanted.items())]


def joined(events: Iterable[Shown]) -> bytes:
    """The payload of events, one behind the other."""
    return b"".join(event.payload for event in events)


class Watched:
    """The library at work in a thread of this process, as its documentation shows it."""

    def __init__(self, config: object, stages: Sequence[object] = ()) -> None:
        from ecapture.session import Capture  # noqa: PLC0415 - needs the built extension

        self.events: list[object] = []
        self._changed = threading.Condition()
        self._failure: BaseException | None = None
        self.capture = Capture(config, stages=stages)
        self.capture.__enter__()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for event in self.capture:
                with self._changed:
                    self.events.append(event)
                    self._changed.notify_all()
        except BaseException as error:  # noqa: BLE001 - told to the test
            self._failure = error
            with self._changed:
                self._changed.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()
        self.capture.close()

    def wait_for(self, condition: Callable[[Sequence[object]], object], what: str) -> None:
        """Returns when the events so far fulfil the condition."""
        with self._changed:
            good = self._changed.wait_for(lambda: condition(self.events) or self._failure, DEADLINE)
            assert good, f"in vain: {what}"
            assert self._failure is None

    def finish(self) -> list[object]:
        """Ends the capture; everything in flight is in the list that is returned."""
        if self._thread.is_alive():
            self.capture.stop()
            self._thread.join(DEADLINE)
            assert not self._thread.is_alive()
        assert self._failure is None, self._failure
        return self.events
