# SPDX-License-Identifier: Apache-2.0
"""Events as JSON lines: one object per exchange, message or event (``jsonl_types``).

An ``HttpMessage`` has no line: its exchange follows. Content is text where it is valid in its
charset and base64 elsewhere, so that nothing is lost; fields are in the order and case sent.

Invariants: every line is valid under the published schema, in UTF-8, and ends with a line feed;
there are no others in it.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from ecapture.events import (
    Connection,
    ConversationEnd,
    ConversationKey,
    Event,
    Exchange,
    Gap,
    HttpMessage,
    Plaintext,
    Said,
    Statement,
)
from ecapture.formats import _statements
from ecapture.formats import jsonl_types as types
from ecapture.formats.content import ContentType, content_type, field_text, is_text, text_of
from ecapture.formats.header_line import HeaderLine, all_marks
from ecapture.formats.http_parts import host_of, url_of
from ecapture.formats.words import escaped_json
from ecapture.protocols import protobuf
from ecapture.protocols.grpc import is_grpc, method_of, status_of
from ecapture.protocols.messages import (
    Fields,
    GrpcMessage,
    Head,
    Mark,
    Note,
    ServerEvent,
    WebSocketMessage,
)
from ecapture.shell_events import ShellCommand

_MAXIMUM_CACHED: Final = 65536
_TEXT: Final = ContentType("text/plain", "utf-8", textual=True)
_UNKNOWN: Final = ContentType("", "utf-8", textual=None)
_WIRE: Final[dict[int, types.ProtobufType]] = {
    protobuf.VARINT: "varint",
    protobuf.FIXED32: "fixed32",
    protobuf.FIXED64: "fixed64",
    protobuf.GROUP_START: "group",
}


def no_container(_pid: int) -> str:
    """The container of every process, where nobody looks them up."""
    return ""


class JsonLinesFormat:
    """Events to bytes.

    ``container_of`` returns the container id of a process, or an empty text; it is asked once per
    line and must be quick. ``ends``: with a line for the end of each conversation. ``terminal``:
    escape what could harm one, which leaves the meaning as it is.
    """

    def __init__(
        self,
        *,
        container_of: Callable[[int], str] = no_container,
        ends: bool = False,
        terminal: bool = False,
    ) -> None:
        self._terminal = terminal
        self._container_of = container_of
        self._ends = ends
        self._time = HeaderLine().time
        self._connections: dict[Connection, types.Connection] = {}
        self._encoder = msgspec.json.Encoder()
        self._statements = _statements.Lines(container_of, self._time)

    def encode(self, events: list[Event]) -> list[bytes]:
        """The lines of one batch, in pieces to be written one behind the other."""
        if Statement in map(type, events):
            pieces = [self._statements.encode(events, self.line)]
        else:
            lines = [line for line in map(self.line, events) if line is not None]
            pieces = [self._encoder.encode_lines(lines)] if lines else []
        return list(map(escaped_json, pieces)) if self._terminal else pieces

    def line(self, event: Event) -> types.AnyLine | None:
        """What the line of an event says; None for events without one."""
        if isinstance(event, Exchange):
            return self._exchange(event)
        if isinstance(event, Said):
            return self._said(event)
        if isinstance(event, Plaintext):
            return self._plaintext(event)
        if isinstance(event, Statement):
            return self._statement(event)
        if isinstance(event, ShellCommand):
            return self._command(event)
        if isinstance(event, Gap):
            return types.GapLine(
                *self._what(event),
                event.direction,
                self._connection(event.connection),
                event.stream_offset,
                event.length,
            )
        if isinstance(event, ConversationEnd) and self._ends:
            return types.EndLine(*self._what(event), event.reason)
        return None

    # what all lines have

    def _what(
        self, event: Exchange | Said | Plaintext | Gap | ConversationEnd
    ) -> tuple[str, int, int, str, str, str]:
        pid = event.pid
        return (
            self._time(event.time_ns),
            event.time_ns,
            pid,
            event.comm,
            self._container_of(pid),
            conversation_name(event.conversation),
        )

    def _who(
        self, event: Exchange | Said | Plaintext
    ) -> tuple[
        str,
        int,
        int,
        str,
        str,
        str,
        int,
        int,
        types.Connection | None,
        str,
        types.Negotiated | None,
    ]:
        agreed = event.negotiated
        return (
            *self._what(event),
            event.tid,
            event.uid,
            self._connection(event.connection),
            event.no_connection,
            types.Negotiated(agreed.version, agreed.cipher) if agreed is not None else None,
        )

    def _connection(self, connection: Connection | None) -> types.Connection | None:
        if connection is None:
            return None
        known = self._connections.get(connection)
        if known is None:
            if len(self._connections) >= _MAXIMUM_CACHED:
                self._connections.clear()
            known = types.Connection(
                connection.family,
                connection.local,
                connection.local_port,
                connection.remote,
                connection.remote_port,
                connection.found_by,
            )
            self._connections[connection] = known
        return known

    # lines

    def _exchange(self, event: Exchange) -> types.ExchangeLine:
        request, response = event.request, event.response
        wait = None
        if request is not None and response is not None and event.first_byte_ns:
            wait = max(event.first_byte_ns - request.time_ns, 0)
        return types.ExchangeLine(
            *self._who(event),
            event.role,
            event.stream,
            event.exchange,
            max(event.time_ns - event.started_ns, 0) if event.started_ns else None,
            wait,
            _request(request, server=event.role == "server") if request is not None else None,
            _response(response) if response is not None else None,
            [_informational(head) for head in event.informational],
            _grpc(request, response),
        )

    def _said(self, event: Said) -> types.AnyLine:
        message = event.message
        if isinstance(message, WebSocketMessage):
            return self._websocket(event, message)
        if isinstance(message, ServerEvent):
            return types.ServerEventLine(
                *self._who(event),
                event.direction,
                message.stream,
                message.exchange,
                message.event,
                message.data,
                message.last_id,
                message.retry_ms if message.retry_ms >= 0 else None,
                message.size,
                list(message.marks),
            )
        if isinstance(message, GrpcMessage):
            return self._grpc_message(event, message)
        return self._note(event, message)

    def _websocket(self, event: Said, message: WebSocketMessage) -> types.WebSocketLine:
        data = message.data
        kind = _TEXT if message.kind == "text" else _UNKNOWN
        return types.WebSocketLine(
            *self._who(event),
            event.direction,
            message.stream,
            message.kind,
            message.size,
            message.decoded_size,
            message.fragments,
            message.compressed,
            message.close_code,
            list(message.marks),
            message.problem,
            *_content(data, kind, cut=len(data) < message.decoded_size),
        )

    def _grpc_message(self, event: Said, message: GrpcMessage) -> types.GrpcLine:
        data = message.data
        fields: list[types.ProtobufField] = []
        json = data[:1] in (b"{", b"[") and is_text(data)
        if data and not json and Mark.UNDECODED not in message.marks:
            fields = _protobuf(protobuf.decode(data).fields)
        # A short protocol buffer reads as text by chance; what is shown by fields is none.
        kind = _UNKNOWN._replace(textual=False) if fields else _UNKNOWN
        return types.GrpcLine(
            *self._who(event),
            event.direction,
            message.stream,
            message.number,
            message.size,
            message.decoded_size,
            message.compressed,
            fields,
            list(message.marks),
            message.problem,
            *_content(data, kind, cut=len(data) < message.decoded_size),
        )

    def _note(self, event: Said, note: Note) -> types.NoteLine:
        return types.NoteLine(
            *self._who(event), event.direction, note.stream, note.mark, note.detail, note.size
        )

    def _plaintext(self, event: Plaintext) -> types.PlaintextLine:
        return types.PlaintextLine(
            *self._who(event),
            event.direction,
            event.stream_offset,
            event.call_length,
            event.call_offset,
            event.length,
            event.missing,
            event.assumed,
            *_content(event.payload, _UNKNOWN, cut=False),
        )

    def _command(self, event: ShellCommand) -> types.CommandLine:
        return types.CommandLine(
            self._time(event.time_ns),
            event.time_ns,
            event.pid,
            event.comm,
            self._container_of(event.pid),
            event.tid,
            event.uid,
            event.login_uid,
            event.terminal,
            event.directory,
            event.origin,
            event.place,
            event.text,
            event.typed or event.text,
            event.missing,
            event.started_ns or None,
            event.duration_ns,
            event.status,
            event.ended,
            event.signal or None,
            event.session,
            event.command,
        )

    def _statement(self, event: Statement) -> types.StatementLine:
        return types.StatementLine(
            self._time(event.time_ns),
            event.time_ns,
            event.pid,
            event.comm,
            self._container_of(event.pid),
            event.tid,
            event.uid,
            event.server,
            event.kind,
            event.session,
            event.session_ns,
            event.user,
            event.database,
            event.client,
            event.application,
            event.no_identity,
            event.name,
            event.text,
            event.length,
            event.missing,
            list(event.parameters),
            event.started_ns or None,
            event.duration_ns,
            event.outcome,
            event.tag,
            event.rows,
            event.error,
            event.message,
            list(event.marks),
        )


def conversation_name(key: ConversationKey) -> str:
    """The name of a conversation, the same wherever it is given."""
    pid, handle, generation = key
    return f"{pid}-{handle:x}-{generation}"


def _content(
    data: bytes, kind: ContentType, *, cut: bool
) -> tuple[str | UnsetType, bytes | UnsetType]:
    """Content as text, or as bytes that become base64, or neither where there is none."""
    if not data:
        return UNSET, UNSET
    text = text_of(data, kind, cut=cut)
    return (UNSET, data) if text is None else (text, UNSET)


def _fields(fields: Fields) -> list[types.Field]:
    return [
        types.Field(name, value if value.isascii() else field_text(value)) for name, value in fields
    ]


def _request(message: HttpMessage, *, server: bool) -> types.Request:
    head = message.head
    body = message.body
    text, binary = _content(body, content_type(head), cut=len(body) < message.decoded_size)
    return types.Request(
        message.time_ns,
        message.started_ns,
        head.version,
        _fields(head.fields),
        message.size,
        message.decoded_size,
        len(body),
        list(message.codings),
        _fields(message.trailers),
        list(all_marks(message)),
        message.problem or head.problem,
        field_text(head.method),
        url_of(head, message.connection, server=server),
        field_text(head.target),
        field_text(host_of(head)),
        text,
        binary,
    )


def _response(message: HttpMessage) -> types.Response:
    head = message.head
    body = message.body
    text, binary = _content(body, content_type(head), cut=len(body) < message.decoded_size)
    return types.Response(
        message.time_ns,
        message.started_ns,
        head.version,
        _fields(head.fields),
        message.size,
        message.decoded_size,
        len(body),
        list(message.codings),
        _fields(message.trailers),
        list(all_marks(message)),
        message.problem or head.problem,
        head.status,
        field_text(head.reason),
        text,
        binary,
    )


def _informational(head: Head) -> types.Informational:
    return types.Informational(
        head.time_ns, head.status, field_text(head.reason), _fields(head.fields)
    )


def _grpc(request: HttpMessage | None, response: HttpMessage | None) -> types.GrpcCall | None:
    call = request is not None and is_grpc(content_type(request.head).media)
    answer = response is not None and is_grpc(content_type(response.head).media)
    if not call and not answer:
        return None
    service, method = (
        method_of(field_text(request.head.target)) if request is not None else ("", "")
    )
    ended = None
    if response is not None:
        ended = status_of(response.trailers) or status_of(response.head.fields)
    if ended is None:
        return types.GrpcCall(service, method, None, "", "")
    return types.GrpcCall(service, method, ended.code, ended.name, ended.message)


def _protobuf(fields: tuple[protobuf.Field, ...]) -> list[types.ProtobufField]:
    return [_protobuf_field(field) for field in fields]


def _protobuf_field(field: protobuf.Field) -> types.ProtobufField:
    number, wire, value = field
    if isinstance(value, int):
        return types.ProtobufField(number, _WIRE[wire], value)
    if isinstance(value, str):
        return types.ProtobufField(number, "text", value)
    if isinstance(value, bytes):
        return types.ProtobufField(number, "bytes", base64.b64encode(value).decode())
    return types.ProtobufField(number, _WIRE.get(wire, "message"), _protobuf(value))
