# SPDX-License-Identifier: Apache-2.0
"""What ``--filter`` may ask of commands of shells: a table for ``filter_fields``.

``duration``, ``size`` (of the text), ``pid``, ``uid``, ``comm``, ``container`` and ``protocol`` are
the fields of all events and stand there.
"""

from __future__ import annotations

from typing import Final, NamedTuple, get_args

from ecapture.pipeline.expression import Kind
from ecapture.shell_events import Ending, Origin


class CommandField(NamedTuple):
    """A field: ``attribute`` of ``events.ShellCommand``. ``any_case`` as in ``Field``."""

    name: str
    kind: Kind
    summary: str
    attribute: str
    any_case: bool = False
    choices: tuple[str, ...] = ()


COMMAND_FIELDS: Final = (
    CommandField("command", "text", "what a shell was told to do", "text"),
    CommandField("exit_status", "number", "the exit status of a command", "status"),
    CommandField("ended", "text", "how a command ended", "ended", choices=get_args(Ending)),
    CommandField("origin", "text", "who gave a command", "origin", choices=get_args(Origin)),
    CommandField("terminal", "text", "the terminal of a shell, such as pts/3", "terminal"),
    CommandField("directory", "text", "the working directory of a command", "directory"),
    CommandField("login_uid", "number", "the user who logged in", "login_uid"),
)
