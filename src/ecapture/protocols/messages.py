# SPDX-License-Identifier: Apache-2.0
"""What every parser speaks: the parts of a conversation as frozen values.

A parser turns bytes into a list of these, in the order in which the bytes complete them. For one
HTTP message that is one ``Head``, any number of ``Body`` pieces and one ``MessageComplete``, all
with the same ``(stream, exchange, direction)``. Other kinds of traffic are one value per message.

1. ``stream`` is the number that the protocol itself gives (HTTP/2); it is 0 where there is none.
   ``exchange`` counts requests where streams do not (HTTP/1); it stays 0 where streams do. So
   ``(stream, exchange)`` names one request and what answers it, in every protocol.
2. ``time_ns`` is the time that was passed in with the bytes which completed the value.
3. ``Body`` carries content after its codings were undone, and stops at the limit of its parser;
   ``MessageComplete`` tells the full sizes all the same.
4. What is not as it should be is a ``Mark``: within ``marks`` where one message is concerned, as a
   ``Note`` of its own where the connection is. ``problem`` says it for people.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Literal

import msgspec

Fields = tuple[tuple[str, str], ...]
"""Header or trailer fields in the order sent, names in the case sent, decoded as latin-1."""


class Direction(IntEnum):
    """Who speaks. Which of both ends is being observed does not matter here."""

    TO_SERVER = 0
    TO_CLIENT = 1


class Mark(StrEnum):
    """Why a message is not simply what was sent."""

    JOINED_LATE = "joined late"
    """The beginning was before the capture."""
    GAP = "gap"
    """Bytes are missing within or just before."""
    MALFORMED = "malformed"
    """The bytes break the rules of their protocol; what could be read is shown."""
    LIMITED = "limited"
    """A limit of the parser was reached: count or size of fields, expansion of a coding."""
    AMBIGUOUS = "ambiguous"
    """Two readers could take it for different messages (request smuggling, RFC 9112, 11.2)."""
    UNDECODED = "undecoded"
    """A coding is unknown here, or its library is not installed: content is shown as sent."""
    UNFINISHED = "unfinished"
    """The connection or the capture ended first."""
    ABANDONED = "abandoned"
    """One side gave the stream or the connection up on purpose (RST_STREAM, GOAWAY)."""
    PROMISED = "promised"
    """No client sent this request: a server announced that it will answer it (PUSH_PROMISE)."""


class Message(msgspec.Struct, frozen=True, gc=False, tag=True):
    """What all values here have: who spoke, when (nanoseconds), and on which stream."""

    direction: Direction
    time_ns: int
    stream: int = 0
    exchange: int = 0


class Head(Message, frozen=True, gc=False, tag=True):
    """The start line and header fields of a request or response, complete.

    ``version`` is as in ``1.1`` and ``2``. ``size`` counts the bytes that were sent for it
    (compressed, where the protocol compresses). Informational (1xx) responses are heads that no
    body and no ``MessageComplete`` follows, except 101, which ends its exchange. ``authority`` and
    ``scheme`` are what HTTP/2 sent for them.
    """

    kind: Literal["request", "response"] = "request"
    method: str = ""
    target: str = ""
    status: int = 0
    reason: str = ""
    version: str = ""
    fields: Fields = ()
    authority: str = ""
    scheme: str = ""
    size: int = 0
    marks: tuple[Mark, ...] = ()
    problem: str = ""

    @property
    def informational(self) -> bool:
        """Whether another head will answer the same request (RFC 9110, 15.2)."""
        return 100 <= self.status < 200 and self.status != 101

    def get(self, name: str, default: str = "") -> str:
        """Return the value of the first field of that name, in any case."""
        wanted = name.lower()
        for key, value in self.fields:
            if key.lower() == wanted:
                return value
        return default


class Body(Message, frozen=True, gc=False, tag=True):
    """The next piece of content, its codings undone, never empty."""

    data: bytes = b""


class MessageComplete(Message, frozen=True, gc=False, tag=True):
    """The end of what the last ``Head`` of the same stream, exchange and direction began.

    ``size`` is the content's length as sent, without the framing; ``decoded_size`` is its length
    after the codings (a lower bound when marked limited); ``kept`` is how much of that the
    ``Body`` pieces carried. ``codings`` are those that were undone, outermost first.
    """

    size: int = 0
    decoded_size: int = 0
    kept: int = 0
    codings: tuple[str, ...] = ()
    trailers: Fields = ()
    marks: tuple[Mark, ...] = ()
    problem: str = ""

    @property
    def truncated(self) -> bool:
        """Whether content was left out of the ``Body`` pieces."""
        return self.kept < self.decoded_size


class Note(Message, frozen=True, gc=False, tag=True):
    """Something to be said about the connection, or about a stream, rather than a message.

    ``size`` counts the bytes concerned (missing or passed over) where they are known.
    """

    mark: Mark = Mark.MALFORMED
    detail: str = ""
    size: int = 0


class Switched(Message, frozen=True, gc=False, tag=True):
    """Both directions speak something else from here on.

    ``protocol`` is the upgrade token in lower case (RFC 9110, 7.8), or ``tunnel`` after CONNECT.
    """

    protocol: str = ""


class Opaque(Message, frozen=True, gc=False, tag=True):
    """Bytes for whoever reads the protocol that was switched to; ``gap`` bytes before are lost."""

    data: bytes = b""
    gap: int = 0


class WebSocketMessage(Message, frozen=True, gc=False, tag=True):
    """One message or control frame of RFC 6455, unmasked and inflated.

    ``size`` is the payload as sent, ``decoded_size`` after inflating; ``data`` has the part of it
    within the limit. Text is left as bytes: invalid UTF-8 is marked, never refused.
    """

    kind: Literal["text", "binary", "close", "ping", "pong", "unknown"] = "unknown"
    data: bytes = b""
    size: int = 0
    decoded_size: int = 0
    fragments: int = 1
    compressed: bool = False
    close_code: int = 0
    marks: tuple[Mark, ...] = ()
    problem: str = ""


class ServerEvent(Message, frozen=True, gc=False, tag=True):
    """One server-sent event (HTML standard, 9.2.6). ``retry_ms`` is -1 where none was given.

    ``size`` counts the bytes of its lines, without their ends and with what no field came of.
    """

    event: str = "message"
    data: str = ""
    last_id: str = ""
    retry_ms: int = -1
    size: int = 0
    marks: tuple[Mark, ...] = ()


class GrpcMessage(Message, frozen=True, gc=False, tag=True):
    """One message of a gRPC call, in place of the ``Body`` pieces of its stream.

    ``number`` counts from 0 within one direction of a stream. ``size`` is the length as sent,
    ``decoded_size`` after the message encoding was undone, ``data`` the part within the limit.
    """

    number: int = 0
    data: bytes = b""
    size: int = 0
    decoded_size: int = 0
    compressed: bool = False
    marks: tuple[Mark, ...] = ()
    problem: str = ""
