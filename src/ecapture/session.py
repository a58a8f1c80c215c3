# SPDX-License-Identifier: Apache-2.0
"""One capture: a source of records, the pipeline, and outputs; what the command line is built on.

``Capture`` is the library's door: ``with Capture(config) as capture: for event in capture: ...``.
``Source`` has two implementations: ``Capture`` (the kernel) and ``Replay`` (a recording). ``run``
pumps either into outputs. One thread does all of it; discovery of new libraries and slow outputs
have threads of their own.
"""

from __future__ import annotations

import logging
import os
import select
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from typing import Protocol, Self

from ecapture import clock
from ecapture._wire import Shape
from ecapture.binary.process import read_process
from ecapture.config import CaptureConfig
from ecapture.discovery import Discovery
from ecapture.errors import ECaptureError
from ecapture.events import Event, Losses, Statement, Summary
from ecapture.kernel.attach import Programs
from ecapture.kernel.decode import Decoder
from ecapture.kernel.feature import feature
from ecapture.kernel.keys import key_hooks
from ecapture.kernel.recording import Metadata, RecordingReader
from ecapture.launch import Launched
from ecapture.outputs import Output
from ecapture.pipeline.ends import LateEnds
from ecapture.pipeline.flows import Flows
from ecapture.pipeline.stage import Chain, Stage
from ecapture.probes import probes
from ecapture.version import version

_log = logging.getLogger(__name__)

# While records come, the ring is drained this often; a fill of a quarter wakes us before.
_ACTIVE_SECONDS = 0.01
# After so long without any we ask to be woken by the next record instead.
_QUIET_SECONDS = 0.2
# Asleep, we still come by for the timers of the stages.
_ASLEEP_SECONDS = 0.5
_BATCH_BYTES = 1 << 20
_MAXIMUM_CACHED = 65536


class Source(Protocol):
    """Where records come from."""

    metadata: Metadata
    losses: Losses
    malformed: int

    def batches(self) -> Generator[bytes]:
        """Batches of records; an empty one says that time has passed."""

    def container_of(self, pid: int) -> str:
        """The id of the container a process is in, "" if it is in none or gone."""


class Capture:
    """A live capture. Entering attaches the probes; iterating yields events until ``stop``.

    Raises (on entering) UsageError, HostError, TargetError or KernelError, having undone
    everything. ``summary`` and ``losses`` are complete once the iteration has ended.
    """

    def __init__(
        self,
        config: CaptureConfig | None = None,
        *,
        stages: Sequence[Stage] = (),
        keep_stdout: bool = False,
    ) -> None:
        self.config = config or CaptureConfig()
        self._stages = tuple(stages)
        self.summary = Summary()
        self.losses = Losses()
        self.malformed = 0
        self.metadata = Metadata(0)
        self.status: int | None = None
        """Exit status of the launched command, once it has ended."""
        self._keep_stdout = keep_stdout
        self._stopping = False
        self._containers: dict[int, str] = {}
        self._descriptors = ExitStack()
        self._wake_write = -1
        self._programs: Programs | None = None
        self._launched: Launched | None = None
        self._discovery: Discovery | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> None:
        config = self.config
        config.scope.check()
        chosen = [probes()[name] for name in config.probes]
        # The wake-up pipe: stop() may come from a signal handler or another thread.
        wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._descriptors.callback(os.close, wake_read)
        self._descriptors.callback(os.close, self._wake_write)
        if config.command:
            self._launched = Launched(config.command, keep_stdout=self._keep_stdout)
            scope = config.scope
            follow = bool(feature("btf")) and config.types != "none"
            if not follow:
                _log.warning(
                    "without kernel types (BTF) the descendants of the command are not seen"
                )
            config = _replaced(config, pids=(*scope.pids, self._launched.pid), follow=follow)
        hooks = [hook for probe in chosen for hook in probe.hooks if config.plaintext]
        # What moves bytes first: kernels without attach cookies tell only so many apart.
        hooks.sort(key=lambda hook: hook.shape is not Shape.PLAINTEXT)
        if config.keys:
            hooks += key_hooks([kind for probe in chosen for kind in probe.kinds])
        self._programs = Programs(config, hooks)
        self.metadata = Metadata(
            clock.wall_offset_ns(),
            version=version(),
            kernel=os.uname().release,
            machine=os.uname().machine,
        )
        self._discovery = Discovery(self._programs, chosen, config)
        self._discovery.start()
        self._poll = self._descriptors.enter_context(select.epoll())
        self._poll.register(wake_read, select.EPOLLIN)
        # Edge-triggered: told of wake-ups only, not that there is data, which is nearly always so.
        self._poll.register(self._programs.ring.fd, select.EPOLLIN | select.EPOLLET)
        if self._launched is not None:
            ended = os.pidfd_open(self._launched.pid)
            self._descriptors.callback(os.close, ended)
            self._poll.register(ended, select.EPOLLIN)

    def ready(self) -> str:
        """What is attached, in one line; starts the command if there is one."""
        if self._discovery is None:
            raise ValueError("the capture was not entered")
        if self._launched is not None:
            self._launched.start()
        return self._discovery.describe()

    def stop(self) -> None:
        """Ends the iteration, after everything in flight. For signal handlers and threads, too."""
        self._stopping = True
        if self._wake_write >= 0:
            os.write(self._wake_write, b"s")

    def batches(self) -> Generator[bytes]:
        """See Source. Ends when ``stop`` is called or the launched command has ended."""
        programs = self._programs
        if programs is None:
            raise ValueError("the capture was not entered")
        try:
            yield from self._live(programs)
        finally:
            # also when the consumer gave up: what was lost must be told
            self._detach()
            self.losses = programs.losses()

    def _live(self, programs: Programs) -> Iterator[bytes]:
        ring, poll = programs.ring, self._poll
        last_data = time.monotonic()
        while not self._stopping and not self._command_ended():
            batch = ring.drain(_BATCH_BYTES)
            now = time.monotonic()
            if batch:
                last_data = now
                yield batch
                if len(batch) < _BATCH_BYTES // 2:
                    poll.poll(_ACTIVE_SECONDS)
            elif now - last_data < _QUIET_SECONDS:
                yield b""
                poll.poll(_ACTIVE_SECONDS)
            else:
                yield b""
                programs.sleep()
                if not ring.pending():
                    poll.poll(_ASLEEP_SECONDS)
        self._detach()
        while batch := ring.drain(_BATCH_BYTES):
            yield batch

    def container_of(self, pid: int) -> str:
        """See Source. Asked of /proc the first time."""
        found = self._containers.get(pid)
        if found is None:
            if len(self._containers) >= _MAXIMUM_CACHED:
                self._containers.clear()
            try:
                container = read_process(pid).container
            except ECaptureError:
                container = None
            found = self._containers[pid] = container.id if container else ""
        return found

    def _command_ended(self) -> bool:
        if self._launched is None:
            return False
        self.status = self._launched.poll()
        return self.status is not None

    def _detach(self) -> None:
        # From here on nothing new comes; what is in the ring is still ours to read.
        if self._discovery is not None:
            self._discovery.close()

    def __iter__(self) -> Iterator[Event]:
        self.ready()
        for events in pump(self, self.summary, self._stages):
            yield from events

    def close(self) -> None:
        """Takes all probes out; called on leaving the context."""
        if self._discovery is not None:
            self._discovery.close()
            self._discovery = None
        if self._programs is not None:
            self._programs.close()
            self._programs = None
        if self._launched is not None:
            self._launched.terminate()
            self._launched = None
        self._wake_write = -1
        self._descriptors.close()


class Replay:
    """A recording as a source. Needs no rights. Making it raises UsageError or TargetNotFound."""

    def __init__(self, path: str, *, stages: Sequence[Stage] = ()) -> None:
        self._stages = tuple(stages)
        self._reader = RecordingReader(path)
        self.metadata = self._reader.metadata
        self.losses = Losses()
        self.malformed = 0
        self.summary = Summary()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    def batches(self) -> Generator[bytes]:
        """See Source."""
        for batch in self._reader.batches():
            self.losses = self._reader.losses
            yield batch
        self.losses = self._reader.losses
        self.malformed = self._reader.malformed

    def container_of(self, pid: int) -> str:
        """See Source. As it was when recorded."""
        return self._reader.containers.get(pid, "")

    def __iter__(self) -> Iterator[Event]:
        for events in pump(self, self.summary, self._stages):
            yield from events


def pump(
    source: Source, summary: Summary, stages: Sequence[Stage] = (), outputs: Sequence[Output] = ()
) -> Generator[list[Event]]:
    """Drives a source through decoding and stages; yields lists of events and fills ``summary``."""
    decoder = Decoder(source.metadata.wall_offset_ns)
    chain = Chain((LateEnds(), Flows(summary), *stages))
    offset = source.metadata.wall_offset_ns
    try:
        with closing(source.batches()) as batches:
            for batch in batches:
                for output in outputs:
                    output.records(batch)
                decoded = decoder.decode(batch)
                if decoded:
                    # By the time of the records, so that a replay does at the same places what
                    # the live run did.
                    events = chain.flush(decoded[0].time_ns) + chain.feed(decoded)
                else:
                    events = chain.flush(time.clock_gettime_ns(time.CLOCK_BOOTTIME) + offset)
                if events:
                    _count(events, summary)
                    yield events
        events = chain.close()
        if events:
            _count(events, summary)
            yield events
    finally:
        losses = source.losses
        summary.malformed = decoder.malformed + source.malformed
        summary.lost = losses.ring_full_records + losses.table_full_records + summary.malformed
        summary.lost_bytes = losses.ring_full_bytes


def _count(events: list[Event], summary: Summary) -> None:
    for event in events:
        if type(event) is Statement:
            summary.statements += 1
            summary.truncated += event.missing == "truncated"
            summary.unreadable += event.missing == "unreadable"


def run(source: Source, outputs: Sequence[Output], stages: Sequence[Stage] = ()) -> Summary:
    """Pumps a source into outputs until it ends or an output fails. Returns the summary.

    An output's error is raised after all outputs were closed; ``fields`` then has the ``summary``.
    """
    summary = Summary()
    failure: ECaptureError | None = None
    for output in outputs:
        output.opening(source.metadata)
    try:
        with closing(pump(source, summary, stages, outputs)) as batches:
            for events in batches:
                for output in outputs:
                    output.events(events)
    except ECaptureError as error:
        failure = error
    for output in outputs:
        try:
            output.close(source.losses)
        except ECaptureError as error:
            failure = failure or error
    if failure is not None:
        failure.fields["summary"] = summary
        raise failure
    return summary


def _replaced(config: CaptureConfig, **scope: object) -> CaptureConfig:
    import msgspec  # noqa: PLC0415

    return msgspec.structs.replace(config, scope=msgspec.structs.replace(config.scope, **scope))
