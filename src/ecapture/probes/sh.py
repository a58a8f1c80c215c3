# SPDX-License-Identifier: Apache-2.0
"""dash 0.5.6 to 0.5.12, and the shell of busybox 1.30 to 1.37: what they are told to do.

``parsecmd`` reads one command, of however many lines, and says whether it was typed; each line
stands in the buffer of the file where ``preadbuffer`` returns. A shell that waits at its prompt
when the capture begins is within the latter, so it is its return instruction that is hooked. The
row of the file says where ``exitstatus`` is ($?).

What is not typed is read by the same functions for ``cmdloop``, one complete command after the
other; the argument of ``-c`` is that of ``evalstring``.
"""

from __future__ import annotations

from ecapture._wire import Shape
from ecapture.plan import Hook
from ecapture.probes.spec import ProbeSpec

PROBE = ProbeSpec(
    name="sh",
    summary="commands that sh (dash, busybox) is given",
    kinds=("dash", "busybox"),
    explicit_option="--sh",
    required=("parsecmd",),
    hooks=(
        # union node *parsecmd(int interact)
        Hook("parsecmd", Shape.SHELL_ASH_READ),
        Hook("parsecmd", Shape.SHELL_ASH_PARSED),
        # int preadbuffer(void)
        Hook("preadbuffer.return", Shape.SHELL_ASH_LINE),
    ),
    unattended_hooks=(
        # int cmdloop(int top)
        Hook("cmdloop", Shape.SHELL_ASH_LOOPED),
        # int evalstring(char *s, int flags)
        Hook("evalstring", Shape.SHELL_STRING),
        Hook("evalstring", Shape.SHELL_STRUNG),
    ),
)
