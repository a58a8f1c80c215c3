# SPDX-License-Identifier: Apache-2.0
"""Where the labels of secrets stand in a file, and which instructions name those places.

The labels are those of the NSS key log format ("The SSLKEYLOGFILE Format for TLS", section 2).
A label is a C string: its bytes and a NUL. What stands before does not matter, since linkers let
"EXPORTER_SECRET" be the tail of "EARLY_EXPORTER_SECRET". One label may stand in several places.

Code names a label's place by an address relative to the program counter (x86-64: ``lea``, aarch64:
``adrp`` and ``add``, or ``adr``) or, in a program linked for a fixed address, by an immediate
that is moved to a register or pushed.
Scans look for the rare bytes of such an instruction, not for instructions: about 2 ns a byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final, NamedTuple

from ecapture.binary.secrets.image import Image, Part

CLIENT_RANDOM: Final = "CLIENT_RANDOM"
EXPORTER: Final = "EXPORTER_SECRET"
LABELS: Final = (
    CLIENT_RANDOM,
    "CLIENT_EARLY_TRAFFIC_SECRET",
    "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
    "SERVER_HANDSHAKE_TRAFFIC_SECRET",
    "CLIENT_TRAFFIC_SECRET_0",
    "SERVER_TRAFFIC_SECRET_0",
    EXPORTER,
    "EARLY_EXPORTER_SECRET",
)
KEY_UPDATE: Final = "traffic upd"  # of the key schedule (RFC 8446, section 7.2), no secret's label
_TEXTS: Final = (*LABELS, KEY_UPDATE)
_LONGEST: Final = max(map(len, _TEXTS)) + 1
_MAX_PLACES: Final = 8  # of one label; real files have one or two
_MAX_HITS: Final = 4096  # strings that end like a label
_MAX_REFERENCES: Final = 1024
_MAX_CANDIDATES: Final = 1 << 17  # byte patterns looked at more closely
_PAGE: Final = 4096
_ADD_WITHIN: Final = 16  # instructions between adrp and add


class Reference(NamedTuple):
    """An instruction, by its address, that may form the address ``target``."""

    address: int
    target: int


def find_labels(image: Image) -> dict[str, tuple[int, ...]]:
    """Return the addresses of every label that the loaded parts of the file contain.

    ``KEY_UPDATE`` is looked for as well. Bounded: of a file that is full of labels the first few
    places are returned.
    """
    found: dict[str, list[int]] = {}
    for address, block, end in islice(_tails(image), _MAX_HITS):
        _note(found, address, block, end)
    return {label: tuple(sorted(set(places))) for label, places in found.items()}


def _tails(image: Image) -> Iterator[tuple[int, bytes, int]]:
    # A few rare tails are looked for; the labels that end in them follow from there.
    for part in image.parts:
        for address, block in image.scan(part, _LONGEST - 1):
            for tail in (b"CLIENT_RANDOM\0", b"_SECRET\0", b"_SECRET_0\0", b"traffic upd\0"):
                for at in _occurrences(block, tail):
                    yield address, block, at + len(tail)


def _occurrences(block: bytes, wanted: bytes) -> Iterator[int]:
    at = block.find(wanted)
    while at >= 0:
        yield at
        at = block.find(wanted, at + 1)


def _note(found: dict[str, list[int]], address: int, block: bytes, end: int) -> None:
    for label in _TEXTS:
        text = label.encode() + b"\0"
        if block.endswith(text, 0, end):
            places = found.setdefault(label, [])
            if len(places) < _MAX_PLACES:
                places.append(address + end - len(text))


def find_references(image: Image, wanted: Iterable[int]) -> list[Reference]:
    """Return the instructions that may form one of the wanted addresses.

    Bounded: a file that names its labels more than a thousand times is cut there. What is found
    must still be decoded, since the bytes may be the middle of another instruction.
    """
    targets = sorted(set(wanted))
    found: set[Reference] = set()
    if targets:
        for hit in islice(_candidates(image, targets), _MAX_CANDIDATES):
            if hit is not None:
                found.add(hit)
            if len(found) >= _MAX_REFERENCES:
                break
    return sorted(found)


def _candidates(image: Image, targets: list[int]) -> Iterator[Reference | None]:
    # None stands for bytes that looked alike but name something else: they count as work done.
    scan = _references_aarch64 if image.machine == "aarch64" else _references_x86
    for part in image.parts:
        if part.executable:
            yield from scan(image, part, targets)


def _references_x86(image: Image, part: Part, targets: list[int]) -> Iterator[Reference | None]:
    exact = frozenset(targets)
    fixed = _fixed_pattern(targets) if image.fixed else None
    for address, block in image.scan(part, 6):
        for match in _relative_pattern(address, len(block), targets).finditer(block):
            at = match.start()
            displacement = int.from_bytes(block[at + 2 : at + 6], "little", signed=True)
            named = address + at + 6 + displacement
            fits = named in exact and at and block[at - 1] in (0x48, 0x4C)
            yield Reference(address + at - 1, named) if fits else None
        if fixed is None:
            continue
        for match in fixed.finditer(block):
            at = match.start()
            named = int.from_bytes(block[at + 1 : at + 5], "little")
            # A REX.B prefix selects registers 8 to 15.
            start = address + at - (at > 0 and block[at - 1] == 0x41)
            yield Reference(start, named) if named in exact else None


def _relative_pattern(address: int, size: int, targets: list[int]) -> re.Pattern[bytes]:
    # lea with a displacement from the next instruction. Within a block the upper half of the
    # displacement takes a handful of values, which sorts out nearly everything at once.
    halves = set()
    for target in targets:
        first, last = target - address - size - 6, target - address
        halves |= {half & 0xFFFF for half in range(first >> 16, (last >> 16) + 1)}
    return re.compile(
        rb"\x8d[\x05\x0d\x15\x1d\x25\x2d\x35\x3d][\s\S]{2}" + _one_of(halves), re.DOTALL
    )


def _fixed_pattern(targets: list[int]) -> re.Pattern[bytes] | None:
    near = [target for target in targets if target < 1 << 32]
    if not near:
        return None
    return re.compile(rb"[\x68\xb8-\xbf][\s\S]{2}" + _one_of({target >> 16 for target in near}))


def _one_of(halves: Iterable[int]) -> bytes:
    texts = sorted(re.escape(half.to_bytes(2, "little")) for half in halves)
    return b"(?:" + b"|".join(texts) + b")"


def _references_aarch64(image: Image, part: Part, targets: list[int]) -> Iterator[Reference | None]:
    exact = frozenset(targets)
    pages = sorted({target // _PAGE for target in targets})
    for address, block in image.scan(part, 4 * _ADD_WITHIN):
        words = memoryview(block)[: len(block) & ~3].cast("I")
        start = 0
        while start < len(block):
            end = start + _PAGE - (address + start) % _PAGE
            for page in pages:
                for at in _pages_named(block, start, end, page - (address + start) // _PAGE):
                    named = _completed(words, at // 4, page, exact)
                    yield None if named is None else Reference(address + at, named)
            start = end
        yield from _near_named(words, address, targets)


def _pages_named(block: bytes, start: int, end: int, distance: int) -> Iterator[int]:
    # adrp: all instructions of one code page that name one page share all bits but the register.
    word = 0x90000000 | (distance & 3) << 29 | (distance >> 2 & 0x7FFFF) << 5
    tail = word.to_bytes(4, "little")
    at = block.find(tail[1:], start, end)
    while at >= 0:
        if at % 4 == 1 and block[at - 1] & 0xE0 == tail[0]:
            yield at - 1
        at = block.find(tail[1:], at + 1, end)


def _completed(words: memoryview[int], number: int, page: int, exact: frozenset[int]) -> int | None:
    # A page becomes a label by an add soon after, or by two where the compiler keeps an anchor
    # for several constants. Answers the label.
    if number >= len(words):
        return None
    values = {words[number] & 31: page * _PAGE}
    for word in words[number + 1 : number + 1 + _ADD_WITHIN]:
        value = values.get(word >> 5 & 31)
        if word & 0xFFC00000 == 0x91000000 and value is not None:
            value += word >> 10 & 0xFFF
            if value in exact:
                return value
            values[word & 31] = value
    return None


def _near_named(
    words: memoryview[int], address: int, targets: list[int]
) -> Iterator[Reference | None]:
    # adr reaches one megabyte; linkers make it of adrp and add where they can.
    reach, exact = 1 << 20, frozenset(targets)
    if targets[-1] < address - reach or targets[0] > address + 4 * len(words) + reach:
        return
    tops = bytes(words.cast("B")[3::4])
    for top in (b"\x10", b"\x30", b"\x50", b"\x70"):
        for number in _occurrences(tops, top):
            word = words[number]
            distance = (word >> 5 & 0x7FFFF) << 2 | word >> 29 & 3
            distance -= (distance & 1 << 20) << 1
            place = address + 4 * number
            named = place + distance
            yield Reference(place, named) if named in exact else None
