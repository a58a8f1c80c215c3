# SPDX-License-Identifier: Apache-2.0
"""zsh 4.3 to 5.9: what it is told to do.

An interactive zsh puts what it reads together for its history, whether or not any is kept and
whatever it reads lines with: ``hbegin`` begins that, ``hend`` ends it, and ``chline`` is the text,
its history expanded. What was typed is what ``zleread`` returns, in zsh or in its ``zle.so``. The
row of the file says where ``lastval`` is ($?).

What is not typed is seen as the argument of ``execstring``, the text of ``-c``; and where
``execode`` is given what was parsed, with a word for where it is from, a command of a script or of
a sourced file: its text is put together from that (``protocols/zsh_program.py``).
"""

from __future__ import annotations

from ecapture._wire import Shape
from ecapture.plan import Hook
from ecapture.probes.spec import ProbeSpec

PROBE = ProbeSpec(
    name="zsh",
    summary="commands that zsh is given",
    kinds=("zsh", "zle"),
    explicit_option="--zsh",
    required=("hbegin", "hend"),
    hooks=(
        # void hbegin(int dohist)
        Hook("hbegin", Shape.SHELL_READ),
        # int hend(Eprog prog)
        Hook("hend", Shape.SHELL_TAKEN),
        Hook("hend", Shape.SHELL_PARSED),
        # unsigned char *zleread(char **lp, char **rp, int flags, int context, ...)
        Hook("zleread", Shape.SHELL_LINE),
    ),
    unattended_hooks=(
        # void execstring(char *s, int dont_change_job, int exiting, char *context)
        Hook("execstring", Shape.SHELL_STRING),
        Hook("execstring", Shape.SHELL_STRUNG),
        # void execode(Eprog p, int dont_change_job, int exiting, char *context)
        Hook("execode", Shape.SHELL_EXECUTE),
        Hook("execode", Shape.SHELL_EXECUTED),
    ),
)
