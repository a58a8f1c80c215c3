# SPDX-License-Identifier: Apache-2.0
"""The subcommands that show what is asked of databases."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import click

from ecapture.binary.elf import ElfFile
from ecapture.binary.mysqld import PROGRAMS
from ecapture.binary.process import all_pids, with_descendants
from ecapture.cli.capture import capture
from ecapture.cli.options import audit_options, check_audit, no_packet_filter
from ecapture.errors import ECaptureError, UsageError
from ecapture.kernel.feature import feature

_log = logging.getLogger(__name__)


@click.command()
@audit_options
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
@no_packet_filter
@click.pass_context
def postgres(context: click.Context, /, funcname: str | None, **given: Any) -> None:
    """Show what clients ask of PostgreSQL servers: statements, parameters, outcomes.

    Every server on the host is observed, whoever runs it and whatever encrypts its connections.
    With --pid and the process of a server (the postmaster) all its sessions are. --truncate limits
    the text of a statement (65536 bytes unless told otherwise).
    """
    check_audit(given)
    if funcname is not None:
        _log.warning("--funcname is not needed, and %s is not observed", funcname)
    context.exit(capture(("postgres",), _with_sessions(given), context.obj))


@click.command()
@audit_options
@click.option(
    "--mysqld",
    "libraries",
    multiple=True,
    metavar="FILE",
    help="Observe only this server. Repeatable. By default all that run, or begin to.",
)
@click.option(
    "-f",
    "--funcname",
    metavar="SYMBOL",
    help="The function that carries out commands, if its name is not dispatch_command.",
)
@click.option(
    "--offset",
    metavar="BYTES",
    help="Where in the file that function starts (0x1234 or decimal); needs --mysqld.",
)
@no_packet_filter
@click.pass_context
def mysqld(
    context: click.Context, /, *, funcname: str | None, offset: str | None, **given: Any
) -> None:
    """Show the statements that MySQL, MariaDB and Percona servers are sent, and how they end.

    Whole, with user, database, client, duration, rows and error; prepared statements with their
    parameters where they are known. A statement is kept up to 64 KiB; --truncate sets another
    limit (up to 1 MiB).
    """
    check_audit(given)
    named = _server_options(given["libraries"], funcname, offset)
    context.exit(capture(("mysqld",), given | named, context.obj))


def _is_server(pid: int) -> bool:
    try:
        with ElfFile(f"/proc/{pid}/exe") as program:
            return program.symbol("secure_read") is not None
    except ECaptureError:
        return False


def _with_sessions(given: dict[str, Any]) -> dict[str, Any]:
    """A session is a process that descends from the server's."""
    pids = tuple(pid for pid in given["pids"] if pid)
    if pids and not any(map(_is_server, with_descendants(pids))):
        _log.warning("no PostgreSQL server is among the processes of --pid")
    if not pids or given["follow"]:
        return given
    if feature("btf") and given["btf"] != 2:
        return given | {"follow": True}
    _log.warning("without kernel types (BTF) sessions that begin from now on are not seen")
    return given | {"pids": tuple(sorted(with_descendants(pids)))}


def _server_options(
    files: tuple[str, ...], symbol: str | None, offset: str | None
) -> dict[str, object]:
    """What --funcname and --offset add to the options.

    Without --mysqld they are about the one server that is running or installed. Raises UsageError.
    """
    if symbol is None and offset is None:
        return {}
    if symbol is not None and offset is not None:
        raise UsageError(
            option="--offset", problem="--funcname names the function already", hint="leave one out"
        )
    files = files or _servers()
    if len(files) != 1:
        raise UsageError(
            option="--funcname" if offset is None else "--offset",
            problem=f"it is of one server's file, and {len(files)} were found",
            hint="name the file with --mysqld FILE",
        )
    at = None
    if offset is not None:
        try:
            at = int(offset, 0)
        except ValueError:
            at = -1
        if not 0 < at < 1 << 62:
            raise UsageError(
                option="--offset", problem=f"{offset!r} is no offset", hint="examples: 0x4f2a10, 5"
            )
    return {"libraries": files, "server_function": symbol or "", "server_offset": at}


def _servers() -> tuple[str, ...]:
    # Files of the servers that run, by their inode; else the one that is installed.
    files: dict[tuple[int, int], str] = {}
    for pid in all_pids():
        try:
            path = Path(f"/proc/{pid}/exe")
            if path.readlink().name in PROGRAMS:
                found = path.stat()
                files.setdefault((found.st_dev, found.st_ino), str(path.readlink()))
        except OSError:
            continue
    if files:
        return tuple(files.values())
    for name in PROGRAMS[::-1]:
        if path_of := shutil.which(name, path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/libexec"):
            return (path_of,)
    return ()
