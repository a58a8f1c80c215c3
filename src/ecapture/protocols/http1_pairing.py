# SPDX-License-Identifier: Apache-2.0
"""What both directions of an HTTP/1 connection know of each other: who waits for what.

Responses answer requests in order (RFC 9112, 9.3.2). A response without a known request gets an
exchange of its own. When responses were lost, what was asked before the next request counts as
answered by them, as clients that pipeline are rare. That bytes are missing is known when the next
ones come, so then all but the last request count as answered; of a client that was seen to pipeline
all, as nobody can tell which of them are. At most ``MAX_WAITING`` requests are remembered; of the
oldest, which are forgotten first, the number stays known, so that answers keep their places.
"""

from __future__ import annotations

from collections import deque

from .messages import Switched

MAX_WAITING = 1024
"""How many requests may wait for their answer."""


class Exchange:
    """A request as far as its response has to know it; ``method`` is empty if it was not seen."""

    __slots__ = ("answered", "expect", "method", "number", "upgrade")

    def __init__(self, number: int, method: str = "") -> None:
        self.number = number
        self.method = method
        self.upgrade = ""
        self.expect = False
        self.answered = False


class Pairing:
    """What both parsers of a connection know of each other."""

    __slots__ = ("_forgotten", "_pipelines", "count", "extensions", "switch", "unsure", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[Exchange] = deque()
        self._forgotten = 0  # requests before those that wait, without an answer either
        self._pipelines = False  # whether a request was seen to be asked before an earlier answer
        self.count = 0
        self.unsure = False
        """Whether responses were lost since the last request."""
        self.switch: Switched | None = None
        """Set by the response that ends HTTP, taken by the connection."""
        self.extensions = ""
        """Its Sec-WebSocket-Extensions."""

    def ask(self, method: str) -> Exchange:
        """Register a request."""
        if self.unsure:
            self.waiting.clear()
            self._forgotten = 0
            self.unsure = False
        if len(self.waiting) >= MAX_WAITING:
            self.waiting.popleft()
            self._forgotten += 1
        self.count += 1
        exchange = Exchange(self.count, method)
        self.waiting.append(exchange)
        return exchange

    def answer(self, *, final: bool) -> Exchange:
        """Return what is answered next, and strike it off the list if this is the end of it."""
        if self._forgotten:
            # Nothing else is counted while requests wait, so the numbers before theirs are these.
            number = self.waiting[0].number - self._forgotten
            self._forgotten -= final
            return Exchange(number)
        if not self.waiting:
            self.count += 1
            self.waiting.append(Exchange(self.count))
        if not final:
            return self.waiting[0]
        exchange = self.waiting.popleft()
        exchange.answered = True
        self._pipelines = self._pipelines or bool(self.waiting)
        return exchange

    def lose(self, *, missing: bool) -> None:
        """Note that responses were lost; ``missing`` if bytes are, which is known late."""
        self.unsure = True
        if missing:
            self._forgotten = 0
            kept = 0 if self._pipelines else 1
            while len(self.waiting) > kept:
                self.waiting.popleft()
