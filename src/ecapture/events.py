# SPDX-License-Identifier: Apache-2.0
"""Every event, frozen: the vocabulary between decoding and output.

Events are made once, by ``kernel.decode`` (or by a stage of the pipeline), and never changed. They
are excluded from garbage collection: none can be part of a cycle.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from ecapture.protocols.messages import (
    Fields,
    GrpcMessage,
    Head,
    Mark,
    Note,
    ServerEvent,
    WebSocketMessage,
)
from ecapture.shell_events import ShellBegin, ShellCommand, ShellEnd, ShellText

ConversationKey = tuple[int, int, int]
"""(pid, handle, generation): one TLS connection, however often its address is reused."""

Direction = Literal["read", "write"]

StatementKind = Literal[
    "connect", "disconnect", "query", "prepare", "execute", "fetch", "call", "use", "command"
]


UNKNOWN_ENDS = "no descriptor known and no socket call seen that carries its records yet"
"""Why a conversation has no connection whose addresses may still become known."""


class Connection(msgspec.Struct, frozen=True, gc=False):
    """Both ends of a conversation, as the process sees them.

    ``found_by`` is "descriptor" (through the process's file table), "nested_call" (the socket
    call that the library made inside the TLS call) or "inferred" (the socket call of the program
    that carried what the TLS call made or took).
    """

    family: Literal["ipv4", "ipv6"]
    local: str
    local_port: int
    remote: str
    remote_port: int
    found_by: str


class Negotiated(msgspec.Struct, frozen=True, gc=False):
    """What both ends of a TLS connection agreed on.

    ``version`` as in "TLSv1.3"; ``cipher`` is the suite's IANA name, or its number as in "0x1301"
    where that is not known here, or empty where its library does not tell.
    """

    version: str
    cipher: str


class Plaintext(msgspec.Struct, frozen=True, gc=False, tag="plaintext"):
    """Bytes that a program read from or wrote to a TLS connection: a call, or a piece of one.

    ``time_ns`` is wall-clock nanoseconds since 1970, at the return of the call. ``call_length`` is
    what the call returned in bytes; this piece stands at ``call_offset`` in it, and at
    ``stream_offset`` in all bytes of this direction since the conversation was first seen.
    ``length`` is what this piece should have; ``payload`` has fewer bytes only where ``missing``
    says why: "truncated" (the payload limit), "unreadable" (the program's memory could not be read)
    or "sendfile" (the bytes never were in the program's memory). ``assumed`` marks what was taken
    at the entry of a call whose return may not be probed. Without ``connection``,
    ``no_connection`` says why.
    """

    time_ns: int
    pid: int
    tid: int
    uid: int
    comm: str
    direction: Direction
    conversation: ConversationKey
    connection: Connection | None
    no_connection: str
    stream_offset: int
    call_length: int
    call_offset: int
    length: int
    payload: bytes
    missing: str = ""
    assumed: bool = False
    last: bool = True
    fd: int = -1
    hook: int = 0
    negotiated: Negotiated | None = None


class Gap(msgspec.Struct, frozen=True, gc=False, tag="gap"):
    """Bytes of a conversation that were lost between two events of one direction."""

    time_ns: int
    pid: int
    comm: str
    direction: Direction
    conversation: ConversationKey
    connection: Connection | None
    stream_offset: int
    length: int


class ConversationEnd(msgspec.Struct, frozen=True, gc=False, tag="end"):
    """A conversation is over.

    ``reason`` is "freed" (by its library), "exit" (its process ended or ran another program) or
    "idle".
    """

    time_ns: int
    pid: int
    comm: str
    conversation: ConversationKey
    reason: str


class Ends(msgspec.Struct, frozen=True, gc=False, tag="ends"):
    """Between whom a conversation is held, learned after some of it had been told.

    Never leaves the pipeline: ``pipeline.ends`` puts it into the events it belongs to.
    """

    time_ns: int
    pid: int
    comm: str
    conversation: ConversationKey
    connection: Connection


class ProcessExit(msgspec.Struct, frozen=True, gc=False, tag="exit"):
    """A process that had conversations ended, or was replaced by another program (exec)."""

    time_ns: int
    pid: int
    comm: str


class HttpMessage(msgspec.Struct, frozen=True, gc=False, tag="http"):
    """One HTTP request or response, complete (or as much of it as there was: see ``marks``).

    ``direction`` is the process's: a client writes requests and reads responses. ``started_ns`` is
    the time of the last byte of the head, ``time_ns`` that of the whole message. ``body`` is
    decoded content up to the parser's limit; ``size`` counts content as sent, ``decoded_size``
    after its ``codings`` were undone. (stream, exchange) names the exchange in its conversation.
    """

    time_ns: int
    started_ns: int
    pid: int
    tid: int
    uid: int
    comm: str
    direction: Direction
    conversation: ConversationKey
    connection: Connection | None
    no_connection: str
    stream: int
    exchange: int
    head: Head
    body: bytes = b""
    size: int = 0
    decoded_size: int = 0
    codings: tuple[str, ...] = ()
    trailers: Fields = ()
    marks: tuple[Mark, ...] = ()
    problem: str = ""


class Exchange(msgspec.Struct, frozen=True, gc=False, tag="exchange"):
    """A request and what answered it. Either may be missing: joined late, or ended early.

    ``time_ns`` is the end of the later part. ``role`` is what the observed process is.
    ``started_ns`` is when the request's head was complete, ``first_byte_ns`` when the response's
    was; both are 0 if the part is missing. ``informational`` are 1xx heads that came before.
    """

    time_ns: int
    started_ns: int
    first_byte_ns: int
    pid: int
    tid: int
    uid: int
    comm: str
    role: Literal["client", "server"]
    conversation: ConversationKey
    connection: Connection | None
    no_connection: str
    stream: int
    exchange: int
    request: HttpMessage | None
    response: HttpMessage | None
    informational: tuple[Head, ...] = ()
    negotiated: Negotiated | None = None


class Said(msgspec.Struct, frozen=True, gc=False, tag="message"):
    """One message that is neither request nor response: WebSocket, gRPC, a note, and the like."""

    time_ns: int
    pid: int
    tid: int
    uid: int
    comm: str
    direction: Direction
    conversation: ConversationKey
    connection: Connection | None
    no_connection: str
    message: WebSocketMessage | ServerEvent | GrpcMessage | Note
    negotiated: Negotiated | None = None


class Secret(msgspec.Struct, frozen=True, gc=False, tag="secret"):
    """A secret of a TLS connection, as key logs have them.

    ``time_ns`` is when its library told it, or when it was read from an established connection.
    ``client_random`` (32 bytes) joins it to packets; it is empty where it could not be learnt.
    ``label`` and ``secret`` are empty only where ``missing`` says why: "unlabelled" (which secret
    it is could not be learnt), "unreadable" (the program's memory could not be read) or "unproven"
    (what an established connection keeps does not fit together).
    """

    time_ns: int
    pid: int
    tid: int
    uid: int
    comm: str
    conversation: ConversationKey
    label: str
    client_random: bytes
    secret: bytes
    missing: str = ""


class Served(msgspec.Struct, frozen=True, gc=False, tag="served"):
    """A run of bytes between a PostgreSQL server and its client, as the server's process has them.

    Rows, passwords and what goes beyond a limit are not among what is kept. ``kept_offset`` counts
    what was kept of this direction before: a gap is a loss. ``length`` is how much this run should
    have; ``payload`` is empty where ``missing`` says why ("unreadable"). ``boundary``: a message
    begins with the first byte, and what was begun before has no more bytes; ``cut``: the message
    that it ends in goes on, and no more of it was kept. ``client`` is
    address:port or "local"; where it is empty, ``no_client`` says why. ``late``: the session is
    older than the capture. ``session_ns`` is when its process was first seen.
    """

    time_ns: int
    pid: int
    tid: int
    uid: int
    comm: str
    direction: Direction
    session_ns: int
    client: str
    no_client: str
    kept_offset: int
    length: int
    payload: bytes
    boundary: bool = False
    late: bool = False
    missing: str = ""
    cut: bool = False


class SessionFacts(msgspec.Struct, frozen=True):
    """What is known of a session that began before the capture; ``reason`` says why not more."""

    user: str = ""
    database: str = ""
    client: str = ""
    application: str = ""
    reason: str = ""


class Statement(msgspec.Struct, frozen=True, gc=False, tag="statement"):
    r"""One thing that a client asked a database server for, as the server saw it, and how it ended.

    ``kind``: "connect" (with the outcome of the log-in), "disconnect", "query" (text as it came),
    "prepare" (a text gets a ``name``), "execute" (of what was prepared), "fetch" (more rows of what
    was executed), "call" (a function, by its number in ``name``), "use" (another database),
    "command" (of MySQL's protocol, by its ``name``: "SHUTDOWN").

    ``started_ns`` is when the server had it, ``time_ns`` when it answered, ``duration_ns`` what
    lies between (of "disconnect": how long the session was); None where it is not known.
    ``session`` is the server's number of the session: a process of PostgreSQL's, a connection id of
    MySQL's; ``session_ns`` is when that was first seen, to tell numbers apart that are used again.

    ``user``, ``database``, ``client`` (address:port, or "local") and ``application`` are empty
    where they are not known, and ``no_identity`` says why. ``text`` is empty or cut only where
    ``missing`` says so: "truncated", "unreadable", or "unseen" (prepared before the capture began,
    or too long ago); ``length`` is that of the whole text in bytes, as sent; 0 if not known.
    ``parameters`` are values as text, None for NULL; a value whose type has no known text is
    "\x" and its bytes in hexadecimal.

    ``outcome``: "unknown" if the session ended, or bytes were lost, before there was an answer.
    ``tag`` is what the server says was done ("INSERT 0 1"); several if the text had several
    statements; ``rows`` returned or affected, of all of them, None where not told. ``error`` is the
    SQLSTATE or the number of the error, ``message`` its text. ``marks`` are remarks: "pipelined"
    (answered together with others, so that the duration is also theirs), "gap" (bytes or records
    were lost), "skipped" (not executed, because one before it in its batch failed), "suspended"
    (more rows can be fetched), "running" and "process ended" (before there was an answer), how many
    answers it had if several, and what of the parameters is not told: "parameters truncated",
    "parameters sent apart", "parameters not seen", "parameters not understood".
    """

    time_ns: int
    started_ns: int
    pid: int
    tid: int
    uid: int
    comm: str
    server: Literal["postgresql", "mysql"]
    kind: StatementKind
    session: int
    session_ns: int = 0
    user: str = ""
    database: str = ""
    client: str = ""
    application: str = ""
    no_identity: str = ""
    name: str = ""
    text: str = ""
    length: int = 0
    missing: str = ""
    parameters: tuple[str | None, ...] = ()
    duration_ns: int | None = None
    outcome: Literal["ok", "error", "unknown"] = "ok"
    tag: str = ""
    rows: int | None = None
    error: str = ""
    message: str = ""
    marks: tuple[str, ...] = ()


class Interface(msgspec.Struct, frozen=True, gc=False, tag="interface"):
    """An interface of which packets follow; every one is told of once, before its first packet.

    ``number`` is what packets name it by, counted from 0 without gaps. ``link_type`` is what a
    packet begins with (https://www.tcpdump.org/linktypes.html). Of a packet ``snap_length`` bytes
    are kept. ``expression`` is the filter that packets passed, if there is one. ``space`` says in
    which network namespace it is: "" if it is the capture's own.
    """

    time_ns: int
    number: int
    name: str
    link_type: int
    snap_length: int
    expression: str = ""
    space: str = ""


class Packets(msgspec.Struct, frozen=True, gc=False, tag="packets"):
    """Packets as they were drained, any number of them.

    ``blocks`` are whole Enhanced Packet Blocks of a pcapng file in little-endian byte order, one
    behind the other, which name interfaces by their ``Interface.number``. ``time_ns`` is when they
    were drained, later than any time in them.
    """

    time_ns: int
    blocks: bytes


class InterfaceCounts(msgspec.Struct, frozen=True, gc=False, tag="counts"):
    """What became of the packets of an interface from ``start_ns`` until ``time_ns``.

    ``received`` passed the filter; of these ``dropped`` found no room in the kernel's buffer, all
    others were delivered: ``cut`` of them to the snap length, ``unreadable`` without content.
    """

    time_ns: int
    start_ns: int
    number: int
    received: int
    dropped: int
    cut: int
    unreadable: int


class Command(msgspec.Struct, frozen=True, gc=False, tag="command"):
    """A session of a MySQL server begins with a command; ``Statement`` is made of what follows.

    ``key`` is (pid, thread, time) and names the command in all that follows. ``connection`` is the
    server's number of the session, ``statement`` that of a prepared statement; None if not known.
    ``command`` is the number of the protocol or of ``PseudoCommand``. ``length`` is that of its
    text in bytes. ``unknown`` says which of user, host and database are not known, and why.
    ``sent`` is all that the client sent with it, and ``role`` what that is (``TextRole``); where it
    is empty, ``CommandText`` may follow.
    """

    time_ns: int
    pid: int
    tid: int
    uid: int
    comm: str
    session: int
    key: tuple[int, int, int]
    command: int
    connection: int | None
    statement: int | None
    length: int
    user: str
    host: str
    database: str
    unknown: str
    role: int
    sent: bytes


class CommandText(msgspec.Struct, frozen=True, gc=False, tag="command_text"):
    """Bytes of a command, which stand at ``offset`` of ``length``; ``role`` is ``TextRole``."""

    time_ns: int
    pid: int
    tid: int
    uid: int
    comm: str
    key: tuple[int, int, int]
    role: int
    length: int
    offset: int
    payload: bytes
    missing: str
    last: bool


class CommandEnd(msgspec.Struct, frozen=True, gc=False, tag="command_end"):
    """How a command ended. ``error`` 0: none. ``affected`` and ``rows`` are None if not told."""

    time_ns: int
    pid: int
    tid: int
    uid: int
    comm: str
    session: int
    key: tuple[int, int, int]
    command: int
    connection: int | None
    statement: int | None
    error: int
    results: int
    affected: int | None
    rows: int | None
    answered: bool
    closes: bool


class WholeQuery(msgspec.Struct, frozen=True, gc=False, tag="whole_query"):
    """A query of a MySQL session from beginning to end, of which there is nothing unusual to say.

    Stands for a ``Command`` that has its whole text and the ``CommandEnd`` that came soon behind:
    answered once, without an error. ``rows`` are those affected, else those sent.
    """

    time_ns: int
    started_ns: int
    pid: int
    tid: int
    uid: int
    comm: str
    session: int
    connection: int | None
    user: str
    database: str
    host: str
    unknown: str
    sent: bytes
    rows: int | None


Event = (
    Plaintext
    | ShellBegin
    | ShellText
    | ShellEnd
    | ShellCommand
    | Secret
    | Served
    | Statement
    | Command
    | CommandText
    | CommandEnd
    | WholeQuery
    | Gap
    | HttpMessage
    | Exchange
    | Said
    | ConversationEnd
    | Ends
    | ProcessExit
    | Interface
    | Packets
    | InterfaceCounts
)


class Losses(msgspec.Struct, frozen=True):
    """What the kernel side could not deliver since it began: counts, or bytes where so named."""

    ring_full_records: int = 0
    ring_full_bytes: int = 0
    fault_records: int = 0
    fault_bytes: int = 0
    table_full_records: int = 0
    end_records: int = 0
    truncated_calls: int = 0
    truncated_bytes: int = 0


class Summary(msgspec.Struct):
    """What a capture showed and what it lost: the last line of a run.

    ``events`` and ``bytes`` are what was shown; ``lost`` counts records that were produced and not
    shown; ``events + lost`` is what happened. ``statements`` counts ``Statement`` events; what they
    were read from is in ``events``. ``packets`` and ``packets_dropped`` go together likewise.
    """

    events: int = 0
    bytes: int = 0
    flows: int = 0
    lost: int = 0
    truncated: int = 0
    lost_bytes: int = 0
    unreadable: int = 0
    statements: int = 0
    packets: int = 0
    packets_dropped: int = 0
    malformed: int = 0

    def __str__(self) -> str:
        return "summary: " + " ".join(
            f"{name}={getattr(self, name)}" for name in self.__struct_fields__
        )
