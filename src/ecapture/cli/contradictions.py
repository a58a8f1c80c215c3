# SPDX-License-Identifier: Apache-2.0
"""Options that make no sense together are refused: none is ignored silently.

Whoever gives an option expects an effect, and may rely on it: that a key log is redacted, that a
filter holds, that two outputs are in the file that both were told to write.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any, Final

from ecapture.errors import UsageError

# Ways to show messages: name of the value, spelling.
_TEXT: Final = {"hex": "--hex", "raw": "--raw", "brief": "--brief"}
_SELECTING: Final = {"filter": "--filter", "redact": "--redact"}
# Of HTTP alone, so that without messages nothing ever matches.
_PARSED: Final = frozenset({"method", "host", "path", "query", "status"})
_PLACES: Final = {
    "recording": "the recording",
    "output": "-w",
    "eventaddr": "--eventaddr",
    "pcapfile": "--pcapfile",
    "keylogfile": "-k",
    "logaddr": "-l",
}
_ON_STDOUT: Final = frozenset({"output", "eventaddr", "pcapfile", "keylogfile"})  # as "-"


def check(given: dict[str, Any], command: object = None) -> None:
    """Raises UsageError for options that contradict each other, or need another."""
    _check_empty(given)
    _check_modes(given)
    _check_places(given)
    if given.get("follow") and not any(given["pids"]) and command is None:
        raise UsageError(
            option="--follow",
            problem="whose descendants?",
            hint="name a process with --pid, or start a command: those of a command are watched",
        )
    if given["keep"] and not (given["rotate_size"] or given["rotate_time"]):
        raise UsageError(
            option="--keep",
            problem="there are no old files, because none is set aside",
            hint="say when with --eventrotatesize MB or --eventrotatetime SECONDS",
        )


def check_filter(given: dict[str, Any], mentions: frozenset[str]) -> None:
    """Raises UsageError if a filter asks for what is not looked for."""
    asked = sorted(mentions & _PARSED)
    if given["raw"] and asked:
        raise UsageError(
            option="--filter",
            problem=f"with --raw nothing is parsed, so nothing has a {asked[0]}",
            hint="leave out --raw, or filter by pid, uid, comm, container, direction or size",
        )


def _check_empty(given: dict[str, Any]) -> None:
    # What a script writes whose variable is not set: it wanted something.
    for name, option in (_PLACES | {"filter": "--filter"}).items():
        if given.get(name) == "":
            raise UsageError(
                option=option, problem="nothing follows it", hint="leave it out, or say what"
            )


def _check_modes(given: dict[str, Any]) -> None:
    mode = given["model"]
    if mode in ("keylog", "key"):
        _check_keys(given)
    if mode != "text":
        for name in ("hex", "brief"):
            if given[name]:
                raise UsageError(
                    option=_TEXT[name],
                    problem=f"is a look of text, and -m {mode} is none",
                    hint="leave out one of them",
                )
    if given["raw"] and mode in ("har", "pcap", "pcapng"):
        raise UsageError(
            option="--raw",
            problem=f"shows messages unparsed, and -m {mode} has nothing to show then",
            hint="leave it out, or use -m jsonl or text",
        )
    if mode in ("pcap", "pcapng") and given["truncate"] != "0":
        raise UsageError(
            option="--truncate",
            problem="cuts messages, not packets",
            hint="cut packets with --snaplen SIZE",
        )
    if given["raw"] and given["brief"]:
        raise UsageError(
            option="--brief",
            problem="is one line for each message, and with --raw there are none",
            hint="leave out one of them",
        )


def _check_keys(given: dict[str, Any]) -> None:
    for name, option in (_TEXT | _SELECTING).items():
        if given[name]:
            raise UsageError(
                option=option,
                problem="a key log has no messages, only keys, which are whole or of no use",
                hint="leave it out, or write messages too: -m text -k FILE",
            )
    if given["truncate"] != "0":
        raise UsageError(
            option="--truncate",
            problem="a key that is cut is of no use",
            hint="leave it out, or write messages too: -m text -k FILE",
        )
    if given["eventaddr"] is not None:
        raise UsageError(
            option="--eventaddr",
            problem="there are no events but keys, which go to the file of -k",
            hint="leave it out, or write messages too: -m text -k FILE",
        )
    if (given["rotate_size"] or given["rotate_time"]) and given.get("pcapfile") is None:
        raise UsageError(
            option="--eventrotatesize" if given["rotate_size"] else "--eventrotatetime",
            problem="a key log is one file, which is appended to",
            hint="leave it out, or write messages too: -m text -k FILE",
        )


def _check_places(given: dict[str, Any]) -> None:
    places: dict[object, str] = {}
    for name, option in _PLACES.items():
        path = given.get(name)
        if not path or "://" in path:
            continue
        shown, place = path, _place(path)
        if path == "-":
            shown = "standard output"
            place = shown if name in _ON_STDOUT else None
        if place is None:
            continue
        if place in places:
            raise UsageError(
                option=option,
                problem=f"{shown} is the file of {places[place]}",
                hint=f"give each a file of its own, with {option} FILE",
            )
        places[place] = option


def _place(path: str) -> object:
    # A file by what it is, one that is not there yet by its name; None: not a file that is kept.
    try:
        found = Path(path).stat()
    except OSError:
        return os.path.realpath(path)
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else None
