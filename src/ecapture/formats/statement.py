# SPDX-License-Identifier: Apache-2.0
"""Statements to databases, for people to read.

``words`` is the part of a header line behind the process: kind, who, how it ended, how long it
took. The text of the statement follows the line as it was sent, then a line for each parameter,
indented by two blanks: ``$1 = value``, strings as they are, ``NULL`` bare; then one that begins
``error:`` if there was one. In ``--brief`` the beginning of the text ends the line instead.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from ecapture.events import Statement
from ecapture.formats.words import phrase, word

_PREVIEW: Final = 200
_REMEMBERED: Final = 256  # of each kind, each shorter than the limit of texts


def words(event: Statement) -> str:
    """What stands in the header line behind the process."""
    line = event.kind + _whose(
        event.user, event.database, event.client, event.application, event.session
    )
    if event.name:
        line += f" name={_word(event.name)}"
    if event.text and event.missing:
        line += f" length={event.length}"
    line += f" error={word(event.error)}" if event.outcome == "error" else f" {event.outcome}"
    if event.tag:
        line += f" tag={_word(event.tag)}"
    if event.rows is not None:
        line += f" rows={event.rows}"
    return f"{line} {duration(event.duration_ns)}"


# Few sessions, names and tags are in many lines.
_word = lru_cache(_REMEMBERED)(word)


@lru_cache(_REMEMBERED)
def _whose(user: str, database: str, client: str, application: str, session: int) -> str:
    named = {"user": user, "database": database, "client": client, "application": application}
    return "".join(f" {name}={word(value)}" for name, value in named.items() if value) + (
        f" session={session}"
    )


def duration(nanoseconds: int | None) -> str:
    """Milliseconds with three digits, or a dash."""
    return "-" if nanoseconds is None else f"{nanoseconds / 1e6:.3f}ms"


def remarks(event: Statement) -> str:
    """What is not as it should be, to end the line with: `` [truncated, pipelined]``."""
    found = [event.missing] if event.missing else []
    found += event.marks
    if event.no_identity:
        found.append(event.no_identity)
    return f" [{phrase(', '.join(found))}]" if found else ""


def body(event: Statement) -> str:
    """The lines that follow the header line; each ends with a line feed."""
    out = f"{event.text}\n" if event.text else ""
    for number, value in enumerate(event.parameters, 1):
        out += f"  ${number} = {'NULL' if value is None else value}\n"
    if event.message:
        out += f"  error: {event.message}\n"
    return out


def preview(event: Statement) -> str:
    """The beginning of the text, in quotes, for a line of its own; empty if there is none."""
    if not event.text:
        return ""
    return f' "{phrase(event.text[:_PREVIEW])}{"..." if len(event.text) > _PREVIEW else ""}"'
