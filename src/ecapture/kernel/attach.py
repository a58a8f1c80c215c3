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
import logging
import os
import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from ecapture._wire import (
    LOSSES,
    PARAMETER_ROWS,
    PLAIN_SLOTS,
    SECRET_ROW,
    SECRET_SLOTS,
    SERVER_ROWS,
    SETTINGS,
    SETTINGS_FIELDS,
    SHELL_ROW,
    TOLD_ROW,
)
from ecapture.config import CaptureConfig
from ecapture.errors import (
    AttachRefused,
    FeatureMissing,
    HostError,
    KernelError,
    PermissionMissing,
    TargetNotFound,
    TypesMissing,
    VerifierRejected,
)
from ecapture.events import Losses
from ecapture.kernel import _native, numbering
from ecapture.kernel.families import FAMILIES, Family, host_programs, objects
from ecapture.kernel.feature import Answer, feature, machine
from ecapture.plan import Hook

_OBJECTS = Path(__file__).parent.parent / "objects"
_log = logging.getLogger(__name__)
_ALL_ONES = (1 << 64) - 1
_ASLEEP = SETTINGS_FIELDS.index("reader_asleep")
_UPROBE_MULTI = 48  # BPF_TRACE_UPROBE_MULTI
CONTAINED = (
    "this root has not the rights of the host's: run it outside of the container or user namespace,"
    " or in a container with --privileged --pid=host"
)
# BTF that knows one type, "int": what we give libbpf where the kernel shows none, so that every
# existence test of our programs answers no. Layout: Documentation/bpf/btf.rst.
_EMPTY_BTF = (
    bytes.fromhex("9feb0100 18000000 00000000 10000000 10000000 05000000".replace(" ", ""))
    + bytes.fromhex("01000000 00000001 04000000 20000001".replace(" ", ""))
    + b"\0int\0"
)


@contextlib.contextmanager
def translated(subject: str) -> Iterator[None]:
    """Native errors become ours, with what libbpf had to say about them."""
    _native.take_messages()
    try:
        yield
    except _native.NativeError as error:
        messages = [text for _level, text in _native.take_messages()]
        if error.errno in (errno.EPERM, errno.EACCES) and os.geteuid() != 0:
            raise PermissionMissing(capability="root", needed_for="loading probes") from error
        if error.errno == errno.EMFILE:
            raise HostError(
                message=f"{subject}: this process may not open more files",
                hint="raise the limit: ulimit -n 4096",
            ) from error
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
    """One hook in one file: its ``row`` in the table of hooks, its ``offset`` in the file.

    A ``site`` is not the start of a function but one of its return instructions. ``distance`` in
    bytes leads from here to another function of the file, if the kernel program is to know one.
    ``file_row`` is what the programs of a family that goes ``by_file`` know the file by.
    ``parameters`` is the row that says where the library keeps what was negotiated; 0: not known.
    """

    row: int
    offset: int
    site: bool = False
    distance: int = 0
    file_row: int = -1
    parameters: int = 0

    @property
    def slot(self) -> int:
        """The number of the place's program, where there is one for each row."""
        return self.row if self.file_row < 0 else self.file_row

    @property
    def cookie(self) -> int:
        """What the kernel program gets: the slot, above it 32 bits of distance or parameters."""
        return self.slot | ((self.distance or self.parameters) & 0xFFFF_FFFF) << 32


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
    """The loaded kernel programs of one capture, and the maps that they share.

    Raises FeatureMissing, PermissionMissing, TypesMissing, VerifierRejected or KernelError.
    """

    def __init__(self, config: CaptureConfig, hooks: Sequence[Hook]) -> None:
        self.hooks = tuple(hooks)
        by_process = bool(config.scope.pids) and not config.scope.follow
        self._multi = bool(feature("uprobe_multi")) and not (by_process and _multi_misses_threads())
        self._cookies = bool(feature("attach_cookie"))
        self._types = bool(feature("btf")) and config.types != "none"
        require(config)
        self._warn_of_dropped_hooks()
        self._host: list[_native.Link] = []
        self._objects: dict[str, _native.Object] = {}
        self._programs: dict[str, frozenset[str]] = {}
        self._maps: dict[str, _native.Map] = {}
        self._server_rows: dict[bytes, int] = {}
        self._parameter_rows: dict[bytes, int] = {}
        self._parameter_lock = threading.Lock()
        try:
            with translated("the kernel programs"), self.type_information() as types:
                for name in objects(hook.shape for hook in self.hooks):
                    self._load(name, types, config)
            with translated("the maps of the kernel programs"):
                self._fill(config)
            for name in self._objects:
                self._watch_host(name, config)
        except BaseException:
            self._close_objects()
            raise

    def _warn_of_dropped_hooks(self) -> None:
        beyond = [] if self._cookies else self.hooks[PLAIN_SLOTS:]
        told_by_row = [h.symbol for h in beyond if FAMILIES[h.shape].object == "plaintext"]
        if told_by_row:
            _log.warning(
                "this kernel tells %d functions apart (attach cookies: 5.15); left out: %s",
                PLAIN_SLOTS,
                ", ".join(told_by_row),
            )

    @contextlib.contextmanager
    def type_information(self) -> Iterator[str | None]:
        """A file of BTF for libbpf, until an object is loaded; None: the kernel's own."""
        if self._types:
            yield None
            return
        import tempfile  # noqa: PLC0415 - slow to import, needed on few kernels

        with tempfile.NamedTemporaryFile(prefix="ecapture-", suffix=".btf") as file:
            file.write(_EMPTY_BTF)
            file.flush()
            yield file.name

    @property
    def maps(self) -> dict[str, _native.Map]:
        """The maps that all programs share, by name."""
        return self._maps

    def open(self, name: str, types: str | None) -> _native.Object:
        """An object of bpf/, not yet loaded, which is the caller's; see ``type_information``."""
        path = _OBJECTS / f"{name}.{machine()}.bpf.o"
        if not path.exists():
            raise FeatureMissing(
                feature=f"build for {machine()}", since="x86_64 and aarch64", needed_for="ecapture"
            )
        with translated(str(path)):
            return _native.Object(str(path), types)

    def _load(self, name: str, types: str | None, config: CaptureConfig) -> None:
        loaded = self._objects[name] = self.open(name, types)
        self._programs[name] = frozenset(loaded.programs())
        calls = {
            program
            for row in range(len(self.hooks))
            if FAMILIES[self.hooks[row].shape].object == name
            for program in self._call_programs(row)
        }
        host = self._host_programs(name, config)
        for program in self._programs[name]:
            loaded.set_autoload(program, program in calls or program in host)
            if self._multi and program in calls:
                loaded.set_attach_type(program, _UPROBE_MULTI)
        for shared in loaded.maps():
            if shared in self._maps:
                loaded.reuse_map(shared, self._maps[shared])
            elif shared == "events":
                loaded.set_map_size(shared, config.limits.ring)
        with translated(f"the kernel programs of {name}"):
            loaded.load()
        for shared in loaded.maps():
            self._maps.setdefault(shared, loaded.map(shared))

    def _host_programs(self, name: str, config: CaptureConfig) -> list[str]:
        return host_programs(name, follow=config.scope.follow) if self._types else []

    def _call_programs(self, row: int) -> list[str]:
        """What one hook may be attached with: at entry, at return, and instead of both."""
        family = FAMILIES[self.hooks[row].shape]
        slots = range(SECRET_SLOTS) if family.by_file else range(row, row + 1)
        chosen = [self._leave(family)]
        # A row that has no program of its own where there are no cookies is not attached at all.
        told = self._cookies or family.rowless
        chosen += [self._enter(family, n) for n in slots if told or n < PLAIN_SLOTS]
        if self._cookies:
            chosen.append(family.assume)
        return [program for program in chosen if program]

    def _enter(self, family: Family, cookie: int) -> str:
        own = f"{family.enter}_{cookie}"
        return own if not self._cookies and own in self._programs[family.object] else family.enter

    def _leave(self, family: Family) -> str:
        return family.leave if feature("bpf_loop") else family.leave_bounded or family.leave

    def _fill(self, config: CaptureConfig) -> None:
        rows = self._maps.get("hooks")  # not there if only secrets are wanted
        for row, hook in enumerate(self.hooks):
            if rows is not None:
                rows.update(row.to_bytes(4, "little"), hook.row())
        self._losses = self._maps["losses"]
        self.set_scope(config)
        self.ring = _native.Ring(self._maps["events"])

    def _watch_host(self, name: str, config: CaptureConfig) -> None:
        for program in self._host_programs(name, config):
            try:
                with translated(program):
                    self._host.append(self._objects[name].attach(program))
            except KernelError as error:
                raise AttachRefused(hook=program, reason=error.fields["reason"]) from error

    def set_scope(self, config: CaptureConfig) -> None:
        """Writes the filter and the limits; may be called while running."""
        scope = config.scope
        for name, keys in (
            ("pids", [pid.to_bytes(4, "little") for pid in scope.pids]),
            ("uids", [uid.to_bytes(4, "little") for uid in scope.uids]),
            ("comms", [os.fsencode(comm).ljust(16, b"\0") for comm in scope.comms]),
        ):
            entries = self._maps[name]
            for key in set(entries.keys()) - set(keys):
                entries.delete(key)
            for key in keys:
                entries.update(key, b"\1")
        cgroups = self._maps["cgroups"]
        for index, path in enumerate(scope.cgroups):
            with _open_directory(path) as fd, translated(path):
                cgroups.update(index.to_bytes(4, "little"), fd.to_bytes(4, "little"))
        payload = _ALL_ONES if config.limits.payload is None else config.limits.payload
        self._settings = [
            payload,
            config.limits.ring // 4,
            bool(scope.pids) and numbering.are_of_host(),
            bool(scope.uids),
            bool(scope.comms),
            len(scope.cgroups),
            scope.follow,
            os.getpid() if numbering.are_of_host() else 0,
            0,
            config.limits.text,
        ]
        self._write_settings()

    def add_pid(self, pid: int) -> bool:
        """Lets one more process through the filter by process; False: it was let through before.

        Raises KernelError if there are too many.
        """
        key, pids = pid.to_bytes(4, "little"), self._maps["pids"]
        if pids.lookup(key) is not None:
            return False
        with translated("the filter by process"):
            pids.update(key, b"\1")
        return True

    def expect_latecomer(self, pid: int) -> None:
        """A back-end of PostgreSQL's that may be inside a call whose entry was not seen."""
        self._maps["latecomers"].update(pid.to_bytes(4, "little"), b"\1")

    def latecomers(self) -> set[int]:
        """Those of them that were not seen to enter another since."""
        return {int.from_bytes(key, "little") for key in self._maps["latecomers"].keys()}  # noqa: SIM118 - no mapping

    def sleep(self) -> None:
        """Asks the next record to wake us; it takes the mark off again itself."""
        self._settings[_ASLEEP] = 1
        self._write_settings()
        self._settings[_ASLEEP] = 0

    def _write_settings(self) -> None:
        self._maps["settings"].update(bytes(4), SETTINGS.pack(*self._settings))

    def set_row(self, table: str, row: int, content: bytes) -> None:
        """Tells the programs of one more file: a row of "secret_rows" or "told_rows"."""
        size = {"secret_rows": SECRET_ROW.size, "told_rows": TOLD_ROW.size}[table]
        if len(content) != size:
            raise ValueError(f"a row of {len(content)} bytes")
        self._maps[table].update(row.to_bytes(4, "little"), content)

    def parameter_row(self, content: bytes) -> int:
        """The row of a way to keep what was negotiated (ec_parameter_row); 0 if there is none."""
        rows = self._maps.get("parameter_rows")
        if rows is None or not any(content):
            return 0
        with self._parameter_lock:
            known = self._parameter_rows.get(content)
            if known is None:
                known = len(self._parameter_rows) + 1
                if known >= PARAMETER_ROWS:
                    return 0
                rows.update(known.to_bytes(4, "little"), content)
                self._parameter_rows[content] = known
        return known

    def server_row(self, content: bytes) -> int:
        """The row of a database server's build (ec_server_row); builds that are alike share one.

        -1: there are as many rows as there can be.
        """
        if content not in self._server_rows:
            if len(self._server_rows) >= (SERVER_ROWS if self._cookies else SECRET_SLOTS):
                return -1
            row = len(self._server_rows)
            self._maps["server_rows"].update(row.to_bytes(4, "little"), content)
            self._server_rows[content] = row
        return self._server_rows[content]

    def set_shell_row(self, row: int, content: bytes) -> None:
        """Tells the programs where one shell's functions and variables are (ec_shell_row)."""
        if len(content) != SHELL_ROW.size:
            raise ValueError(f"a row of {len(content)} bytes")
        self._maps["shell_rows"].update(row.to_bytes(4, "little"), content)

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
        groups: dict[tuple[str, str, bool], list[Place]] = {}
        for place in places:
            for program, at_return in self._ways(place, returns=returns):
                name = FAMILIES[self.hooks[place.row].shape].object
                groups.setdefault((name, program, at_return), []).append(place)
        links: list[_native.Link] = []
        try:
            # Returns first: a call entered in between is then lost whole, not half remembered.
            for (name, program, at_return), group in sorted(
                groups.items(), key=lambda item: not item[0][2]
            ):
                links += self._link(name, program, path, group, pid, at_return=at_return)
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
        functions = {place.offset for place in places if not place.site}
        return Attached(path, len(functions), tuple(links))

    def _ways(self, place: Place, *, returns: bool) -> list[tuple[str, bool]]:
        """Programs for one place, each with whether it is attached to returns."""
        hook = self.hooks[place.row]
        family = FAMILIES[hook.shape]
        if place.site:
            return [(self._leave(family), False)]
        if family.sites:
            return [(self._enter(family, place.slot), False)]
        slots = SECRET_SLOTS if family.by_file else PLAIN_SLOTS
        if not (self._cookies or family.rowless) and place.slot >= slots:
            return []
        enter = self._enter(family, place.slot)
        if not family.leave:
            return [(enter, False)]
        if returns:
            ways = [(self._leave(family), True)]
            return [*ways, (enter, False)] if enter else ways
        if family.assume and self._cookies and hook.direction:
            return [(family.assume, False)]
        return []

    def _link(
        self,
        name: str,
        program: str,
        path: str,
        places: list[Place],
        pid: int | None,
        *,
        at_return: bool,
    ) -> list[_native.Link]:
        # The program that sees returns knows its call by the frame: one hook per address is enough.
        unique = list({place.offset: place for place in places}.values())
        if self._multi:
            return [
                self._objects[name].attach_uprobe_multi(
                    program,
                    path,
                    [place.offset for place in unique],
                    [place.cookie for place in unique],
                    pid or 0,
                    at_return,
                )
            ]
        links: list[_native.Link] = []
        try:
            for place in unique:
                cookie = place.cookie if self._cookies else 0
                links.append(  # one by one: what is attached must be known when one fails
                    self._objects[name].attach_uprobe(
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
        self.ring.close()
        self._close_objects()

    def _close_objects(self) -> None:
        for link in self._host:
            link.close()
        for loaded in self._objects.values():
            loaded.close()


@contextlib.contextmanager
def _open_directory(path: str) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _multi_misses_threads() -> bool:
    """Whether a uprobe_multi link with a process sees only its first thread.

    So until "bpf: Fix multi-uprobe PID filtering logic" (6.10, commit 46ba0e49b642). Nothing but
    the release tells, and perf events, which are used instead, cost only time when detaching.
    """
    release = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return release is not None and (6, 6) <= (int(release[1]), int(release[2])) < (6, 10)


def require(config: CaptureConfig) -> None:
    """Refuses what this kernel or these rights cannot do, before anything is loaded."""
    bpf = feature("bpf")
    if bpf.answer is not Answer.YES and "permitted" in bpf.reason:
        raise PermissionMissing(
            capability="root (or CAP_BPF and CAP_PERFMON)",
            needed_for="ecapture",
            hint=CONTAINED if os.geteuid() == 0 else "",
        )
    numbering.check(config)
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
