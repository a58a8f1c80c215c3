# SPDX-License-Identifier: Apache-2.0
"""The subcommands that show what shells are told to do: ``bash``, ``zsh``, ``sh`` and ``fish``.

A shell that is named by hand brings its line editor along, and a line editor its shell: neither
alone shows what is typed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from ecapture.binary import loader
from ecapture.cli.capture import capture
from ecapture.cli.options import audit_options, check_audit, no_packet_filter
from ecapture.errors import ECaptureError, TargetNotFound

_EDITOR = "libreadline"


def shell_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that subcommands for shells have beside those of all."""
    for option in reversed(
        (
            click.option(
                "-e",
                "--errnumber",
                type=click.IntRange(0, 255),
                metavar="STATUS",
                help="Show only commands with this exit status.",
            ),
            click.option(
                "--non-interactive",
                "unattended",
                is_flag=True,
                help="Also what nobody types: commands of -c, scripts and sourced files.",
            ),
            audit_options,
        )
    ):
        command = option(command)
    return command


@click.command()
@shell_options
@click.option("--bash", "shells", multiple=True, metavar="FILE", help="Observe only this bash.")
@click.option(
    "--readlineso",
    "editors",
    multiple=True,
    metavar="FILE",
    help="The readline library that it uses, where that is not found by itself.",
)
@no_packet_filter
@click.pass_context
def bash(
    context: click.Context,
    /,
    *,
    shells: Sequence[str],
    editors: Sequence[str],
    **given: Any,
) -> None:
    """Show what bash is told to do: every command, whole, with its exit status.

    With who runs it, where, for how long and how it ended. Every bash on the host is observed,
    those that wait at their prompts, too.
    """
    check_audit(given)
    libraries = files_of(shells, editors)
    context.exit(capture(("bash",), given | {"libraries": libraries}, context.obj))


@click.command()
@shell_options
@click.option("--zsh", "libraries", multiple=True, metavar="FILE", help="Observe only this zsh.")
@no_packet_filter
@click.pass_context
def zsh(context: click.Context, /, **given: Any) -> None:
    """Show what zsh is told to do. See `ecapture bash --help` for the rest.

    Of what nobody types, the argument of -c is shown, and each command that is read from scripts
    and sourced files.
    """
    check_audit(given)
    context.exit(capture(("zsh",), given, context.obj))


@click.command()
@shell_options
@click.option("--sh", "libraries", multiple=True, metavar="FILE", help="Observe only this sh.")
@no_packet_filter
@click.pass_context
def sh(context: click.Context, /, **given: Any) -> None:
    """Show what sh is told to do: dash or busybox. See `ecapture bash --help` for the rest.

    Of what nobody types, the argument of -c is shown, and each command that is read from scripts,
    sourced files and standard input.
    """
    check_audit(given)
    context.exit(capture(("sh",), given, context.obj))


@click.command()
@shell_options
@click.option("--fish", "libraries", multiple=True, metavar="FILE", help="Observe only this fish.")
@no_packet_filter
@click.pass_context
def fish(context: click.Context, /, **given: Any) -> None:
    """Show what is typed into fish. See `ecapture bash --help` for the rest.

    What nobody types, scripts and the argument of -c, is not shown: --non-interactive says so.
    """
    check_audit(given)
    context.exit(capture(("fish",), given, context.obj))


def files_of(shells: Sequence[str], editors: Sequence[str]) -> tuple[str, ...]:
    """All files to hook for those that were named.

    Raises TargetNotFound if only line editors were, and there is no bash to go with them.
    """
    if not shells and not editors:
        return ()
    named = list(shells) or [_own_bash()]
    found = list(editors)
    for path in named if not editors else ():
        try:
            needed = loader.closure(path, ())
        except ECaptureError:
            continue  # it is refused with the reason when it is looked into
        found += [file for file in needed if Path(file).name.startswith(_EDITOR)]
    return (*named, *found)


def _own_bash() -> str:
    own = os.environ.get("SHELL", "")
    found = own if Path(own).name == "bash" else shutil.which("bash")
    if not found:
        raise TargetNotFound(
            looked_for="bash", looked_in="PATH", hint="say which it is with --bash FILE"
        )
    return found
