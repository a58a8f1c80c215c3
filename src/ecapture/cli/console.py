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
from ecapture.formats.words import escaped_json
from ecapture.sinks.file import open_output

# C0, DEL, C1; what turns the direction of writing around; bytes that are not UTF-8.
_CONTROL = re.compile(
    r"[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_LINE = re.compile(r"\n(?=\S)")


def visible(text: str) -> str:
    """Text with its control characters escaped, for names that processes and files gave themselves.

    Ends of lines and tabs stay. What stands for undecodable bytes is escaped, too.
    """
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def document(value: object) -> bytes:
    r"""Values as JSON that may be shown on a terminal; what is not UTF-8 in names as \xNN."""
    import msgspec  # noqa: PLC0415 - slow to import, seldom wanted

    try:
        encoded = msgspec.json.encode(value)
    except UnicodeEncodeError:
        encoded = msgspec.json.encode(_decodable(msgspec.to_builtins(value)))
    return escaped_json(msgspec.json.format(encoded, indent=2))


def _decodable(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if isinstance(value, dict):
        return {key: _decodable(one) for key, one in value.items()}
    return [_decodable(one) for one in value] if isinstance(value, list) else value


def say(text: str) -> None:
    """One line on standard error. A closed standard error is no reason to stop."""
    try:
        sys.stderr.write(visible(text) + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass


class _Visible(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        # A file may have a name of two lines: none of them begins like one that scripts wait for.
        return _LINE.sub("\n  ", visible(super().format(record)))


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
