# SPDX-License-Identifier: Apache-2.0
"""A conversation over HTTP/1 put to the parser, and what came of it in short."""

from ecapture.protocols.http1 import Http1Connection
from ecapture.protocols.messages import Body, Direction, Head, Mark, MessageComplete, Note

TO_SERVER, TO_CLIENT = Direction
GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
HEAD = b"HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
LENGTH = b"POST /a HTTP/1.1\r\nContent-Length: 9\r\n\r\n"
CHUNKED = b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
UNENDED = (1, "end", Mark.UNFINISHED)


def talk(*steps, end=True, cut=False, **limits):
    """Feed steps of (direction, bytes[, gap]); the time is the step's number."""
    connection = Http1Connection(**limits)
    out = []
    for number, (direction, data, *gap) in enumerate(steps):
        out += connection.feed(direction, data, number, *gap)
    return out + (connection.end(len(steps), cut=cut) if end else [])


def short(messages):
    """Say what was said: heads by their start, content, ends, and marks where there are any."""
    out = []
    for m in messages:
        match m:
            case Head():
                out.append((m.exchange, m.target or m.status, *m.marks))
            case Body():
                out.append((m.exchange, m.data))
            case MessageComplete():
                out.append((m.exchange, "end", *m.marks))
            case Note():
                out.append((m.mark, m.size))
            case other:
                out.append(other)
    return out
