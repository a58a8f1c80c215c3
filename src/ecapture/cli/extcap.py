# SPDX-License-Identifier: Apache-2.0
"""ecapture as an interface of Wireshark: packets with their keys, live, behind a double click.

Wireshark calls every program in its extcap folder with options of its own and reads sentences from
standard output (https://www.wireshark.org/docs/man-pages/extcap.html): which interfaces it has, of
which link type they are, what can be configured; and at last, to capture into a FIFO. A symbolic
link to the command ``ecapture`` in that folder is all there is to install.

Wireshark seldom runs as root, and capturing needs it: then this replaces itself by sudo, which must
be allowed to run exactly this without a password.

Invariants: the FIFO is opened by whoever was called, never created and never truncated, and nothing
else is. What sudo is asked to run has ``--fifo -`` in front, and no second one is taken: so who may
run this through sudo may see packets, and root opens nothing for them. Whatever the options say,
only words of our own become options of the capture.
"""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

import click

from ecapture.cli.console import own_path
from ecapture.errors import ECaptureError, PermissionMissing, SinkError, UsageError
from ecapture.version import version

INTERFACE: Final = "ecapture"
_DISPLAY: Final = "eCapture: packets with the keys to their TLS"
_KEYS: Final = {
    "all": "everything that is known",
    "tls": "OpenSSL and its kin",
    "gnutls": "GnuTLS",
    "nss": "NSS: Firefox and its kin",
    "gotls": "programs written in Go",
    "rustls": "programs with rustls",
}
_ETHERNET: Final = 1
# What precedes everything a caller can choose: a rule of sudo may end here with an asterisk.
_FIXED: Final = ("--capture", "--extcap-interface", INTERFACE, "--fifo", "-")


def capture_words(arguments: Sequence[str]) -> list[str] | None:
    """Answers Wireshark; or returns the arguments with which to capture to standard output.

    Raises UsageError, SinkError or PermissionMissing.
    """
    try:
        with _OPTIONS.make_context("ecapture", list(arguments)) as context:
            given = context.params
    except click.ClickException as error:
        raise UsageError(
            option="extcap", problem=error.format_message(), hint="Wireshark calls this"
        ) from None
    if given["extcap_interfaces"]:
        _say(_interfaces())
        return None
    named = given["extcap_interface"]
    if named != INTERFACE:
        raise UsageError(
            option="--extcap-interface",
            problem="is missing" if named is None else f"there is no {named!r}",
            hint=f"the only one is {INTERFACE}",
        )
    if given["extcap_dlts"]:
        _say(["dlt {number=1}{name=EN10MB}{display=Every packet says its own}"])
        return None
    if given["extcap_config"]:
        _say(_configuration())
        return None
    if not given["capture"]:
        # As its user types a filter, Wireshark asks whether it is one; nothing said means yes.
        _say(_wrong_with(given["extcap_capture_filter"]))
        return None
    if len(given["fifo"]) != 1:
        problem = "is given twice" if given["fifo"] else "is missing"
        raise UsageError(option="--fifo", problem=problem, hint="Wireshark names one")
    (fifo,) = given["fifo"]
    if fifo != "-":
        _write_to(fifo)
    if os.geteuid() != 0:
        _become_root(given)
    return _chosen(given)


def _interfaces() -> list[str]:
    return [
        f"extcap {{version={version() or '0'}}}{{display={_DISPLAY}}}",
        f"interface {{value={INTERFACE}}}{{display={_DISPLAY}}}",
    ]


def _configuration() -> list[str]:
    values = [f"value {{arg=0}}{{value={name}}}{{display={text}}}" for name, text in _KEYS.items()]
    some = "separated by commas"
    return [
        _argument(0, "keys", "Keys of", "selector", "Whose secrets are put into the capture"),
        values[0] + "{default=true}",
        *values[1:],
        _argument(1, "ifname", "Interfaces", "string", f"Names, {some}; all if empty"),
        _argument(2, "pid", "Processes", "string", f"Numbers, {some}: only their packets"),
        _argument(3, "comm", "Commands", "string", f"Names, {some}: only their packets"),
    ]


def _argument(number: int, name: str, display: str, kind: str, tooltip: str) -> str:
    return (
        f"arg {{number={number}}}{{call=--{name}}}{{display={display}}}{{type={kind}}}"
        f"{{required=false}}{{tooltip={tooltip}}}"
    )


def _chosen(given: dict[str, str | None]) -> list[str]:
    words = [given["keys"] or "all", "-m", "pcap", "-w", "-"]
    for name in ("ifname", "pid", "comm"):
        # Each in one word with its option, so that no value is taken for an option.
        values = (given[name] or "").replace(" ", "").split(",")
        words += [f"--{name}={value}" for value in values if value]
    expression = given["extcap_capture_filter"]
    if expression:
        words.append(f" {expression}" if expression.startswith("-") else expression)
    return words


def _wrong_with(expression: str | None) -> list[str]:
    from ecapture.kernel.expression import compile_expression  # noqa: PLC0415 - loads libpcap

    try:
        compile_expression(expression or "", _ETHERNET)
    except ECaptureError as error:
        return [str(error)]
    return []


def _write_to(fifo: str) -> None:
    # Becomes standard output. Waits, as FIFOs do, until Wireshark reads.
    try:
        fd = os.open(fifo, os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        raise SinkError(
            destination=fifo, cause=error.strerror, hint="Wireshark makes one"
        ) from None
    if not stat.S_ISFIFO(os.fstat(fd).st_mode):
        os.close(fd)
        raise SinkError(destination=fifo, cause="is no FIFO", hint="Wireshark makes one")
    os.dup2(fd, 1)
    os.close(fd)


def _become_root(given: dict[str, str | None]) -> None:
    # Something always follows what is fixed, as the asterisk of the rule wants it.
    words = [_command(), *_FIXED, f"--keys={given['keys'] or 'all'}"]
    words += [
        f"--{name.replace('_', '-')}={given[name]}"
        for name in ("ifname", "pid", "comm", "extcap_capture_filter")
        if given[name]
    ]
    try:
        allowed = subprocess.run(
            ["sudo", "-n", "-l", "--", *words], capture_output=True, check=False
        )
        if allowed.returncode == 0:
            os.execvp("sudo", ["sudo", "-n", "--", *words])  # noqa: S606 - no shell on purpose
    except OSError:
        pass
    if not _only_root_writes():
        raise PermissionMissing(
            needed_for="capturing",
            capability="root",
            hint=f"{_command()} can be changed by others than root, and sudo must not run that for"
            " Wireshark: install ecapture as root, below /opt or /usr/local",
        )
    rule = f"{_user()} ALL=(root) NOPASSWD: {shlex.join([_command(), *_FIXED])} *"
    raise PermissionMissing(
        needed_for="capturing",
        capability="root",
        hint=f"let sudo run it without a password, by this line in /etc/sudoers.d/ecapture: {rule}",
    )


def _command() -> str:
    # What the link in Wireshark's folder leads to, which is what a rule of sudo names.
    return os.path.realpath(own_path())


def _only_root_writes() -> bool:
    places = (_command(), sys.executable, __file__)
    try:
        found = [os.stat(place) for place in places]  # noqa: PTH116 - follows links
    except OSError:
        return False
    return all(one.st_uid == 0 and not one.st_mode & 0o022 for one in found)


def _user() -> str:
    import pwd  # noqa: PLC0415 - seldom wanted

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"#{os.geteuid()}"


def _say(sentences: list[str]) -> None:
    for sentence in sentences:
        click.echo(sentence)


_OPTIONS: Final = click.Command(
    "extcap",
    params=[
        click.Option(["--extcap-interfaces"], is_flag=True),
        click.Option(["--extcap-dlts"], is_flag=True),
        click.Option(["--extcap-config"], is_flag=True),
        click.Option(["--capture"], is_flag=True),
        click.Option(["--extcap-interface"]),
        click.Option(["--extcap-version"]),
        click.Option(["--extcap-capture-filter"]),
        click.Option(["--fifo"], multiple=True),
        click.Option(["--keys"], type=click.Choice(list(_KEYS))),
        click.Option(["--ifname"]),
        click.Option(["--pid"]),
        click.Option(["--comm"]),
    ],
    add_help_option=False,
    # Wireshark's next version may have more to say.
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
