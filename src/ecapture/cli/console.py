# SPDX-License-Identifier: Apache-2.0
"""What the command line says to people: on standard error, never on standard output."""

from __future__ import annotations

import logging
import os
import re
import shlex
import sys
from typing import TextIO

from ecapture.errors import ECaptureError, PermissionMissing
from ecapture.sinks.file import open_output

# C0, DEL, C1; what turns the direction of writing around; bytes that are not UTF-8.
_CONTROL = re.compile(r"[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    """Text with its control characters escaped, for names that processes and files gave themselves.

    Ends of lines and tabs stay. What stands for undecodable bytes is escaped, too.
    """
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def say(text: str) -> None:
    """One line on standard error. A closed standard error is no reason to stop."""
    try:
        sys.stderr.write(visible(text) + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass


class _Visible(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


def complain(error: ECaptureError) -> None:
    """An error and what to do about it."""
    if isinstance(error, PermissionMissing):
        error.hint = error.hint or f"run: sudo {own_command()} {shlex.join(sys.argv[1:])}"
    say(f"ecapture: {error}")
    if error.hint:
        say(f"  {error.hint}")
    for nested in getattr(error, "exceptions", ()):
        say(f"  - {nested}")


def own_command() -> str:
    """The running command for a shell, with its full path: sudo does not know that of a venv."""
    if sys.argv[0].endswith("__main__.py"):
        return f"{shlex.quote(sys.executable)} -m ecapture"
    return shlex.quote(own_path())


def own_path() -> str:
    """The file that was started, links kept."""
    return os.path.abspath(sys.argv[0])  # noqa: PTH100 - Path.absolute keeps "..", which is harder to read


def set_up_logging(*, debug: bool, path: str | None) -> None:
    """Diagnostics to standard error, or appended to a file."""
    stream: TextIO = sys.stderr
    if path:
        stream = os.fdopen(open_output(path, append=True, option="-l"), "a")
    handler = logging.StreamHandler(stream)
    layout = "ecapture: %(message)s"
    if debug:
        layout = "%(relativeCreated)7.0fms %(levelname)s %(name)s: %(message)s"
    handler.setFormatter(_Visible(layout))
    root = logging.getLogger("ecapture")
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if debug else logging.INFO)
    root.propagate = False
