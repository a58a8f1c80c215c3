# SPDX-License-Identifier: Apache-2.0
"""What was said, for people to read: messages as text.

Per message a header line as in ``text`` (``--- TIME pid= ... http/1.1 request length=N [marks]``),
start line and fields as they were sent, an empty line, and the content after its codings. Lines in
brackets are remarks of ours: ``[image/png, 48213 bytes]``, ``[... 17 more bytes not kept]``.

1. HTTP/2 has no start line: one is made of ``:method`` and ``:path``, or ``:status``. The other
   pseudo-header fields follow under their own names.
2. Content is shown once: that of gRPC and of event streams is in messages of its own.
3. Fields that hold line ends, which only malformed messages do, have them escaped.
4. On a terminal, and wherever colours are wanted, what was captured is escaped, as in ``text``.
   Colours are added after that.
5. What no protocol was found for is left to ``text``: as it is if it reads as text, else dumped.

An ``Exchange`` repeats messages that have been shown, and has no lines here; in ``brief`` it has.
"""

from __future__ import annotations

from types import ModuleType
from typing import Final

from ecapture.events import Event, Gap, HttpMessage, Plaintext, Said, Statement
from ecapture.formats import command, statement
from ecapture.formats.colour import BOLD, DIM, NAME, NOTE, paint, status_colour
from ecapture.formats.content import (
    ContentType,
    content_type,
    has_grpc_status,
    is_text,
    printable,
)
from ecapture.formats.header_line import HeaderLine, all_marks, remark
from ecapture.formats.text import TextFormat
from ecapture.formats.words import escaped, hex_dump, phrase, word
from ecapture.protocols import protobuf
from ecapture.protocols.grpc import is_grpc, status_of
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

_JSON_STARTS: Final = (b"{", b"[")
_ESCAPED: Final = bytes(set(range(32)) - set(b"\t\n")) + b"\x7f"


class ConversationFormat:
    """Events to bytes.

    ``terminal``: escape what could harm a terminal. ``colour``: with colours, and escape all the
    same. ``hexadecimal``: dump all content.
    """

    def __init__(
        self, *, terminal: bool = False, colour: bool = False, hexadecimal: bool = False
    ) -> None:
        self._escape = terminal or colour
        self._colour = colour
        self._hex = hexadecimal
        self._lines = HeaderLine()
        self._plain = TextFormat(terminal=self._escape, hexadecimal=hexadecimal)
        self._dump = TextFormat(hexadecimal=True)

    def encode(self, events: list[Event]) -> list[bytes]:
        """All events of one batch, in pieces to be written one behind the other.

        Ends of conversations and of processes have no lines.
        """
        out: list[bytes] = []
        for event in events:
            kind = type(event)
            if kind is HttpMessage:
                self._http(event, out)  # type: ignore[arg-type]
            elif kind is Said:
                self._said(event, out)  # type: ignore[arg-type]
            elif kind is Statement:
                self._told(event, statement, out)  # type: ignore[arg-type]
            elif kind is ShellCommand:
                self._told(event, command, out)  # type: ignore[arg-type]
            elif kind is Plaintext or kind is Gap:
                out += self._unparsed(event)  # type: ignore[arg-type]
        return out

    def _told(self, event: Statement | ShellCommand, form: ModuleType, out: list[bytes]) -> None:
        line = (
            f"--- {self._lines.time(event.time_ns)} pid={event.pid}"
            f" comm={self._lines.word(event.comm)} {form.words(event)}"
        )
        end = form.remarks(event)
        if self._colour:
            line, end = paint(line, DIM), paint(end, NOTE) if end else ""
        out.append(f"{line}{end}\n".encode())
        shown = form.body(event).encode()
        out.append(escaped(shown) if self._escape else shown)

    # HTTP

    def _http(self, message: HttpMessage, out: list[bytes]) -> None:
        head = message.head
        kind = content_type(head)
        out.append(self._opening(message, self._http_words(message, kind)))
        out.append(self._head(head))
        if message.decoded_size or message.body:
            self._body(message, kind, out)
        if message.trailers:
            out.append(self._note("trailers"))
            out.append(self._shown(_fields_text(message.trailers)))

    def _http_words(self, message: HttpMessage, kind: ContentType) -> str:
        head = message.head
        version = f"http/{head.version}" if head.version else "http"
        words = f" {version} {head.kind}"
        if message.stream:
            words += f" stream={message.stream}"
        words += f" length={message.size}"
        if message.codings:
            words += f" coding={','.join(message.codings)} decoded={message.decoded_size}"
        if message.trailers or kind.media[:16] == "application/grpc":
            status = status_of(message.trailers) or status_of(head.fields)
            if status is not None:
                words += f" grpc={word(status.name)}"
        marks = all_marks(message)
        problem = message.problem or head.problem
        return words + remark(marks, problem) if marks or problem else words

    def _head(self, head: Head) -> bytes:
        version = f"HTTP/{head.version}" if head.version else "HTTP"
        if head.kind == "request":
            known = bool(head.method or head.target)
            start = f"{head.method or '?'} {head.target or '?'} {version}"
        else:
            known = head.status != 0
            start = f"{version} {head.status or '?'}"
            if head.reason:
                start += f" {head.reason}"
        lines = [start] if known else []
        if head.scheme:
            lines.append(f":scheme: {head.scheme}")
        if head.authority:
            lines.append(f":authority: {head.authority}")
        lines += [f"{name}: {value}" for name, value in head.fields]
        text = "\n".join(lines)
        if text.count("\n") >= max(len(lines), 1) or "\r" in text:
            text = "\n".join(map(_one_line, lines))
        style = (status_colour(head.status) if head.status else BOLD) if known else ""
        return self._shown(text, style) + b"\n"

    def _body(self, message: HttpMessage, kind: ContentType, out: list[bytes]) -> None:
        body = message.body
        events = kind.media == "text/event-stream" and Mark.UNDECODED not in message.marks
        if events and not (self._hex and body):
            out.append(self._note(f"{kind.media}, {message.decoded_size} bytes, shown as events"))
            return
        # Content of gRPC; where the head was not seen, nothing else comes without a byte of it.
        elsewhere = is_grpc(kind.media) or has_grpc_status(message.trailers)
        if not body and (elsewhere or not message.head.fields):
            return
        self._content(body, kind, max(message.decoded_size, len(body)), out)

    def _content(self, body: bytes, kind: ContentType, size: int, out: list[bytes]) -> None:
        left = size - len(body)
        if not body:
            pass
        elif self._hex:
            out += (hex_dump(body), b"\n")
        elif kind.protobuf and (decoded := protobuf.decode(body)).fields:
            self._lines_of(protobuf.render(decoded).encode(), out)
        else:
            text = printable(body, kind)
            if text is None:
                shown = phrase(kind.media) if kind.media else "binary"
                out.append(self._note(f"{shown}, {size} bytes"))
                return
            self._lines_of(text, out)
        if left > 0:
            out.append(self._note(f"… {left} more bytes not kept"))

    # what is not request and response

    def _said(self, event: Said, out: list[bytes]) -> None:
        message = event.message
        if isinstance(message, Note):
            self._said_note(event, message, out)
        elif isinstance(message, WebSocketMessage):
            self._websocket(event, message, out)
        elif isinstance(message, ServerEvent):
            self._server_event(event, message, out)
        else:
            self._grpc(event, message, out)

    def _said_note(self, event: Said, note: Note, out: list[bytes]) -> None:
        words = f" note stream={note.stream}" if note.stream else " note"
        if note.size:
            words += f" length={note.size}"
        out.append(self._opening(event, words + remark((note.mark,), note.detail)))

    def _websocket(self, event: Said, message: WebSocketMessage, out: list[bytes]) -> None:
        words = f" websocket {message.kind}"
        if message.stream:
            words += f" stream={message.stream}"
        words += f" length={message.size}"
        if message.compressed:
            words += f" decoded={message.decoded_size}"
        if message.fragments > 1:
            words += f" fragments={message.fragments}"
        if message.close_code:
            words += f" code={message.close_code}"
        out.append(self._opening(event, words + remark(message.marks, message.problem)))
        data = message.data
        if not data and not message.decoded_size:
            return
        textual = True if message.kind == "text" else None
        kind = ContentType("", "utf-8", textual)
        self._content(data, kind, max(message.decoded_size, len(data)), out)

    def _server_event(self, event: Said, message: ServerEvent, out: list[bytes]) -> None:
        words = f" event {word(message.event)}"
        if message.stream:
            words += f" stream={message.stream}"
        words += f" length={message.size}"
        if message.last_id:
            words += f" id={word(message.last_id)}"
        if message.retry_ms >= 0:
            words += f" retry={message.retry_ms}"
        out.append(self._opening(event, words + remark(message.marks, "")))
        if message.data:
            self._dumped(message.data.encode("utf-8", "backslashreplace"), out)

    def _grpc(self, event: Said, message: GrpcMessage, out: list[bytes]) -> None:
        words = f" grpc message={message.number} stream={message.stream} length={message.size}"
        if message.compressed:
            words += f" decoded={message.decoded_size}"
        out.append(self._opening(event, words + remark(message.marks, message.problem)))
        data = message.data
        left = message.decoded_size - len(data)
        if data:
            if self._hex:
                out += (hex_dump(data), b"\n")
            elif data.startswith(_JSON_STARTS) and is_text(data):
                self._lines_of(data, out)
            elif Mark.UNDECODED not in message.marks and (decoded := protobuf.decode(data)).fields:
                self._lines_of(protobuf.render(decoded).encode(), out)
            elif is_text(data):
                self._lines_of(data, out)
            else:
                out.append(self._note(f"binary, {message.decoded_size} bytes"))
                return
        if left > 0:
            out.append(self._note(f"… {left} more bytes not kept"))

    # parts

    def _unparsed(self, event: Plaintext | Gap) -> list[bytes]:
        form = self._plain
        if (
            type(event) is Plaintext
            and not self._hex
            and not is_text(event.payload, middle=event.stream_offset > 0)
        ):
            form = self._dump
        pieces = form.encode([event])
        if self._colour and pieces:
            pieces[0] = paint(pieces[0].decode().removesuffix("\n"), DIM).encode() + b"\n"
        return pieces

    def _opening(self, event: HttpMessage | Said, words: str) -> bytes:
        line = self._lines.opening(event, event.time_ns)
        if self._colour:
            words, bracket, marks = words.partition(" [")
            end = f" {paint(f'[{marks}', NOTE)}" if bracket else ""
            return f"{paint(line + words, DIM)}{end}\n".encode()
        return f"{line}{words}\n".encode()

    def _note(self, text: str) -> bytes:
        return f"{paint(f'[{text}]', NOTE) if self._colour else f'[{text}]'}\n".encode()

    def _dumped(self, content: bytes, out: list[bytes]) -> None:
        if self._hex:
            out += (hex_dump(content), b"\n")
        else:
            self._lines_of(content, out)

    def _lines_of(self, content: bytes, out: list[bytes]) -> None:
        if self._escape:
            content = _safe(content)
        out.append(content)
        if not content.endswith(b"\n"):
            out.append(b"\n")

    def _shown(self, text: str, style: str = "") -> bytes:
        """Lines of fields, the first of them a start line if there is a ``style`` for it."""
        if not text:
            return b""
        raw = f"{text}\n".encode("latin-1", "backslashreplace")
        if not self._escape:
            return raw
        shown = _safe(raw)
        if not self._colour:
            return shown
        lines = shown.decode().split("\n")
        first = 0
        if style:
            lines[0] = paint(lines[0], style)
            first = 1
        lines[first:] = map(_painted_field, lines[first:])
        return "\n".join(lines).encode()


def _safe(content: bytes) -> bytes:
    # Most content has nothing to escape, and to find that out this way takes a tenth of the time.
    if content.isascii() and len(content.translate(None, _ESCAPED)) == len(content):
        return content
    return escaped(content)


def _fields_text(fields: Fields) -> str:
    return "\n".join([_one_line(f"{name}: {value}") for name, value in fields])


def _one_line(line: str) -> str:
    return line.replace("\r", "\\x0d").replace("\n", "\\x0a")


def _painted_field(line: str) -> str:
    name, colon, value = line.partition(": ")
    return f"{paint(name, NAME)}{colon}{value}" if colon else line
