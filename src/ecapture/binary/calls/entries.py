# SPDX-License-Identifier: Apache-2.0
"""The first instruction of the function around a place in code, with the proof of it.

1. The unwinder's table, where it covers the place (``secrets.functions``).
2. Else the nearest place before it that direct calls lead to, on a function's alignment, and from
   which control flow reaches the place. One call that was seen might be bytes of something else;
   two, or one to an address behind padding, are not.

No proof, no entry: a probe in the middle of an instruction would destroy the program.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final, NamedTuple

from ecapture.binary.secrets.evaluate import successors
from ecapture.binary.secrets.functions import Functions
from ecapture.binary.secrets.image import Image
from ecapture.binary.secrets.sites import Proof

_REACH: Final = 1 << 14  # bytes that a function's first instruction may lie before the place
_NODES: Final = 4096  # instructions of one function that are followed
_TRIES: Final = 8  # entries before a place that are tried
_MAX_CALLS: Final = 1 << 18
_ALIGNMENT: Final = 16
_GUARD: Final = 8  # bytes that a guarded function's jump takes
_MAX_CALLERS: Final = 64
_BRANCH_REACH: Final = 1 << 27  # of aarch64's bl
_PADDING: Final = (b"\xcc", b"\x90", b"\x00")  # int3, nop, the end of a long nop


class Entry(NamedTuple):
    """A function's first instruction, as linked, and why it is one."""

    address: int
    proof: Proof


def entries_around(image: Image, functions: Functions, places: Iterable[int]) -> dict[int, Entry]:
    """Return the entry of the function around each place, for those where it can be proven."""
    found: dict[int, Entry] = {}
    open_places = []
    for place in sorted(set(places)):
        inside = functions.range_of(place)
        if inside is not None:
            found[place] = Entry(inside[0], Proof.FRAME_TABLE)
        else:
            open_places.append(place)
    if open_places:
        calls = _called(image, open_places)
        targets = sorted(calls)
        for place in open_places:
            last = bisect_right(targets, place)
            for address in reversed(targets[max(0, last - _TRIES) : last]):
                if place - address <= _REACH and leads_to(image, address, place):
                    if _is_entry(image, address, calls[address]):
                        found[place] = Entry(address, Proof.CALL_TARGET)
                    break
    return found


def _is_entry(image: Image, address: int, calls: int) -> bool:
    if image.machine == "aarch64":  # instructions cannot be misread
        return True
    if address % _ALIGNMENT:
        return False
    return calls > 1 or image.bytes_at(address - 1, 1) in _PADDING


def leads_to(image: Image, start: int, place: int) -> bool:
    """Tell whether control flow within a function that starts at one address reaches the other."""
    seen, pending = {start}, deque([start])
    while pending and len(seen) < _NODES:
        address = pending.popleft()
        if address == place:
            return True
        for following in successors(image, address):
            if following not in seen:
                seen.add(following)
                pending.append(following)
    return place in seen


def calls_to(image: Image, target: int) -> list[int]:
    """Return where bytes stand that look like direct calls of an address, a few at most."""
    calls = _calls(image, [(target, target)])
    return list(islice((site for site, called in calls if called == target), _MAX_CALLERS))


def jumps_into(image: Image, windows: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield direct jumps from outside of all windows into one of them, as (place, target).

    Those of x86-64 alone, that stand on multiples of eight. Windows are sorted and apart.
    """
    starts = [start for start, _ in windows]
    if image.machine != "x86_64" or not windows:
        return
    count = 0
    for site, target in _calls(image, windows, opcode=rb"\xe9"):
        at = bisect_right(starts, target) - 1
        inside = bisect_right(starts, site) - 1
        if site % _GUARD or at < 0 or target > windows[at][1]:
            continue
        if inside < 0 or site > windows[inside][1]:
            count += 1
            yield site, target
        if count >= _MAX_CALLS:
            return


def _called(image: Image, places: list[int]) -> Counter[int]:
    """How many direct calls lead to each address shortly before one of the (sorted) places."""
    windows: list[tuple[int, int]] = []
    for place in places:
        start = place - _REACH
        if windows and start <= windows[-1][1]:
            windows[-1] = (windows[-1][0], place)
        else:
            windows.append((start, place))
    starts = [start for start, _ in windows]
    calls: Counter[int] = Counter()
    for _, target in _calls(image, windows):
        at = bisect_right(starts, target) - 1
        if at >= 0 and target <= windows[at][1]:
            calls[target] += 1
            if len(calls) >= _MAX_CALLS:
                break
    return calls


def _calls(
    image: Image, windows: list[tuple[int, int]], opcode: bytes = rb"\xe8"
) -> Iterator[tuple[int, int]]:
    # Direct calls of all code, as (place, target): those that lead near a window, and a few more.
    for part in image.parts:
        if not part.executable:
            continue
        if image.machine == "aarch64":
            yield from _linked_branches(image, part.address, part.size)
            continue
        for address, block in image.scan(part, 4):
            halves = set()
            for start, end in windows:
                first, last = start - address - len(block) - 5, end - address
                halves |= {half & 0xFFFF for half in range(first >> 16, (last >> 16) + 1)}
            texts = sorted(re.escape(half.to_bytes(2, "little")) for half in halves)
            pattern = re.compile(opcode + rb"[\s\S]{2}(?:" + b"|".join(texts) + b")", re.DOTALL)
            for match in pattern.finditer(block):
                at = match.start()
                distance = int.from_bytes(block[at + 1 : at + 5], "little", signed=True)
                yield address + at, address + at + 5 + distance


def _linked_branches(image: Image, start: int, size: int) -> Iterator[tuple[int, int]]:
    for part in image.parts:
        if (part.address, part.size) != (start, size):
            continue
        for address, block in image.scan(part, 0):
            words = memoryview(block)[: len(block) & ~3].cast("I")
            for number, word in enumerate(words):
                if word >> 26 == 0x25:  # bl
                    distance = (word & 0x3FFFFFF) << 2
                    distance -= (distance & _BRANCH_REACH) << 1
                    yield address + 4 * number, address + 4 * number + distance
