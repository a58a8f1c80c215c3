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
import resource
import select
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Protocol, Self

from ecapture import clock
from ecapture._wire import Shape
from ecapture.binary.process import read_process, with_descendants
from ecapture.config import CaptureConfig
from ecapture.discovery import Discovery
from ecapture.errors import ECaptureError
from ecapture.events import (
    Event,
    InterfaceCounts,
    Losses,
    Packets,
    ProcessExit,
    SessionFacts,
    Statement,
    Summary,
)
from ecapture.kernel import numbering
from ecapture.kernel.attach import Programs, require
from ecapture.kernel.decode import Decoder
from ecapture.kernel.families import FAMILIES
from ecapture.kernel.feature import feature
from ecapture.kernel.recording import Metadata, RecordingReader
from ecapture.launch import Launched
from ecapture.outputs import Output
from ecapture.pipeline import _tally
from ecapture.pipeline.commands import Commands
from ecapture.pipeline.ends import LateEnds
from ecapture.pipeline.flows import Flows
from ecapture.pipeline.halves import Halves
from ecapture.pipeline.mysql import MysqlStatements
from ecapture.pipeline.stage import Chain, Stage
from ecapture.plan import Hook
from ecapture.probes import probes
from ecapture.probes.spec import ProbeSpec
from ecapture.version import version

if TYPE_CHECKING:
    from ecapture.kernel.packets import PacketPrograms, Plan

_log = logging.getLogger(__name__)

# While records come, the ring is drained this often; a fill of a quarter wakes us before.
_ACTIVE_SECONDS = 0.01
# After so long without any we ask to be woken by the next record instead.
_QUIET_SECONDS = 0.2
# Asleep, we still come by for the timers of the stages.
_ASLEEP_SECONDS = 0.5
_BATCH_BYTES = 1 << 20
# So many small records are decoded, joined and written while a processor has them in its cache.
_BATCH_RECORDS = 512
_MAXIMUM_CACHED = 65536
_STATEMENTS, _INTERFACES, _EXITS = (Statement,), (InterfaceCounts,), (ProcessExit,)


class Source(Protocol):
    """Where records come from."""

    metadata: Metadata
    losses: Losses
    malformed: int

    def batches(self) -> Generator[bytes]:
        """Batches of records; an empty one says that time has passed."""

    def frames(self) -> list[Event]:
        """Packets and what belongs to them, since it was last asked: behind every batch."""

    def counts(self) -> list[InterfaceCounts]:
        """What has become of the packets of every interface until now."""

    def container_of(self, pid: int) -> str:
        """The id of the container a process is in, "" if it is in none or gone."""

    def forget(self, pid: int) -> None:
        """The process has ended, or has become another program: its number says nothing more."""

    def session_of(self, pid: int) -> SessionFacts:
        """Whose session a back-end of PostgreSQL serves that is older than the capture."""


class Capture:
    """A live capture. Entering attaches the probes; iterating yields events until ``stop``.

    Entering raises this process's soft limit of open files to the hard one.
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
        self._plan: Plan | None = None
        self._packets: PacketPrograms | None = None
        self._frames: list[Event] = []
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

    def check(self) -> None:
        """Refuses what cannot be captured; nothing is attached yet. Entering does it, too.

        Raises UsageError, HostError, TargetError or KernelError.
        """
        self.config.scope.check()
        require(self.config)
        if self.config.packets is not None and self._plan is None:
            from ecapture.kernel.packets import Plan  # noqa: PLC0415

            self._plan = Plan(self.config.packets)

    def _start(self) -> None:
        config = self.config
        self.check()
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
        _raise_descriptor_limit()  # the command, which was forked before, keeps its own
        self._programs = Programs(config, _hooks(config, chosen))
        if config.scope.follow:
            # After the programs, so that whoever is born meanwhile is known to them; and until no
            # more come, since who is not known to them yet may have children meanwhile.
            pids = config.scope.pids
            while True in {self._programs.add_pid(pid) for pid in with_descendants(pids)}:
                pass
        if not numbering.are_of_host():
            _log.warning(
                "in the PID namespace of a container: process ids that are shown are the host's"
            )
        self.metadata = Metadata(
            clock.wall_offset_ns(),
            version=version(),
            kernel=os.uname().release,
            machine=os.uname().machine,
        )
        if self._plan is not None:
            from ecapture.kernel.packets import PacketPrograms  # noqa: PLC0415

            offset = self.metadata.wall_offset_ns
            self._packets = PacketPrograms(self._plan, config, self._programs, offset)
        self._discovery = Discovery(self._programs, chosen, config)
        self._attach(self._discovery)
        self._poll = self._descriptors.enter_context(select.epoll())
        self._poll.register(wake_read, select.EPOLLIN)
        # Edge-triggered: told of wake-ups only, not that there is data, which is nearly always so.
        self._poll.register(self._programs.ring.fd, select.EPOLLIN | select.EPOLLET)
        if self._packets is not None:
            self._poll.register(self._packets.ring.fd, select.EPOLLIN | select.EPOLLET)
            for fd in self._packets.filenos():
                self._poll.register(fd, select.EPOLLIN)
        if self._launched is not None:
            ended = os.pidfd_open(self._launched.pid)
            self._descriptors.callback(os.close, ended)
            self._poll.register(ended, select.EPOLLIN)

    def _attach(self, discovery: Discovery) -> None:
        # Both may take seconds, and mostly wait: one for files, the other for the kernel.
        with ThreadPoolExecutor(1) as thread:
            packets = self._packets
            placing = thread.submit(packets.attach) if packets is not None else None
            try:
                discovery.start()
                if placing is not None:
                    placing.result()
            except BaseException:
                if packets is not None:
                    packets.detach()
                raise

    def ready(self) -> str:
        """What is attached, in one line; starts the command if there is one."""
        if self._discovery is None:
            raise ValueError("the capture was not entered")
        if self._launched is not None:
            self._launched.start()
        packets = f"; {self._packets.describe()}" if self._packets is not None else ""
        return self._discovery.describe() + packets

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
        ring, poll, packets = programs.ring, self._poll, self._packets
        last_data = time.monotonic()
        while not self._stopping and not self._command_ended():
            # Packets first: the secrets that they need are then in this batch or behind it.
            size = self._drain_packets()
            batch = ring.drain(_BATCH_BYTES, _BATCH_RECORDS)
            now = time.monotonic()
            yield batch
            if batch or size:
                last_data = now
                if not ring.more and size < _BATCH_BYTES // 2:
                    poll.poll(_ACTIVE_SECONDS)
            elif now - last_data < _QUIET_SECONDS:
                poll.poll(_ACTIVE_SECONDS)
            else:
                programs.sleep()
                if not ring.pending() and not (packets and packets.ring.pending()):
                    poll.poll(_ASLEEP_SECONDS)
        self._detach()
        while True:
            size, batch = self._drain_packets(), ring.drain(_BATCH_BYTES, _BATCH_RECORDS)
            if not size and not batch:
                break
            yield batch
        if packets is not None:
            self._frames += packets.counts()
            yield b""

    def _drain_packets(self) -> int:
        """Bytes of packets that ``frames`` will tell of."""
        if self._packets is None:
            return 0
        told = self._packets.drain(_BATCH_BYTES)
        self._frames += told
        return sum(len(event.blocks) for event in told if type(event) is Packets)

    def frames(self) -> list[Event]:
        """See Source."""
        told, self._frames = self._frames, []
        return told

    def counts(self) -> list[InterfaceCounts]:
        """See Source."""
        return self._packets.counts() if self._packets is not None else []

    def container_of(self, pid: int) -> str:
        """See Source. Asked of /proc the first time."""
        if not numbering.are_of_host():
            return ""
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

    def forget(self, pid: int) -> None:
        """See Source."""
        self._containers.pop(pid, None)

    def session_of(self, pid: int) -> SessionFacts:
        """See Source. Asked of the process."""
        if not numbering.are_of_host():
            return SessionFacts(reason="the server is in another PID namespace")
        from ecapture.binary.postgres import read_session  # noqa: PLC0415 - of older back-ends only

        return read_session(pid)

    def _command_ended(self) -> bool:
        if self._launched is None:
            return False
        self.status = self._launched.poll()
        return self.status is not None

    def _detach(self) -> None:
        # From here on nothing new comes; what is in the ring is still ours to read.
        if self._discovery is not None:
            self._discovery.close()
        if self._packets is not None:
            self._packets.detach()

    def __iter__(self) -> Iterator[Event]:
        self.ready()
        for events in pump(self, self.summary, self._stages):
            yield from events

    def close(self) -> None:
        """Takes all probes out; called on leaving the context."""
        if self._discovery is not None:
            self._discovery.close()
            self._discovery = None
        if self._packets is not None:
            self._packets.close()
            self._packets = None
        if self._plan is not None:
            self._plan.close()
            self._plan = None
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

    def frames(self) -> list[Event]:
        """See Source. A recording has no packets."""
        return []

    def counts(self) -> list[InterfaceCounts]:
        """See Source. A recording has no packets."""
        return []

    def container_of(self, pid: int) -> str:
        """See Source. As it was when recorded."""
        return self._reader.containers.get(pid, "")

    def forget(self, pid: int) -> None:
        """See Source. A recording tells anew of a number that is used anew."""
        self._reader.forget(pid)

    def session_of(self, pid: int) -> SessionFacts:
        """See Source. As it was when recorded."""
        return self._reader.sessions.get(pid) or SessionFacts(reason="not in the recording")

    def __iter__(self) -> Iterator[Event]:
        for events in pump(self, self.summary, self._stages):
            yield from events


def pump(
    source: Source, summary: Summary, stages: Sequence[Stage] = (), outputs: Sequence[Output] = ()
) -> Generator[list[Event]]:
    """Drives a source through decoding and stages; yields lists of events and fills ``summary``."""
    decoder = Decoder(source.metadata.wall_offset_ns)
    ours = (LateEnds(), Halves(), Flows(summary), MysqlStatements(), Commands(summary))
    chain = Chain((*ours, *stages))
    offset = source.metadata.wall_offset_ns
    try:
        with closing(source.batches()) as batches:
            for batch in batches:
                for output in outputs:
                    output.records(batch)
                decoded = decoder.decode(batch)
                decoded += source.frames()
                if decoded:
                    # By the time of the records, so that a replay does at the same places what
                    # the live run did.
                    events = chain.flush(decoded[0].time_ns) + chain.feed(decoded)
                else:
                    events = chain.flush(time.clock_gettime_ns(time.CLOCK_BOOTTIME) + offset)
                if events:
                    _count(events, summary)
                    yield events
                # Only now, since what is shown of a process may come with its end.
                if _tally.contains(decoded, _EXITS):
                    for event in decoded:
                        if type(event) is ProcessExit:
                            source.forget(event.pid)
        events = chain.close()
        if events:
            _count(events, summary)
            yield events
    finally:
        losses = source.losses
        summary.malformed = decoder.malformed + source.malformed
        summary.lost = losses.ring_full_records + losses.table_full_records + summary.malformed
        summary.lost += summary.packets_dropped
        summary.lost_bytes = losses.ring_full_bytes


def _count(events: list[Event], summary: Summary) -> None:
    if _tally.contains(events, _STATEMENTS):
        count, truncated, unreadable = _tally.statements(events)
        summary.statements += count
        summary.truncated += truncated
        summary.unreadable += unreadable
    if not _tally.contains(events, _INTERFACES):
        return
    for event in events:
        if type(event) is InterfaceCounts:
            summary.packets += event.received - event.dropped
            summary.packets_dropped += event.dropped


def run(source: Source, outputs: Sequence[Output], stages: Sequence[Stage] = ()) -> Summary:
    """Pumps a source into outputs until it ends or an output fails. Returns the summary.

    An output's error is raised after all that had begun were closed; ``fields`` then has the
    ``summary``. What had not begun leaves its file as it was.
    """
    summary = Summary()
    failure: ECaptureError | None = None
    begun: list[Output] = []
    try:
        for output in outputs:
            output.opening(source.metadata)
            begun.append(output)
        with closing(pump(source, summary, stages, outputs)) as batches:
            for events in batches:
                for output in outputs:
                    output.events(events)
    except ECaptureError as error:
        failure = error
    for output in begun:
        try:
            output.close(source.losses)
        except ECaptureError as error:
            failure = failure or error
    if failure is not None:
        failure.fields["summary"] = summary
        raise failure
    return summary


def _hooks(config: CaptureConfig, chosen: Sequence[ProbeSpec]) -> list[Hook]:
    hooks = [hook for probe in chosen for hook in probe.hooks if config.plaintext]
    if config.unattended:
        hooks += [hook for probe in chosen for hook in probe.unattended_hooks]
    # Kernels without attach cookies tell only so many rows of this family apart: these first, and
    # of them what moves bytes.
    hooks.sort(
        key=lambda hook: (
            FAMILIES[hook.shape].object != FAMILIES[Shape.PLAINTEXT].object,
            hook.shape is not Shape.PLAINTEXT,
        )
    )
    if config.keys:
        from ecapture.kernel.keys import key_hooks  # noqa: PLC0415 - slow to import

        hooks += key_hooks([kind for probe in chosen for kind in probe.kinds])
    return hooks


def _raise_descriptor_limit() -> None:
    # On kernels without uprobe_multi every probe is a descriptor, and there are hundreds.
    wanted, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if wanted != most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _replaced(config: CaptureConfig, **scope: object) -> CaptureConfig:
    import msgspec  # noqa: PLC0415

    return msgspec.structs.replace(config, scope=msgspec.structs.replace(config.scope, **scope))
