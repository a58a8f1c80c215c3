# SPDX-License-Identifier: Apache-2.0
"""From options to stages and outputs: what ``-m``, ``-w``, ``--raw``, ``--filter`` … ask for."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from ecapture.config import byte_size
from ecapture.errors import UsageError
from ecapture.formats.text import TextFormat
from ecapture.outputs import STDOUT, FormatOutput, Output, RecordOutput
from ecapture.pipeline.stage import Stage

MODES = ("text", "jsonl", "har", "record")


def truncation(given: dict[str, Any]) -> int | None:
    """The value of --truncate in bytes; None: keep all."""
    return byte_size(given["truncate"], "--truncate") or None


def parses(given: dict[str, Any]) -> bool:
    """Whether conversations are parsed into messages, rather than shown as they are."""
    return given["model"] != "record" and not given["raw"]


def make_stages(given: dict[str, Any], container_of: Callable[[int], str]) -> list[Stage]:
    """The stages between decoding and output. Raises UsageError for a malformed filter."""
    stages: list[Stage] = []
    if parses(given):
        from ecapture.pipeline.messages import Messages  # noqa: PLC0415 - only where it is used

        limit = truncation(given)
        stages.append(Messages() if limit is None else Messages(body_limit=limit))
    if given["filter"]:
        from ecapture.pipeline.filter import Filter, Filtered  # noqa: PLC0415

        if given["model"] == "record":
            raise UsageError(
                option="--filter",
                problem="a recording holds what the kernel sent, unparsed",
                hint="record without it, and filter on replay",
            )
        stages.append(Filtered(Filter(given["filter"], container_of=container_of)))
    if given["redact"]:
        from ecapture.pipeline.redact import Redacted  # noqa: PLC0415

        if given["model"] == "record":
            raise UsageError(
                option="--redact",
                problem="a recording holds what the kernel sent, whole",
                hint="record without it, and redact on replay",
            )
        stages.append(Redacted())
    return stages


def make_outputs(given: dict[str, Any], container_of: Callable[[int], str]) -> list[Output]:
    """The outputs; files are opened here, before anything is attached."""
    mode, destination = given["model"], given["output"] or STDOUT
    if mode not in MODES:
        raise UsageError(
            option="-m",
            problem=f"{mode!r} is no mode of this version",
            hint=f"modes: {', '.join(MODES)}",
        )
    if mode == "record":
        return [RecordOutput(destination, container_of)]
    if mode == "har":
        from ecapture.outputs import HarOutput  # noqa: PLC0415

        return [HarOutput(destination, container_of)]
    if mode == "jsonl":
        from ecapture.formats.jsonl import JsonLinesFormat  # noqa: PLC0415 - only where it is used

        return [FormatOutput(JsonLinesFormat(container_of=container_of), destination)]
    terminal = destination == STDOUT and os.isatty(1)
    if given["raw"]:
        return [FormatOutput(TextFormat(terminal=terminal, hexadecimal=given["hex"]), destination)]
    colour = _colour(given["color"], terminal=terminal)
    if given["brief"]:
        from ecapture.formats.brief import BriefFormat  # noqa: PLC0415

        return [FormatOutput(BriefFormat(colour=colour), destination)]
    from ecapture.formats.conversation import ConversationFormat  # noqa: PLC0415

    text = ConversationFormat(terminal=terminal, colour=colour, hexadecimal=given["hex"])
    return [FormatOutput(text, destination)]


def _colour(asked: str, *, terminal: bool) -> bool:
    if asked != "auto":
        return asked == "always"
    # https://no-color.org: set and not empty means none
    return terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
