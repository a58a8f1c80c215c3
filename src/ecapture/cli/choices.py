# SPDX-License-Identifier: Apache-2.0
"""From options to stages and outputs: what ``-m``, ``-w``, ``--raw``, ``--filter`` … ask for."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from ecapture.cli.contradictions import check_filter
from ecapture.config import TEXT_BYTES, TEXT_MAXIMUM, byte_size
from ecapture.errors import UsageError
from ecapture.events import InterfaceCounts, SessionFacts
from ecapture.formats.keylog import KeyLogFormat
from ecapture.formats.text import TextFormat
from ecapture.outputs import (
    STDOUT,
    FormatOutput,
    Output,
    PacketOutput,
    RecordOutput,
    no_session,
    open_destinations,
)
from ecapture.pipeline.stage import Stage
from ecapture.sinks.destination import Destination, is_terminal, parse
from ecapture.sinks.rotation import Rotation

MODES = ("text", "jsonl", "har", "record", "keylog", "pcap")
KEY_LOG = "ecapture_openssl_key.log"
"""Where keys go unless -k says otherwise; the name is the reference's."""
PACKET_FILE = "save.pcapng"
"""Where packets go unless --pcapfile or -w says otherwise; the name is the reference's."""


def only_keys(given: dict[str, Any]) -> bool:
    """Whether nothing but keys is wanted, so that calls that read and write cost nothing."""
    return given["model"] in ("keylog", "key")


def only_packets(given: dict[str, Any]) -> bool:
    """Whether packets and the keys to them are wanted, and nothing else."""
    return given["model"] in ("pcap", "pcapng")


def wants_packets(given: dict[str, Any]) -> bool:
    """Whether packets are wanted, with or without something else."""
    return only_packets(given) or given.get("pcapfile") is not None  # not an option of replay


def packet_file(given: dict[str, Any]) -> str | None:
    """Where packets go; None: they are not wanted, or only forwarded. Raises UsageError."""
    beside: str | None = given.get("pcapfile")
    if not only_packets(given):
        return beside
    named: set[str] = {name for name in (beside, given["output"]) if name}
    if len(named) > 1:
        raise UsageError(
            option="--pcapfile",
            problem="-w names another file",
            hint="with -m pcap both name the file of packets: give one",
        )
    return named.pop() if named else None if given["eventaddr"] else PACKET_FILE


def key_log(given: dict[str, Any]) -> str | None:
    """Where keys go; None: they are not wanted."""
    path: str | None = given["keylogfile"]
    return path or (KEY_LOG if only_keys(given) else None)


def truncation(given: dict[str, Any]) -> int | None:
    """The value of --truncate in bytes; None: keep all."""
    return byte_size(given["truncate"], "--truncate") or None


def text_limit(given: dict[str, Any]) -> int:
    """How many bytes are kept of one text, such as a statement to a database."""
    return min(truncation(given) or TEXT_BYTES, TEXT_MAXIMUM)


def parses(given: dict[str, Any]) -> bool:
    """Whether conversations are parsed into messages, rather than shown as they are."""
    unparsed = given["model"] == "record" or given["raw"]
    return not (unparsed or only_keys(given) or only_packets(given))


def _only_status(given: dict[str, Any]) -> list[Stage]:
    if given.get("errnumber") is None:
        return []
    if given["model"] == "record":
        raise UsageError(
            option="--errnumber",
            problem="a recording holds what the kernel sent, whole",
            hint="record without it, and use --filter 'exit_status == N' on replay",
        )
    from ecapture.pipeline.exit_status import OnlyStatus  # noqa: PLC0415 - only where it is used

    return [OnlyStatus(given["errnumber"])]


def make_stages(
    given: dict[str, Any],
    container_of: Callable[[int], str],
    session_of: Callable[[int], SessionFacts] | None = None,
) -> list[Stage]:
    """The stages between decoding and output. Raises UsageError for a malformed filter.

    ``session_of`` where statements to PostgreSQL are to be read.
    """
    stages: list[Stage] = []
    if session_of is not None and given["model"] != "record" and not only_keys(given):
        from ecapture.pipeline.postgres import PostgresStatements  # noqa: PLC0415

        stages.append(PostgresStatements(facts_of=session_of, text_limit=text_limit(given)))
    if parses(given):
        from ecapture.pipeline.messages import Messages  # noqa: PLC0415 - only where it is used
        from ecapture.protocols.body import BODY_LIMIT  # noqa: PLC0415

        whole = given["model"] == "har"
        stages.append(Messages(body_limit=truncation(given) or BODY_LIMIT, whole=whole))
    if only_packets(given) and given["filter"]:
        raise UsageError(
            option="--filter",
            problem="it selects messages, not packets",
            hint="a packet filter stands behind the options: ecapture tls -m pcap tcp port 443",
        )
    if wants_packets(given) and given["redact"]:
        raise UsageError(
            option="--redact",
            problem="packets and the keys to them hold everything, whole",
            hint="capture packets without it",
        )
    if given["filter"]:
        from ecapture.pipeline.filter import Filter, Filtered  # noqa: PLC0415

        if given["model"] == "record":
            raise UsageError(
                option="--filter",
                problem="a recording holds what the kernel sent, unparsed",
                hint="record without it, and filter on replay",
            )
        expression = Filter(given["filter"], container_of=container_of)
        check_filter(given, expression.mentions)
        stages.append(Filtered(expression))
    stages += _only_status(given)
    if given["redact"]:
        from ecapture.pipeline.redact import Redacted  # noqa: PLC0415

        if given["model"] == "record":
            raise UsageError(
                option="--redact",
                problem="a recording holds what the kernel sent, whole",
                hint="record without it, and redact on replay",
            )
        stages.append(Redacted())
    if wants_packets(given):
        from ecapture.pipeline.held import Held  # noqa: PLC0415

        stages.append(Held())
    return stages


def make_outputs(
    given: dict[str, Any],
    container_of: Callable[[int], str],
    session_of: Callable[[int], SessionFacts] = no_session,
    counts_of: Callable[[], list[InterfaceCounts]] = list,
) -> list[Output]:
    """The outputs; files are opened here, before anything is attached."""
    outputs: list[Output] = []
    keys, packets = key_log(given), packet_file(given)
    beside = packets if not only_packets(given) else None
    if beside is not None:
        _check_packet_file(given, beside)
    if keys is not None:
        _check_key_log(given, keys)
        outputs.append(FormatOutput(KeyLogFormat(), keys, append=True))
    if beside is not None:
        file = parse(beside, option="--pcapfile", rotate=_rotation(given))
        outputs.append(PacketOutput(file, counts_of))
    if not only_keys(given):
        output = packets if only_packets(given) else given["output"]
        named = open_destinations(output, given["eventaddr"], _rotation(given))
        if only_packets(given):
            outputs += [PacketOutput(destination, counts_of) for destination in named]
        else:
            outputs += [
                _main_output(given, destination, container_of, session_of) for destination in named
            ]
    return outputs


def _rotation(given: dict[str, Any]) -> Rotation:
    return Rotation(
        size=given["rotate_size"] << 20, seconds=given["rotate_time"], keep=given["keep"]
    )


def _check_packet_file(given: dict[str, Any], packets: str) -> None:
    others = {key_log(given)}
    if not only_keys(given):
        others.add(given["output"] or (None if given["eventaddr"] else STDOUT))
    if packets in others:
        raise UsageError(
            option="--pcapfile",
            problem="packets and everything else cannot go to the same place",
            hint="write the packets to a file of their own with --pcapfile FILE",
        )


def _check_key_log(given: dict[str, Any], keys: str) -> None:
    if only_keys(given) and given["output"] is not None:
        raise UsageError(
            option="-w", problem="there are only keys to write", hint="name their file with -k FILE"
        )
    main = packet_file(given) if only_packets(given) else given["output"]
    if not only_keys(given) and keys == (main or (None if given["eventaddr"] else STDOUT)):
        raise UsageError(
            option="-k",
            problem="keys and everything else cannot go to the same place",
            hint="write the keys to a file of their own with -k FILE",
        )


def _main_output(
    given: dict[str, Any],
    destination: Destination,
    container_of: Callable[[int], str],
    session_of: Callable[[int], SessionFacts],
) -> Output:
    mode = given["model"]
    if mode not in MODES:
        raise UsageError(
            option="-m",
            problem=f"{mode!r} is no mode of this version",
            hint=f"modes: {', '.join(MODES)}",
        )
    terminal = is_terminal(destination)
    if mode == "record":
        return RecordOutput(destination, container_of, session_of)
    if mode == "har":
        from ecapture.outputs import HarOutput  # noqa: PLC0415

        return HarOutput(destination, container_of)
    if mode == "jsonl":
        from ecapture.formats.jsonl import JsonLinesFormat  # noqa: PLC0415 - only where it is used

        form = JsonLinesFormat(container_of=container_of, terminal=terminal)
        return FormatOutput(form, destination)
    if given["raw"]:
        return FormatOutput(TextFormat(terminal=terminal, hexadecimal=given["hex"]), destination)
    colour = _colour(given["color"], terminal=terminal)
    if given["brief"]:
        from ecapture.formats.brief import BriefFormat  # noqa: PLC0415

        return FormatOutput(BriefFormat(colour=colour), destination)
    from ecapture.formats.conversation import ConversationFormat  # noqa: PLC0415

    text = ConversationFormat(terminal=terminal, colour=colour, hexadecimal=given["hex"])
    return FormatOutput(text, destination)


def _colour(asked: str, *, terminal: bool) -> bool:
    if asked != "auto":
        return asked == "always"
    # https://no-color.org: set and not empty means none
    return terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
