# SPDX-License-Identifier: Apache-2.0
"""GNU bash 3.0 to 5.3: what it is told to do.

``parse_command`` reads one command, of however many lines; what ``readline`` returns meanwhile are
its lines, and ``pre_process_line`` what they are with their history expanded. A shell that waits at
its prompt when the capture begins is within the first two already, and is seen by the third. The
row of the file says where ``last_command_exit_value`` is ($?).

What is not typed is seen where it is executed: a simple command is printed, as BASH_COMMAND shows
it, before the debug trap has its turn, and ``execute_command_internal`` returns its status. It is
``the_printed_command`` that is read: what BASH_COMMAND has stays as it was while a trap runs.
"""

from __future__ import annotations

from ecapture._wire import Shape
from ecapture.plan import Hook
from ecapture.probes.spec import ProbeSpec

PROBE = ProbeSpec(
    name="bash",
    summary="commands that bash is given",
    kinds=("bash", "readline"),
    explicit_option="--bash",
    required=("parse_command",),
    hooks=(
        # int parse_command(void)
        Hook("parse_command", Shape.SHELL_READ),
        Hook("parse_command", Shape.SHELL_PARSED),
        # char *readline(const char *prompt), of bash or of the library that it uses
        Hook("readline", Shape.SHELL_LINE),
        # char *pre_process_line(char *line, int print_changes, int addit)
        Hook("pre_process_line", Shape.SHELL_EXPAND),
        Hook("pre_process_line", Shape.SHELL_EXPANDED),
    ),
    unattended_hooks=(
        # int execute_command_internal(COMMAND *, int asynchronous, int pipe_in, int pipe_out, ...)
        Hook("execute_command_internal", Shape.SHELL_EXECUTE),
        Hook("execute_command_internal", Shape.SHELL_EXECUTED),
        # int run_debug_trap(void)
        Hook("run_debug_trap", Shape.SHELL_STEP),
    ),
)
