# SPDX-License-Identifier: Apache-2.0
"""The subcommands that show what is asked of databases."""

from __future__ import annotations

import logging
from typing import Any

import click

from ecapture.binary.process import with_descendants
from ecapture.cli.capture import capture
from ecapture.cli.options import capture_options
from ecapture.errors import UsageError
from ecapture.kernel.feature import feature

_log = logging.getLogger(__name__)


@click.command()
@capture_options
@click.option(
    "--postgres",
    "libraries",
    multiple=True,
    metavar="FILE",
    help="Observe only this server program. Repeatable.",
)
@click.option(
    "-f",
    "--funcname",
    metavar="NAME",
    help="Not needed: the functions that are observed are in every server.",
)
@click.argument("packet_filter", nargs=-1, metavar="[-- COMMAND [ARGUMENTS...]]")
@click.pass_context
def postgres(context: click.Context, /, funcname: str | None, **given: Any) -> None:
    """Show what clients ask of PostgreSQL servers: statements, parameters, outcomes.

    Every server on the host is observed, whoever runs it and whatever encrypts its connections.
    With --pid and the process of a server (the postmaster) all its sessions are. --truncate limits
    the text of a statement (65536 bytes unless told otherwise).
    """
    _check_mode(given)
    if funcname is not None:
        _log.warning("--funcname is not needed, and %s is not observed", funcname)
    context.exit(capture(("postgres",), _with_sessions(given), context.obj))


def _check_mode(given: dict[str, Any]) -> None:
    if given["model"] in ("text", "jsonl", "record") and given["keylogfile"] is None:
        return
    option = "-k" if given["keylogfile"] is not None else f"-m {given['model']}"
    raise UsageError(
        option=option,
        problem="has nothing to say of statements",
        hint="modes: text, jsonl, record",
    )


def _with_sessions(given: dict[str, Any]) -> dict[str, Any]:
    """A session is a process that descends from the server's."""
    pids = tuple(pid for pid in given["pids"] if pid)
    if not pids or given["follow"]:
        return given
    if feature("btf") and given["btf"] != 2:
        return given | {"follow": True}
    _log.warning("without kernel types (BTF) sessions that begin from now on are not seen")
    return given | {"pids": tuple(sorted(with_descendants(pids)))}
