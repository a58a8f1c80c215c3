# SPDX-License-Identifier: Apache-2.0
"""Options that subcommands share, spelt as in the reference, and their way into settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from ecapture.config import Scope

_OUTPUT = (
    click.option(
        "-m",
        "--model",
        default="text",
        metavar="MODE",
        help="text (default), jsonl, har, record or keylog.",
    ),
    click.option(
        "-k",
        "--keylogfile",
        metavar="FILE",
        help="Append the keys of connections to FILE, also beside another mode; - is standard"
        " output. With -m keylog by default ecapture_openssl_key.log.",
    ),
    click.option(
        "-w", "--output", metavar="FILE", help="Write to FILE (created 0600); - is standard output."
    ),
    click.option(
        "--eventaddr",
        metavar="DESTINATION",
        help="Write (also) to a file, tcp://HOST:PORT or ws://HOST:PORT/PATH.",
    ),
    click.option(
        "--eventrotatesize",
        "--eventroratesize",
        "rotate_size",
        type=click.IntRange(0),
        default=0,
        metavar="MB",
        help="Begin a new file before one exceeds so many megabytes.",
    ),
    click.option(
        "--eventrotatetime",
        "--eventroratetime",
        "rotate_time",
        type=click.IntRange(0),
        default=0,
        metavar="SECONDS",
        help="Begin a new file when one is so old.",
    ),
    click.option(
        "--keep",
        type=click.IntRange(0),
        default=0,
        metavar="N",
        help="Keep only so many old files; 0 keeps all.",
    ),
    click.option("--hex", is_flag=True, help="Show payloads as hexadecimal dumps."),
    click.option("--raw", is_flag=True, help="Show what was read and written as it is, unparsed."),
    click.option(
        "--redact", is_flag=True, help="Replace passwords, tokens and cookies in what is shown."
    ),
    click.option("--brief", is_flag=True, help="One line per request and its response."),
    click.option(
        "--color",
        "--colour",
        type=click.Choice(["auto", "always", "never"]),
        default="auto",
        help="Colours; auto means on a terminal.",
    ),
    click.option(
        "--filter",
        metavar="EXPRESSION",
        help="Show only what matches, such as 'status >= 500 and host ~ \"internal\"'.",
    ),
    click.option(
        "-t",
        "--truncate",
        "--tsize",
        default="0",
        metavar="SIZE",
        help="Keep at most so many bytes of each body (with --raw and record: of each call).",
    ),
)
_OPTIONS = (
    *_OUTPUT,
    click.option(
        "-p",
        "--pid",
        "pids",
        type=int,
        multiple=True,
        help="Watch this process. Repeatable; 0 means all.",
    ),
    click.option("--follow", is_flag=True, help="With --pid: watch its descendants, too."),
    click.option(
        "-u",
        "--uid",
        "uids",
        type=int,
        multiple=True,
        help="Watch processes of this user. Repeatable; 0 is root.",
    ),
    click.option(
        "--comm",
        "comms",
        multiple=True,
        metavar="NAME",
        help="Watch processes of this command name. Repeatable.",
    ),
    click.option(
        "--cgroup_path",
        "cgroups",
        multiple=True,
        metavar="DIR",
        help="Watch this cgroup (v2) and those below. Repeatable.",
    ),
    click.option(
        "--mapsize",
        default="16m",
        metavar="SIZE",
        help="Kernel buffer: 16m (default), 512k, or a number of 4096-byte pages.",
    ),
    click.option(
        "-b",
        "--btf",
        type=click.IntRange(0, 2),
        default=0,
        help="Kernel types: 0 if there are any, 1 required, 2 not used.",
    ),
    click.option(
        "-l",
        "--logaddr",
        metavar="FILE",
        help="Append diagnostics to FILE instead of standard error.",
    ),
    click.option("-d", "--debug", is_flag=True, help="Tell each step."),
)


def output_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that say what is written, and where."""
    for option in reversed(_OUTPUT):
        command = option(command)
    return command


def capture_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that every capturing subcommand has."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def scope_from(given: dict[str, Any]) -> Scope:
    """The scope that the options describe. Process 0 means all, as in the reference."""
    return Scope(
        pids=tuple(dict.fromkeys(pid for pid in given["pids"] if pid)),
        uids=tuple(dict.fromkeys(given["uids"])),
        comms=tuple(dict.fromkeys(given["comms"])),
        cgroups=tuple(dict.fromkeys(given["cgroups"])),
        follow=given["follow"],
    )
