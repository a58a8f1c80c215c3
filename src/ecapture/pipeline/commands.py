# SPDX-License-Identifier: Apache-2.0
"""Puts together what shells are told to do: parts of commands in, one ``ShellCommand`` out.

1. A command is complete when its end has come; until then it is open. At the end of the capture
   those that are open are told of as running.
2. Its text is its lines, a line feed between each two unless they have their own. What a line
   became when its history was expanded takes its place; what was typed is then told beside it.
3. A blank line is no command. All else that was entered is one, also what the shell refused. A
   remark that nobody typed is none.
4. Whatever is missing is said: a piece that does not continue the one before it, or a line that
   never came, was lost.
5. What is open is bounded, by number and by bytes; beyond that the oldest is told of as running.
6. Where zsh keeps no text, it is made of what zsh made of it; that is right, or there is none.
7. What fish keeps as characters of four bytes is cut here, where it is known how long it is.
"""

from __future__ import annotations

from typing import Final, get_args

from ecapture.errors import ProtocolError
from ecapture.events import Event, Summary
from ecapture.pipeline import _tally
from ecapture.protocols.zsh_program import text_of
from ecapture.shell_events import (
    ShellBegin,
    ShellCommand,
    ShellEnd,
    ShellPart,
    ShellText,
    TextEncoding,
)

OPEN_COMMANDS: Final = 16384
"""Commands that may be open at a time."""
OPEN_BYTES: Final = 64 << 20
"""Bytes that may be kept of them."""

_META: Final = b"\x83"  # zsh, Src/zsh.h: stands before a byte whose bit 0x20 is flipped
_BYTES: Final = 0xF600  # fish, src/common.h: what stands for the byte 0 where it was no text
_HEAD, _WORDS = 0, 1  # lines of what zsh made of a text
_PARTS: Final = get_args(ShellPart)
_LINE_COST: Final = 256  # bytes of a line besides its text, roughly
_Key = tuple[int, int, int]


class _Line:
    # A line in one form, as its pieces come.
    __slots__ = ("complete", "encoding", "raw")

    def __init__(self, encoding: TextEncoding) -> None:
        self.raw = bytearray()
        self.complete = False
        self.encoding = encoding

    def text(self) -> str:
        raw = bytes(self.raw)
        if self.encoding == "meta":
            raw = unmetafied(raw).removesuffix(b"\n")
        elif self.encoding == "wide":
            raw = narrowed(raw)
        return raw.decode("utf-8", "backslashreplace")


class _Open:
    # A command that has not ended.
    __slots__ = (
        *("begin", "comm", "expanded", "first_ns", "given", "missing", "pid", "printed"),
        *("between", "program", "refused", "size", "whole"),
    )

    def __init__(self, part: ShellPart) -> None:
        self.pid = part.pid
        self.comm = part.comm
        self.first_ns = part.time_ns
        self.begin: ShellBegin | None = None
        self.given: dict[int, _Line] = {}
        self.expanded: dict[int, _Line] = {}
        self.whole: dict[int, _Line] = {}
        self.refused: set[int] = set()
        self.missing = ""
        self.size = 0  # bytes kept
        self.between = "\n"  # lines
        self.program = False  # its lines are what zsh made of it,
        self.printed = ""  # and this the text of that

    def take(self, part: ShellText) -> None:
        self.missing = self.missing or part.missing
        self.program = part.encoding == "wordcode"
        if part.encoding == "read":
            self.between = ""
        if part.form == "refused":
            self.refused.add(part.line)
            return
        lines = {"given": self.given, "expanded": self.expanded}.get(part.form, self.whole)
        line = lines.get(part.line)
        if line is None:
            line = lines[part.line] = _Line(part.encoding)
            self.size += _LINE_COST
        if line.complete or part.offset != len(line.raw):
            self.missing = "lost"
        line.raw += part.text
        self.size += len(part.text)
        line.complete = part.last
        if self.program and (self.missing or (part.line == _WORDS and part.last)):
            self._print()

    def _print(self) -> None:
        # At once, since what it is made of is larger than what is kept of the text.
        if not self.missing:
            try:
                raw = unmetafied(text_of(*(bytes(self.given[n].raw) for n in (_HEAD, _WORDS))))
            except (KeyError, ProtocolError):
                self.missing, raw = "unreadable", b""
            if self.begin is not None and self.begin.limit and len(raw) > self.begin.limit:
                self.missing, raw = "truncated", raw[: self.begin.limit]
            self.printed = raw.decode("utf-8", "backslashreplace")
        for line in self.given.values():
            line.raw = bytearray()
        self.size = len(self.printed)

    def is_whole(self, lines: int) -> bool:
        every = (*self.given.values(), *self.expanded.values(), *self.whole.values())
        return self.given.keys() == set(range(lines)) and all(line.complete for line in every)


class Commands:
    """The stage. Counts into ``summary`` what passes."""

    def __init__(
        self,
        summary: Summary,
        *,
        open_commands: int = OPEN_COMMANDS,
        open_bytes: int = OPEN_BYTES,
    ) -> None:
        self.summary = summary
        self._limit = open_commands
        self._byte_limit = open_bytes
        self._bytes = 0
        self._open: dict[_Key, _Open] = {}  # oldest first

    def feed(self, events: list[Event]) -> list[Event]:
        """See Stage. Without parts of commands the very list comes back."""
        if not _tally.contains(events, _PARTS):
            return events
        out: list[Event] = []
        for event in events:
            if isinstance(event, ShellPart):
                self._part(event, out)
            else:
                out.append(event)
        return out

    def flush(self, now_ns: int) -> list[Event]:  # noqa: ARG002 - a command may run for days
        """See Stage: nothing is due by time."""
        return []

    def close(self) -> list[Event]:
        """See Stage: what is open is still running."""
        out: list[Event] = []
        for key in list(self._open):
            self._finish(key, None, out)
        return out

    def _part(self, part: ShellPart, out: list[Event]) -> None:
        key = (part.pid, part.session, part.command)
        known = self._open.get(key)
        if known is None:
            while len(self._open) >= self._limit:
                self._finish(next(iter(self._open)), None, out)
            known = self._open[key] = _Open(part)
        if type(part) is ShellText:
            self._bytes -= known.size
            known.take(part)
            self._bytes += known.size
            while self._bytes > self._byte_limit:
                self._finish(next(iter(self._open)), None, out)
        elif type(part) is ShellBegin:
            known.begin = part
            known.comm = part.comm
        elif type(part) is ShellEnd:
            self._finish(key, part, out)

    def _finish(self, key: _Key, end: ShellEnd | None, out: list[Event]) -> None:
        known = self._open.pop(key)
        self._bytes -= known.size
        command = _command(key, known, end)
        if command is None:
            return
        out.append(command)
        summary = self.summary
        summary.events += 1
        summary.bytes += len(command.text.encode("utf-8", "surrogatepass"))
        summary.truncated += command.missing == "truncated"
        summary.unreadable += command.missing == "unreadable"


def _command(key: _Key, known: _Open, end: ShellEnd | None) -> ShellCommand | None:
    text, typed = _texts(known)
    missing = known.missing
    if not missing and end is not None:
        if not known.is_whole(end.lines) or known.begin is None:
            missing = "lost"
        elif not end.lines:
            missing = "unseen"
    if not missing and not text.strip() and not known.refused:
        return None
    begin = known.begin
    if begin is not None and begin.origin != "typed":
        if end is not None and end.ending == "not run" and end.status is None:
            return None
        text = typed = text.removesuffix("\n")  # what is printed ends as a here-document does
    ended = end.ending if end is not None else "running"
    if known.refused and ended == "returned":
        ended = "not run"
    started_ns = end.started_ns if end is not None else 0
    duration_ns = None
    if end is not None and started_ns and ended != "left":
        duration_ns = max(end.time_ns - started_ns, 0)
    who = begin or end
    status = end.status if end is not None else None
    return ShellCommand(
        time_ns=end.time_ns if end is not None else known.first_ns,
        started_ns=started_ns,
        duration_ns=duration_ns,
        pid=known.pid,
        tid=who.tid if who is not None else known.pid,
        uid=who.uid if who is not None else 0,
        comm=known.comm,
        text=text,
        status=None if ended == "killed" else status,
        ended=ended,
        origin=begin.origin if begin is not None else "typed",
        typed=typed if typed != text else "",
        place=begin.place if begin is not None else "",
        signal=(status or 0) if ended == "killed" else 0,
        login_uid=begin.login_uid if begin is not None else None,
        terminal=begin.terminal if begin is not None else "",
        directory=begin.directory if begin is not None else None,
        session=key[1],
        command=key[2],
        missing=missing,
    )


def _texts(known: _Open) -> tuple[str, str]:
    # What is run, and what was typed; that it was cut is noted.
    if known.program:
        return known.printed, known.printed
    given = {number: line.text() for number, line in sorted(known.given.items())}
    used = {**given, **{number: line.text() for number, line in known.expanded.items()}}
    typed = known.between.join(given.values())
    text = known.between.join(used[number] for number in sorted(used))
    if not known.between:
        typed, text = typed.removesuffix("\n"), text.removesuffix("\n")
    for whole in known.whole.values():
        text = whole.text()
    limit = known.begin.limit if known.begin is not None else 0
    if limit and len(raw := text.encode("utf-8", "surrogatepass")) > limit:
        text = typed = raw[:limit].decode("utf-8", "ignore")
        known.missing = known.missing or "truncated"
    return text, typed


def narrowed(raw: bytes) -> bytes:
    """What fish keeps in memory, as it was typed (src/common.cpp, wcs2string)."""
    text = raw.decode("utf-32-le", "backslashreplace")
    return b"".join(
        bytes((ord(character) - _BYTES,))
        if 0 <= ord(character) - _BYTES <= 0xFF
        else character.encode()
        for character in text
    )


def unmetafied(raw: bytes) -> bytes:
    """What zsh keeps in memory, as it was typed (Src/utils.c, unmetafy)."""
    first, *rest = raw.split(_META)
    return first + b"".join(bytes((part[0] ^ 0x20,)) + part[1:] if part else b"" for part in rest)
