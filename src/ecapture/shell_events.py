# SPDX-License-Identifier: Apache-2.0
"""Events of shells: ``ShellCommand``, and the parts that the kernel programs tell it in."""

from __future__ import annotations

from typing import Literal

import msgspec

Origin = Literal["typed", "string", "script", "sourced", "input"]
Ending = Literal[
    "returned", "exited", "killed", "replaced", "not run", "abandoned", "left", "running"
]

TextForm = Literal["given", "expanded", "refused", "whole"]
TextEncoding = Literal["plain", "meta", "wordcode", "read", "wide"]


class ShellBegin(msgspec.Struct, frozen=True, gc=False, tag="shell_begin"):
    """A shell takes a command: a part of what becomes a ``ShellCommand``.

    (pid, session, command) names the command. ``directory`` is None where it is not known.
    ``limit`` is how many bytes are kept of a text that is made of what follows; 0: all.
    """

    time_ns: int
    pid: int
    tid: int
    uid: int
    comm: str
    session: int
    command: int
    login_uid: int | None
    terminal: str
    directory: str | None
    origin: Origin
    place: str
    limit: int = 0


class ShellText(msgspec.Struct, frozen=True, gc=False, tag="shell_text"):
    """A piece of a line of a command, ``offset`` bytes from the line's beginning.

    ``form`` is "given", "expanded" (takes the place of the line of this number), "refused" (it is
    not used) or "whole" (takes the place of all lines). ``last``: no piece of the line follows.
    ``missing`` is "truncated" or "unreadable". ``encoding`` is "meta" for text as zsh keeps it, and
    "wordcode" where the lines are what zsh made of the text (``protocols/zsh_program.py``), "read"
    where they have their line feeds, as the shell read them, and "wide" for characters of four
    bytes, as fish keeps them.
    """

    time_ns: int
    pid: int
    comm: str
    session: int
    command: int
    line: int
    offset: int
    form: TextForm
    text: bytes
    last: bool
    missing: str = ""
    encoding: TextEncoding = "plain"


class ShellEnd(msgspec.Struct, frozen=True, gc=False, tag="shell_end"):
    """A command ended; ``lines`` of it were sent. ``status`` is a signal's if it was "killed"."""

    time_ns: int
    started_ns: int
    pid: int
    tid: int
    uid: int
    comm: str
    session: int
    command: int
    lines: int
    ending: Ending
    status: int | None


class ShellCommand(msgspec.Struct, frozen=True, gc=False, tag="shell"):
    """Something that a shell was told to do, whole, and how it ended.

    ``text`` is what was run, all its lines, with history expanded; ``typed`` is what was typed
    instead, where that differs. ``origin``: "typed"; or, of what nobody typed, "string" (the
    argument of -c), "script" (the file that the shell was started with), "sourced" (a file read on
    the way), "input" (standard input); ``place`` is then the name of the file, if known.

    ``started_ns`` is when it was complete and began to run, ``time_ns`` when it ended; 0 and None
    where not known. ``ended``: "returned", "exited" (its shell did), "killed" (its shell was, by
    ``signal``), "replaced" (its shell became another program, by exec), "not run" (the shell
    refused it, or it was a comment), "abandoned" (before it was complete, by Ctrl-C), "left" (it
    runs beside its shell, in a pipeline or the background), "running" (when the capture ended).
    ``status`` is what $? was then; None where there is none.

    ``login_uid`` is the user of the login that the shell descends from, whatever user it runs as
    now; None if there was none or it is not known. ``terminal`` is as under /dev, empty if there is
    none. ``directory`` is the working directory when it began, None if not known. ``session`` tells
    shells of one process id apart, ``command`` counts in it.

    ``text`` is cut or lacks something only where ``missing`` says so: "truncated" (the limit),
    "unreadable", "lost" (records found no room), "unseen" (typed where this shell shows no text).
    """

    time_ns: int
    started_ns: int
    duration_ns: int | None
    pid: int
    tid: int
    uid: int
    comm: str
    text: str
    status: int | None
    ended: Ending
    origin: Origin = "typed"
    typed: str = ""
    place: str = ""
    signal: int = 0
    login_uid: int | None = None
    terminal: str = ""
    directory: str | None = None
    session: int = 0
    command: int = 0
    missing: str = ""


ShellPart = ShellBegin | ShellText | ShellEnd
"""What the kernel programs tell of a command, one after the other."""
