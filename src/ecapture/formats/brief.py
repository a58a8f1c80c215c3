# SPDX-License-Identifier: Apache-2.0
"""One line for each exchange and message: what went where, how it ended, how long it took.

``TIME pid= comm= client|server METHOD HOST+PATH STATUS request=N response=N N.NNNms [marks]``. The
time is that of the end, sizes are of content as sent, the duration is from the end of the request's
head to the end of the later part; ``-`` stands for what is not known. Every word is one: blanks
within it, and all that is not printable ASCII, are escaped.
"""

from __future__ import annotations

from typing import Final

from ecapture.events import Event, Exchange, Gap, Plaintext, Said, Statement
from ecapture.formats import command, statement
from ecapture.formats.colour import DIM, NOTE, paint, status_colour
from ecapture.formats.header_line import HeaderLine, all_marks, remark
from ecapture.formats.http_parts import host_of, path_of
from ecapture.formats.words import phrase, word
from ecapture.protocols.grpc import status_of
from ecapture.protocols.messages import (
    GrpcMessage,
    Mark,
    Note,
    ServerEvent,
    WebSocketMessage,
)
from ecapture.shell_events import ShellCommand

_PREVIEW: Final = 60


class BriefFormat:
    """Events to bytes. ``colour``: with colours."""

    def __init__(self, *, colour: bool = False) -> None:
        self._colour = colour
        self._lines = HeaderLine()

    def encode(self, events: list[Event]) -> list[bytes]:
        """One line per exchange, message, gap and piece of an unknown protocol."""
        out: list[bytes] = []
        for event in events:
            if isinstance(event, Exchange):
                marks, problem = _marks_of(event)
                self._line(event, self._exchange(event), remark(marks, problem), out)
            elif isinstance(event, Said):
                words, end = _said(event.message)
                self._line(event, f"{event.direction} {words}", end, out)
            elif isinstance(event, Plaintext):
                words = f"{event.direction} plaintext length={event.length}"
                self._line(event, words, f" [{event.missing}]" if event.missing else "", out)
            elif isinstance(event, Statement):
                words = statement.words(event) + statement.preview(event)
                self._line(event, words, statement.remarks(event), out)
            elif isinstance(event, ShellCommand):
                words = command.words(event) + command.preview(event)
                self._line(event, words, command.remarks(event), out)
            elif isinstance(event, Gap):
                self._line(event, f"{event.direction} lost={event.length}", " [gap]", out)
        return out

    def _line(
        self,
        event: Exchange | Said | Plaintext | Statement | ShellCommand | Gap,
        words: str,
        end: str,
        out: list[bytes],
    ) -> None:
        who = f"pid={event.pid} comm={self._lines.word(event.comm)}"
        begin = f"{self._lines.time(event.time_ns)} {who}"
        if self._colour:
            begin = paint(begin, DIM)
            end = paint(end, NOTE) if end else ""
        out.append(f"{begin} {words}{end}\n".encode())

    def _exchange(self, event: Exchange) -> str:
        request, response = event.request, event.response
        what, sent, received, status, grpc = "- -", "-", "-", "-", ""
        if request is not None:
            head = request.head
            what = f"{word(head.method)} {word(host_of(head) + path_of(head))}"
            sent = str(request.size)
        if response is not None:
            received = str(response.size)
            status = str(response.head.status or "-")
            if self._colour:
                status = paint(status, status_colour(response.head.status))
            ended = status_of(response.trailers) or status_of(response.head.fields)
            if ended is not None:
                grpc = f" grpc={word(ended.name)}"
        took = "-"
        if event.started_ns:
            took = f"{max(event.time_ns - event.started_ns, 0) / 1e6:.3f}ms"
        return f"{event.role} {what} {status} request={sent} response={received} {took}{grpc}"


def _marks_of(event: Exchange) -> tuple[tuple[Mark, ...], str]:
    marks: tuple[Mark, ...] = ()
    problem = ""
    for part in (event.request, event.response):
        if part is not None:
            marks += all_marks(part)
            problem = problem or part.problem or part.head.problem
    return tuple(dict.fromkeys(marks)), problem


def _said(message: WebSocketMessage | ServerEvent | GrpcMessage | Note) -> tuple[str, str]:
    stream = f" stream={message.stream}" if message.stream else ""
    if isinstance(message, Note):
        return f"note{stream}", remark((message.mark,), message.detail)
    if isinstance(message, ServerEvent):
        words = f"event {word(message.event)}{stream} length={message.size}"
        return f"{words} {_preview(message.data)}", remark(message.marks, "")
    if isinstance(message, GrpcMessage):
        words = f"grpc message={message.number}{stream} length={message.size}"
        return words, remark(message.marks, message.problem)
    words = f"websocket {message.kind}{stream} length={message.size}"
    if message.close_code:
        words += f" code={message.close_code}"
    if message.kind == "text":
        words += f" {_preview(message.data[: 4 * _PREVIEW].decode('utf-8', 'replace'))}"
    return words, remark(message.marks, message.problem)


def _preview(text: str) -> str:
    return f'"{phrase(text[:_PREVIEW])}{"..." if len(text) > _PREVIEW else ""}"'
