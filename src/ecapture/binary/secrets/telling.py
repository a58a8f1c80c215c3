# SPDX-License-Identifier: Apache-2.0
"""Places where a program tells a secret together with its label and client random.

There no object of a library has to be understood: the three parts are arguments. Go's crypto/tls
has such a function, ``(*Config).writeKeyLog``, and rustls such a trait, ``KeyLog`` (``rustls``).
What this module has in common for both: how a place and its operands are written down, and where
the texts of labels stand.

Sources: func (c *Config) writeKeyLog(label string, clientRandom, secret []byte) error, unchanged in
src/crypto/tls/common.go from Go 1.15 to 1.27; Go's src/cmd/compile/abi-internal.md for the
registers. With everything on the stack the arguments follow the return address (AArch64: a word
that is kept for it).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from ecapture.binary.elf import ElfFile
from ecapture.binary.golang import KEY_LOG
from ecapture.binary.secrets.image import Image
from ecapture.binary.secrets.labels import LABELS
from ecapture.binary.secrets.operations import Branch, Call, Jump, Return, Stop
from ecapture.binary.secrets.sites import NotLocated, Proof

HEAD: Final = 16
_MAX_PLACES: Final = 8  # of one label
_MAX_HITS: Final = 4096
_STACK_CHECK: Final = 8  # instructions; the longest is five
_STACK: Final = {"x86_64": 4, "aarch64": 31}


@dataclass(frozen=True, slots=True)
class Operand:
    """A value in a thread that stands before an instruction.

    A register in the machine's own numbering (None: 0); for each number in ``path`` that is added
    and the word there is loaded; then ``offset`` is added.
    """

    register: int | None
    path: tuple[int, ...] = ()
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Told:
    """Where an instruction finds the parts of a secret: addresses and lengths in bytes."""

    label: Operand
    label_length: Operand
    random: Operand
    random_length: Operand
    secret: Operand
    secret_length: Operand


@dataclass(frozen=True, slots=True)
class TellingSite:
    """An instruction before which the parts of a secret are at hand.

    ``address`` is as linked, ``offset`` is that in the file. ``head`` are the bytes there, by which
    a remembered site is verified. ``labels`` are those that are told there, as far as code says.
    """

    address: int
    offset: int
    head: bytes
    told: Told
    proof: Proof
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Telling:
    """All such places of a file. ``notes`` say which secrets are not to be had, and why.

    ``labels`` has the addresses where the text of each label stands, as linked.
    """

    sites: tuple[TellingSite, ...]
    labels: Mapping[str, tuple[int, ...]]
    notes: tuple[str, ...] = field(default=())


def label_places(image: Image) -> dict[str, tuple[int, ...]]:
    """Return where the texts of labels stand; what follows them does not matter.

    Strings of Go and Rust do not end in a NUL and lie back to back. Text that is the tail of a
    longer label is not a place of the shorter one. Bounded: a file full of labels is cut.
    """
    found: dict[str, list[int]] = {}
    for address, label in islice(_texts(image), _MAX_HITS):
        places = found.setdefault(label, [])
        if len(places) < _MAX_PLACES and address not in places:
            places.append(address)
    return {label: tuple(sorted(places)) for label, places in found.items()}


def _texts(image: Image) -> Iterator[tuple[int, str]]:
    # Rare words first: what stands around them is then compared.
    longest = max(map(len, LABELS))
    for part in image.parts:
        for address, block in image.scan(part, 2 * longest):
            for word in (b"CLIENT_RANDOM", b"_SECRET"):
                at = block.find(word)
                while at >= 0:
                    label, start = _label_around(block, at, word)
                    if label:
                        yield address + start, label
                    at = block.find(word, at + 1)


def _label_around(block: bytes, at: int, word: bytes) -> tuple[str, int]:
    # The longest label in which the word stands here.
    for label in sorted(LABELS, key=len, reverse=True):
        text = label.encode()
        start = at - text.find(word)
        if text.find(word) >= 0 and start >= 0 and block.startswith(text, start):
            return label, start
    return "", 0


# Go


def locate_go(elf: ElfFile, function: int, convention: str) -> Telling | NotLocated:
    """Return the place in ``writeKeyLog``, which begins at a file offset and is proven to.

    It is the instruction behind the check of the stack's limit: a function whose stack has to grow
    begins anew, and the secret would be told twice.

    Raises:
        NotExecutable: the file contradicts itself.
    """
    image = Image(elf)
    start = image.address_of(function)
    address = None if start is None else _behind_stack_check(image, start)
    if address is None:
        return NotLocated(f"{KEY_LOG} does not begin as functions of Go do")
    offset = image.offset_of(address)
    if offset is None:
        return NotLocated(f"{KEY_LOG} is not in a part of the file that is code")
    site = TellingSite(
        address,
        offset,
        image.bytes_at(address, HEAD),
        go_operands(elf.machine, convention),
        Proof.FUNCTION_TABLE,
    )
    return Telling((site,), label_places(image))


def go_operands(machine: str, convention: str) -> Told:
    """Where the arguments of ``writeKeyLog`` are, behind the receiver."""
    if convention == "stack":
        stack = _STACK[machine]
        return Told(*(Operand(stack, (place,)) for place in (16, 24, 32, 40, 56, 64)))
    # rax, rbx, rcx, rdi, rsi, r8, r9, r10: receiver, label (2), random (3), secret (2 of 3)
    registers = (3, 1, 7, 6, 9, 10) if machine == "x86_64" else (1, 2, 3, 4, 6, 7)
    return Told(*(Operand(register) for register in registers))


def _behind_stack_check(image: Image, start: int) -> int | None:
    address = start
    for _ in range(_STACK_CHECK):
        instruction = image.instruction(address)
        for operation in instruction.operations:
            if isinstance(operation, Branch):
                return instruction.end
            if isinstance(operation, Call | Jump | Return | Stop):
                return None
        address = instruction.end
    return None
