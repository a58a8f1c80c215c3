# SPDX-License-Identifier: Apache-2.0
"""Loads the kernel programs, places hooks, and undoes both.

Which of several programs is taken is decided here and nowhere else, by ``kernel.feature``:

1. hooks by one uprobe_multi link per file and program (6.6), else by perf events, one per hook;
2. the row of a hook by attach cookie (5.15), else by one program per row;
3. pieces of large calls by bpf_loop (5.17), else by a bounded loop;
4. sockets by typed tracepoints (6.3), else kprobes, else not at all.

Links vanish with this process, whatever kills it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from ecapture._wire import LOSSES, PLAIN_SLOTS, SETTINGS, Shape
from ecapture.config import CaptureConfig, Scope
from ecapture.errors import (
    AttachRefused,
    FeatureMissing,
    KernelError,
    PermissionMissing,
    TargetNotFound,
    TypesMissing,
    VerifierRejected,
)
from ecapture.events import Losses
from ecapture.kernel import _native
from ecapture.kernel.feature import Answer, feature, machine
from ecapture.plan import Hook

_OBJECTS = Path(__file__).parent.parent / "objects"
_ALL_ONES = (1 << 64) - 1
_UPROBE_MULTI = 48  # BPF_TRACE_UPROBE_MULTI
# BTF that knows one type, "int": what we give libbpf where the kernel shows none, so that every
# existence test of our programs answers no. Layout: Documentation/bpf/btf.rst.
_EMPTY_BTF = (
    bytes.fromhex("9feb0100 18000000 00000000 10000000 10000000 05000000".replace(" ", ""))
    + bytes.fromhex("01000000 00000001 04000000 20000001".replace(" ", ""))
    + b"\0int\0"
)


@contextlib.contextmanager
def _translated(subject: str) -> Iterator[None]:
    """Native errors become ours, with what libbpf had to say about them."""
    _native.take_messages()
    try:
        yield
    except _native.NativeError as error:
        messages = [text for _level, text in _native.take_messages()]
        if error.errno in (errno.EPERM, errno.EACCES) and os.geteuid() != 0:
            raise PermissionMissing(capability="root", needed_for="loading probes") from error
        log = "\n".join(messages)
        if "BEGIN PROG LOAD LOG" in log:
            program = log.split("prog '", 1)[-1].split("'", 1)[0]
            lines = [
                line for line in log.splitlines() if line and not line.startswith(("libbpf:", "--"))
            ]
            raise VerifierRejected(
                program=program,
                last_lines=" / ".join(lines[-3:]),
                log=log,
                hint="please report this with the output of `ecapture doctor`",
            ) from error
        raise KernelError(
            operation=error.operation,
            subject=subject,
            errno=error.errno,
            reason="; ".join([os.strerror(error.errno or 0), *messages[-2:]]),
            hint="`ecapture doctor` says what this kernel can do",
        ) from error


class Place(msgspec.Struct, frozen=True):
    """One hook in one file: its ``row`` in the table of hooks, its ``offset`` in the file."""

    row: int
    offset: int


class Attached(msgspec.Struct, frozen=True):
    """Links of one file. ``functions`` were hooked in it."""

    path: str
    functions: int
    links: tuple[_native.Link, ...]

    def close(self) -> None:
        """Takes the probes out."""
        for link in self.links:
            link.close()


class Programs:
    """The loaded kernel programs of one capture, and its maps.

    Raises FeatureMissing, PermissionMissing, TypesMissing, VerifierRejected or KernelError.
    """

    def __init__(self, config: CaptureConfig, hooks: Sequence[Hook]) -> None:
        self.hooks = tuple(hooks)
        self._multi = bool(feature("uprobe_multi"))
        self._cookies = bool(feature("attach_cookie"))
        self._types = bool(feature("btf")) and config.types != "none"
        _require(config)
        self._leave = "call_leave" if feature("bpf_loop") else "call_leave_bounded"
        self._host: list[_native.Link] = []
        self._object = self._open()
        try:
            self._load(config)
        except BaseException:
            self._object.close()
            raise

    def _open(self) -> _native.Object:
        path = _OBJECTS / f"plaintext.{machine()}.bpf.o"
        if not path.exists():
            raise FeatureMissing(
                feature=f"build for {machine()}", since="x86_64 and aarch64", needed_for="ecapture"
            )
        if self._types:
            with _translated(str(path)):
                return _native.Object(str(path))
        self._btf = tempfile.NamedTemporaryFile(prefix="ecapture-", suffix=".btf")  # noqa: SIM115 - lives until loaded
        self._btf.write(_EMPTY_BTF)
        self._btf.flush()
        with _translated(str(path)):
            return _native.Object(str(path), self._btf.name)

    def _wanted(self, scope: Scope) -> tuple[set[str], list[str]]:
        """Programs for hooks, and programs for the host as a whole."""
        calls = {self._leave}
        if self._cookies:
            calls |= {"call_enter", "call_assume"}
        else:
            calls |= {self._enter(row) for row in range(min(len(self.hooks), PLAIN_SLOTS))}
        host = []
        if self._types:
            if feature("tp_btf:sock_send_length"):
                host += ["socket_send", "socket_receive"]
            elif feature("kprobe"):
                host += ["socket_send_kprobe", "socket_receive_kprobe"]
            if feature("tp_btf:sched_process_exit"):
                host += ["process_exit", "process_exec"]
                if scope.follow:
                    host.append("process_fork")
        return calls, host

    def _enter(self, row: int) -> str:
        return "call_enter" if self._cookies else f"call_enter_{row}"

    def _load(self, config: CaptureConfig) -> None:
        calls, host = self._wanted(config.scope)
        for program in self._object.programs():
            self._object.set_autoload(program, program in calls or program in host)
            if self._multi and program in calls:
                self._object.set_attach_type(program, _UPROBE_MULTI)
        self._object.set_map_size("events", config.limits.ring)
        with _translated("the kernel programs"):
            self._object.load()
        rows = self._object.map("hooks")
        for row, hook in enumerate(self.hooks):
            rows.update(row.to_bytes(4, "little"), hook.row())
        self._losses = self._object.map("losses")
        self.set_scope(config)
        self.ring = _native.Ring(self._object.map("events"))
        for program in host:
            try:
                with _translated(program):
                    self._host.append(self._object.attach(program))
            except KernelError as error:
                raise AttachRefused(hook=program, reason=error.fields["reason"]) from error

    def set_scope(self, config: CaptureConfig) -> None:
        """Writes the filter and the limits; may be called while running."""
        scope = config.scope
        for name, keys in (
            ("pids", [pid.to_bytes(4, "little") for pid in scope.pids]),
            ("uids", [uid.to_bytes(4, "little") for uid in scope.uids]),
            ("comms", [comm.encode().ljust(16, b"\0") for comm in scope.comms]),
        ):
            entries = self._object.map(name)
            for key in set(entries.keys()) - set(keys):
                entries.delete(key)
            for key in keys:
                entries.update(key, b"\1")
        cgroups = self._object.map("cgroups")
        for index, path in enumerate(scope.cgroups):
            with _open_directory(path) as fd, _translated(path):
                cgroups.update(index.to_bytes(4, "little"), fd.to_bytes(4, "little"))
        payload = _ALL_ONES if config.limits.payload is None else config.limits.payload
        self._settings = [
            payload,
            config.limits.ring // 4,
            bool(scope.pids),
            bool(scope.uids),
            bool(scope.comms),
            len(scope.cgroups),
            scope.follow,
            os.getpid(),
            0,
        ]
        self._write_settings()

    def add_pid(self, pid: int) -> None:
        """Lets one more process through the filter by process."""
        self._object.map("pids").update(pid.to_bytes(4, "little"), b"\1")

    def sleep(self) -> None:
        """Asks the next record to wake us; it takes the mark off again itself."""
        self._settings[-1] = 1
        self._write_settings()
        self._settings[-1] = 0

    def _write_settings(self) -> None:
        self._object.map("settings").update(bytes(4), SETTINGS.pack(*self._settings))

    def losses(self) -> Losses:
        """The loss counters as they stand."""
        return Losses(*LOSSES.unpack(self._losses.lookup(bytes(4)) or bytes(LOSSES.size)))

    def attach(
        self, path: str, places: Sequence[Place], pid: int | None = None, *, returns: bool = True
    ) -> Attached:
        """Hooks the functions of one file, in one process or in all.

        Without ``returns`` only entries are probed: writes are taken as asked for, reads not seen.
        Raises AttachRefused, or TargetNotFound if the file or the process is gone.
        """
        groups: dict[tuple[str, bool], list[Place]] = {}
        for place in places:
            hook = self.hooks[place.row]
            if not self._cookies and place.row >= PLAIN_SLOTS:
                continue
            moves_bytes = hook.shape is Shape.PLAINTEXT
            if moves_bytes and not returns:
                if self._cookies and hook.direction:
                    groups.setdefault(("call_assume", False), []).append(place)
                continue
            groups.setdefault((self._enter(place.row), False), []).append(place)
            if moves_bytes:
                groups.setdefault((self._leave, True), []).append(place)
        links: list[_native.Link] = []
        try:
            # Returns first: a call entered in between is then lost whole, not half remembered.
            for (program, at_return), group in sorted(
                groups.items(), key=lambda item: not item[0][1]
            ):
                links += self._link(program, path, group, pid, at_return=at_return)
        except _native.NativeError as error:
            for link in links:
                link.close()
            if error.errno in (errno.ENOENT, errno.ESRCH):
                gone = path if error.errno == errno.ENOENT else f"process {pid}"
                raise TargetNotFound(looked_for=gone, looked_in="the system") from error
            messages = [text for _level, text in _native.take_messages()]
            raise AttachRefused(
                hook=path, reason="; ".join([os.strerror(error.errno or 0), *messages[-1:]])
            ) from error
        return Attached(path, len({place.offset for place in places}), tuple(links))

    def _link(
        self, program: str, path: str, places: list[Place], pid: int | None, *, at_return: bool
    ) -> list[_native.Link]:
        # The program that sees returns knows its call by the frame: one hook per address is enough.
        unique = list({place.offset: place for place in places}.values())
        if self._multi:
            return [
                self._object.attach_uprobe_multi(
                    program,
                    path,
                    [place.offset for place in unique],
                    [place.row for place in unique],
                    pid or 0,
                    at_return,
                )
            ]
        links: list[_native.Link] = []
        try:
            for place in unique:
                cookie = place.row if self._cookies else 0
                links.append(  # one by one: what is attached must be known when one fails
                    self._object.attach_uprobe(
                        program, path, place.offset, pid or -1, at_return, cookie
                    )
                )
        except BaseException:
            for link in links:
                link.close()
            raise
        return links

    def close(self) -> None:
        """Takes all host-wide probes out and frees the maps."""
        for link in self._host:
            link.close()
        self.ring.close()
        self._object.close()


@contextlib.contextmanager
def _open_directory(path: str) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _require(config: CaptureConfig) -> None:
    """Refuses what this kernel or these rights cannot do, before anything is loaded."""
    bpf = feature("bpf")
    if bpf.answer is not Answer.YES and "permitted" in bpf.reason:
        raise PermissionMissing(
            capability="root (or CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN)", needed_for="ecapture"
        )
    for name in ("ringbuf", "uprobe"):
        found = feature(name)
        if found.answer is Answer.NO:
            raise FeatureMissing(
                feature=name, since=f"Linux {found.since}", needed_for="ecapture", hint=found.remedy
            )
    if not feature("btf"):
        if config.types == "required":
            raise TypesMissing(
                looked_for="/sys/kernel/btf/vmlinux",
                hint="leave out --btf 1, or boot " + feature("btf").remedy,
            )
        if config.scope.follow:
            raise FeatureMissing(
                feature="type information (BTF)",
                since="CONFIG_DEBUG_INFO_BTF",
                needed_for="following descendants",
                hint="leave out --follow, or start the program first and give its --pid",
            )
