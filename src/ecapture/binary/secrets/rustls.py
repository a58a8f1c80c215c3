# SPDX-License-Identifier: Apache-2.0
"""Finds where rustls tells its secrets, in programs that are stripped and optimised as a whole.

rustls hands secrets to a trait object, ``dyn KeyLog`` (rustls/src/key_log.rs)::

    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]);
    fn will_log(&self, label: &str) -> bool;

Both are calls through a pointer, made wherever the optimiser put them. Strategy: code that names a
label leads there.

1. ``CLIENT_RANDOM`` (TLS 1.2): the next call through a pointer is ``log``, whatever the program
   asked for. The probe stands on that call, where the arguments are.
2. The labels of TLS 1.3, or the table of them: the next such call is ``will_log``, and only where
   it says yes ``log`` follows. But since rustls 0.22 the secret exists before anybody is asked, so
   the probe stands behind the call of ``will_log``, and the path to ``log`` says in which registers
   and words of the stack its arguments are by then.

What must agree before a place is believed: ``log`` is handed the very label that ``will_log`` was,
and a client random of 32 bytes; all paths to it find the same operands; nothing comes from a
register that the call has just overwritten; and the instruction is one that decoding meets from the
start of its function, which the unwinder's table tells or, where there is none, a pointer to it
that the loader is told to make, or several direct calls.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ecapture.binary.elf import ElfFile
from ecapture.binary.secrets.arrivals import Entry, State, Value, arrivals
from ecapture.binary.secrets.boundaries import Boundaries
from ecapture.binary.secrets.evaluate import Pointer
from ecapture.binary.secrets.image import Image
from ecapture.binary.secrets.labels import CLIENT_RANDOM, LABELS, find_references
from ecapture.binary.secrets.sites import NotLocated
from ecapture.binary.secrets.telling import (
    HEAD,
    Operand,
    Telling,
    TellingSite,
    Told,
    label_places,
)

_MACHINES: Final = ("x86_64", "aarch64")
_RANDOM_LENGTH: Final = 32
_LONGEST_WALK: Final = 2
_ARGUMENTS: Final = 7  # of log: self, label (2), client random (2), secret (2)
_PAGE: Final = 4096
_WORD: Final = 8
_FARTHEST: Final = 1 << 31  # what is in an operand of the kernel program has 32 bits, with sign
_MAX_REFERENCES: Final = 256  # instructions that name labels; real files have up to thirty


def locate_rustls(elf: ElfFile) -> Telling | NotLocated:
    """Return where this file's rustls tells secrets, or why nothing about that is certain.

    Raises:
        NotExecutable: the file contradicts itself.
    """
    if elf.machine not in _MACHINES:
        return NotLocated(f"code for {elf.machine} is not read")
    return _Search(elf).run()


class _Search:
    def __init__(self, elf: ElfFile) -> None:
        self._image = Image(elf)
        self._labels = label_places(self._image)
        self._boundaries = Boundaries(elf, self._image)
        self._named = {a: label for label, places in self._labels.items() for a in places}
        self._sites: dict[int, TellingSite] = {}
        self._unproven: set[int] = set()
        self._asked = False  # whether a call of will_log was seen

    def run(self) -> Telling | NotLocated:
        if not self._labels:
            return NotLocated("has no labels of secrets: built without the logging of keys")
        tables = self._boundaries.pointers_to(self._named)
        first = min(tables, default=0)
        wanted = {*self._named, *({first, first - _WORD} if tables else ())}
        for reference in find_references(self._image, wanted)[:_MAX_REFERENCES]:
            label = self._named.get(reference.target, "")
            for address, told in self._from(reference.address, label, {first, first - _WORD}):
                self._add(reference.address, address, told, label)
        if not self._sites:
            return NotLocated(self._why_none())
        return Telling(tuple(self._sites.values()), self._labels, tuple(self._notes()))

    def _add(self, start: int, address: int, told: Told, label: str) -> None:
        # What leads there must be code as well, not the middle of another instruction.
        proof = self._boundaries.proof_of(address)
        offset = self._image.offset_of(address)
        if proof is None or offset is None or self._boundaries.proof_of(start) is None:
            self._unproven.add(address)
            return
        known = self._sites.get(address)
        if known is not None and known.told != told:
            del self._sites[address]
            self._unproven.add(address)
        elif address not in self._unproven:
            head = self._image.bytes_at(address, HEAD)
            labels = (label,) if label else self._of_table()
            self._sites[address] = TellingSite(address, offset, head, told, proof, labels)

    def _of_table(self) -> tuple[str, ...]:
        return tuple(name for name in LABELS if name in self._labels and name != CLIENT_RANDOM)

    def _why_none(self) -> str:
        if self._unproven:
            return "the places where its secrets are told are not proven to be instructions"
        return "no code was found that tells secrets as the rustls that we know does"

    def _notes(self) -> Iterator[str]:
        labels = {label for site in self._sites.values() for label in site.labels}
        if CLIENT_RANDOM not in labels:
            yield "those of TLS 1.2: no call was found that tells them"
        if labels <= {CLIENT_RANDOM}:
            if self._asked:
                yield "those of TLS 1.3: it makes them only for who asked for them (before 0.22)"
            else:
                yield "those of TLS 1.3: no call was found that tells them"
        if self._unproven:
            yield f"{len(self._unproven)} places are not proven to be instructions"

    # From a reference to the operands

    def _from(self, start: int, label: str, tables: set[int]) -> Iterator[tuple[int, Told]]:
        for state in arrivals(self._image, start):
            handed = self._argument(state, 1), self._argument(state, 2)
            if label == CLIENT_RANDOM:
                if self._is_log(state, label, handed):
                    yield state.address, self._at_call()
                continue
            if not self._names(handed, label, tables):
                continue
            if self._argument(state, 4) == _RANDOM_LENGTH:
                continue  # log itself, which is called only where somebody asked for it
            self._asked = True
            site = self._image.instruction(state.address).end
            if (told := self._behind(site, state, handed)) is not None:
                yield site, told

    def _argument(self, state: State, number: int) -> Value:
        registers = self._image.convention.arguments
        if number < len(registers):
            return state.registers.get(registers[number])
        top = state.registers.get(self._image.convention.stack)
        if not isinstance(top, Pointer):
            return None
        place = _WORD * (number - len(registers))
        return state.word(top._replace(offset=top.offset + place))

    def _is_log(self, state: State, label: str, handed: tuple[Value, Value]) -> bool:
        number = self._image.convention.arguments[4]
        length = self._argument(state, 4)
        # what was set before the label is not seen; the kernel program looks at it again
        untouched = length == Pointer(number, (), 0)
        return (
            self._named.get(_number(handed[0])) == label
            and handed[1] == len(label)
            and (untouched or length == _RANDOM_LENGTH)
        )

    def _names(self, handed: tuple[Value, Value], label: str, tables: set[int]) -> bool:
        if label:
            return self._named.get(_number(handed[0])) == label and handed[1] == len(label)
        return isinstance(handed[0], Entry) and handed[0].table in tables

    def _at_call(self) -> Told:
        # log's own arguments, behind self
        convention = self._image.convention
        operands = [Operand(register) for register in convention.arguments[1:_ARGUMENTS]]
        if len(operands) < _ARGUMENTS - 1:
            operands.append(Operand(convention.stack, (0,)))
        return Told(*operands)

    def _behind(self, site: int, before: State, handed: tuple[Value, Value]) -> Told | None:
        # The operands of log at the instruction behind will_log; None unless all paths agree.
        found: set[Told | None] = set()
        for state in arrivals(self._image, site):
            if self._argument(state, 4) != _RANDOM_LENGTH:
                continue
            values = [self._argument(state, number) for number in (1, 2, 3, 4, 5, 6)]
            if (self._earlier(values[0], before), self._earlier(values[1], before)) == handed:
                operands = [self._operand(value) for value in values]
                found.add(None if None in operands else Told(*filter(None, operands)))
        return found.pop() if len(found) == 1 else None

    def _earlier(self, value: Value, before: State) -> Value:
        # What a value behind the call was before it; calls leave these registers alone.
        if not isinstance(value, Pointer):
            return value
        if value.root in self._image.convention.clobbered:
            return None
        stack = self._image.convention.stack
        if value.root == stack and len(value.path) == 1 and value.offset == 0:
            top = before.registers.get(stack)
            if isinstance(top, Pointer):
                return before.word(top._replace(offset=top.offset + value.path[0]))
        if value.path or value.offset:
            return None
        return before.registers.get(value.root)

    def _operand(self, value: Value) -> Operand | None:
        if isinstance(value, int):
            # of a label the kernel program knows the place in its page
            number = value % _PAGE if value in self._named else value
            return Operand(None, (), number) if -_FARTHEST <= number < _FARTHEST else None
        if not isinstance(value, Pointer) or len(value.path) > _LONGEST_WALK:
            return None
        if not all(-_FARTHEST <= step < _FARTHEST for step in (*value.path, value.offset)):
            return None
        if value.root in self._image.convention.clobbered:
            return None
        return Operand(value.root, value.path, value.offset)


def _number(value: Value) -> int:
    return value if isinstance(value, int) else -1
