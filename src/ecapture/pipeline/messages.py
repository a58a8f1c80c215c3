# SPDX-License-Identifier: Apache-2.0
"""Feeds conversations to protocol parsers, and puts what they return together again.

In go ``Plaintext`` and ``Gap``; out come ``HttpMessage`` as soon as one is complete, ``Exchange``
when both its sides are, ``Said`` for messages of other kinds, and ``Plaintext`` unchanged where no
protocol is recognised.

1. A conversation is held back while its protocol may still be recognised, at most ``_HELD_NS`` and
   the look-ahead of ``protocols.detect``; then it passes as it is. Its later pieces are looked at
   once each: a protocol that becomes evident later is still read.
2. Bytes that are missing (a gap, or a payload shorter than its length) are told to the parser with
   the next bytes of that direction.
3. Content is kept up to ``body_limit`` by the parsers; nothing here keeps more.
4. What is unfinished at the end of a conversation, or of the capture, is given out, marked so.
"""

from __future__ import annotations

import re

import msgspec

from ecapture.events import (
    ConversationEnd,
    ConversationKey,
    Event,
    Exchange,
    Gap,
    HttpMessage,
    Plaintext,
    Said,
)
from ecapture.protocols.body import BODY_LIMIT
from ecapture.protocols.detect import LOOK_AHEAD, NEED_DATA, Protocol, detect, resume
from ecapture.protocols.http1 import Http1Connection
from ecapture.protocols.http2 import Http2Connection
from ecapture.protocols.http2_streams import ContentLimits
from ecapture.protocols.messages import (
    Body,
    Direction,
    GrpcMessage,
    Head,
    Mark,
    Message,
    MessageComplete,
    Note,
    Opaque,
    ServerEvent,
    Switched,
    WebSocketMessage,
)

_HELD_NS = 1_000_000_000
# Requests of one conversation that wait for their responses; the oldest is given out without one.
_MAXIMUM_PAIRS = 4096
_RESPONSE = re.compile(rb"(?:^|\n)HTTP/1\.[01] [1-5][0-9]{2}[ \r\n]")
_EVENT_STREAM = "text/event-stream"
_READ, _WRITE = 0, 1


class _Part:
    """A message whose content is coming in."""

    __slots__ = ("chunks", "head", "separate")

    def __init__(self, head: Head) -> None:
        self.head = head
        self.chunks: list[bytes] = []
        # Whether its content is given out as messages of its own, and so not kept again.
        self.separate = False


class _Pair:
    """A request and its response, while they are becoming an exchange."""

    __slots__ = ("informational", "request", "response")

    def __init__(self) -> None:
        self.request: HttpMessage | None = None
        self.response: HttpMessage | None = None
        self.informational: tuple[Head, ...] = ()


class _Talk:
    """One conversation."""

    __slots__ = (
        "gaps",
        "held",
        "held_bytes",
        "http1",
        "http2",
        "last",
        "pairs",
        "parts",
        "protocol",
        "writes_requests",
    )

    def __init__(self) -> None:
        self.protocol: Protocol | None = None
        self.held: list[Plaintext] = []
        self.held_bytes = 0
        self.gaps = [0, 0]
        self.http1: Http1Connection | None = None
        self.http2: Http2Connection | None = None
        self.last: Plaintext | None = None
        # Whether the process writes requests; learnt from the first start line for HTTP/1.
        self.writes_requests = True
        self.parts: dict[tuple[int, int, Direction], _Part] = {}
        self.pairs: dict[tuple[int, int], _Pair] = {}


class Messages:
    """A stage."""

    def __init__(self, *, body_limit: int = BODY_LIMIT) -> None:
        self._body_limit = body_limit
        self._talks: dict[ConversationKey, _Talk] = {}
        self._holding: dict[ConversationKey, _Talk] = {}
        self._out: list[Event] = []

    def feed(self, events: list[Event]) -> list[Event]:
        """See Stage."""
        out = self._out = []
        for event in events:
            if type(event) is Plaintext:
                talk = self._talks.get(event.conversation)
                if talk is None:
                    talk = self._talks[event.conversation] = _Talk()
                talk.last = event
                if talk.protocol is Protocol.UNKNOWN:
                    self._unknown(talk, event)
                elif talk.protocol is None:
                    self._hold(talk, event)
                else:
                    self._read(talk, event)
            elif type(event) is Gap:
                talk = self._talks.get(event.conversation)
                if talk is None or talk.protocol in (None, Protocol.UNKNOWN):
                    out.append(event)
                if talk is not None:
                    talk.gaps[event.direction == "write"] += event.length
            else:
                if type(event) is ConversationEnd:
                    self._end(event.conversation, event.time_ns, cut=False)
                out.append(event)
        return out

    def flush(self, now_ns: int) -> list[Event]:
        """See Stage: what was held back long enough passes as it is."""
        out = self._out = []
        for key, talk in list(self._holding.items()):
            if now_ns - talk.held[0].time_ns > _HELD_NS:
                self._give_up(key, talk)
        return out

    def close(self) -> list[Event]:
        """See Stage: the capture ends in the middle of every conversation."""
        out = self._out = []
        for key, talk in list(self._talks.items()):
            self._end(key, talk.last.time_ns if talk.last else 0, cut=True)
        return out

    # --- which protocol ---

    def _hold(self, talk: _Talk, event: Plaintext) -> None:
        talk.held.append(event)
        talk.held_bytes += len(event.payload)
        self._holding[event.conversation] = talk
        starts = {_READ: b"", _WRITE: b""}
        for held in talk.held:
            side = _WRITE if held.direction == "write" else _READ
            if len(starts[side]) < LOOK_AHEAD:
                starts[side] += held.payload
        found = detect(starts)
        if found is NEED_DATA:
            if talk.held_bytes > 2 * LOOK_AHEAD:
                self._give_up(event.conversation, talk)
            return
        if found is Protocol.UNKNOWN:
            self._give_up(event.conversation, talk)
            return
        held_back, talk.held = talk.held, []
        self._holding.pop(event.conversation, None)
        self._begin(talk, Protocol(found), held_back)
        for held in held_back:
            self._read(talk, held)

    def _give_up(self, key: ConversationKey, talk: _Talk) -> None:
        talk.protocol = Protocol.UNKNOWN
        self._out += talk.held
        talk.held = []
        self._holding.pop(key, None)

    def _unknown(self, talk: _Talk, event: Plaintext) -> None:
        found = resume(event.payload)
        if found is None:
            self._out.append(event)
            return
        self._begin(talk, found, [event])
        self._read(talk, event)

    def _begin(self, talk: _Talk, protocol: Protocol, seen: list[Plaintext]) -> None:
        talk.protocol = protocol
        talk.gaps = [0, 0]
        if protocol is Protocol.HTTP2:
            talk.http2 = Http2Connection(content=ContentLimits(body=self._body_limit))
            return
        talk.http1 = Http1Connection(body_limit=self._body_limit)
        for event in seen:
            if event.payload:
                answers = _RESPONSE.search(event.payload) is not None
                talk.writes_requests = (event.direction == "write") != answers
                break

    # --- reading ---

    def _read(self, talk: _Talk, event: Plaintext) -> None:
        side = _WRITE if event.direction == "write" else _READ
        gap, talk.gaps[side] = talk.gaps[side], event.length - len(event.payload)
        if not event.payload:
            talk.gaps[side] += gap
            return
        if talk.http1 is not None:
            direction = self._speaker(talk, side)
            messages = talk.http1.feed(direction, event.payload, event.time_ns, gap)
        elif talk.http2 is not None:
            messages = talk.http2.feed(side, event.payload, event.time_ns, gap)
        else:
            return
        for message in messages:
            self._take(talk, event, message)

    @staticmethod
    def _speaker(talk: _Talk, side: int) -> Direction:
        to_server = (side == _WRITE) == talk.writes_requests
        return Direction.TO_SERVER if to_server else Direction.TO_CLIENT

    @staticmethod
    def _is_client(talk: _Talk) -> bool:
        if talk.http2 is not None and talk.http2.client is not None:
            return talk.http2.client == _WRITE
        return talk.writes_requests

    def _take(self, talk: _Talk, event: Plaintext, message: Message) -> None:
        kind = type(message)
        if kind is Head:
            self._head(talk, message)  # type: ignore[arg-type]
        elif kind is Body:
            self._body(talk, message)  # type: ignore[arg-type]
        elif kind is MessageComplete:
            self._complete(talk, event, message)  # type: ignore[arg-type]
        elif kind is Switched:
            self._switched(talk, message)  # type: ignore[arg-type]
        elif kind is Opaque:
            self._opaque(talk, event, message)  # type: ignore[arg-type]
        elif isinstance(message, (GrpcMessage, ServerEvent, WebSocketMessage, Note)):
            self._separate(talk, event, message)

    def _separate(
        self,
        talk: _Talk,
        event: Plaintext,
        message: GrpcMessage | ServerEvent | WebSocketMessage | Note,
    ) -> None:
        # What is a message of its own: it is not kept as content of the one around it as well.
        part = talk.parts.get((message.stream, message.exchange, message.direction))
        if part is not None and isinstance(message, (GrpcMessage, ServerEvent)):
            part.separate = True
            part.chunks.clear()
        self._say(talk, event, message)
        if isinstance(message, Note) and message.mark is Mark.ABANDONED and message.stream:
            self._close_pair(talk, (message.stream, message.exchange), event)

    def _head(self, talk: _Talk, head: Head) -> None:
        if head.kind == "response" and head.informational:
            pair = talk.pairs.setdefault((head.stream, head.exchange), _Pair())
            pair.informational += (head,)
            return
        part = talk.parts[head.stream, head.exchange, head.direction] = _Part(head)
        part.separate = head.get("content-type").lower().startswith(_EVENT_STREAM)

    @staticmethod
    def _body(talk: _Talk, body: Body) -> None:
        part = talk.parts.get((body.stream, body.exchange, body.direction))
        if part is not None and not part.separate:
            part.chunks.append(body.data)

    def _complete(self, talk: _Talk, event: Plaintext, end: MessageComplete) -> None:
        part = talk.parts.pop((end.stream, end.exchange, end.direction), None)
        if part is None:
            return
        head = part.head
        message = HttpMessage(
            end.time_ns,
            head.time_ns,
            event.pid,
            event.tid,
            event.uid,
            event.comm,
            "write" if (end.direction is Direction.TO_SERVER) == self._is_client(talk) else "read",
            event.conversation,
            event.connection,
            event.no_connection,
            end.stream,
            end.exchange,
            head,
            b"".join(part.chunks),
            end.size,
            end.decoded_size,
            end.codings,
            end.trailers,
            head.marks + tuple(mark for mark in end.marks if mark not in head.marks),
            head.problem or end.problem,
        )
        self._out.append(message)
        key = (end.stream, end.exchange)
        pair = talk.pairs.setdefault(key, _Pair())
        if head.kind == "request":
            pair.request = message
        else:
            pair.response = message
        awaited = (end.stream, end.exchange, Direction.TO_SERVER) in talk.parts
        if pair.response is not None and not awaited:
            self._close_pair(talk, key, event)
        elif len(talk.pairs) > _MAXIMUM_PAIRS:
            self._close_pair(talk, next(iter(talk.pairs)), event)

    def _close_pair(self, talk: _Talk, key: tuple[int, int], event: Plaintext) -> None:
        pair = talk.pairs.pop(key, None)
        if pair is not None and (pair.request is not None or pair.response is not None):
            self._out.append(self._exchange(talk, key, pair, event))

    def _exchange(
        self, talk: _Talk, key: tuple[int, int], pair: _Pair, event: Plaintext
    ) -> Exchange:
        request, response = pair.request, pair.response
        return Exchange(
            max(part.time_ns for part in (request, response) if part is not None),
            request.started_ns if request else 0,
            response.started_ns if response else 0,
            event.pid,
            event.tid,
            event.uid,
            event.comm,
            "client" if self._is_client(talk) else "server",
            event.conversation,
            event.connection,
            event.no_connection,
            key[0],
            key[1],
            request,
            response,
            pair.informational,
        )

    def _say(
        self,
        talk: _Talk,
        event: Plaintext,
        message: WebSocketMessage | ServerEvent | GrpcMessage | Note,
    ) -> None:
        to_server = message.direction is Direction.TO_SERVER
        self._out.append(
            Said(
                message.time_ns,
                event.pid,
                event.tid,
                event.uid,
                event.comm,
                "write" if to_server == self._is_client(talk) else "read",
                event.conversation,
                event.connection,
                event.no_connection,
                message,
            )
        )

    # --- protocols within protocols ---

    def _switched(self, talk: _Talk, switched: Switched) -> None:
        if switched.protocol == "h2c" and talk.http1 is not None:
            client = _WRITE if talk.writes_requests else _READ
            talk.http2 = Http2Connection(
                client=client, upgraded=True, content=ContentLimits(body=self._body_limit)
            )

    def _opaque(self, talk: _Talk, event: Plaintext, opaque: Opaque) -> None:
        side = (
            _WRITE if (opaque.direction is Direction.TO_SERVER) == talk.writes_requests else _READ
        )
        if talk.http1 is not None and talk.http2 is not None:
            talk.http1 = None
        if talk.http2 is not None:
            for message in talk.http2.feed(side, opaque.data, opaque.time_ns, opaque.gap):
                self._take(talk, event, message)
            return
        # A tunnel: what it carries is shown as it is.
        self._out.append(
            msgspec.structs.replace(event, payload=opaque.data, length=len(opaque.data))
        )

    # --- the end ---

    def _end(self, key: ConversationKey, now_ns: int, *, cut: bool) -> None:
        talk = self._talks.pop(key, None)
        if talk is None:
            return
        if talk.held:
            self._give_up(key, talk)
        event = talk.last
        if event is None:
            return
        messages: list[Message] = []
        if talk.http1 is not None:
            messages += talk.http1.end(now_ns, cut=cut)
        if talk.http2 is not None:
            messages += talk.http2.end(now_ns)
        for message in messages:
            self._take(talk, event, message)
        for number in list(talk.pairs):
            self._close_pair(talk, number, event)
