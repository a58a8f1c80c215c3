# SPDX-License-Identifier: Apache-2.0
"""The command line: finds the subcommand, runs it, turns errors into exit codes.

Subcommands are imported when they are asked for, so that ``ecapture --help`` is quick. As in the
reference, general options may stand before the subcommand, and a subcommand may be shortened as
long as it stays unambiguous.
"""

from __future__ import annotations

import difflib
import errno
import importlib
import os
import select
import sys
from collections.abc import Sequence

import click

from ecapture.cli.console import complain
from ecapture.errors import ECaptureError, HostError, SinkError

# name: (module, attribute, one line of help)
_COMMANDS = {
    "tls": (
        "ecapture.cli.capture",
        "tls",
        "Show the plaintext of TLS connections (OpenSSL and its kin).",
    ),
    "gotls": (
        "ecapture.cli.capture",
        "gotls",
        "Show the plaintext of programs that are written in Go.",
    ),
    "gnutls": (
        "ecapture.cli.capture",
        "gnutls",
        "Show the plaintext of programs that use GnuTLS.",
    ),
    "nss": (
        "ecapture.cli.capture",
        "nss",
        "Show the plaintext of programs that use NSS, such as Firefox.",
    ),
    "mysqld": (
        "ecapture.cli.databases",
        "mysqld",
        "Show the statements sent to MySQL and MariaDB servers, and how they end.",
    ),
    "postgres": (
        "ecapture.cli.databases",
        "postgres",
        "Show what is asked of PostgreSQL servers, and how it ended.",
    ),
    "rustls": (
        "ecapture.cli.capture",
        "rustls",
        "Show the plaintext of programs that use rustls, such as uv and Deno.",
    ),
    "bash": (
        "ecapture.cli.shells",
        "bash",
        "Show what bash is told to do: every command, with its exit status.",
    ),
    "zsh": (
        "ecapture.cli.shells",
        "zsh",
        "Show what zsh is told to do.",
    ),
    "sh": (
        "ecapture.cli.shells",
        "sh",
        "Show what sh is told to do: dash or busybox.",
    ),
    "fish": (
        "ecapture.cli.shells",
        "fish",
        "Show what is typed into fish.",
    ),
    "all": (
        "ecapture.cli.capture",
        "everything",
        "Show what all of these show, in one timeline.",
    ),
    "targets": (
        "ecapture.cli.targets",
        "targets",
        "List who can be observed, and who cannot, and why.",
    ),
    "doctor": (
        "ecapture.cli.doctor",
        "doctor",
        "Say what this machine, these rights and this build can do.",
    ),
    "replay": (
        "ecapture.cli.replay",
        "replay",
        "Show a recording made with -m record. Needs no root.",
    ),
}
_WITHOUT_COMMAND = ("targets", "doctor", "replay")
_ALIASES = {"gnu": "gnutls", "nspr": "nss", "openssl": "tls", "tlsgo": "gotls"}
# Options without a value, for finding the subcommand behind options that stand before it.
_SWITCHES = {
    *("--hex", "--raw", "--brief", "--follow", "--json", "--redact", "--with-dns"),
    *("--non-interactive", "-d", "--debug", "-h", "--help", "-v", "--version"),
}


class _Group(click.Group):
    def list_commands(self, _context: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        full = _complete(name)
        if full is None:
            return None
        module, attribute, _help = _COMMANDS[full]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = arguments[0]
        if _complete(name) is None:
            known = [*_COMMANDS, *_ALIASES]
            near = [word for word in known if word.startswith(name)]
            near = near or difflib.get_close_matches(name, known, cutoff=0.5)
            near = list(dict.fromkeys(_ALIASES.get(word, word) for word in near))
            advice = f" Did you mean {' or '.join(near)}?" if near else ""
            context.fail(f"No such command {name!r}.{advice}")
        full = _complete(name)
        if context.obj is not None and full in _WITHOUT_COMMAND:
            context.fail(f"{full} starts no command: leave out `--` and what follows it.")
        return super().resolve_command(context, arguments)

    def format_commands(self, _context: click.Context, formatter: click.HelpFormatter) -> None:
        # Without importing any of them.
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_m, _a, text) in _COMMANDS.items()])


def _complete(name: str) -> str | None:
    if name in _COMMANDS:
        return name
    if name in _ALIASES:
        return _ALIASES[name]
    matching = {command for command in _COMMANDS if command.startswith(name)}
    matching = matching or {full for alias, full in _ALIASES.items() if alias.startswith(name)}
    return matching.pop() if len(matching) == 1 else None


def _ordered(arguments: Sequence[str]) -> list[str]:
    """Puts the subcommand first: ``-d tls -p 1`` becomes ``tls -d -p 1``."""
    at = 0
    while at < len(arguments):
        word = arguments[at]
        if not word.startswith("-"):
            return [word, *arguments[:at], *arguments[at + 1 :]] if at else list(arguments)
        attached = "=" in word or (word[1:2] != "-" and len(word) > 2)  # --pid=1, -p1
        at += 1 if word in _SWITCHES or attached else 2
    return list(arguments)


@click.group(
    cls=_Group,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=(
        "Examples: sudo ecapture tls; sudo ecapture tls --pid 1234 --hex;"
        " sudo ecapture tls -- curl https://localhost/"
    ),
)
@click.version_option(None, "-v", "--version", package_name="pyecapture", prog_name="ecapture")
@click.pass_context
def cli(context: click.Context) -> None:
    """Show the plaintext of TLS connections on this host.

    By eBPF: without a CA, a proxy or any change to a program.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(2)


def _open_standard_streams() -> None:
    # Started with one of them closed, the next file we open would take its number, and whatever a
    # library or a launched command says would be written there.
    for fd, stream in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(fd)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != fd:
                os.dup2(opened, fd)
                os.close(opened)
            os.set_inheritable(fd, True)
        if getattr(sys, stream) is None:
            setattr(sys, stream, os.fdopen(fd, "w" if fd else "r", closefd=False))


def _failed(error: ECaptureError | OSError | SystemExit) -> int:
    # Whoever reads a list or the help may have seen enough; click and rich call that an error.
    if isinstance(error, BrokenPipeError) or (
        isinstance(error, SystemExit)
        and (isinstance(error.__context__, BrokenPipeError) or _reader_is_gone())
    ):
        _discard_stdout()
        return 0
    if isinstance(error, SystemExit):
        raise error
    if isinstance(error, OSError):
        if error.errno in (errno.EMFILE, errno.ENFILE):
            error = HostError(message=error.strerror, hint="raise the limit: ulimit -n 4096")
        elif error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
            _discard_stdout()
            error = SinkError(
                destination="standard output",
                cause=error.strerror,
                hint="free some space, or write elsewhere",
            )
        else:
            raise error
    complain(error)
    return error.exit_code


def _reader_is_gone() -> bool:
    state = select.poll()
    state.register(1, 0)
    return any(events & select.POLLERR for _fd, events in state.poll(0))


def _discard_stdout() -> None:
    # What is buffered cannot be written, and Python would try again at its end.
    nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def _asked_for_help(given: list[str]) -> list[str]:
    # As in the reference: help, help COMMAND.
    return [*given[1:2], "--help"] if given[:1] == ["help"] else given


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point of the ``ecapture`` command. Exits with the code that the error class has."""
    _open_standard_streams()
    given = list(sys.argv[1:] if arguments is None else arguments)
    own, command = given, None
    if "--" in given:
        at = given.index("--")
        own, command = given[:at], given[at + 1 :]
    try:
        if any(word.startswith("--extcap-") for word in own):  # Wireshark, not a person
            from ecapture.cli import extcap  # noqa: PLC0415 - slow to import, seldom wanted

            chosen = extcap.capture_words(own)
            if chosen is None:
                sys.exit(0)
            own = chosen
        own = _asked_for_help(_ordered(own))
        code = cli.main(own, prog_name="ecapture", standalone_mode=False, obj=command)
        sys.stdout.flush()
    except click.exceptions.Exit as ended:
        code = ended.exit_code
    except click.Abort:
        code = 130
    except click.ClickException as error:
        error.show()
        code = 2
    except (ECaptureError, OSError, SystemExit) as error:
        code = _failed(error)
    except KeyboardInterrupt:
        code = 130
    sys.exit(code if isinstance(code, int) else 0)
