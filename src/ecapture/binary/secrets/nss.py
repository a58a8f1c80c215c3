# SPDX-License-Identifier: Apache-2.0
"""NSS: where a connection keeps its client random.

NSS has no accessor for it, and its log function may be compiled to nothing. What is certain is how
a random comes to be: one small function calls the imported ``PK11_GenerateRandom(where, 32)``, and
is itself called with three addresses, which stand side by side in the socket: the server's random,
the client's, and the one that an encrypted ClientHello has inside (``SSL3HandshakeStateStr`` in
lib/ssl/sslimpl.h, 3.87). Versions that make only two of them give no answer: which two they are,
the code does not say.

The import is followed through its relocation to the slot it fills, and from there to the stub that
jumps through that slot.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice, pairwise
from typing import Final

from ecapture.binary.secrets.chains import RANDOM_LENGTH, chain
from ecapture.binary.secrets.evaluate import Evaluator, Limits, Pointer
from ecapture.binary.secrets.functions import Functions
from ecapture.binary.secrets.image import Image
from ecapture.binary.secrets.imports import import_slot
from ecapture.binary.secrets.sites import Chain

_GENERATOR: Final = b"PK11_GenerateRandom\0"
_MAX_CALLS: Final = 64
_NEAR_START: Final = 64  # bytes from the helper's start to its call
_LIMITS: Final = Limits(paths=200, steps=3000)


def client_random(image: Image, functions: Functions, evaluator: Evaluator) -> Chain | None:
    """Return the walk from NSS's socket to its client random, if the code shows it."""
    slot = import_slot(image, _GENERATOR)
    if slot is None:
        return None
    for stub in stubs_of(image, slot):
        for helper in _helpers(image, functions, evaluator, stub):
            offsets = sorted(set(_handed_places(image, functions, evaluator, helper)))
            steps = [after - before for before, after in pairwise(offsets)]
            if steps == [RANDOM_LENGTH, RANDOM_LENGTH]:
                return chain(Pointer(0, (), offsets[1]), RANDOM_LENGTH)
    return None


def _helpers(image: Image, functions: Functions, evaluator: Evaluator, stub: int) -> Iterator[int]:
    for call in islice(calls_to(image, stub), _MAX_CALLS):
        inside = functions.range_of(call)
        if inside is None or call - inside[0] > _NEAR_START:
            continue
        for made in evaluator.trace(inside[0], _LIMITS).calls:
            if made.target == stub and made.arguments[:2] == (Pointer(0, (), 0), RANDOM_LENGTH):
                yield inside[0]


def _handed_places(
    image: Image, functions: Functions, evaluator: Evaluator, helper: int
) -> Iterator[int]:
    for call in islice(calls_to(image, helper), _MAX_CALLS):
        inside = functions.range_of(call)
        if inside is None:
            continue
        for arrival in islice(evaluator.arrivals(inside[0], call), 1):
            place = arrival.arguments[0]
            if isinstance(place, Pointer) and place.root == 0 and not place.path:
                yield place.offset


def stubs_of(image: Image, slot: int) -> list[int]:
    """Return where code jumps through a slot, each by the address that calls of it name."""
    found: list[int] = []
    for part in image.parts:
        if not part.executable:
            continue
        for address, block in image.scan(part, 16):
            scan = _stubs_aarch64 if image.machine == "aarch64" else _stubs_x86
            found += islice(scan(address, block, slot), _MAX_CALLS)
    return sorted(set(found))


def _stubs_x86(address: int, block: bytes, slot: int) -> Iterator[int]:
    # [endbr64] [bnd] jmp *slot(%rip)
    for match in re.finditer(rb"(?:\xf3\x0f\x1e\xfa)?\xf2?\xff\x25(....)", block, re.DOTALL):
        distance = int.from_bytes(match[1], "little", signed=True)
        if address + match.end() + distance == slot:
            yield address + match.start()


def _stubs_aarch64(address: int, block: bytes, slot: int) -> Iterator[int]:
    # [bti c] adrp x16, page; ldr x17, [x16, #low]
    load = (0xF9400211 | (slot & 0xFFF) >> 3 << 10).to_bytes(4, "little")
    at = block.find(load)
    while at >= 0:
        here = address + at - 4
        distance = (slot >> 12) - (here >> 12)
        word = 0x90000010 | (distance & 3) << 29 | (distance >> 2 & 0x7FFFF) << 5
        if at % 4 == 0 and at >= 4 and block[at - 4 : at] == word.to_bytes(4, "little"):
            marked = block[max(0, at - 8) : at - 4] == b"\x5f\x24\x03\xd5"
            yield here - 4 * marked
        at = block.find(load, at + 1)


def calls_to(image: Image, target: int) -> Iterator[int]:
    """Yield the addresses of direct calls of a function."""
    for part in image.parts:
        if not part.executable:
            continue
        for address, block in image.scan(part, 4):
            scan = _calls_aarch64 if image.machine == "aarch64" else _calls_x86
            yield from scan(address, block, target)


def _calls_x86(address: int, block: bytes, target: int) -> Iterator[int]:
    at = block.find(b"\xe8")
    while 0 <= at <= len(block) - 5:
        distance = int.from_bytes(block[at + 1 : at + 5], "little", signed=True)
        if address + at + 5 + distance == target:
            yield address + at
        at = block.find(b"\xe8", at + 1)


def _calls_aarch64(address: int, block: bytes, target: int) -> Iterator[int]:
    for number, word in enumerate(memoryview(block)[: len(block) & ~3].cast("I")):
        if word >> 26 == 0x25:
            distance = (word & 0x3FFFFFF) - ((word & 0x2000000) << 1)
            if address + 4 * number + 4 * distance == target:
                yield address + 4 * number
