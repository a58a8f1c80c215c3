# SPDX-License-Identifier: Apache-2.0
"""The subcommands that capture."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import click

from ecapture.cli import contradictions
from ecapture.cli.choices import (
    key_log,
    make_outputs,
    make_stages,
    only_keys,
    only_packets,
    packet_file,
    parses,
    text_limit,
    truncation,
    wants_packets,
)
from ecapture.cli.console import say, set_up_logging
from ecapture.cli.options import capture_options, packet_filter, packets_from, scope_from
from ecapture.config import CaptureConfig, Limits, byte_size, ring_size
from ecapture.errors import ECaptureError, UsageError
from ecapture.outputs import STDOUT
from ecapture.probes import probes
from ecapture.session import Capture, run

_log = logging.getLogger(__name__)
# Commands and statements are cut where they are read; of messages only the content is.
_CUT_WHERE_READ = frozenset({"bash", "fish", "sh", "zsh", "mysqld"})
_PAGE = 4096  # the unit of the reference's --mapsize


def _observes(*spellings: str, what: str) -> Callable[[Callable[..., None]], click.Command]:
    """Makes the subcommand for one library, with the option for files that are to be observed."""

    def make(function: Callable[..., None]) -> click.Command:
        files = click.option(
            *spellings,
            "libraries",
            multiple=True,
            metavar="FILE",
            help=f"Observe only {what}. Repeatable.",
        )
        return click.command()(capture_options(files(packet_filter(click.pass_context(function)))))

    return make


@_observes("--libssl", what="this library or executable")
def tls(context: click.Context, /, **given: Any) -> None:
    """Show the plaintext of TLS connections.

    Every copy of OpenSSL, BoringSSL and LibreSSL on the host is observed, and every executable that
    carries one. A command after -- is started with the probes in place, and only it and its
    descendants are watched.
    """
    context.exit(capture(("tls",), given, context.obj))


@_observes("--gnutls", what="this library or executable")
def gnutls(context: click.Context, /, **given: Any) -> None:
    """Show the plaintext of programs that use GnuTLS. See `ecapture tls --help` for the rest."""
    context.exit(capture(("gnutls",), given, context.obj))


@_observes("-e", "--elfpath", what="this program or library")
def gotls(context: click.Context, /, **given: Any) -> None:
    """Show the plaintext of programs written in Go. See `ecapture tls --help` for the rest."""
    context.exit(capture(("gotls",), given, context.obj))


@_observes("--nspr", what="this libssl3, or the one beside this libnspr4 or libnss3")
def nss(context: click.Context, /, **given: Any) -> None:
    """Show the plaintext of programs that use NSS: Firefox, Thunderbird and others.

    Only what passes through TLS is shown, not the files and bare sockets that NSPR's functions
    serve as well. See `ecapture tls --help` for the rest.
    """
    given["libraries"] = nss_files(given["libraries"], keys=key_log(given) is not None)
    context.exit(capture(("nss",), given, context.obj))


def nss_files(named: Sequence[str], *, keys: bool) -> tuple[str, ...]:
    """The files to hook for those that were named. NSPR and NSS stand for the TLS layer beside.

    For ``keys`` the softoken beside is one of them. Raises UsageError if there is no TLS layer.
    """
    files: list[str] = []
    for path in map(Path, named):
        layer = path
        if path.name.startswith(("libnspr4.", "libnss3.")):
            layer = path.with_name("libssl3.so")
            if not layer.exists():
                raise UsageError(
                    option="--nspr",
                    problem=f"there is no libssl3.so beside {path}, which itself has no TLS",
                    hint="name the libssl3.so of the program; `ecapture targets` shows it",
                )
        files.append(str(layer))
        # in a folder of its own in Debian 11 and Ubuntu 22.04
        folders = (path.parent, path.parent / "nss")
        softokens = [folder / "libsoftokn3.so" for folder in folders if keys]
        files += [str(softoken) for softoken in softokens if softoken.exists()]
    return tuple(dict.fromkeys(files))


@_observes("-e", "--elfpath", what="this program or library")
def rustls(context: click.Context, /, **given: Any) -> None:
    """Show the plaintext of programs that are written in Rust and use rustls 0.23 or later.

    Bytes are shown as records carry them. See `ecapture tls --help` for the rest.
    """
    context.exit(capture(("rustls",), given, context.obj))


@click.command(name="all")
@capture_options
@click.option("--only", metavar="NAME,...", help="Only these probes, such as tls,gnutls.")
@click.option(
    "--non-interactive",
    "unattended",
    is_flag=True,
    help="Of shells also what nobody types: commands of -c, scripts and sourced files.",
)
@packet_filter
@click.pass_context
def everything(context: click.Context, /, *, only: str | None, **given: Any) -> None:
    """Show all that this program can show, in one timeline: see `ecapture targets`."""
    known = tuple(probes())
    chosen = tuple(dict.fromkeys(only.replace(" ", "").split(","))) if only is not None else known
    for name in chosen:
        if name not in known:
            raise UsageError(
                option="--only",
                problem=f"there is no probe {name!r}",
                hint=f"probes: {', '.join(known)}",
            )
    context.exit(capture(chosen, given | {"libraries": ()}, context.obj))


def capture(chosen: tuple[str, ...], given: dict[str, Any], command: list[str] | None) -> int:
    """Runs one capture as the options say; ``command`` stood after --. Returns the exit code."""
    contradictions.check(given, command)
    set_up_logging(debug=given["debug"], path=given["logaddr"])
    config = _config(chosen, given, command)
    session = Capture(config, keep_stdout=not _writes_to_stdout(given))
    stages = make_stages(
        given, session.container_of, session.session_of if "postgres" in chosen else None
    )
    session.check()
    outputs = make_outputs(given, session.container_of, session.session_of, session.counts)
    with session:
        _stop_on_signals(session)
        say(f"ready: {session.ready()}")
        try:
            summary = run(session, outputs, stages)
        except ECaptureError as error:
            say(str(error.fields["summary"]))
            if error.exit_code == 0:
                return 0
            raise
        _tell_late(sum(getattr(stage, "late", 0) for stage in stages))
        if session.losses.ring_full_records:
            _log.warning(
                "the kernel's buffer was full for %d records; --mapsize makes room (now %d KiB)",
                session.losses.ring_full_records,
                config.limits.ring >> 10,
            )
        if not (summary.events or summary.statements or summary.packets):
            _log.info("nothing was seen; %s", _advice(config))
        say(str(summary))
    return session.status or 0


def _advice(config: CaptureConfig) -> str:
    # A miss must not be silence: it is what users of such tools puzzle over most.
    if not config.unattended and any(probes()[name].unattended_hooks for name in config.probes):
        return "what nobody types (-c, scripts) is shown with --non-interactive"
    everything = "" if set(config.probes) >= set(probes()) else "`ecapture all` observes the rest, "
    return everything + "`ecapture targets` lists who can be observed, and why others cannot"


def _tell_late(count: int) -> None:
    if count:
        _log.warning(
            "packets: %d connections told a secret after packets that it decrypts were written;"
            " to decrypt these as well, keep a key log, too (-k FILE)",
            count,
        )


def _writes_to_stdout(given: dict[str, Any]) -> bool:
    if key_log(given) == STDOUT:
        return True
    if STDOUT in (packet_file(given), given["eventaddr"]):
        return True
    if only_packets(given):
        return False
    to_stdout = given["output"] == STDOUT or (given["output"] is given["eventaddr"] is None)
    return not only_keys(given) and to_stdout


def _config(
    chosen: tuple[str, ...], given: dict[str, Any], command: list[str] | None
) -> CaptureConfig:
    _check_packet_options(given)
    if command is not None and not command:
        raise UsageError(
            option="--", problem="no command follows it", hint="example: ecapture tls -- curl URL"
        )
    mapsize = given["mapsize"]
    ring = byte_size(mapsize, "--mapsize") * (_PAGE if mapsize.isdecimal() else 1)
    # Of messages only the content is cut, and by their parsers, which must see all of it.
    whole = parses(given) and not _CUT_WHERE_READ.issuperset(chosen)
    payload = None if whole else truncation(given)
    return CaptureConfig(
        probes=chosen,
        scope=scope_from(given),
        limits=Limits(payload, ring_size(ring, "--mapsize"), text_limit(given)),
        libraries=tuple(os.path.abspath(path) for path in given["libraries"]),  # noqa: PTH100 - keeps symlinks
        command=tuple(command or ()),
        types=("auto", "required", "none")[given["btf"]],
        plaintext=not (only_keys(given) or only_packets(given)),
        keys=_wants_keys(given),
        packets=packets_from(given) if wants_packets(given) else None,
        server_function=given.get("server_function", ""),
        server_offset=given.get("server_offset"),
        unattended=given.get("unattended", False),
    )


def _wants_keys(given: dict[str, Any]) -> bool:
    return key_log(given) is not None or wants_packets(given)


def _check_packet_options(given: dict[str, Any]) -> None:
    """Refuses what means something for packets only, where none are captured."""
    if wants_packets(given):
        return
    options = {"-i": "interfaces", "--netns": "spaces"}
    named = [option for option, name in options.items() if given[name]]
    named += ["--snaplen"] * (given["snap_length"] != "0") + ["--with-dns"] * given["with_names"]
    if given["packet_filter"]:
        raise UsageError(
            option=" ".join(given["packet_filter"]),
            problem="a packet filter selects packets, which need -m pcap or --pcapfile FILE",
            hint="to start a command under observation, put it after --",
        )
    if named:
        raise UsageError(
            option=named[0],
            problem="belongs to packets",
            hint="capture packets with -m pcap, or beside something else with --pcapfile FILE",
        )


def _stop_on_signals(session: Capture) -> None:
    # The first signal ends the capture after everything in flight; the second ends it at once.
    asked: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        if asked:
            os._exit(128 + number)
        asked.append(number)
        session.stop()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Who was started by nohup outlives its terminal.
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)
