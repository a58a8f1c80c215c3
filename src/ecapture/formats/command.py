# SPDX-License-Identifier: Apache-2.0
"""What shells are told to do, for people to read.

``words`` is the part of a header line behind the process: whose, where, how it ended, how long it
took. The text follows the line as it was run, every line of it; then, where history was expanded, a
line ``  typed: ...`` with what was typed. In ``--brief`` the beginning of the text ends the line
instead.
"""

from __future__ import annotations

import signal
from typing import Final

from ecapture.formats.statement import duration
from ecapture.formats.words import phrase, word
from ecapture.shell_events import ShellCommand

_PREVIEW: Final = 200


def words(event: ShellCommand) -> str:
    """What stands in the header line behind the process."""
    found = ["command" if event.origin == "typed" else event.origin, f"uid={event.uid}"]
    if event.login_uid is not None:
        found.append(f"login={event.login_uid}")
    if event.terminal:
        found.append(f"terminal={word(event.terminal)}")
    if event.directory is not None:
        found.append(f"directory={word(event.directory)}")
    if event.place:
        found.append(f"place={word(event.place)}")
    found.append("status=-" if event.status is None else f"status={event.status}")
    found.append(duration(event.duration_ns))
    return " ".join(found)


def remarks(event: ShellCommand) -> str:
    """What is out of the ordinary, to end the line with: `` [exited, truncated]``."""
    found = [event.missing] if event.missing else []
    if event.ended == "killed":
        found.append(f"killed by {_signal(event.signal)}")
    elif event.ended != "returned":
        found.append(event.ended)
    return f" [{', '.join(found)}]" if found else ""


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def body(event: ShellCommand) -> str:
    """The lines that follow the header line; each ends with a line feed."""
    out = f"{event.text}\n" if event.text else ""
    if event.typed and event.typed != event.text:
        out += f"  typed: {event.typed}\n"
    return out


def preview(event: ShellCommand) -> str:
    """The beginning of the text, in quotes, for a line of its own; empty if there is none."""
    if not event.text:
        return ""
    return f' "{phrase(event.text[:_PREVIEW])}{"..." if len(event.text) > _PREVIEW else ""}"'
