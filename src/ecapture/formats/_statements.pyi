# SPDX-License-Identifier: Apache-2.0
"""Statements as JSON lines; native, because servers make tens of thousands of them a second.

``jsonl_types.StatementLine`` says what a line has; a test compares, byte by byte.
"""

from collections.abc import Callable
from typing import final

import msgspec

from ecapture.events import Event

@final
class Lines:
    """``container_of`` and ``time`` are asked once for each statement: see ``JsonLinesFormat``."""

    def __init__(self, container_of: Callable[[int], str], time: Callable[[int], str]) -> None: ...
    def encode(self, events: list[Event], other: Callable[[Event], msgspec.Struct | None]) -> bytes:
        """The lines of a batch; ``other`` makes those of what is no statement, or None."""
