# SPDX-License-Identifier: Apache-2.0
"""What a capture of shells says that they were told to do."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness import Captured

Line = dict[str, Any]
NOBODY = 65534  # a user who is not root


def lines_of(run: Captured) -> list[Line]:
    """All commands that were written until now."""
    return [json.loads(line) for line in Path(run.path or "").read_text().splitlines()]


def commands(run: Captured, *pids: int) -> list[Line]:
    """Those of these processes (else of all), once the capture has ended, which lost nothing."""
    if run.process.poll() is None:
        run.finish()
    assert run.summary["lost"] == 0, run.stderr
    return [line for line in lines_of(run) if not pids or line["pid"] in pids]


def told(lines: Iterable[Line]) -> list[tuple[str, int | None]]:
    """The text of each and the status that it ended with."""
    return [(line["text"], line["status"]) for line in lines]


def with_origin(lines: Iterable[Line]) -> list[tuple[str, int | None, str]]:
    """As ``told``, and where each came from."""
    return [(line["text"], line["status"], line["origin"]) for line in lines]


def numbered(varied: list[tuple[str, int | None]], count: int) -> list[tuple[str, int]]:
    """So many lines made of these, and the status of each: its number where none is given."""
    chosen = [(number, *varied[number % len(varied)]) for number in range(count)]
    return [
        (text.format(number), number if status is None else status)
        for number, text, status in chosen
    ]
