# SPDX-License-Identifier: Apache-2.0
"""Records about commands to database servers, with everything filled in that a test leaves out."""

from __future__ import annotations

from records import padded

from ecapture._wire import (
    COMMAND,
    COMMAND_END,
    COMMAND_END_FIELDS,
    COMMAND_FIELDS,
    COMMAND_TEXT,
    COMMAND_TEXT_FIELDS,
    CommandFlag,
    Flag,
    Kind,
    TextRole,
)

_SHARED = {
    "time_ns": 1_000,
    "flags": 0,
    "pid": 100,
    "tid": 101,
    "uid": 999,
    "cpu": 1,
    "comm": b"mariadbd",
    "session": 0x7000,
    "started_ns": 1_000,
    "statement": 0,
}
KNOWN = CommandFlag.HAS_CONNECTION


def _packed(packer: object, names: tuple[str, ...], values: dict[str, object]) -> bytes:
    # "flags" stands in the header and in the record: the second is told as "told".
    seen: set[str] = set()
    row = []
    for name in names:
        row.append(values["told" if name in seen else name])
        seen.add(name)
    return packer.pack(*row)


def begin_record(
    command: int = 3,
    *,
    user: bytes = b"ada",
    host: bytes = b"localhost",
    database: bytes = b"shop",
    sent: bytes = b"",
    **fields: object,
) -> bytes:
    """A command begins; ``sent`` with it is what the client sent."""
    content = user + host + database + sent
    values = {
        **_SHARED,
        "size": COMMAND.size + len(content),
        "kind": Kind.COMMAND,
        "connection": 7,
        "text_length": len(sent),
        "told": KNOWN,
        "command": command,
        "known": 7,
        "user_length": len(user),
        "host_length": len(host),
        "database_length": len(database),
        "sent_length": len(sent),
        "role": TextRole.STATEMENT,
    }
    return padded(_packed(COMMAND, COMMAND_FIELDS, values | fields) + content)


def text_record(
    payload: bytes, role: int = TextRole.STATEMENT, *, last: bool = True, **fields: object
) -> bytes:
    """Bytes of a command."""
    values = {
        **_SHARED,
        "size": COMMAND_TEXT.size + len(payload),
        "kind": Kind.COMMAND_TEXT,
        "flags": Flag.LAST if last else 0,
        "length": len(payload),
        "offset": 0,
        "role": role,
    }
    return padded(_packed(COMMAND_TEXT, COMMAND_TEXT_FIELDS, values | fields) + payload)


def end_record(command: int = 3, **fields: object) -> bytes:
    """A command ends, answered with one affected row."""
    values = {
        **_SHARED,
        "time_ns": 6_000,
        "size": COMMAND_END.size,
        "kind": Kind.COMMAND_END,
        "connection": 7,
        "affected": 1,
        "last_id": 0,
        "rows": 0,
        "error": 0,
        "results": 1,
        "told": KNOWN | CommandFlag.ANSWERED | CommandFlag.HAS_AFFECTED,
        "command": command,
    }
    return padded(_packed(COMMAND_END, COMMAND_END_FIELDS, values | fields))
