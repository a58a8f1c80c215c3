# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.0 and 1.1 (RFC 9112), read passively from both directions of one connection.

``Http1Connection`` owns a parser for each direction and pairs responses with requests: where a
response ends depends on the request's method, and 101 or CONNECT end HTTP in both directions.
``http1_parser`` has the rules by which one direction is read, ``http1_head`` the grammar and the
reasons why h11 is not used, ``http1_seek`` the search for a place in the stream, ``http1_pairing``
who answers whom.
"""

from __future__ import annotations

from .body import BODY_LIMIT
from .http1_pairing import Pairing
from .http1_parser import MAX_FIELDS, MAX_HEAD, Http1Parser
from .messages import Direction, Message, Opaque
from .websocket import WebSocketConnection
from .websocket_deflate import Deflate


class Http1Connection:
    """Both directions of one connection, from any point of its life.

    ``feed`` and ``end`` return what the bytes complete, in order. After ``Switched`` the messages
    are those of WebSocket where it was that, and ``Opaque`` pieces otherwise, for another parser to
    read. ``body_limit`` bounds the content given out per message; ``max_head`` and ``max_fields``
    bound heads. Exchanges are numbered from ``after`` on: those of a connection within another.
    """

    def __init__(
        self,
        *,
        body_limit: int = BODY_LIMIT,
        max_head: int = MAX_HEAD,
        max_fields: int = MAX_FIELDS,
        after: int = 0,
    ) -> None:
        self._pairing = Pairing()
        self._pairing.count = after
        self._body_limit = body_limit
        self._parsers = tuple(
            Http1Parser(
                direction,
                self._pairing,
                body_limit=body_limit,
                max_head=max_head,
                max_fields=max_fields,
            )
            for direction in Direction
        )
        self._websocket: WebSocketConnection | None = None
        self.switched = ""
        """The protocol that was switched to, as in ``Switched``; empty while it is HTTP."""
        self._exchange = 0

    @property
    def count(self) -> int:
        """The number of the last exchange."""
        return self._pairing.count

    @property
    def unasked(self) -> bool:
        """Whether a response that begins now would answer no request that was seen."""
        return (
            not self._pairing.waiting
            and not self.switched
            and self._parsers[Direction.TO_CLIENT].between
        )

    def feed(self, direction: Direction, data: bytes, time_ns: int, gap: int = 0) -> list[Message]:
        """Take the next bytes of one direction, before which ``gap`` are missing (-1: some)."""
        if self.switched:
            return self._pass_on(direction, data, time_ns, gap)
        out: list[Message] = []
        rest = self._parsers[direction].feed(data, time_ns, out, gap)
        switch = self._pairing.switch
        if switch is not None:
            self._pairing.switch = None
            out.append(switch)
            self.switched = switch.protocol
            self._exchange = switch.exchange
            if switch.protocol == "websocket":
                self._websocket = WebSocketConnection(
                    deflate=Deflate.agreed(self._pairing.extensions),
                    message_limit=self._body_limit,
                    exchange=switch.exchange,
                )
            early = self._parsers[Direction.TO_SERVER].switch(out)
            if early:
                out += self._pass_on(Direction.TO_SERVER, early, time_ns, 0)
        if rest:
            out += self._pass_on(direction, rest, time_ns, 0)
        return out

    def _pass_on(self, direction: Direction, data: bytes, time_ns: int, gap: int) -> list[Message]:
        if self._websocket is not None:
            return self._websocket.feed(direction, data, time_ns, gap)
        return [Opaque(direction, time_ns, 0, self._exchange, data, gap)]

    def end(
        self, time_ns: int, direction: Direction | None = None, *, cut: bool = False
    ) -> list[Message]:
        """Take the end of one direction or both; ``cut`` if it is the capture that ends.

        What was unfinished is given out, marked so. Content that lasts until the connection is
        closed is complete then, unless cut.
        """
        out: list[Message] = []
        if self._websocket is not None:
            return self._websocket.end(time_ns) if direction is None else out
        for which in Direction if direction is None else (direction,):
            self._parsers[which].end(time_ns, out, cut=cut)
        return out
