# SPDX-License-Identifier: Apache-2.0
"""fish 3.0 and later: what is typed into it.

``reader_run_command`` of 3.0 and 3.1 runs what was typed, and ``set_last_statuses`` sets $status.
Of later builds, which have no names, it is the one call that is hooked by which what reads a
terminal has a command evaluated, and the instruction behind, where the status is at hand. A shell
that waits at its prompt when the capture begins is about to come there.
"""

from __future__ import annotations

from ecapture._wire import Shape
from ecapture.plan import Hook
from ecapture.probes.spec import ProbeSpec

PROBE = ProbeSpec(
    name="fish",
    summary="commands that fish is given",
    kinds=("fish",),
    explicit_option="--fish",
    required=("eval.call",),
    hooks=(
        # void reader_run_command(parser_t &parser, const wcstring &cmd)
        Hook("reader_run_command", Shape.SHELL_FISH_RUN),
        Hook("reader_run_command", Shape.SHELL_FISH_RETURNED),
        # void env_stack_t::set_last_statuses(statuses_t s)
        Hook("set_last_statuses", Shape.SHELL_FISH_STATUS),
        # where eval_res_t parser_t::eval(const wcstring &cmd, ...) is called, or
        # fn Parser::eval_with(&self, cmd: &wstr, ...) -> EvalRes
        Hook("eval.call", Shape.SHELL_FISH_RUN),
        Hook("eval.returned", Shape.SHELL_FISH_RAN),
        # where it is counted that another line is going to be read
        Hook("reader.next", Shape.SHELL_FISH_NEXT),
    ),
)
