# SPDX-License-Identifier: Apache-2.0
"""Packets wait for the secrets that decrypt them, so that in the file the secrets stand first.

A reader of pcapng uses a secret for the packets behind it, and a library tells its secrets after
the packets that made them have passed: a client knows them only once it has the server's hello. So:

1. Secrets are let through at once, ahead of whatever waits, as is everything but packets.
2. A packet with which a server answers the beginning of a handshake (TLS ServerHello; QUIC Initial)
   waits until all secrets are told that its connection must have, and no longer than ``patience``.
   If some are told by then, or its process has told secrets of other connections, the library is
   one of those that tell, and it may take its time: ``told_patience``. With early data the packet
   of the client waits, for the early secret alone.
3. What comes behind a packet that waits, waits, too: packets are never reordered.
4. Nothing waits when no handshake is open; then a batch passes as it came, uncopied.
5. What waits is bounded in bytes. Beyond that the oldest goes first, and ``hurried`` counts it.

The client random joins packets and secrets. It stands in the ClientHello, which is remembered by
its addresses until the answer comes; for QUIC it is decrypted from the first packets. Connections
whose hello was not seen do not wait: without it, nobody can decrypt them.

Invariants: every byte that is fed comes out, once, in order; time is that of events; all tables are
bounded, and what a stranger sends can make packets late by ``told_patience`` at most.
"""

from __future__ import annotations

from collections import deque
from typing import Final, TypeVar

import msgspec

from ecapture._wire import ENTERPRISE
from ecapture.errors import ProtocolError
from ecapture.events import Event, Interface, Packets, Secret
from ecapture.pipeline import _openings
from ecapture.protocols.quic_initial import Crypto, Initial, initial, is_early
from ecapture.protocols.tls_hello import (
    RANDOM_END,
    RECORD_HEADER,
    client_random,
    offers_early_data,
    server_hello,
)

PATIENCE_NS: Final = 1_000_000_000
"""How long a packet waits for a connection of which nothing is told."""
TOLD_PATIENCE_NS: Final = 3_000_000_000
"""How long it waits if something was told, by the same process at least."""
HELD_BYTES: Final = 16 << 20

_REMEMBERED: Final = 1 << 14
_TELLERS: Final = 1 << 12
# How the option of a packet's block begins that names a process (formats/pcapng.py), whose number
# is in the four bytes behind.
_PROCESS: Final = ENTERPRISE.to_bytes(4, "little") + b"ecap"
_QUIC_HELLOS: Final = 1 << 10
_QUIC_PER_SECOND: Final = 200  # decrypting the beginning of one takes a good millisecond
_SECOND_NS: Final = 1_000_000_000
_CLIENT_HELLO, _SERVER_HELLO = 1, 2

# Sets of labels are numbers here: as many are kept as there may be connections.
_OTHER: Final = 1
_LABELS: Final = {
    label: 2 << number
    for number, label in enumerate(
        (
            "CLIENT_RANDOM",
            "CLIENT_EARLY_TRAFFIC_SECRET",
            "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
            "SERVER_HANDSHAKE_TRAFFIC_SECRET",
            "CLIENT_TRAFFIC_SECRET_0",
            "SERVER_TRAFFIC_SECRET_0",
        )
    )
}
_MASTER: Final = _LABELS["CLIENT_RANDOM"]
_EARLY: Final = _LABELS["CLIENT_EARLY_TRAFFIC_SECRET"]
_TRAFFIC: Final = sum(_LABELS.values()) - _MASTER - _EARLY

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class _Waiting(msgspec.Struct):
    """Blocks that wait, and what for. ``needed`` is 0 if they only stand behind others."""

    blocks: bytes
    random: bytes = b""
    needed: int = 0
    since_ns: int = 0
    pids: tuple[int, ...] = ()


class Held:
    """A stage: packets come out when their secrets have, everything else at once.

    ``hurried`` counts answers that went before their secrets for want of room, ``late``
    connections of which a secret came after packets that it decrypts.
    """

    def __init__(
        self,
        *,
        patience_ns: int = PATIENCE_NS,
        told_patience_ns: int = TOLD_PATIENCE_NS,
        held_bytes: int = HELD_BYTES,
    ) -> None:
        self.hurried = 0
        self.late = 0
        self._patience, self._told_patience = patience_ns, told_patience_ns
        self._limit = held_bytes
        self._link_types: tuple[int, ...] = ()
        self._now = 0
        self._queue: deque[_Waiting] = deque()
        self._held = 0
        # All: insertion order is age.
        self._hellos: dict[tuple[bytes, bytes], bytes] = {}
        self._quic: dict[tuple[bytes, bytes, bytes], Crypto] = {}
        self._told: dict[bytes, int] = {}
        self._given_up: dict[bytes, int] = {}
        self._tellers: dict[int, bool] = {}
        self._quic_second, self._quic_count = 0, 0

    @property
    def held_bytes(self) -> int:
        """How much waits."""
        return self._held

    def feed(self, events: list[Event]) -> list[Event]:
        """See Stage."""
        passed: list[Event] = []
        for event in events:
            if isinstance(event, Packets):
                passed += self._packets(event)
                continue
            passed.append(event)
            if isinstance(event, Secret):
                self._secret(event)
                passed += self._due(event.time_ns)
            elif isinstance(event, Interface):
                self._link_types += (event.link_type,)
        return passed

    def flush(self, now_ns: int) -> list[Event]:
        """See Stage."""
        return self._due(now_ns)

    def close(self) -> list[Event]:
        """See Stage: no secret will come any more."""
        released = [waiting.blocks for waiting in self._queue]
        self._queue.clear()
        self._held = 0
        return self._made(released)

    def _packets(self, event: Packets) -> list[Event]:
        batch, begin = event.blocks, 0
        self._now = max(self._now, event.time_ns)
        for at, kind, source, destination, payload, end in _openings.openings(
            batch, self._link_types
        ):
            message = batch[payload:end]
            if kind == _CLIENT_HELLO:
                random, needed = self._client(source, destination, message[RECORD_HEADER:])
            elif kind == _SERVER_HELLO:
                random, needed = self._server(source, destination, message[RECORD_HEADER:])
            else:
                random, needed = self._datagram(source, destination, message)
            if random and needed & ~self._told.get(random, 0):
                self._hold(batch[begin:at])
                begin = at
                pids = _processes(batch, at, end)
                self._queue.append(_Waiting(b"", random, needed, self._now, pids))
        if not self._queue:
            return [event]
        self._hold(batch[begin:])
        return self._due(event.time_ns)

    def _secret(self, secret: Secret) -> None:
        random = secret.client_random
        if not random or not secret.label:
            return
        label = _LABELS.get(secret.label, _OTHER)
        _bounded(self._tellers, secret.pid, True, _TELLERS)
        self._told[random] = _bounded(self._told, random, 0) | label
        if label & self._given_up.get(random, 0):
            del self._given_up[random]
            self.late += 1

    def _due(self, now_ns: int) -> list[Event]:
        queue, released = self._queue, []
        self._now = max(self._now, now_ns)
        while queue:
            first = queue[0]
            if first.needed and not self._ready(first):
                if self._held <= self._limit:
                    break
                self.hurried += 1
                self._give_up(first)
            released.append(queue.popleft().blocks)
            self._held -= len(released[-1])
        return self._made(released)

    def _made(self, released: list[bytes]) -> list[Event]:
        return [Packets(self._now, blocks) for blocks in released if blocks]

    def _hold(self, blocks: bytes) -> None:
        # Behind the last that waits: if it has no bytes yet, it begins with these.
        if not blocks:
            return
        self._held += len(blocks)
        if self._queue and not self._queue[-1].blocks:
            self._queue[-1].blocks = blocks
        else:
            self._queue.append(_Waiting(blocks))

    def _ready(self, waiting: _Waiting) -> bool:
        told = self._told.get(waiting.random, 0)
        if not waiting.needed & ~told:
            return True
        tells = told or any(pid in self._tellers for pid in waiting.pids)
        patience = self._told_patience if tells else self._patience
        if self._now - waiting.since_ns < patience:
            return False
        self._give_up(waiting)
        return True

    def _give_up(self, waiting: _Waiting) -> None:
        missing = waiting.needed & ~self._told.get(waiting.random, 0)
        _bounded(self._given_up, waiting.random, missing)

    def _client(self, source: bytes, destination: bytes, message: bytes) -> tuple[bytes, int]:
        random = client_random(message)
        if random:
            self._hellos.pop((source, destination), None)
            _bounded(self._hellos, (source, destination), random)
        return (random, _EARLY) if offers_early_data(message) else (b"", _EARLY)

    def _server(self, source: bytes, destination: bytes, message: bytes) -> tuple[bytes, int]:
        hello = server_hello(message)
        if hello is None:
            return b"", _TRAFFIC
        # Not forgotten: the same packet may pass at another interface.
        random = self._hellos.get((destination, source), b"")
        return random, _TRAFFIC if hello.tls13 else _MASTER

    def _datagram(self, source: bytes, destination: bytes, datagram: bytes) -> tuple[bytes, int]:
        random = self._hellos.get((destination, source), b"")
        if random:
            return random, _TRAFFIC
        try:
            packet = initial(datagram)
            if packet is not None and self._may_decrypt():
                self._quic_hello(source, destination, datagram, packet)
        except ProtocolError:
            return b"", _EARLY
        if not is_early(datagram, packet.end if packet is not None else 0):
            return b"", _EARLY
        return self._hellos.get((source, destination), b""), _EARLY

    def _quic_hello(
        self, source: bytes, destination: bytes, datagram: bytes, packet: Initial
    ) -> None:
        # Later packets of the client are addressed to an id of the server's choice, from which no
        # keys follow: those fail at the first frame, which costs little.
        key = source, destination, packet.destination_id
        crypto = self._quic.pop(key, None)
        if crypto is None:
            crypto = Crypto(packet.version, packet.destination_id, wanted=RANDOM_END)
        crypto.feed(datagram, packet)
        random = client_random(crypto.begun)
        if random:
            self._hellos.pop((source, destination), None)
            _bounded(self._hellos, (source, destination), random)
        elif not crypto.begun:
            _bounded(self._quic, key, crypto, _QUIC_HELLOS)

    def _may_decrypt(self) -> bool:
        second = self._now // _SECOND_NS
        if second != self._quic_second:
            self._quic_second, self._quic_count = second, 0
        self._quic_count += 1
        return self._quic_count <= _QUIC_PER_SECOND


def _processes(batch: bytes, block: int, payload_end: int) -> tuple[int, ...]:
    # Those at the ends of a packet, at most two.
    end = block + int.from_bytes(batch[block + 4 : block + 8], "little")
    found: list[int] = []
    at = batch.find(_PROCESS, payload_end, end)
    while at >= 0 and len(found) < 2:
        at += len(_PROCESS)
        found.append(int.from_bytes(batch[at : at + 4], "little"))
        at = batch.find(_PROCESS, at, end)
    return tuple(found)


def _bounded(
    table: dict[_Key, _Value], key: _Key, value: _Value, most: int = _REMEMBERED
) -> _Value:
    """What the table has for the key, else ``value``, for which the oldest may have to go."""
    found = table.get(key)
    if found is not None:
        return found
    if len(table) >= most:
        del table[next(iter(table))]
    table[key] = value
    return value
