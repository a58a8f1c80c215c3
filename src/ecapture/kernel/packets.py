# SPDX-License-Identifier: Apache-2.0
"""Packets: which interfaces are watched, the programs at them, and what those deliver.

``Plan`` is what was asked for, checked, with nothing attached yet; ``PacketPrograms`` carries it
out. bpf/packets.bpf.c is loaded once for each network namespace, because the index of an interface
means something only in one; all copies share the ring and the counts.

Invariants: every interface is told of (``Interface``) before its first packet; numbers have no gaps
and are never used again; on a loopback interface frames are taken on their way out only, so none
is there twice; what is attached is a link (6.6), which ends with this process whatever kills it.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple

from ecapture._wire import (
    INTERFACE,
    INTERFACE_COUNTS,
    INTERFACES_MAXIMUM,
    PACKET_SETTINGS,
)
from ecapture.config import CaptureConfig, PacketConfig
from ecapture.errors import AttachRefused, TargetNotFound, UsageError
from ecapture.events import Event, Interface, InterfaceCounts, Packets
from ecapture.kernel import _native, _network
from ecapture.kernel.attach import Programs, translated
from ecapture.kernel.classic import Instruction, translate
from ecapture.kernel.clsact import Classifier, clean, prepare
from ecapture.kernel.expression import compile_expression
from ecapture.kernel.feature import feature
from ecapture.kernel.links import Link, LinkWatch, Space
from ecapture.kernel.netlink import Netlink
from ecapture.kernel.owners import Owners, cgroup_ids, wanted_programs

_log = logging.getLogger(__name__)

PACKETS, OWNERS = "packets", "owners"
IN, OUT = "ecapture_in", "ecapture_out"
# enum bpf_attach_type and the flags of its links (UAPI linux/bpf.h, Linux 6.6)
_TCX = (46, 47)  # ingress, egress
_BEFORE = 1 << 3
_CLASSIFIER = 3  # BPF_PROG_TYPE_SCHED_CLS
# Where a pcapng block has its length, and what lengths are multiples of.
_LENGTH_AT, _ALIGN = 4, 4
_MANY = 30  # interfaces, for which one waits noticeably
_OWN_MAPS = frozenset({"interfaces", "behind_filter"})


class Plan:
    """The interfaces that were asked for, as they are now.

    Raises UsageError, TargetNotFound, PermissionMissing or KernelError.
    """

    def __init__(self, config: PacketConfig) -> None:
        config.check()
        self.config = config
        self.spaces: list[tuple[Space, LinkWatch, list[Link]]] = []
        self._compiled: dict[int, list[Instruction]] = {}
        self._resources = ExitStack()
        try:
            for pid in config.spaces or (0,):
                self._add(pid)
            self._check_names()
            self._check_expression()
        except BaseException:
            self.close()
            raise

    def _add(self, pid: int) -> None:
        space = Space(pid)
        self._resources.callback(space.close)
        if any(space.identity == known.identity for known, _watch, _links in self.spaces):
            return
        watch = space.call(LinkWatch)
        self._resources.callback(watch.close)
        self.spaces.append((space, watch, watch.all()))

    def _check_names(self) -> None:
        links = [link for _space, _watch, links in self.spaces for link in links]
        there = sorted({link.name for link in links})
        for name in self.config.interfaces:
            if name not in there:
                raise TargetNotFound(
                    looked_for=f"interface {name}",
                    looked_in="the network namespace",
                    hint=f"there are: {', '.join(there)}",
                )
            for link in links:
                if link.name == name and link.kind is None:
                    raise UsageError(
                        option="-i",
                        problem=f"frames of {name} have no link type that files know"
                        f" (hardware type {link.hardware})",
                        hint="choose other interfaces",
                    )

    def _check_expression(self) -> None:
        # By default interfaces for which the expression means nothing are left out; where they
        # were asked for, or none remains, it is refused.
        kinds = {
            link.kind[0]: link.name in self.config.interfaces
            for _space, _watch, links in self.spaces
            for link in sorted(links, key=lambda link: link.name in self.config.interfaces)
            if link.kind is not None and self.wants(link)
        }
        failures: list[UsageError] = []
        for link_type, named in kinds.items():
            try:
                self.filter_for(link_type)
            except UsageError as error:
                failures.append(error)
                if named or len(failures) == len(kinds):
                    raise

    def filter_for(self, link_type: int) -> list[Instruction]:
        """The classic program for frames of a link type, empty if there is no filter.

        Raises UsageError, FeatureMissing.
        """
        if self.config.expression and link_type not in self._compiled:
            compiled = compile_expression(self.config.expression, link_type)
            translate(compiled, sent=False, next_programs=0, index=0)  # whether it can be
            self._compiled[link_type] = compiled
        return self._compiled.get(link_type, [])

    def wants(self, link: Link) -> bool:
        """Whether packets of this interface were asked for."""
        return not self.config.interfaces or link.name in self.config.interfaces

    def count(self) -> int:
        """How many interfaces were asked for."""
        return sum(self.wants(link) for _space, _watch, links in self.spaces for link in links)

    def close(self) -> None:
        """Ends the watches."""
        self._resources.close()


def _descriptor(loaded: _native.Object, program: str) -> bytes:
    return loaded.program_fd(program).to_bytes(4, "little")


class _Watched(NamedTuple):
    link: Link
    number: int
    start_ns: int
    attached: list[_network.Attachment | Classifier]


class _SpacePrograms:
    """The programs of one namespace, and the interfaces they are at, by index."""

    def __init__(self, number: int, space: Space, watch: LinkWatch, loaded: _native.Object) -> None:
        self.number = number
        self.space = space
        self.watch = watch
        self.loaded = loaded
        self.interfaces = loaded.map("interfaces")
        self.watched: dict[int, _Watched] = {}
        self._behind = loaded.map("behind_filter")
        self._filters: dict[tuple[int, int], int] = {}
        self.netlink = None if feature("tcx") else space.call(Netlink)
        self._made: set[int] = set()
        for index, program in enumerate((IN, OUT)):
            self._behind.update(index.to_bytes(4, "little"), _descriptor(loaded, program))

    def program_for(self, link_type: int, filter_: list[Instruction], index: int) -> int:
        """The descriptor of what to attach; ``index``: 0 for frames that arrive, 1 for others."""
        if not filter_:
            return self.loaded.program_fd((IN, OUT)[index])
        found = self._filters.get((link_type, index))
        if found is None:
            code = translate(filter_, sent=index == 1, next_programs=self._behind.fd, index=index)
            with translated("the packet filter"):
                found = _native.load_program(_CLASSIFIER, code)
            self._filters[link_type, index] = found
        return found

    def clean(self, links: Sequence[Link]) -> None:
        """Removes what killed captures left at interfaces. To be called in the namespace."""
        if self.netlink is not None:
            for link in links:
                clean(self.netlink, link.index, link.name)

    def attach(self, link: Link, index: int, fd: int) -> list[_network.Attachment | Classifier]:
        """Attaches a program; to be called in the namespace. Raises OSError."""
        if self.netlink is None:
            return [_network.Attachment(fd, link.index, _TCX[index], _BEFORE)]
        made, both = prepare(self.netlink, link.index)
        if made:
            self._made.add(link.index)
        if index == 1 and not both:
            _log.warning(
                "%s: packets that are sent are not captured: it has an ingress qdisc, which leaves"
                " no room for clsact",
                link.name,
            )
            return []
        return [Classifier(self.netlink, link.index, index, fd, made=link.index in self._made)]

    def close(self) -> None:
        """Lets go of the filters."""
        if self.netlink is not None:
            self.netlink.close()
        while self._filters:
            os.close(self._filters.popitem()[1])


def _close_all(attached: Sequence[_network.Attachment | Classifier]) -> None:
    for attachment in attached:
        attachment.close()


class PacketPrograms:
    """The programs for all interfaces of a plan, which must be closed after this.

    ``programs`` are those of the same capture: filters are shared with them. Raises FeatureMissing,
    VerifierRejected or KernelError. ``attach`` places the programs.
    """

    def __init__(
        self,
        plan: Plan,
        config: CaptureConfig,
        programs: Programs,
        wall_offset_ns: int,
    ) -> None:
        self._plan = plan
        self._config = config
        self._wall_offset_ns = wall_offset_ns
        self._next = 0
        self._started = False
        self._ending = False
        self._attaching = threading.Lock()
        self._told: list[Event] = []
        self._spaces: list[_SpacePrograms] = []
        self._counted: list[tuple[int, int]] = []
        self._closing = ExitStack()
        self._removal: threading.Thread | None = None
        self._maps = dict(programs.maps)
        self._owners: Owners | None = None
        try:
            self._load_all(programs)
        except BaseException:
            self.close()
            raise

    def attach(self) -> None:
        """Places the programs. Raises AttachRefused or TargetNotFound.

        May take seconds: the kernel waits for all its readers at every link, while it holds the
        lock that all changes of interfaces need, so neither threads nor batches make it faster.
        Another thread may end it by ``detach`` or ``close``.
        """
        with self._attaching:
            self._attach_all()
            if not self._ending and not any(of_space.watched for of_space in self._spaces):
                raise TargetNotFound(looked_for="an interface", looked_in="the network namespace")

    def _attach_all(self) -> None:
        wanted = self._plan.count()
        if wanted >= _MANY and feature("tcx"):
            _log.info(
                "%d interfaces: the kernel takes some 20 ms for each; -i NAME chooses", wanted
            )
        for of_space, (_space, _watch, links) in zip(self._spaces, self._plan.spaces, strict=True):
            self._attach(of_space, links)
        self._started = True

    def _load_all(self, programs: Programs) -> None:
        owners = self._load(programs, OWNERS, wanted_programs())
        self._owners = Owners(owners)
        ids = owners.map("cgroup_ids")
        for number in cgroup_ids(self._config.scope):
            ids.update(number.to_bytes(8, "little"), b"\1")
        for number, (space, watch, _links) in enumerate(self._plan.spaces):
            loaded = self._load(programs, PACKETS)
            self._spaces.append(_SpacePrograms(number, space, watch, loaded))
        wanted = self._plan.config
        self._maps["packet_settings"].update(
            bytes(4),
            PACKET_SETTINGS.pack(
                self._wall_offset_ns,
                self._config.limits.ring // 4,
                wanted.snap_length,
                wanted.with_names,
            ),
        )
        self.ring = _native.Ring(self._maps["frames"], _LENGTH_AT, _ALIGN)
        self._closing.callback(self.ring.close)
        self._owners.attach()

    def _wall_ns(self) -> int:
        # as packets have it, so that no packet is later than what was told after it
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) + self._wall_offset_ns

    def _load(
        self, programs: Programs, name: str, only: Sequence[str] | None = None
    ) -> _native.Object:
        with programs.type_information() as types:
            loaded = programs.open(name, types)
            self._closing.callback(loaded.close)
            for program in loaded.programs():
                loaded.set_autoload(program, only is None or program in only)
            for shared in loaded.maps():
                if shared in self._maps and shared not in _OWN_MAPS:
                    loaded.reuse_map(shared, self._maps[shared])
                elif shared == "frames":
                    loaded.set_map_size(shared, self._config.limits.ring)
            with translated(f"the kernel programs of {name}"):
                loaded.load()
        for shared in loaded.maps():
            self._maps.setdefault(shared, loaded.map(shared))
        return loaded

    def _attach(self, of_space: _SpacePrograms, links: Sequence[Link]) -> None:
        wanted = [link for link in links if self._plan.wants(link)]

        def attach() -> None:
            of_space.clean(links)
            for link in wanted:
                if self._ending:
                    return
                self._attach_one(of_space, link)

        of_space.space.call(attach)

    def _attach_one(self, of_space: _SpacePrograms, link: Link) -> None:
        kind = link.kind
        if kind is None or self._next >= INTERFACES_MAXIMUM:
            why = f"hardware type {link.hardware}" if kind is None else "there are too many"
            _log.warning("%s: its packets are not captured (%s)", link.name, why)
            return
        try:
            filter_ = self._plan.filter_for(kind[0])
        except UsageError as error:
            _log.warning("%s: its packets are not captured (%s)", link.name, error)
            return
        number, now = self._next, self._wall_ns()
        row = INTERFACE.pack(number, kind[1], of_space.number, link.loopback)
        of_space.interfaces.update(link.index.to_bytes(4, "little"), row)
        attached: list[_network.Attachment | Classifier] = []
        try:
            # A frame on the loopback interface passes both ways out and in: one is enough.
            for index in (1, 0)[: 1 if link.loopback else 2]:
                fd = of_space.program_for(kind[0], filter_, index)
                attached += of_space.attach(link, index, fd)
        except OSError as error:
            for attachment in attached:
                attachment.close()
            if error.errno == errno.ENODEV:
                return  # it has vanished meanwhile
            refused = AttachRefused(
                hook=link.name,
                reason=os.strerror(error.errno or 0),
                hint="`ecapture doctor` says what this kernel can do",
            )
            if link.name in self._plan.config.interfaces and not self._started:
                raise refused from error
            _log.warning("its packets are not captured: %s", refused)
            return
        self._next += 1
        of_space.watched[link.index] = _Watched(link, number, now, attached)
        wanted = self._plan.config
        self._told.append(
            Interface(
                now,
                number,
                link.name,
                kind[0],
                wanted.snap_length,
                wanted.expression,
                of_space.space.label,
            )
        )

    def filenos(self) -> list[int]:
        """What to poll beside the ring: notices of interfaces that come and go."""
        return [of_space.watch.fileno() for of_space in self._spaces]

    def drain(self, limit: int) -> list[Event]:
        """Interfaces that have come or gone, and packets: at most ``limit`` bytes of them."""
        for of_space in self._spaces:
            self._follow(of_space)
        told, self._told = self._told, []
        blocks = self.ring.drain(limit)
        if blocks:
            told.append(Packets(self._wall_ns(), blocks))
        return told

    def _follow(self, of_space: _SpacePrograms) -> None:
        for link in of_space.watch.changes():
            if not link.gone:
                self._attach(of_space, [link])
                continue
            watched = of_space.watched.pop(link.index, None)
            if watched is None:
                continue
            for attachment in watched.attached:
                attachment.close()
            of_space.interfaces.delete(link.index.to_bytes(4, "little"))
            if self._plan.config.interfaces:
                _log.warning(
                    "%s: the interface is gone; if it comes back, it is captured again", link.name
                )
            self._counted.append((watched.number, watched.start_ns))

    def describe(self) -> str:
        """What is watched, for the line that says so."""
        names = [w.link.name for of_space in self._spaces for w in of_space.watched.values()]
        shown = ", ".join(names[:6]) + (", …" if len(names) > 6 else "")
        return f"packets of {len(names)} interface{'s' * (len(names) != 1)} ({shown})"

    def detach(self) -> None:
        """From here on no packet is added; what is in the ring can still be drained.

        Programs that do not know their interface do nothing. To take them out may take seconds (see
        ``attach``): a thread does it, until ``close``. But one is taken out at once, for which the
        kernel waits for all programs that are running.
        """
        self._ending = True
        with self._attaching:
            self._detach()

    def _detach(self) -> None:
        if self._removal is not None:
            return
        attached = []
        for of_space in self._spaces:
            for index, watched in of_space.watched.items():
                of_space.interfaces.delete(index.to_bytes(4, "little"))
                attached += watched.attached
        at_once = 1 if feature("tcx") else len(attached)
        _close_all(attached[:at_once])
        self._removal = threading.Thread(target=_close_all, args=(attached[at_once:],), daemon=True)
        self._removal.start()
        if self._owners is not None:
            self._owners.close()

    def counts(self) -> list[InterfaceCounts]:
        """What became of the packets of every interface, those that are gone included."""
        now = self._wall_ns()
        all_of_them = self._counted + [
            (watched.number, watched.start_ns)
            for of_space in self._spaces
            for watched in of_space.watched.values()
        ]
        rows = self._maps["interface_counts"]
        found = []
        for number, start_ns in sorted(all_of_them):
            row = rows.lookup(number.to_bytes(4, "little")) or bytes(INTERFACE_COUNTS.size)
            found.append(InterfaceCounts(now, start_ns, number, *INTERFACE_COUNTS.unpack(row)))
        return found

    def close(self) -> None:
        """Takes everything out and frees it."""
        self.detach()
        if self._removal is not None:
            self._removal.join()
        for of_space in self._spaces:
            of_space.close()
        self._spaces.clear()
        self._closing.close()
