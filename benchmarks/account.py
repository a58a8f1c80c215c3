# SPDX-License-Identifier: Apache-2.0
"""Read back what a tool wrote and hold it against what the writer said.

The writer's stream is a function of position alone: payload number N is N in 16 digits and then
letters, so every byte of the output can be checked without keeping what was written. Invariant:
memory does not grow with the output, which may have gigabytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

SEQUENCE_DIGITS = 16
_NUMBERS = re.compile(rb" (length|captured|lost)=(\d+)")
_WRITE = re.compile(rb" write ")


@dataclass(slots=True)
class Account:
    """What an output file shows of one writer.

    ``events`` are headers with a payload, ``shown`` payload bytes, ``marked`` bytes whose absence
    is stated in place, ``silent`` bytes that are absent without a word. ``problem`` is empty as
    long as everything came in order and with the right content.
    """

    events: int = 0
    shown: int = 0
    marked: int = 0
    silent: int = 0
    problem: str = ""

    @property
    def ordered(self) -> bool:
        """Whether every byte shown was the next one, or one after a stated gap."""
        return not self.problem

    def complete(self, expected: int) -> bool:
        """Whether shown and stated-missing bytes add up to ``expected``."""
        return self.shown + self.marked == expected and not self.silent


class _Stream:
    """The writer's stream from any position: payloads of ``size`` bytes, one after another."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._letters = bytes(ord("a") + at % 26 for at in range(size))

    def slice(self, start: int, length: int) -> bytes:
        parts = []
        while length > 0:
            sequence, offset = divmod(start, self.size)
            one = b"%016d" % sequence + self._letters[SEQUENCE_DIGITS:]
            part = one[offset : offset + length]
            parts.append(part)
            start += len(part)
            length -= len(part)
        return b"".join(parts)


def read_account(path: Path, size: int) -> Account:
    """Check the output for one writer of ``size``-byte payloads. Reading stops at the first fault.

    Headers of other directions are counted as events and their payload is passed over.
    """
    account = Account()
    stream = _Stream(size)
    position = 0
    with path.open("rb", buffering=1 << 20) as file:
        while header := file.readline():
            if not header.startswith(b"--- "):
                account.problem = f"no header after {account.events} events: {header[:40]!r}"
                break
            numbers = {key.decode(): int(value) for key, value in _NUMBERS.findall(header)}
            if "lost" in numbers:
                account.marked += numbers["lost"]
                position += numbers["lost"]
                continue
            if "length" not in numbers:
                account.problem = f"no length after {account.events} events: {header[:80]!r}"
                break
            captured = numbers.get("captured", numbers["length"])
            payload = file.read(captured)
            if len(payload) != captured or file.read(1) != b"\n":
                account.problem = f"event {account.events} is cut short"
                break
            account.events += 1
            if not _WRITE.search(header):
                continue
            if payload != stream.slice(position, captured):
                _explain(account, payload, position, size)
                break
            account.shown += captured
            account.marked += numbers["length"] - captured
            position += numbers["length"]
    return account


def _explain(account: Account, payload: bytes, position: int, size: int) -> None:
    digits = payload[:SEQUENCE_DIGITS]
    if not digits.isdigit():
        account.problem = f"wrong bytes in event {account.events}"
        return
    found = int(digits) * size
    if found > position:
        account.silent = found - position
        account.problem = f"{account.silent} bytes missing without a mark at {position}"
    else:
        account.problem = f"payload {int(digits)} again or late, at {position // size}"
