# SPDX-License-Identifier: Apache-2.0
"""Records about commands to database servers (``bpf/dispatch.bpf.c``) to events.

Texts of names end with a NUL. What the kernel program did not know is None or empty, and
``unknown`` says why, in words for people; nothing is made up.
"""

from __future__ import annotations

from collections.abc import Callable

from ecapture._wire import (
    COMMAND,
    COMMAND_END,
    COMMAND_TEXT,
    CommandFlag,
    Flag,
    Kind,
    TextRole,
)
from ecapture.events import Command, CommandEnd, CommandText

_NAMES = (
    # name, its bit of "known", the flags that say that it is cut, or could not be read
    ("user", 1, CommandFlag.USER_CUT, CommandFlag.USER_UNREAD),
    ("client", 2, CommandFlag.HOST_CUT, CommandFlag.HOST_UNREAD),
    ("database", 4, CommandFlag.DATABASE_CUT, CommandFlag.DATABASE_UNREAD),
)
_REMARKS = (
    *((unread, f"{name} could not be read") for name, _, _, unread in _NAMES),
    *((cut, f"{name} is cut") for name, _, cut, _ in _NAMES),
)
_ANY_REMARK = sum(flag for flag, _ in _REMARKS)

_Name = Callable[[bytes], str]


def decode_command(
    batch: bytes, at: int, kind: int, size: int, offset_ns: int, name: _Name
) -> Command | CommandText | CommandEnd | None:
    """The event of the record at ``at``; None if it is not as the wire says.

    ``offset_ns`` is added to its times, ``name`` decodes a command name.
    """
    if kind == Kind.COMMAND and size == COMMAND.size:
        return _begin(batch, at, offset_ns, name)
    if kind == Kind.COMMAND_TEXT and size >= COMMAND_TEXT.size:
        return _text(batch, at, size, offset_ns, name)
    if kind == Kind.COMMAND_END and size == COMMAND_END.size:
        return _end(batch, at, offset_ns, name)
    return None


def _begin(batch: bytes, at: int, offset_ns: int, name: _Name) -> Command:
    # fmt: off
    (time_ns, _size, _kind, _flags, pid, tid, uid, _cpu, comm, session, started_ns, connection,
     length, statement, told, command, known, user, host, database) = COMMAND.unpack_from(batch, at)
    # fmt: on
    return Command(
        time_ns + offset_ns,
        pid,
        tid,
        uid,
        name(comm),
        session,
        (pid, tid, started_ns),
        command,
        connection if told & CommandFlag.HAS_CONNECTION else None,
        statement if told & CommandFlag.HAS_STATEMENT else None,
        length,
        _word(user),
        _word(host),
        _word(database),
        "" if known == 7 and not told & _ANY_REMARK else _unknown(known, told),
    )


def _text(batch: bytes, at: int, size: int, offset_ns: int, name: _Name) -> CommandText | None:
    # fmt: off
    (time_ns, _size, _kind, flags, pid, tid, uid, _cpu, comm, _session, started_ns,
     length, offset, role) = COMMAND_TEXT.unpack_from(batch, at)
    # fmt: on
    payload = batch[at + COMMAND_TEXT.size : at + size]
    if role > max(TextRole) or offset + len(payload) > length:
        return None
    missing = "unreadable" if flags & Flag.FAULT else ""
    if not missing and flags & Flag.TRUNCATED and flags & Flag.LAST:
        missing = "truncated"
    return CommandText(
        time_ns + offset_ns,
        pid,
        tid,
        uid,
        name(comm),
        (pid, tid, started_ns),
        role,
        length,
        offset,
        payload,
        missing,
        flags & Flag.LAST != 0,
    )


def _end(batch: bytes, at: int, offset_ns: int, name: _Name) -> CommandEnd:
    # fmt: off
    (time_ns, _size, _kind, _flags, pid, tid, uid, _cpu, comm, session, started_ns, connection,
     affected, _last_id, rows, statement, error, results, told, command,
     ) = COMMAND_END.unpack_from(batch, at)
    # fmt: on
    return CommandEnd(
        time_ns + offset_ns,
        pid,
        tid,
        uid,
        name(comm),
        session,
        (pid, tid, started_ns),
        command,
        connection if told & CommandFlag.HAS_CONNECTION else None,
        statement if told & CommandFlag.HAS_STATEMENT else None,
        error,
        results,
        affected if told & CommandFlag.HAS_AFFECTED else None,
        rows if told & CommandFlag.HAS_ROWS else None,
        told & CommandFlag.ANSWERED != 0,
        told & CommandFlag.CLOSES != 0,
    )


def _word(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")


def _unknown(known: int, told: int) -> str:
    hidden = [name for name, bit, _, _ in _NAMES if not known & bit]
    said = [f"this build does not show {', '.join(hidden)}"] if hidden else []
    said += [remark for flag, remark in _REMARKS if told & flag]
    return "; ".join(said)
