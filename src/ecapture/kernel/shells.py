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

# Members of struct ec_shell_row, and the names whose addresses they are in one shell or another;
# of fish, two numbers that say how it is told what, and tells it.
_MEMBERS = {
    "reader": ("parse_command", "hbegin", "parsecmd"),
    "expander": ("pre_process_line",),
    "taker": ("hend",),
    "stringer": ("execstring", "evalstring"),
    "executor": ("execute_command_internal", "execode"),
    "line": ("preadbuffer.return",),
    "loop": ("cmdloop", "reader.next"),
    "loop_end": ("cmdloop.end",),
    "status": ("last_command_exit_value", "lastval", "exitstatus", "exitstatus.member"),
    "parsed": ("global_command", "tokpushback"),
    "text": ("chline",),
    "text_end": ("hptr",),
    "printed": ("the_printed_command",),
    "interactive": ("interactive_shell", "interactive", "doprompt"),
    "sourced": ("sourcelevel",),
    "string": ("command_execution_string", "minusc", "minusc.member"),
    "input": ("bash_input",),
    "file": ("scriptfilename", "arg0", "arg0.member"),
    "source": ("parsefile",),
    "sourced_name": ("commandname",),
    "wide_text": ("wide_text",),
    "wide_status": ("wide_status",),
    "members": ("ptr_to_globals_misc",),
}

_FILES_ONLY = ("cmdloop", "cmdloop.end")


class Shells:
    """Gives rows to files. Thread-safe."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs
        self._lock = threading.Lock()
        self._rows: dict[bytes, int] = {}

    def row(self, library: Library) -> int:
        """The row of a shell. Raises AttachRefused if there are too many different ones."""
        unattended = any(hook.shape is Shape.SHELL_ASH_LOOPED for hook in self._programs.hooks)
        content = shell_row(library, unattended=unattended)
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


def shell_row(library: Library, *, unattended: bool = True) -> bytes:
    """A shell's addresses as the kernel programs read them (struct ec_shell_row).

    Without ``unattended`` those of dash are left out that only what nobody types has use for.
    """
    addresses = {
        name: address
        for name, address in library.addresses.items()
        if unattended or name not in _FILES_ONLY
    }
    values = (
        next((addresses[name] for name in _MEMBERS[member] if name in addresses), 0)
        for member in SHELL_ROW_FIELDS
    )
    return SHELL_ROW.pack(*values)
