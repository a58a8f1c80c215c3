# SPDX-License-Identifier: Apache-2.0
"""What the command line says to people: on standard error, never on standard output."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from typing import TextIO

from ecapture.errors import ECaptureError, PermissionMissing
from ecapture.sinks.file import open_output


def say(text: str) -> None:
    """One line on standard error. A closed standard error is no reason to stop."""
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass


def complain(error: ECaptureError) -> None:
    """An error and what to do about it."""
    if isinstance(error, PermissionMissing):
        error.hint = error.hint or f"run: sudo {shlex.join([own_path(), *sys.argv[1:]])}"
    say(f"ecapture: {error}")
    if error.hint:
        say(f"  {error.hint}")
    for nested in getattr(error, "exceptions", ()):
        say(f"  - {nested}")


def own_path() -> str:
    """The full path of the running command: sudo does not know a virtual environment's PATH."""
    started_as = sys.argv[0]
    if started_as.endswith("__main__.py"):
        return f"{sys.executable} -m ecapture"
    return os.path.abspath(started_as)  # noqa: PTH100 - Path.absolute keeps "..", which is harder to read


def set_up_logging(*, debug: bool, path: str | None) -> None:
    """Diagnostics to standard error, or appended to a file."""
    stream: TextIO = sys.stderr
    if path:
        stream = os.fdopen(open_output(path, append=True), "a")
    handler = logging.StreamHandler(stream)
    layout = "ecapture: %(message)s"
    if debug:
        layout = "%(relativeCreated)7.0fms %(levelname)s %(name)s: %(message)s"
    handler.setFormatter(logging.Formatter(layout))
    root = logging.getLogger("ecapture")
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if debug else logging.INFO)
    root.propagate = False
