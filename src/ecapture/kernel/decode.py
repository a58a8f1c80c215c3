# SPDX-License-Identifier: Apache-2.0
"""Record to event.

A batch is records one behind the other, each padded to eight bytes, as ``Ring.drain`` returns them
and as a recording stores them. A record that is not as the wire says is counted and skipped; where
its size cannot be believed, the rest of the batch is lost with it and counted as one.
"""

from __future__ import annotations

from ipaddress import IPv6Address

from ecapture._wire import (
    END,
    ENDS,
    HEADER,
    PIECE_MAXIMUM,
    PLAINTEXT,
    SCHEDULE,
    SECRET,
    SECRET_MAXIMUM,
    TUPLE_VALUE,
    Family,
    Flag,
    Kind,
    Label,
    TupleSource,
)
from ecapture.events import (
    UNKNOWN_ENDS,
    Connection,
    ConversationEnd,
    Ends,
    Event,
    Negotiated,
    Plaintext,
    ProcessExit,
    Secret,
)
from ecapture.kernel import _commands, _served
from ecapture.kernel.decode_commands import unknown
from ecapture.kernel.decode_shell import decode_shell
from ecapture.protocols.cipher_suites import cipher_name, version_name

NO_CONNECTION = {
    TupleSource.NONE: UNKNOWN_ENDS,
    TupleSource.UNIX: "the descriptor is a Unix-domain socket",
    TupleSource.NOT_INET: "the descriptor is not an IPv4 or IPv6 socket",
    TupleSource.UNREADABLE: (
        "this kernel shows no type information (BTF), so its sockets cannot be read"
    ),
}
_FOUND_BY = {TupleSource.DESCRIPTOR: "descriptor", TupleSource.INFERRED: "inferred"}
_MAXIMUM_CACHED = 65536


class Decoder:
    """Turns batches into events.

    ``wall_offset_ns`` is added to every time (``clock.wall_offset_ns``). ``malformed`` counts what
    was skipped.
    """

    def __init__(self, wall_offset_ns: int) -> None:
        self.wall_offset_ns = wall_offset_ns
        self.malformed = 0
        self._names: dict[bytes, str] = {}
        self._ends: dict[bytes, tuple[str, str]] = {}
        self._connections: dict[bytes, tuple[Connection | None, str, Negotiated | None]] = {}
        self._runs = _served.Runs(self._known_name, self._known_ends)
        self._commands = _commands.Commands(self._known_name, unknown)

    def decode(self, batch: bytes) -> list[Event]:
        """Events of one batch, in its order."""
        events: list[Event] = []
        append = events.append
        unpack = PLAINTEXT.unpack_from
        offset_ns, names, connections = self.wall_offset_ns, self._names, self._connections
        header_size = PLAINTEXT.size
        at, end = 0, len(batch)
        while at + header_size <= end:
            # fmt: off
            (time_ns, size, kind, flags, pid, tid, uid, _cpu, comm, handle, generation,
             stream_offset, call_length, call_offset, ends, fd, direction, hook) = unpack(batch, at)
            # fmt: on
            if kind != Kind.PLAINTEXT or size < header_size or at + size > end:
                at = self._rest(batch, at, events)
                continue
            last = flags & 16 != 0  # Flag.LAST; enums are slow here
            length = call_length - call_offset if last else PIECE_MAXIMUM
            if length < size - header_size:  # more than its call had
                self.malformed += 1
                at += (size + 7) & ~7
                continue
            payload = batch[at + header_size : at + size]
            at += (size + 7) & ~7
            name = names.get(comm)
            if name is None:
                name = self._name(comm)
            known = connections.get(ends)
            if known is None:
                known = self._connection(ends)
            append(
                Plaintext(
                    time_ns + offset_ns,
                    pid,
                    tid,
                    uid,
                    name,
                    "write" if direction else "read",
                    (pid, handle, generation),
                    known[0],
                    known[1],
                    stream_offset,
                    call_length,
                    call_offset,
                    length,
                    payload,
                    _missing(flags) if flags & 7 else "",
                    flags & 8 != 0,
                    last,
                    fd,
                    hook,
                    known[2],
                )
            )
        while at < end:
            at = self._rest(batch, at, events)
        return events

    def _rest(self, batch: bytes, at: int, events: list[Event]) -> int:
        """Decodes what is not plaintext: a record, or several. Returns where the next begins."""
        offset_ns = self.wall_offset_ns
        after = self._runs.decode(batch, at, events, offset_ns)
        if after == at:
            after = self._commands.decode(batch, at, events, offset_ns)
        return after if after > at else self._other(batch, at, events)

    def _other(self, batch: bytes, at: int, events: list[Event]) -> int:
        """Decodes a record that is not plaintext. Returns where the next begins."""
        if at + HEADER.size > len(batch):
            self.malformed += 1
            return len(batch)
        time_ns, size, kind, _flags, pid, _tid, _uid, _cpu, comm = HEADER.unpack_from(batch, at)
        if size < HEADER.size or at + size > len(batch):
            self.malformed += 1
            return len(batch)
        time_ns += self.wall_offset_ns
        if kind == Kind.END and size == END.size:
            handle, generation = END.unpack_from(batch, at)[-2:]
            events.append(
                ConversationEnd(time_ns, pid, self._name(comm), (pid, handle, generation), "freed")
            )
        elif kind == Kind.ENDS and size == ENDS.size:
            handle, generation, ends = ENDS.unpack_from(batch, at)[-3:]
            known = self._connections.get(ends) or self._connection(ends)
            if known[0] is not None:
                events.append(
                    Ends(time_ns, pid, self._name(comm), (pid, handle, generation), known[0])
                )
        elif kind == Kind.EXIT:
            events.append(ProcessExit(time_ns, pid, self._name(comm)))
        elif kind == Kind.SECRET and size == SECRET.size:
            events.append(self._secret(batch, at))
        elif kind == Kind.SCHEDULE and size == SCHEDULE.size:
            events += self._schedule(batch, at)
        elif told := decode_shell(batch, at, kind, size, self.wall_offset_ns, self._name):
            events.append(told)
        else:
            self.malformed += 1
        return int(at + ((size + 7) & ~7))

    def _secret(self, batch: bytes, at: int) -> Secret:
        # fmt: off
        (time_ns, _size, _kind, flags, pid, tid, uid, _cpu, comm, handle, generation,
         random, text, secret, length, number) = SECRET.unpack_from(batch, at)
        # fmt: on
        label = _label(text, number)
        missing = "unreadable" if flags & Flag.FAULT else "" if label else "unlabelled"
        return Secret(
            time_ns + self.wall_offset_ns,
            pid,
            tid,
            uid,
            self._name(comm),
            (pid, handle, generation),
            label,
            b"" if flags & Flag.UNJOINED else random,
            b"" if flags & Flag.FAULT else secret[: min(length, SECRET_MAXIMUM)],
            missing,
        )

    def _schedule(self, batch: bytes, at: int) -> list[Event]:
        # Imported late: hashing loads libcrypto.
        from ecapture.protocols.key_schedule import logged_secrets  # noqa: PLC0415

        # fmt: off
        (time_ns, _size, _kind, flags, pid, tid, uid, _cpu, comm, handle, generation,
         random, kept, exporter) = SCHEDULE.unpack_from(batch, at)
        # fmt: on
        found = {} if flags & Flag.FAULT else logged_secrets(kept, exporter)
        missing = "" if found else "unreadable" if flags & Flag.FAULT else "unproven"
        name, conversation = self._name(comm), (pid, handle, generation)
        time_ns += self.wall_offset_ns
        return [
            Secret(time_ns, pid, tid, uid, name, conversation, label, random, secret, missing)
            for label, secret in (found or {"": b""}).items()
        ]

    def _known_name(self, raw: bytes) -> str:
        return self._names.get(raw) or self._name(raw)

    def _known_ends(self, raw: bytes) -> tuple[str, str]:
        return self._ends.get(raw) or self._server_ends(raw)

    def _server_ends(self, raw: bytes) -> tuple[str, str]:
        # The client of a server, as text, or why it is not known.
        _local, remote, _port, port, family, source, *_ = TUPLE_VALUE.unpack(raw)
        found = "", NO_CONNECTION.get(source, "unknown")
        if source == TupleSource.UNIX:
            found = "local", ""
        elif family != Family.NONE:
            host = _address(remote, family)
            found = f"[{host}]:{port}" if ":" in host else f"{host}:{port}", ""
        if len(self._ends) >= _MAXIMUM_CACHED:
            self._ends.clear()
        self._ends[raw] = found
        return found

    # The caches below hold what few processes and connections repeat in every record.

    def _name(self, raw: bytes) -> str:
        name = raw.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")
        if len(self._names) >= _MAXIMUM_CACHED:
            self._names.clear()
        self._names[raw] = name
        return name

    def _connection(self, raw: bytes) -> tuple[Connection | None, str, Negotiated | None]:
        (local, remote, local_port, remote_port, family, source, protocol, cipher) = (
            TUPLE_VALUE.unpack(raw)
        )
        negotiated = None
        if version := version_name(protocol):
            negotiated = Negotiated(version, cipher_name(cipher) if cipher else "")
        found: tuple[Connection | None, str, Negotiated | None]
        if family == Family.NONE:
            found = None, NO_CONNECTION.get(source, "unknown"), negotiated
        else:
            found_by = _FOUND_BY.get(source, "nested_call")
            local, remote = _address(local, family), _address(remote, family)
            protocol = "ipv6" if ":" in local or ":" in remote else "ipv4"
            ends = Connection(protocol, local, local_port, remote, remote_port, found_by)  # type: ignore[arg-type]
            found = ends, "", negotiated
        if len(self._connections) >= _MAXIMUM_CACHED:
            self._connections.clear()
        self._connections[raw] = found
        return found


def _address(raw: bytes, family: int) -> str:
    if family == Family.IPV4:
        return ".".join(map(str, raw[:4]))
    address = IPv6Address(raw)
    return str(address.ipv4_mapped or address)


def _label(text: bytes, number: int) -> str:
    # The text where it could be read, else what its place in memory told.
    told = text.split(b"\0", 1)[0]
    if told:
        return told.decode("ascii", "backslashreplace")
    return Label(number).name if Label.UNKNOWN < number <= max(Label) else ""


def _missing(flags: int) -> str:
    if flags & Flag.FAULT:
        return "unreadable"
    if flags & Flag.SENDFILE:
        return "sendfile"
    return "truncated" if flags & Flag.LAST else ""
