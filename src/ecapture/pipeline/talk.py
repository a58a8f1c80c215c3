# SPDX-License-Identifier: Apache-2.0
"""One conversation whose protocol is known: parsers fed, and what they return put together.

``HttpMessage`` comes as soon as a message is complete, ``Exchange`` when both its sides are,
``Said`` for messages of other kinds. Informational responses (1xx) are messages of their own, and
kept for the exchange that they announce.

1. What is missing (a gap, or the end of a payload that is shorter than its length) is told to the
   parser at once, so that what it completes is not held up.
2. A pair lives until its response is complete, or is sure not to come: the stream was given up, or
   a later request of HTTP/1 was answered. Of those that wait for ever the oldest give way.
3. Calls are heard when they return, so where threads share a connection an answer may be heard
   before its question. A response of HTTP/1 that a client did not ask for is early, if all that was
   asked must have been heard: it waits for ``EARLY_NS``, until the owner releases it. In HTTP/2 its
   pair waits.
4. In a tunnel (CONNECT) every piece is looked at once, as those of unknown conversations are; if
   HTTP begins there beyond doubt, it is read on.
5. Content is kept up to the parser's limit per message and up to an ``Allowance`` in all; what
   finds no room is not kept, and its message says so.

Events are made with positional arguments: per message that is a microsecond.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from ecapture.events import Event, Exchange, Gap, HttpMessage, Plaintext, Said
from ecapture.protocols.detect import Protocol, resume
from ecapture.protocols.grpc import MESSAGE_LIMIT
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

READ: Final = 0
WRITE: Final = 1

_MAXIMUM_PAIRS: Final = 4096
"""Requests of one conversation that wait for their responses."""
_GIVING_WAY: Final = 1024
_MAXIMUM_INFORMATIONAL: Final = 16
EARLY_NS: Final = 50_000_000
"""How long a response waits for its request to be heard; a call of a preempted thread returns late
by some turns of the scheduler."""
_MAXIMUM_EARLY: Final = 64
_NO_ROOM: Final = "too much content is waiting, the rest of it is not kept"
_MANY_INFORMATIONAL: Final = "more informational responses came than an exchange keeps"
_SWITCHING: Final = 101
_UPGRADED: Final = 1
"""The stream that answers the request that asked for the upgrade to h2c (RFC 7540, 3.2)."""
_FRAME_HEAD: Final = 9  # bytes (RFC 9113, 4.1)
_TO_SERVER: Final = Direction.TO_SERVER
_TO_CLIENT: Final = Direction.TO_CLIENT


def _upgrades(head: Head) -> bool:
    """Whether the answer is yet to come: in HTTP/2, on the stream that stands for the request."""
    return head.status == _SWITCHING and head.get("upgrade").strip().lower() == "h2c"


class Allowance:
    """How much content (bytes) may wait in unfinished messages and exchanges of all talks."""

    __slots__ = ("left",)

    def __init__(self, size: int) -> None:
        self.left = size


class _Part:
    """A message whose content is coming in."""

    __slots__ = ("content", "head", "limited", "separate")

    def __init__(self, head: Head) -> None:
        self.head = head
        self.content: bytes | bytearray = b""  # the latter from the second piece on
        self.limited = False
        # Whether its content is given out as messages of its own, and so not kept again.
        self.separate = False


class _Pair:
    """A request and its response, while they are becoming an exchange."""

    __slots__ = ("answered", "asked", "informational", "kept", "request", "response")

    def __init__(self) -> None:
        self.asked: _Part | None = None
        self.answered: _Part | None = None
        self.request: HttpMessage | None = None
        self.response: HttpMessage | None = None
        self.informational: tuple[Head, ...] = ()
        self.kept = 0  # of the allowance


class Talk:
    """Reads one conversation.

    ``client_writes``: whether the process is the client; HTTP/2 finds that out by itself.
    ``from_start``: whether nothing was said before ``event``. ``whole``: whether responses keep the
    content that is given out as server-sent events, too. ``waiting`` has the talk in it while
    it has to be asked to ``release`` what is early.
    """

    __slots__ = (
        "_allowance",
        "_client_writes",
        "_early",
        "_event",
        "_heard",
        "_http1",
        "_http2",
        "_limits",
        "_lossy",
        "_missed",
        "_out",
        "_pairs",
        "_shown_to",
        "_told_to",
        "_waiting",
        "_whole",
    )

    def __init__(
        self,
        protocol: Protocol,
        event: Plaintext,
        *,
        client_writes: bool,
        from_start: bool,
        whole: bool,
        body_limit: int,
        allowance: Allowance,
        waiting: dict[Talk, None],
    ) -> None:
        self._limits = ContentLimits(body_limit, min(body_limit, MESSAGE_LIMIT))
        self._http1: Http1Connection | None = None
        self._http2: Http2Connection | None = None
        self._client_writes = client_writes
        if protocol is Protocol.HTTP1:
            self._http1 = Http1Connection(body_limit=body_limit)
        else:
            self._http2 = Http2Connection(content=self._limits)
            self._client_writes = True  # what its parser assumes until it knows
        self._allowance = allowance
        # By stream (HTTP/2), or by the negative number of the exchange (HTTP/1).
        self._pairs: dict[int, _Pair] = {}
        self._event = event
        self._out: list[Event] = []
        self._waiting = waiting
        self._whole = whole
        # Whether every request was heard: from the beginning, or since the first one on.
        self._heard = from_start
        self._lossy = False
        self._missed: Gap | None = None  # while it is read
        # Up to where in its stream each side was told, and up to where in its payload the event
        # was shown as it is.
        self._told_to = [0, 0]
        self._shown_to = 0
        # What was heard too early: the event that it is of, the payload, its time, what is missing.
        self._early: list[tuple[Plaintext, bytes, int, int]] = []

    def read(self, event: Plaintext, out: list[Event]) -> None:
        """Read on, and append to ``out`` what is complete thereby."""
        self._event = event
        self._out = out
        payload = event.payload
        side = WRITE if event.direction == "write" else READ
        self._told_to[side] = event.stream_offset + len(payload)
        self._shown_to = 0
        if payload:
            self._feed(side, payload, event.time_ns, 0)
        missing = event.length - len(payload)
        if missing > 0:
            self._lossy = True
            self._feed(side, b"", event.time_ns, missing)

    def miss(self, gap: Gap, out: list[Event]) -> None:
        """Note that bytes are lost here."""
        self._out = out
        self._lossy = True
        self._missed = gap
        self._feed(WRITE if gap.direction == "write" else READ, b"", gap.time_ns, gap.length)
        self._missed = None

    def end(self, time_ns: int, out: list[Event], *, cut: bool) -> None:
        """End the conversation, or the capture if ``cut``: all that waits is given out.

        Without a time of the end it is that of the last event.
        """
        self._out = out
        time_ns = time_ns or self._event.time_ns
        self._hear()
        messages: list[Message] = []
        if self._http1 is not None:
            messages += self._http1.end(time_ns, cut=cut)
        if self._http2 is not None:
            messages += self._http2.end(time_ns)
        self._take(messages)
        for key in list(self._pairs):
            self._close(key)

    def _feed(self, side: int, payload: bytes, time_ns: int, gap: int) -> None:
        if self._http1 is not None:
            if side == READ and self._client_writes and (self._early or self._is_early()):
                self._wait(payload, time_ns, gap)
                return
            to_server = (side == WRITE) is self._client_writes
            direction = _TO_SERVER if to_server else _TO_CLIENT
            self._take(self._http1.feed(direction, payload, time_ns, gap))
            if self._early and not (self._http1 is not None and self._http1.unasked):
                self._hear()
        elif self._http2 is not None:
            messages = self._http2.feed(side, payload, time_ns, gap)
            client = self._http2.client
            if client is not None:
                self._client_writes = client == WRITE
            self._take(messages)

    # --- answers before their questions ---

    def _is_early(self) -> bool:
        return self._heard and not self._lossy and self._http1 is not None and self._http1.unasked

    def _wait(self, payload: bytes, time_ns: int, gap: int) -> None:
        self._early.append((self._event, payload, time_ns, gap))
        self._waiting[self] = None
        if len(self._early) > _MAXIMUM_EARLY:
            self._hear()

    def release(self, now_ns: int, out: list[Event]) -> None:
        """Read what has waited for long enough."""
        if now_ns - self._early[0][2] > EARLY_NS:
            self._out = out
            self._hear()

    def _hear(self) -> None:
        early, self._early = self._early, []
        self._waiting.pop(self, None)
        event = self._event
        for self._event, payload, time_ns, gap in early:
            self._shown_to = 0
            if self._http1 is not None:
                self._take(self._http1.feed(_TO_CLIENT, payload, time_ns, gap))
            else:
                self._feed(READ, payload, time_ns, gap)
        self._event = event

    # --- what was read ---

    def _take(self, messages: list[Message]) -> None:
        for message in messages:
            kind = type(message)
            if kind is Head:
                self._head(message)  # type: ignore[arg-type]
            elif kind is MessageComplete:
                self._complete(message)  # type: ignore[arg-type]
            elif kind is Body:
                self._body(message)  # type: ignore[arg-type]
            elif kind is Switched:
                self._switched(message)  # type: ignore[arg-type]
            elif kind is Opaque:
                self._opaque(message)  # type: ignore[arg-type]
            else:
                self._say(message)  # type: ignore[arg-type]

    def _head(self, head: Head) -> None:
        key = head.stream or -head.exchange
        pair = self._pairs.get(key)
        if pair is None:
            pair = self._pairs[key] = _Pair()
            if len(self._pairs) > _MAXIMUM_PAIRS:
                self._make_way()
        if head.kind == "request":
            if pair.request is not None:
                pair = self._again(key, pair)
            pair.asked = _Part(head)
            self._heard = True
        elif not (head.informational or _upgrades(head)):
            if pair.response is not None:
                pair = self._again(key, pair)
            pair.answered = _Part(head)
        else:
            if len(pair.informational) <= _MAXIMUM_INFORMATIONAL:
                pair.informational += (head,)
            self._out.append(self._message(head, head.time_ns))

    def _again(self, key: int, pair: _Pair) -> _Pair:
        # A second message for one place, as from who was taken for the other side until now.
        self._close(key)
        fresh = self._pairs[key] = _Pair()
        fresh.asked, fresh.answered = pair.asked, pair.answered
        fresh.kept = sum(len(p.content) for p in (pair.asked, pair.answered) if p is not None)
        self._allowance.left -= fresh.kept
        return fresh

    def _body(self, body: Body) -> None:
        pair = self._pairs.get(body.stream or -body.exchange)
        if pair is None:
            return
        part = pair.asked if body.direction is _TO_SERVER else pair.answered
        if part is None or part.separate or part.limited:
            return
        size = len(body.data)
        if size > self._allowance.left:
            part.limited = True
            return
        self._allowance.left -= size
        pair.kept += size
        content = part.content
        if not content:
            part.content = body.data
        elif type(content) is bytearray:
            content += body.data
        else:
            part.content = bytearray(content) + body.data

    def _complete(self, end: MessageComplete) -> None:
        key = end.stream or -end.exchange
        pair = self._pairs.get(key)
        if pair is None:
            return
        to_server = end.direction is _TO_SERVER
        part = pair.asked if to_server else pair.answered
        if part is None:
            return
        head = part.head
        marks, problem = end.marks, head.problem or end.problem
        if head.marks:
            marks = head.marks + tuple(mark for mark in marks if mark not in head.marks)
        if part.limited:
            marks, problem = (*marks, Mark.LIMITED), problem or _NO_ROOM
        if not to_server and len(pair.informational) > _MAXIMUM_INFORMATIONAL:
            marks, problem = (*marks, Mark.LIMITED), problem or _MANY_INFORMATIONAL
        message = self._message(
            head,
            end.time_ns,
            bytes(part.content),
            end.size,
            end.decoded_size,
            end.codings,
            end.trailers,
            marks,
            problem,
        )
        self._out.append(message)
        if to_server:
            pair.request, pair.asked = message, None
            if pair.answered is None and (pair.response is not None or Mark.ABANDONED in marks):
                self._close(key)
        else:
            pair.response, pair.answered = message, None
            if pair.asked is None and (pair.request is not None or not self._follows(key)):
                self._close(key)
                if key < 0 and self._pairs:
                    self._unanswered(key)

    def _message(
        self,
        head: Head,
        time_ns: int,
        *content: Any,  # the fields of HttpMessage from ``body`` on
    ) -> HttpMessage:
        event = self._event
        return HttpMessage(
            time_ns,
            head.time_ns,
            event.pid,
            event.tid,
            event.uid,
            event.comm,
            "write" if (head.direction is _TO_SERVER) is self._client_writes else "read",
            event.conversation,
            event.connection,
            event.no_connection,
            head.stream,
            head.exchange,
            head,
            *content,
        )

    def _follows(self, key: int) -> bool:
        return key > 0 and self._http2 is not None and self._http2.follows(key)

    def _close(self, key: int) -> None:
        # Give out the exchange, unless there is nothing of it.
        pair = self._pairs.pop(key)
        self._allowance.left += pair.kept
        request, response = pair.request, pair.response
        either = response or request
        if either is None:
            return
        event = self._event
        self._out.append(
            Exchange(
                either.time_ns if request is None else max(either.time_ns, request.time_ns),
                request.started_ns if request is not None else 0,
                response.started_ns if response is not None else 0,
                event.pid,
                event.tid,
                event.uid,
                event.comm,
                "client" if self._client_writes else "server",
                event.conversation,
                event.connection,
                event.no_connection,
                either.stream,
                either.exchange,
                request,
                response,
                pair.informational[:_MAXIMUM_INFORMATIONAL],
                event.negotiated,
            )
        )

    def _unanswered(self, answered: int) -> None:
        # Responses come in the order of their requests, so the ones before were lost.
        for key in [key for key in self._pairs if answered < key < 0]:
            pair = self._pairs[key]
            if pair.asked is None and pair.answered is None:
                self._close(key)

    def _make_way(self) -> None:
        waiting = [k for k, p in self._pairs.items() if p.asked is None and p.answered is None]
        for key in waiting[:_GIVING_WAY]:
            self._close(key)

    def _say(self, message: WebSocketMessage | ServerEvent | GrpcMessage | Note) -> None:
        event = self._event
        to_server = message.direction is _TO_SERVER
        key = message.stream or -message.exchange
        pair = self._pairs.get(key)
        apart = GrpcMessage if self._whole else (GrpcMessage, ServerEvent)
        if pair is not None and isinstance(message, apart):
            part = pair.asked if to_server else pair.answered
            if part is not None and not part.separate:
                part.separate = True
                size = len(part.content)
                self._allowance.left += size
                pair.kept -= size
                part.content = b""
        self._out.append(
            Said(
                message.time_ns,
                event.pid,
                event.tid,
                event.uid,
                event.comm,
                "write" if to_server is self._client_writes else "read",
                event.conversation,
                event.connection,
                event.no_connection,
                message,
                event.negotiated,
            )
        )
        if (
            pair is not None
            and isinstance(message, Note)
            and message.mark is Mark.ABANDONED
            and pair.asked is None
            and pair.answered is None
        ):
            self._close(key)

    # --- protocols within protocols ---

    def _switched(self, switched: Switched) -> None:
        if switched.protocol == "h2c" and self._http1 is not None:
            self._http1 = None
            pair = self._pairs.pop(-switched.exchange, None)
            if pair is not None:
                self._pairs[_UPGRADED] = pair
            self._http2 = Http2Connection(
                client=WRITE if self._client_writes else READ, upgraded=True, content=self._limits
            )

    def _tunnelled(self, http: Http1Connection, opaque: Opaque, side: int) -> bool:
        """Read what a tunnel carries, if that is HTTP."""
        data, now, gap = opaque.data, opaque.time_ns, opaque.gap
        if not http.switched:  # it was found to be that by the piece before
            self._take(http.feed(opaque.direction, data, now, gap))
            return True
        protocol = resume(data) if http.switched == "tunnel" else None
        if protocol is Protocol.HTTP1:
            self._http1 = Http1Connection(body_limit=self._limits.body, after=http.count)
            self._take(self._http1.feed(opaque.direction, data, now, gap))
        elif protocol is Protocol.HTTP2:
            # Who asked for the tunnel speaks first in it.
            client = WRITE if self._client_writes else READ
            self._http1 = None
            self._http2 = Http2Connection(client=client, content=self._limits)
            self._take(self._http2.feed(side, data, now, gap))
        return protocol is not None

    def _opaque(self, opaque: Opaque) -> None:
        to_server = opaque.direction is _TO_SERVER
        side = WRITE if to_server is self._client_writes else READ
        if self._http2 is not None and not opaque.stream:
            # Came in the same piece as the end of HTTP/1.
            self._take(self._http2.feed(side, opaque.data, opaque.time_ns, opaque.gap))
            return
        if self._http1 is not None and self._tunnelled(self._http1, opaque, side):
            return
        # What else it carries is shown as it is, at the place in its call where it stood.
        event, data = self._event, opaque.data
        direction: Literal["read", "write"] = "write" if side == WRITE else "read"
        if opaque.gap > 0:
            self._lost(opaque, direction)
        if not data:
            return
        if len(data) == len(event.payload) and direction == event.direction:
            self._out.append(event)
            return
        if direction != event.direction:
            # It came before who it is for had agreed, and ends what that side said until now.
            call_length, call_offset = len(data), 0
            stream_offset = self._told_to[side] - len(data)
        else:
            if opaque.stream:  # in a frame among others, each with a head
                sought = self._shown_to and self._shown_to + _FRAME_HEAD
                before = max(event.payload.find(data, sought), 0)
            else:
                before = len(event.payload) - len(data) if event.payload.endswith(data) else 0
            self._shown_to = before + len(data)
            call_length, call_offset = event.call_length, event.call_offset + before
            stream_offset = event.stream_offset + before
        self._out.append(
            msgspec.structs.replace(
                event,
                direction=direction,
                payload=data,
                length=len(data),
                missing="",
                stream_offset=stream_offset,
                call_length=call_length,
                call_offset=call_offset,
            )
        )

    def _lost(self, opaque: Opaque, direction: Literal["read", "write"]) -> None:
        # Bytes of what is shown as it is are missing: a gap, or the end of a payload.
        event, missed = self._event, self._missed
        if missed is not None and not opaque.stream:
            self._out.append(missed)
        elif missed is None and self._out and self._out[-1] is event:
            return  # which says so itself
        elif missed is None and not event.payload and not opaque.stream:
            self._out.append(event)
        else:
            self._out.append(
                Gap(
                    opaque.time_ns,
                    event.pid,
                    event.comm,
                    direction,
                    event.conversation,
                    event.connection,
                    event.stream_offset + len(event.payload)
                    if missed is None
                    else missed.stream_offset,
                    opaque.gap,
                )
            )
