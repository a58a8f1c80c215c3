# SPDX-License-Identifier: Apache-2.0
"""Records and events of shells, with everything filled in that a test does not care about."""

from __future__ import annotations

from records import padded

from ecapture._wire import (
    SHELL_BEGIN,
    SHELL_BEGIN_FIELDS,
    SHELL_END,
    SHELL_END_FIELDS,
    SHELL_TEXT,
    SHELL_TEXT_FIELDS,
    Encoding,
    Ending,
    Flag,
    Form,
    Kind,
    Origin,
)
from ecapture.shell_events import ShellBegin, ShellCommand, ShellEnd, ShellText

_HEADER = {
    "time_ns": 1_000,
    "flags": 0,
    "pid": 100,
    "tid": 101,
    "uid": 1000,
    "cpu": 3,
    "comm": b"bash",
    "session": 7,
    "command": 2,
}


def begin_record(tail: bytes = b"tmp\0", **fields: object) -> bytes:
    """A shell takes a command, in /tmp."""
    values = _HEADER | {
        "size": SHELL_BEGIN.size + len(tail),
        "kind": Kind.SHELL_BEGIN,
        "login_uid": 500,
        "place_length": 0,
        "origin": Origin.TYPED,
        "directory": 1,
        "terminal": b"pts3",
        "limit": 0,
    }
    values |= fields
    return padded(SHELL_BEGIN.pack(*(values[name] for name in SHELL_BEGIN_FIELDS)) + tail)


def text_record(text: bytes = b"ls", **fields: object) -> bytes:
    """A line of it, whole."""
    values = _HEADER | {
        "size": SHELL_TEXT.size + len(text),
        "kind": Kind.SHELL_TEXT,
        "flags": Flag.LAST,
        "line": 0,
        "offset": 0,
        "form": Form.GIVEN,
        "encoding": Encoding.PLAIN,
    }
    values |= fields
    return padded(SHELL_TEXT.pack(*(values[name] for name in SHELL_TEXT_FIELDS)) + text)


def end_of_command_record(**fields: object) -> bytes:
    """Its end."""
    values = _HEADER | {
        "time_ns": 3_000,
        "size": SHELL_END.size,
        "kind": Kind.SHELL_END,
        "started_ns": 2_000,
        "lines": 1,
        "status": 0,
        "ending": Ending.RETURNED,
        "has_status": 1,
    }
    values |= fields
    return padded(SHELL_END.pack(*(values[name] for name in SHELL_END_FIELDS)))


def begun(**fields: object) -> ShellBegin:
    """A shell takes a command."""
    values: dict[str, object] = {
        "time_ns": 1_000,
        "pid": 100,
        "tid": 101,
        "uid": 1000,
        "comm": "bash",
        "session": 7,
        "command": 2,
        "login_uid": 500,
        "terminal": "pts/3",
        "directory": "/tmp",
        "origin": "typed",
        "place": "",
    }
    return ShellBegin(**(values | fields))


def line(text: bytes = b"ls", **fields: object) -> ShellText:
    """A piece of a line, by default all of it."""
    values: dict[str, object] = {
        "time_ns": 1_000,
        "pid": 100,
        "comm": "bash",
        "session": 7,
        "command": 2,
        "line": 0,
        "offset": 0,
        "form": "given",
        "text": text,
        "last": True,
    }
    return ShellText(**(values | fields))


def over(**fields: object) -> ShellEnd:
    """The end of the command."""
    values: dict[str, object] = {
        "time_ns": 3_000,
        "started_ns": 2_000,
        "pid": 100,
        "tid": 101,
        "uid": 1000,
        "comm": "bash",
        "session": 7,
        "command": 2,
        "lines": 1,
        "ending": "returned",
        "status": 0,
    }
    return ShellEnd(**(values | fields))


def command(text: str = "ls", **fields: object) -> ShellCommand:
    """What becomes of these three."""
    values: dict[str, object] = {
        "time_ns": 3_000,
        "started_ns": 2_000,
        "duration_ns": 1_000,
        "pid": 100,
        "tid": 101,
        "uid": 1000,
        "comm": "bash",
        "text": text,
        "status": 0,
        "ended": "returned",
        "login_uid": 500,
        "terminal": "pts/3",
        "directory": "/tmp",
        "session": 7,
        "command": 2,
    }
    return ShellCommand(**(values | fields))
