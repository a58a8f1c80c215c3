# SPDX-License-Identifier: Apache-2.0
"""Options that subcommands share, spelt as in the reference, and their way into settings."""

from __future__ import annotations

import pwd
from collections.abc import Callable, Iterable
from typing import Any

import click

from ecapture.config import SNAP_MAXIMUM, SNAP_MINIMUM, PacketConfig, Scope, byte_size
from ecapture.errors import UsageError


class _User(click.ParamType):  # type: ignore[type-arg] # generic in newer versions only
    """A user as a number; a name is looked up."""

    name = "user"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return int(value)
        except ValueError:
            pass
        try:
            return pwd.getpwnam(value).pw_uid
        except KeyError:
            self.fail(f"there is no user {value!r}", param, ctx)


_AUDIT_MODES = ("text", "jsonl", "record")
# What is about connections: name of the value, spelling.
_CONNECTIONS = {
    "keylogfile": "-k",
    "pcapfile": "--pcapfile",
    "interfaces": "-i",
    "spaces": "--netns",
    "snap_length": "--snaplen",
    "with_names": "--with-dns",
}
_ALL = "any"  # all interfaces, as in tcpdump
_OUTPUT = (
    click.option(
        "-m",
        "--model",
        default="text",
        metavar="MODE",
        help="text (default), jsonl, har, record, keylog or pcap (also pcapng).",
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
_PACKETS = (
    click.option(
        "--pcapfile",
        metavar="FILE",
        help="Write packets to FILE, also beside another mode. With -m pcap by default"
        " save.pcapng.",
    ),
    click.option(
        "-i",
        "--ifname",
        "interfaces",
        multiple=True,
        metavar="NAME",
        help="Packets of this interface. Repeatable; by default (any) of all.",
    ),
    click.option(
        "--netns",
        "spaces",
        type=click.IntRange(1),
        multiple=True,
        metavar="PID",
        help="Packets in the network namespace of process PID. Repeatable.",
    ),
    click.option(
        "--snaplen",
        "snap_length",
        default="0",
        metavar="SIZE",
        help="Keep at most so many bytes of each packet; 0 keeps all.",
    ),
    click.option(
        "--with-dns",
        "with_names",
        is_flag=True,
        help="Where packets are those of --pid, --uid, --comm, --cgroup_path or a command: also"
        " all packets of DNS, whoever asks.",
    ),
)
_OPTIONS = (
    *_OUTPUT,
    *_PACKETS,
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
        type=_User(),
        multiple=True,
        help="Watch processes of this user, by number or name. Repeatable; 0 is root.",
    ),
    click.option(
        "--comm",
        "comms",
        multiple=True,
        metavar="NAME",
        help="Watch processes of this command name, and threads that have it. Repeatable.",
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


packet_filter = click.argument(
    "packet_filter", nargs=-1, metavar="[PACKET FILTER] [-- COMMAND [ARGUMENTS...]]"
)
no_packet_filter = click.argument("packet_filter", nargs=-1, metavar="[-- COMMAND [ARGUMENTS...]]")


def capture_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that every capturing subcommand has."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def audit_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds those that mean something where no connections are observed; see ``check_audit``."""
    command = _without(_CONNECTIONS)(capture_options(command))
    for parameter in _parameters(command):
        if parameter.name == "model":
            parameter.help = f"{_AUDIT_MODES[0]} (default), {' or '.join(_AUDIT_MODES[1:])}."
        elif parameter.name == "truncate":
            parameter.help = "Keep at most so many bytes of each text (65536 by default)."
        elif parameter.name == "redact":
            parameter.help = "Replace passwords and tokens, and literals in SQL."
        elif parameter.name == "filter":
            parameter.help = "Show only what matches, such as 'duration > 500ms and uid == 0'."
        elif parameter.name == "brief":
            parameter.help = "One line each."
    return command


def check_audit(given: dict[str, Any]) -> None:
    """Raises UsageError for what is about connections."""
    if given["model"] not in _AUDIT_MODES:
        raise UsageError(
            option=f"-m {given['model']}",
            problem="is about connections, and none are observed here",
            hint=f"modes: {', '.join(_AUDIT_MODES)}",
        )
    for name, option in _CONNECTIONS.items():
        if given[name] not in (None, (), "0", False):
            raise UsageError(
                option=option,
                problem="is about connections, and none are observed here",
                hint="leave it out, or see `ecapture all --help`",
            )


def _without(names: Iterable[str]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    # They are still understood, so that whoever gives one is told more than that it is unknown.
    def hide(command: Callable[..., Any]) -> Callable[..., Any]:
        for parameter in _parameters(command):
            if parameter.name in names:
                parameter.hidden = True
        return command

    return hide


def _parameters(command: Callable[..., Any]) -> list[click.Option]:
    # Where click collects what the decorators made.
    found: list[click.Parameter] = command.__click_params__  # type: ignore[attr-defined]
    return [parameter for parameter in found if isinstance(parameter, click.Option)]


def packets_from(given: dict[str, Any]) -> PacketConfig:
    """Which packets the options describe. Raises UsageError."""
    length = byte_size(given["snap_length"], "--snaplen") or SNAP_MAXIMUM
    if length < SNAP_MINIMUM:
        raise UsageError(
            option="--snaplen",
            problem=f"{length} bytes are less than addresses and type of a frame have",
            hint=f"{SNAP_MINIMUM} or more, or 0 to keep all",
        )
    return PacketConfig(
        interfaces=() if _ALL in given["interfaces"] else tuple(dict.fromkeys(given["interfaces"])),
        spaces=tuple(dict.fromkeys(given["spaces"])),
        snap_length=min(length, SNAP_MAXIMUM),
        expression=" ".join(given["packet_filter"]).strip(),
        with_names=given["with_names"],
    )


def scope_from(given: dict[str, Any]) -> Scope:
    """The scope that the options describe. Process 0 means all, as in the reference."""
    return Scope(
        pids=tuple(dict.fromkeys(pid for pid in given["pids"] if pid)),
        uids=tuple(dict.fromkeys(given["uids"])),
        comms=tuple(dict.fromkeys(given["comms"])),
        cgroups=tuple(dict.fromkeys(given["cgroups"])),
        follow=given["follow"],
    )
