# SPDX-License-Identifier: Apache-2.0
"""What a line of ``-m jsonl`` holds: the one definition of code, JSON Schema and reference page.

Each class here is an object, each field a member of that name, described where it is defined.
``LINES`` are the objects that make a line, told apart by ``type``. Rules for readers: names and
meanings stay; members may be added; all are always there but those whose description says when.

Field names end in their unit (``_ns``, ``_ms``); sizes and lengths are in bytes. Order matters to
``jsonl``, which makes them positionally because that is quicker.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

from msgspec import UNSET, Meta, Struct, UnsetType

from ecapture.events import StatementKind
from ecapture.shell_events import Ending, Origin

Way = Annotated[
    Literal["read", "write"], Meta(description="What the process did: read is received.")
]
Marks = Annotated[
    list[str],
    Meta(description="What is not as it should be: `joined late`, `gap`, `malformed`, ..."),
]
Problem = Annotated[str, Meta(description="Why it is marked, for people; else empty.")]
Stream = Annotated[int, Meta(description="HTTP/2 stream; 0 where there are no streams.")]
Number = Annotated[
    int, Meta(description="Which exchange of its stream or, without streams, of its conversation.")
]
Text = Annotated[
    str | UnsetType, Meta(description="Content, if there is any and it is text in its charset.")
]
Binary = Annotated[bytes | UnsetType, Meta(description="Content in base64, if it is not text.")]
Size = Annotated[int, Meta(description="Length of the content as sent.")]
DecodedSize = Annotated[int, Meta(description="Length of the content after its codings.")]


class Connection(Struct):
    """Both ends of a connection, as the process sees them."""

    family: Literal["ipv4", "ipv6"]
    local: Annotated[str, Meta(description="Address of the observed process.")]
    local_port: int
    remote: Annotated[str, Meta(description="Address of its peer.")]
    remote_port: int
    found_by: Annotated[
        str,
        Meta(
            description="How it was found: `descriptor`, `nested_call` or `inferred`"
            " (see the guide)."
        ),
    ]


class Negotiated(Struct):
    """What both ends of the TLS connection agreed on."""

    version: Annotated[str, Meta(description="As in `TLSv1.3`.")]
    cipher: Annotated[
        str, Meta(description="IANA name of the cipher suite, or its number; empty if not known.")
    ]


class Field(Struct):
    """A header or trailer field, as sent: name in its case, value in UTF-8 or else latin-1."""

    name: str
    value: str


class Part(Struct):
    """What requests and responses have in common."""

    time_ns: Annotated[int, Meta(description="When its last byte was seen, since 1970.")]
    head_time_ns: Annotated[int, Meta(description="When its header fields were complete.")]
    version: Annotated[str, Meta(description="Of HTTP: `1.1`, `2`; empty if not known.")]
    headers: Annotated[list[Field], Meta(description="Header fields in the order sent.")]
    size: Size
    decoded_size: DecodedSize
    kept: Annotated[
        int, Meta(description="How much of the decoded content is here; 0 if it is elsewhere.")
    ]
    codings: Annotated[list[str], Meta(description="Codings that were undone, outermost first.")]
    trailers: list[Field]
    marks: Marks
    problem: Problem


class Request(Part):
    """A request."""

    method: Annotated[str, Meta(description="Empty if not known.")]
    url: Annotated[str, Meta(description="Always a valid URL.")]
    target: Annotated[str, Meta(description="What stood in the start line, or `:path`.")]
    host: Annotated[str, Meta(description="With its port, if that was named.")]
    body: Text = UNSET
    body_base64: Binary = UNSET


class Response(Part):
    """A response."""

    status: Annotated[int, Meta(description="0 if not known.")]
    reason: str
    body: Text = UNSET
    body_base64: Binary = UNSET


class Informational(Struct):
    """A response that another followed (1xx)."""

    time_ns: int
    status: int
    reason: str
    headers: list[Field]


class GrpcCall(Struct):
    """What an exchange is in the words of gRPC."""

    service: str
    method: str
    status: Annotated[int | None, Meta(description="null if it was not seen; -1 if it is none.")]
    status_name: str
    message: str


ProtobufType = Literal["varint", "fixed32", "fixed64", "text", "bytes", "message", "group"]


class ProtobufField(Struct):
    """A field of a protocol buffer, read without a schema."""

    number: int
    type: ProtobufType
    value: Annotated[
        int | str | list[ProtobufField],
        Meta(description="`bytes` are in base64; `fixed32` and `fixed64` are the bits."),
    ]


class Line(Struct, tag_field="type"):
    """What every line has."""

    time: Annotated[str, Meta(description="RFC 3339 with nanoseconds: when it was complete.")]
    time_ns: Annotated[int, Meta(description="The same in nanoseconds since 1970.")]
    pid: int
    comm: Annotated[str, Meta(description="Command name of the process.")]
    container: Annotated[str, Meta(description="Container id; empty if it is in none.")]
    conversation: Annotated[
        str, Meta(description="Names the TLS connection; the same in all its lines, else opaque.")
    ]


class ConnectedLine(Line):
    """What lines have that belong to a connection and thread."""

    tid: int
    uid: int
    connection: Connection | None
    no_connection: Annotated[str, Meta(description="Why there is no connection; else empty.")]
    tls: Annotated[Negotiated | None, Meta(description="null if its library does not tell.")]


class ExchangeLine(ConnectedLine, tag="exchange"):
    """A request and what answered it. Either may be missing: joined late, or ended early."""

    role: Annotated[Literal["client", "server"], Meta(description="What the process is.")]
    stream: Stream
    exchange: Number
    duration_ns: Annotated[
        int | None, Meta(description="From the request's header fields to the end of it all.")
    ]
    wait_ns: Annotated[
        int | None, Meta(description="From the end of the request to the response's header fields.")
    ]
    request: Request | None
    response: Response | None
    informational: list[Informational]
    grpc: Annotated[GrpcCall | None, Meta(description="null if it is no call of gRPC.")]


class WebSocketLine(ConnectedLine, tag="websocket"):
    """A message or control frame of a WebSocket."""

    direction: Way
    stream: Stream
    kind: Literal["text", "binary", "close", "ping", "pong", "unknown"]
    size: Size
    decoded_size: DecodedSize
    fragments: int
    compressed: bool
    close_code: Annotated[int, Meta(description="0 if there is none.")]
    marks: Marks
    problem: Problem
    text: Text = UNSET
    data_base64: Binary = UNSET


class ServerEventLine(ConnectedLine, tag="server_event"):
    """A server-sent event."""

    direction: Way
    stream: Stream
    exchange: Number
    event: str
    data: str
    last_id: str
    retry_ms: int | None
    size: Size
    marks: Marks


class GrpcLine(ConnectedLine, tag="grpc"):
    """One message of a gRPC call."""

    direction: Way
    stream: Stream
    number: Annotated[int, Meta(description="Counts from 0 in each direction of a stream.")]
    size: Size
    decoded_size: DecodedSize
    compressed: bool
    fields: Annotated[
        list[ProtobufField], Meta(description="The message, as far as it is a protocol buffer.")
    ]
    marks: Marks
    problem: Problem
    text: Text = UNSET
    data_base64: Binary = UNSET


class NoteLine(ConnectedLine, tag="note"):
    """Something about a connection or stream rather than a message."""

    direction: Way
    stream: Stream
    mark: str
    detail: str
    size: Annotated[int, Meta(description="How many bytes it is about; 0 if not known.")]


class PlaintextLine(ConnectedLine, tag="plaintext"):
    """What a call read or wrote, where no protocol is known."""

    direction: Way
    stream_offset: Annotated[int, Meta(description="Where it stands in its direction.")]
    call_length: Annotated[int, Meta(description="What the call returned.")]
    call_offset: Annotated[int, Meta(description="Where this piece stands in the call.")]
    length: Annotated[int, Meta(description="What the piece should have.")]
    missing: Annotated[
        str, Meta(description="Why it has less: `truncated`, `unreadable`, `sendfile`; else empty.")
    ]
    assumed: Annotated[bool, Meta(description="Taken at the entry of a call not seen to return.")]
    text: Text = UNSET
    data_base64: Binary = UNSET


class GapLine(Line, tag="gap"):
    """Bytes of a conversation that were lost."""

    direction: Way
    connection: Connection | None
    stream_offset: int
    length: int


class StatementLine(Struct, tag_field="type", tag="statement"):
    """Something that a client asked a database server for, as the server saw it."""

    time: Annotated[str, Meta(description="RFC 3339 with nanoseconds: when it was answered.")]
    time_ns: Annotated[int, Meta(description="The same in nanoseconds since 1970.")]
    pid: Annotated[int, Meta(description="Process of the server.")]
    comm: Annotated[str, Meta(description="Command name of the process.")]
    container: Annotated[str, Meta(description="Container id; empty if it is in none.")]
    tid: int
    uid: Annotated[int, Meta(description="User that the server's process runs as.")]
    server: Literal["postgresql", "mysql"]
    kind: Annotated[
        StatementKind, Meta(description="What was asked for (see the guide on databases).")
    ]
    session: Annotated[int, Meta(description="The server's number of the session.")]
    session_ns: Annotated[
        int, Meta(description="When it was first seen: tells numbers that are used again apart.")
    ]
    user: Annotated[str, Meta(description="Who is logged in; empty if not known.")]
    database: Annotated[str, Meta(description="Empty if there is none or it is not known.")]
    client: Annotated[str, Meta(description="`address:port` or `local`; empty if not known.")]
    application: Annotated[str, Meta(description="What the client calls itself.")]
    no_identity: Annotated[str, Meta(description="Why some of these are not known; else empty.")]
    name: Annotated[
        str, Meta(description="Of a prepared statement: name or number. Of a function: number.")
    ]
    text: Annotated[str, Meta(description="The SQL, up to the limit of --truncate.")]
    length: Annotated[int, Meta(description="Of the whole text, as sent; 0 if not known.")]
    missing: Annotated[
        str, Meta(description="Why `text` has less: `truncated`, `unreadable`, `unseen`; or empty.")
    ]
    parameters: Annotated[
        list[str | None],
        Meta(description="As text; null is NULL; `\\x...` are bytes of a type not known."),
    ]
    started_ns: Annotated[int | None, Meta(description="When the server had it.")]
    duration_ns: Annotated[int | None, Meta(description="From then to its answer.")]
    outcome: Annotated[
        Literal["ok", "error", "unknown"], Meta(description="unknown: there was no answer.")
    ]
    tag: Annotated[str, Meta(description="What the server says was done, such as `INSERT 0 1`.")]
    rows: Annotated[int | None, Meta(description="Returned or affected; null if not told.")]
    error: Annotated[str, Meta(description="SQLSTATE or number of the error; else empty.")]
    message: Annotated[str, Meta(description="Text of the error; else empty.")]
    marks: Annotated[list[str], Meta(description="Remarks: `pipelined`, `gap`, `skipped`, ...")]


class CommandLine(Struct, tag_field="type", tag="command"):
    """Something that a shell was told to do."""

    time: Annotated[str, Meta(description="RFC 3339 with nanoseconds: when it ended.")]
    time_ns: Annotated[int, Meta(description="The same in nanoseconds since 1970.")]
    pid: Annotated[int, Meta(description="Process of the shell.")]
    comm: Annotated[str, Meta(description="Command name of the process.")]
    container: Annotated[str, Meta(description="Container id; empty if it is in none.")]
    tid: int
    uid: Annotated[int, Meta(description="User that the shell runs as.")]
    login_uid: Annotated[
        int | None, Meta(description="User who logged in; null: nobody did, or not known.")
    ]
    terminal: Annotated[str, Meta(description="As under /dev: `pts/3`; empty if there is none.")]
    directory: Annotated[
        str | None, Meta(description="Working directory when it began; null if not known.")
    ]
    origin: Annotated[Origin, Meta(description="Who gave it (see the guide on shells).")]
    place: Annotated[str, Meta(description="The file it is from, if nobody typed it.")]
    text: Annotated[str, Meta(description="What was run, every line, history expanded.")]
    typed: Annotated[str, Meta(description="What was typed, history not expanded.")]
    missing: Annotated[
        str,
        Meta(description="Why `text` has less: `truncated`, `unreadable`, `lost`, `unseen`."),
    ]
    started_ns: Annotated[int | None, Meta(description="When it was complete and began to run.")]
    duration_ns: Annotated[int | None, Meta(description="From then to its end.")]
    status: Annotated[int | None, Meta(description="What `$?` was then; null if there is none.")]
    ended: Annotated[Ending, Meta(description="How it ended (see the guide on shells).")]
    signal: Annotated[int | None, Meta(description="What killed the shell.")]
    session: Annotated[int, Meta(description="Tells shells of one process id apart.")]
    command: Annotated[int, Meta(description="Counts in the session.")]


class EndLine(Line, tag="end"):
    """A conversation is over. For users of the library: the command writes no such lines."""

    reason: Annotated[str, Meta(description="`freed`, `exit` or `idle`.")]


LINES: Final = (
    ExchangeLine,
    WebSocketLine,
    ServerEventLine,
    GrpcLine,
    NoteLine,
    PlaintextLine,
    StatementLine,
    CommandLine,
    GapLine,
    EndLine,
)
"""Every kind of line, in the order of the reference page."""

AnyLine: TypeAlias = (
    ExchangeLine
    | WebSocketLine
    | ServerEventLine
    | GrpcLine
    | NoteLine
    | PlaintextLine
    | StatementLine
    | CommandLine
    | GapLine
    | EndLine
)
"""Their union, which the schema is made of."""
