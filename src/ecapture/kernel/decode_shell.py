# SPDX-License-Identifier: Apache-2.0
"""Records of shells to events: the part of ``decode`` that knows their layout.

Each reader takes a whole record, whose size its header tells, and raises ValueError if the rest of
it does not agree with that.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from ecapture._wire import (
    COMM_LENGTH,
    HEADER,
    SHELL_BEGIN,
    SHELL_END,
    SHELL_TEXT,
    Encoding,
    Flag,
    Form,
    Kind,
)
from ecapture._wire import Ending as WireEnding
from ecapture._wire import Origin as WireOrigin
from ecapture.shell_events import (
    Ending,
    Origin,
    ShellBegin,
    ShellEnd,
    ShellPart,
    ShellText,
    TextEncoding,
    TextForm,
)

_COMM: Final = slice(HEADER.size - COMM_LENGTH, HEADER.size)
_NO_LOGIN: Final = 0xFFFFFFFF
# How the kernel numbers pseudo-terminals, "pts3", and where they are under /dev
_PSEUDO: Final = re.compile(r"pts(\d+)")
_ORIGINS: Final[dict[int, Origin]] = {
    WireOrigin.TYPED: "typed",
    WireOrigin.STRING: "string",
    WireOrigin.SCRIPT: "script",
    WireOrigin.SOURCED: "sourced",
    WireOrigin.INPUT: "input",
}
_FORMS: Final[dict[int, TextForm]] = {
    Form.GIVEN: "given",
    Form.EXPANDED: "expanded",
    Form.REFUSED: "refused",
    Form.WHOLE: "whole",
}
_ENCODINGS: Final[dict[int, TextEncoding]] = {
    Encoding.PLAIN: "plain",
    Encoding.META: "meta",
    Encoding.WORDCODE: "wordcode",
    Encoding.READ: "read",
    Encoding.WIDE: "wide",
}
_ENDINGS: Final[dict[int, Ending]] = {
    WireEnding.RETURNED: "returned",
    WireEnding.EXITED: "exited",
    WireEnding.KILLED: "killed",
    WireEnding.REPLACED: "replaced",
    WireEnding.NOT_RUN: "not run",
    WireEnding.ABANDONED: "abandoned",
    WireEnding.LEFT: "left",
}


def decode_shell(
    batch: bytes, at: int, kind: int, size: int, offset_ns: int, name: Callable[[bytes], str]
) -> ShellPart | None:
    """The event of the record at a place of a batch; None if it is of another kind or malformed.

    ``offset_ns`` is added to times; ``name`` makes text of a command name.
    """
    read = _READERS.get(kind)
    if read is None:
        return None
    record = batch[at : at + size]
    try:
        return read(record, offset_ns, name(record[_COMM]))
    except ValueError:
        return None


def _begin(record: bytes, offset_ns: int, comm: str) -> ShellBegin:
    if len(record) < SHELL_BEGIN.size:
        raise ValueError("too short")
    # fmt: off
    (time_ns, _size, _kind, _flags, pid, tid, uid, _cpu, _comm, session, command, login_uid,
     place_length, origin, has_directory, terminal, limit) = SHELL_BEGIN.unpack_from(record)
    # fmt: on
    place_end = SHELL_BEGIN.size + place_length
    if place_end > len(record) or origin not in _ORIGINS:
        raise ValueError("a place beyond its end, or of an origin that is none")
    directory = None
    if has_directory:
        names = record[place_end:].split(b"\0")[:-1]
        directory = "/" + "/".join(_name(name) for name in reversed(names))
    name = _name(terminal.split(b"\0", 1)[0])
    return ShellBegin(
        time_ns + offset_ns,
        pid,
        tid,
        uid,
        comm,
        session,
        command,
        None if login_uid == _NO_LOGIN else login_uid,
        _PSEUDO.sub(r"pts/\1", name) if _PSEUDO.fullmatch(name) else name,
        directory,
        _ORIGINS[origin],
        _name(record[SHELL_BEGIN.size : place_end]),
        limit,
    )


def _text(record: bytes, offset_ns: int, comm: str) -> ShellText:
    if len(record) < SHELL_TEXT.size:
        raise ValueError("too short")
    # fmt: off
    (time_ns, _size, _kind, flags, pid, _tid, _uid, _cpu, _comm, session, command, line, offset,
     form, encoding) = SHELL_TEXT.unpack_from(record)
    # fmt: on
    if form not in _FORMS or encoding not in _ENCODINGS:
        raise ValueError("a form or an encoding that is none")
    missing = "unreadable" if flags & Flag.FAULT else "truncated" if flags & Flag.TRUNCATED else ""
    return ShellText(
        time_ns + offset_ns,
        pid,
        comm,
        session,
        command,
        line,
        offset,
        _FORMS[form],
        record[SHELL_TEXT.size :],
        bool(flags & Flag.LAST),
        missing,
        _ENCODINGS[encoding],
    )


def _end(record: bytes, offset_ns: int, comm: str) -> ShellEnd:
    if len(record) != SHELL_END.size:
        raise ValueError("not of its size")
    # fmt: off
    (time_ns, _size, _kind, _flags, pid, tid, uid, _cpu, _comm, session, started_ns, command,
     lines, status, ending, has_status) = SHELL_END.unpack_from(record)
    # fmt: on
    if ending not in _ENDINGS:
        raise ValueError("an ending that is none")
    return ShellEnd(
        time_ns + offset_ns,
        started_ns + offset_ns if started_ns else 0,
        pid,
        tid,
        uid,
        comm,
        session,
        command,
        lines,
        _ENDINGS[ending],
        status if has_status else None,
    )


def _name(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")


_READERS: Final[dict[int, Callable[[bytes, int, str], ShellPart]]] = {
    Kind.SHELL_BEGIN: _begin,
    Kind.SHELL_TEXT: _text,
    Kind.SHELL_END: _end,
}
