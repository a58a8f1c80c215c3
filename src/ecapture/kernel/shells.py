# SPDX-License-Identifier: Apache-2.0
"""What the kernel programs must know of a shell before its functions are hooked.

Shells of the same build have one row, wherever their file is. Invariant: a hook is placed only
where the row that its program will read has been written.
"""

from __future__ import annotations

import threading

from ecapture._wire import SECRET_SLOTS, SHELL_ROW, SHELL_ROW_FIELDS, SHELL_ROWS, Shape
from ecapture.binary.library import Library
from ecapture.errors import AttachRefused
from ecapture.kernel.attach import Programs
from ecapture.kernel.feature import feature

SHAPES = frozenset(shape for shape in Shape if shape.name.startswith("SHELL_"))
"""The shapes whose programs read rows of this kind."""

# Members of struct ec_shell_row, and the names whose addresses they are in one shell or another.
_MEMBERS = {
    "reader": ("parse_command", "hbegin"),
    "expander": ("pre_process_line",),
    "taker": ("hend",),
    "stringer": ("execstring",),
    "executor": ("execute_command_internal", "execode"),
    "status": ("last_command_exit_value", "lastval"),
    "parsed": ("global_command",),
    "text": ("chline",),
    "text_end": ("hptr",),
    "printed": ("the_printed_command",),
    "interactive": ("interactive_shell", "interactive"),
    "sourced": ("sourcelevel",),
    "string": ("command_execution_string",),
    "input": ("bash_input",),
    "file": ("scriptfilename",),
}


class Shells:
    """Gives rows to files. Thread-safe."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs
        self._lock = threading.Lock()
        self._rows: dict[bytes, int] = {}

    def row(self, library: Library) -> int:
        """The row of a shell. Raises AttachRefused if there are too many different ones."""
        content = shell_row(library)
        limit = SHELL_ROWS if feature("attach_cookie") else SECRET_SLOTS
        with self._lock:
            known = self._rows.get(content)
            if known is not None:
                return known
            row = len(self._rows)
            if row >= limit:
                raise AttachRefused(
                    hook=library.version or library.kind,
                    reason="there are too many different shells",
                )
            self._programs.set_shell_row(row, content)
            self._rows[content] = row
            return row


def shell_row(library: Library) -> bytes:
    """A shell's addresses as the kernel programs read them (struct ec_shell_row)."""
    addresses = library.addresses
    values = (
        next((addresses[name] for name in _MEMBERS[member] if name in addresses), 0)
        for member in SHELL_ROW_FIELDS
    )
    return SHELL_ROW.pack(*values)
