# SPDX-License-Identifier: Apache-2.0
"""Exchanges as an HTTP Archive (HAR 1.2), which browsers and proxies open.

An archive is one JSON object, and a capture may be killed at any time. So the file ends with its
closing brackets after every batch, and the next batch overwrites them:

    opening()        the beginning, then the tail
    encode(events)   (n, pieces): the last n bytes of the file give way to the pieces
    closing()        what is still to be written at the end: nothing

``n`` is the length of the tail, or 0 if there is nothing to write. Pieces always reach at least as
far as what they replace, so a file never has to be cut. Written with one call, whatever was
complete before is valid after it. Where nothing can be overwritten (``seekable=False``: pipes,
sockets), ``n`` is always 0 and the tail comes with ``closing``.

1. What is not an exchange is not in an archive: messages of WebSocket and of gRPC. A stream of
   events is the content of its response. A response whose request was not seen has a request with
   the method UNKNOWN and the URL of its peer; a request without a response has one with the status
   0. Both have a ``comment`` and ``_marks``.
2. ``send`` ends with the request's last byte, ``receive`` begins with the response's header fields
   (the first that is known of it); ``wait`` is between. A response that begins before the request
   has ended (gRPC, early refusals) ends ``send``: times never overlap. Name resolution, connecting
   and the handshake are not seen: -1.
3. HTTP/2 is "HTTP/2", which Firefox writes and mitmproxy 11 understands; it takes "HTTP/2.0" for
   HTTP/1.1. Lengths of its header blocks are those sent, compressed; pseudo-header fields are in
   the method, URL and status.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from ecapture.events import Event, Exchange, HttpMessage
from ecapture.formats import har_types as types
from ecapture.formats.content import content_type, field_text, text_of
from ecapture.formats.header_line import HeaderLine, all_marks
from ecapture.formats.http_parts import (
    Cookie,
    Parameter,
    cookies_of,
    form_of,
    query_of,
    set_cookies_of,
    url_of,
)
from ecapture.formats.jsonl import conversation_name, no_container
from ecapture.formats.words import endpoint, escaped_json
from ecapture.protocols.grpc import is_grpc
from ecapture.protocols.messages import Direction, Fields, Head

_TAIL: Final = b"\n]}}\n"
_NO_REQUEST: Final = "the request was not seen"
_NO_RESPONSE: Final = "no response was seen"
_VERSIONS: Final = {"2": "HTTP/2", "": ""}


class HarFormat:
    """Events to bytes.

    ``version`` is ours. ``container_of`` and ``terminal`` as in ``jsonl``. ``seekable``: what was
    written can be overwritten.
    """

    def __init__(
        self,
        *,
        version: str = "",
        container_of: Callable[[int], str] = no_container,
        seekable: bool = True,
        terminal: bool = False,
    ) -> None:
        self._terminal = terminal
        self._creator = {"name": "ecapture", "version": version}
        self._container_of = container_of
        self._seekable = seekable
        self._time = HeaderLine().time
        self._encoder = msgspec.json.Encoder()
        self._between = b"\n"

    def opening(self) -> bytes:
        """The beginning of a file. A further call begins the next one."""
        self._between = b"\n"
        creator = self._encoder.encode(self._creator)
        begin = b'{"log":{"version":"1.2","creator":%b,"pages":[],"entries":[' % creator
        return begin + _TAIL if self._seekable else begin

    def encode(self, events: list[Event]) -> tuple[int, list[bytes]]:
        """How many bytes at the end to overwrite, and what with."""
        pieces: list[bytes] = []
        for event in events:
            if isinstance(event, Exchange):
                entry = self._encoder.encode(self.entry(event))
                pieces += (self._between, escaped_json(entry) if self._terminal else entry)
                self._between = b",\n"
        if not pieces or not self._seekable:
            return 0, pieces
        pieces.append(_TAIL)
        return len(_TAIL), pieces

    def closing(self) -> bytes:
        """The end of a file, if it is not there already."""
        return b"" if self._seekable else _TAIL

    def entry(self, event: Exchange) -> types.Entry:
        """What the archive says of an exchange."""
        request, response = event.request, event.response
        server = event.role == "server"
        timings = _timings(request, response)
        marks: list[str] = []
        problem = ""
        for part in (request, response):
            if part is not None:
                marks += all_marks(part)
                problem = problem or part.problem or part.head.problem
        entry = types.Entry(
            self._started(event),
            round(timings.send + timings.wait + timings.receive, 6),
            _request(request, server=server) if request else _no_request(event, server=server),
            _response(response) if response else _no_response(),
            types.Cache(),
            timings,
            conversation_name(event.conversation),
            event.pid,
            event.tid,
            event.uid,
            event.comm,
            self._container_of(event.pid),
            event.role,
            "incoming" if server else "outgoing",
            event.stream,
            list(dict.fromkeys(marks)),
            problem,
        )
        connection = event.connection
        if connection is not None:
            entry.server_ip_address = connection.local if server else connection.remote
            entry.local = endpoint(connection.local, connection.local_port)
            entry.remote = endpoint(connection.remote, connection.remote_port)
        agreed = event.negotiated
        if agreed is not None:
            entry.tls_version = agreed.version
            entry.tls_cipher = agreed.cipher
        if request is None:
            entry.comment = _NO_REQUEST
        elif response is None:
            entry.comment = _NO_RESPONSE
        return entry

    def _started(self, event: Exchange) -> str:
        first = event.request or event.response
        time_ns = first.started_ns if first is not None else event.time_ns
        # Six digits are what readers know: Python's datetime takes no more.
        return self._time(time_ns)[:26] + "Z"


def _milliseconds(nanoseconds: int) -> float:
    return max(nanoseconds, 0) / 1e6


def _timings(request: HttpMessage | None, response: HttpMessage | None) -> types.Timings:
    send = wait = receive = 0.0
    if request is not None:
        sent_ns = request.time_ns
        if response is not None:
            sent_ns = min(sent_ns, response.started_ns)
        send = _milliseconds(sent_ns - request.started_ns)
    if response is not None:
        receive = _milliseconds(response.time_ns - response.started_ns)
        if request is not None:
            wait = _milliseconds(response.started_ns - request.time_ns)
    return types.Timings(send, wait, receive)


def _version(head: Head) -> str:
    known = _VERSIONS.get(head.version)
    return f"HTTP/{head.version}" if known is None else known


def _fields(fields: Fields) -> list[types.NameValue]:
    return [
        types.NameValue(name, value if value.isascii() else field_text(value))
        for name, value in fields
    ]


def _trailers(message: HttpMessage) -> list[types.NameValue] | UnsetType:
    return _fields(message.trailers) if message.trailers else UNSET


def _text(message: HttpMessage) -> tuple[str, bool]:
    """The content, and whether it had to be put into base64."""
    body = message.body
    kind = content_type(message.head)
    text = text_of(body, kind, cut=len(body) < message.decoded_size)
    return (base64.b64encode(body).decode(), True) if text is None else (text, False)


def _cut(message: HttpMessage) -> str | UnsetType:
    left = message.decoded_size - len(message.body)
    if left > 0 and is_grpc(message.head.get("content-type")):
        return f"{left} bytes of gRPC messages, which an archive has no place for"
    return f"{left} more bytes not kept" if left > 0 else UNSET


def _request(message: HttpMessage, *, server: bool) -> types.Request:
    head = message.head
    request = types.Request(
        field_text(head.method) or "UNKNOWN",
        url_of(head, message.connection, server=server),
        _version(head),
        [types.Cookie(cookie.name, cookie.value) for cookie in cookies_of(head)],
        _fields(head.fields),
        [types.NameValue(*item) for item in query_of(head.target)],
        head.size or -1,
        message.size,
        trailers=_trailers(message),
    )
    if message.decoded_size or message.body:
        text, encoded = _text(message)
        request.post_data = types.PostData(
            field_text(head.get("content-type")),
            text,
            [_param(parameter) for parameter in form_of(message)],
            "base64" if encoded else UNSET,
            _cut(message),
        )
    return request


def _param(parameter: Parameter) -> types.Param:
    return types.Param(
        parameter.name,
        UNSET if parameter.value is None else parameter.value,
        parameter.file_name or UNSET,
        parameter.content_type or UNSET,
    )


def _no_request(event: Exchange, *, server: bool) -> types.Request:
    unseen = Head(Direction.TO_SERVER, event.time_ns, target="/")
    url = url_of(unseen, event.connection, server=server)
    return types.Request("UNKNOWN", url, "", [], [], [], -1, -1)


def _response(message: HttpMessage) -> types.Response:
    head = message.head
    return types.Response(
        head.status,
        field_text(head.reason),
        _version(head),
        [_set_cookie(cookie) for cookie in set_cookies_of(head)],
        _fields(head.fields),
        _content(message),
        field_text(head.get("location")),
        head.size or -1,
        message.size,
        _trailers(message),
    )


def _content(message: HttpMessage) -> types.Content:
    mime_type = field_text(message.head.get("content-type")) or "x-unknown"
    content = types.Content(message.decoded_size, mime_type, comment=_cut(message))
    if message.codings:
        content.compression = message.decoded_size - message.size
    if message.body:
        content.text, encoded = _text(message)
        content.encoding = "base64" if encoded else UNSET
    return content


def _set_cookie(cookie: Cookie) -> types.Cookie:
    return types.Cookie(
        cookie.name,
        cookie.value,
        cookie.path or UNSET,
        cookie.domain or UNSET,
        cookie.expires or UNSET,
        cookie.http_only,
        cookie.secure,
        cookie.same_site or UNSET,
    )


def _no_response() -> types.Response:
    return types.Response(0, "", "", [], [], types.Content(0, "x-unknown"), "", -1, -1)
