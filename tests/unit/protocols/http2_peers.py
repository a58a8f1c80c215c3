# SPDX-License-Identifier: Apache-2.0
"""Both ends of HTTP/2 connections, by hyper-h2, and what a listener made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import h2.config
import h2.connection
import h2.settings

from ecapture.protocols.http2 import Http2Connection
from ecapture.protocols.messages import (
    Body,
    Direction,
    GrpcMessage,
    Head,
    Message,
    MessageComplete,
    Note,
    Opaque,
)

CLIENT, SERVER = 1, 0  # the observed process is the client: what it wrote comes from the client

Spoken = list[tuple[int, bytes]]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Build a frame."""
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")
    return head + payload


class Peers:
    """A client and a server of hyper-h2; ``spoken`` is what went over the wire, in order."""

    def __init__(self, *, upgraded: bool = False) -> None:
        config = h2.config.H2Configuration
        checks = {
            "validate_outbound_headers": False,
            "validate_inbound_headers": False,
            "normalize_outbound_headers": False,
        }
        self.client = h2.connection.H2Connection(config(client_side=True, **checks))
        self.server = h2.connection.H2Connection(config(client_side=False, **checks))
        self.spoken: Spoken = []
        if upgraded:
            header = self.client.initiate_upgrade_connection()
            self.server.initiate_upgrade_connection(header)
        else:
            self.client.initiate_connection()
            self.server.initiate_connection()
        self.carry()

    def carry(self) -> None:
        """Let both ends hear each other out."""
        while True:
            question = self.client.data_to_send()
            if question:
                self.spoken.append((CLIENT, question))
                self.server.receive_data(question)
            answer = self.server.data_to_send()
            if answer:
                self.spoken.append((SERVER, answer))
                self.client.receive_data(answer)
            if not question and not answer:
                return

    def ask(self, stream: int, path: str = "/", body: bytes = b"", **fields: str) -> None:
        """Have the client send a request."""
        method = "POST" if body else "GET"
        pseudo = [
            (":method", method),
            (":scheme", "https"),
            (":authority", "here"),
            (":path", path),
        ]
        extra = [(name.replace("_", "-"), value) for name, value in fields.items()]
        self.client.send_headers(stream, pseudo + extra, end_stream=not body)
        if body:
            self.client.send_data(stream, body, end_stream=True)
        self.carry()

    def answer(self, stream: int, body: bytes = b"", *, end: bool = True, **fields: str) -> None:
        """Have the server answer."""
        extra = [(name.replace("_", "-"), value) for name, value in fields.items()]
        self.server.send_headers(stream, [(":status", "200"), *extra], end_stream=end and not body)
        if body:
            self.server.send_data(stream, body, end_stream=end)
        self.carry()


class Heard:
    """Messages, sorted by what they belong to; times are left out."""

    def __init__(self, messages: Iterable[Message]) -> None:
        self.messages = list(messages)
        self.heads: dict[tuple[int, Direction], list[Head]] = {}
        self.content: dict[tuple[int, Direction], bytes] = {}
        self.complete: dict[tuple[int, Direction], MessageComplete] = {}
        self.grpc: dict[tuple[int, Direction], list[GrpcMessage]] = {}
        self.opaque: dict[tuple[int, Direction], bytes] = {}
        self.notes: list[Note] = []
        self.others: list[Message] = []
        for message in self.messages:
            key = (message.stream, message.direction)
            if isinstance(message, Head):
                self.heads.setdefault(key, []).append(message)
            elif isinstance(message, Body):
                assert message.data
                self.content[key] = self.content.get(key, b"") + message.data
            elif isinstance(message, MessageComplete):
                assert key in self.heads, "an end without a head"
                assert key not in self.complete, "two ends of one message"
                self.complete[key] = message
            elif isinstance(message, GrpcMessage):
                self.grpc.setdefault(key, []).append(message)
            elif isinstance(message, Opaque):
                self.opaque[key] = self.opaque.get(key, b"") + message.data
            elif isinstance(message, Note):
                self.notes.append(message)
            else:
                self.others.append(message)

    def same(self) -> tuple[object, ...]:
        """What must not depend on how the octets were cut into pieces."""
        return (self.heads, self.content, self.complete, self.grpc, self.opaque, self.others)

    def request(self, stream: int) -> Head:
        (head,) = self.heads[stream, Direction.TO_SERVER]
        return head

    def response(self, stream: int) -> Head:
        return self.heads[stream, Direction.TO_CLIENT][-1]

    def body(self, stream: int, direction: Direction = Direction.TO_CLIENT) -> bytes:
        return self.content.get((stream, direction), b"")

    def end(self, stream: int, direction: Direction = Direction.TO_CLIENT) -> MessageComplete:
        return self.complete[stream, direction]


def hear(
    spoken: Spoken,
    connection: Http2Connection | None = None,
    cut: Callable[[bytes], Iterable[bytes]] = lambda piece: (piece,),
    *,
    ended: bool = False,
) -> Heard:
    """Feed a listener with what was spoken."""
    listener = connection or Http2Connection()
    messages: list[Message] = []
    for direction, octets in spoken:
        for piece in cut(octets):
            messages += listener.feed(direction, piece, 7)
    if ended:
        messages += listener.end(7)
    return Heard(messages)


def octet_by_octet(octets: bytes) -> list[bytes]:
    """Cut into single octets."""
    return [octets[at : at + 1] for at in range(len(octets))]


def trials(make: Callable[[], Http2Connection], spoken: Spoken) -> Heard:
    """Whole, octet by octet, and with a tail: all three are heard the same; return it.

    The fourth trial, from the middle, depends on where the middle is: see the tests of it.
    """
    whole = hear(spoken, make())
    single = hear(spoken, make(), octet_by_octet)
    assert single.same() == whole.same()
    tailed = make()
    heard = hear(spoken, tailed)
    before = list(heard.messages)
    for direction in (0, 1):
        assert not tailed.feed(direction, frame(6, 0, 0, bytes(8))[:11], 8)
    assert before == whole.messages
    return whole
