# SPDX-License-Identifier: Apache-2.0
"""Functions that say in which source file they stand, and what they say when something is wrong.

OpenSSL and its descendants report an error with the name of the source file and, by generation:

- until 1.1.1 and in BoringSSL: ``ERR_put_error(library, function, reason, file, line)``, where
  BoringSSL's ``function`` is always 0;
- since 3.0: ``ERR_set_debug(file, line, function)``, where ``function`` is a text (``__func__``);
- since 1.1.0 memory is given back with ``CRYPTO_free(pointer, file, line)``.

The name of the file leads to the functions, their evaluation (``secrets.evaluate``, with doubt, so
that the ways of failing are seen) to what they report.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from ecapture.binary.calls.entries import (
    Entry,
    calls_to,
    entries_around,
    jumps_into,
    leads_to,
)
from ecapture.binary.calls.pointers import Pointers, Window
from ecapture.binary.secrets.evaluate import Evaluator, Invocation, Limits, Pointer, Trace
from ecapture.binary.secrets.functions import Functions
from ecapture.binary.secrets.image import Image
from ecapture.binary.secrets.labels import find_references
from ecapture.binary.secrets.operations import Jump
from ecapture.binary.secrets.sites import Proof

_LONGEST_PATH: Final = 300
_LONGEST_NAME: Final = 64
_MAX_PLACES: Final = 8
_REACH: Final = 1 << 14  # from a function's first instruction to a place in it
_MAX_FUNCTIONS: Final = 400
_TRIES: Final = 8  # pointers before a place that are tried
_LIMITS: Final = Limits(paths=400, steps=8000, doubt=True)
_PATH: Final = re.compile(rb"[\x20-\x7e]*\Z")
_NAME: Final = re.compile(rb"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(slots=True)
class Reporter:
    """A function, what its evaluation found, and what it reports.

    ``names`` are texts it gives as its own name, ``codes`` are (library, function, reason).
    ``frees``: it gives its first argument's memory back.
    """

    entry: Entry
    trace: Trace
    names: set[str] = field(default_factory=set)
    codes: set[tuple[int, int, int]] = field(default_factory=set)
    frees: bool = False

    def reasons(self, library: int) -> set[int]:
        """The reasons that it reports of a library."""
        return {reason for known, _, reason in self.codes if known == library}


class Code:
    """Functions of an image and what their evaluation finds."""

    def __init__(self, image: Image) -> None:
        self.image = image
        self._functions = Functions(image)
        self._evaluator = Evaluator(image, self._functions)
        self._named: dict[str, tuple[set[int], set[int]]] = {}
        self._found: dict[str, dict[int, Reporter]] = {}

    def may_start(self, address: int) -> bool:
        """Tell whether there is code at an address, and not that of a function around it."""
        inside = self._functions.range_of(address)
        return self.is_code(address) and (inside is None or inside[0] == address)

    def is_code(self, address: int) -> bool:
        """Tell whether there is code at an address."""
        return self.image.part_of(address, executable=True) is not None

    def behind(self, address: int) -> int:
        """Return where code at an address only jumps to, or the address itself.

        Pointers to functions lead to such jumps where a compiler guards calls through them
        (``-fsanitize=cfi-icall`` of clang).
        """
        match self.image.instruction(address).operations:
            case (Jump(int(target)),) if self.is_code(target):
                return target
        return address

    def reporters(self, tail: str) -> dict[int, Reporter]:
        """Return the functions that name a source file whose path ends in ``tail``, by address."""
        if tail not in self._found:
            self._found[tail] = self._reporters(*self._naming(tail))
        return self._found[tail]

    def pointed(self, tail: str, pointers: Pointers) -> dict[int, Reporter]:
        """Return those functions that name such a file and that pointers in the data lead to."""
        files, places = self._naming(tail)
        windows = _windows(places)
        entries = self._leading(pointers.into(windows), places)
        if not entries:
            jumps = dict(jumps_into(self.image, windows))
            guards = pointers.into([(jump, jump) for jump in sorted(jumps)])
            entries = self._leading({jumps[guard] for guard in guards}, places)
        return self._traced(entries, files)

    def _leading(self, addresses: Iterable[int], places: Iterable[int]) -> set[Entry]:
        # Of functions that may start at these addresses those from which the places are reached.
        targets = sorted(address for address in addresses if self.may_start(address))
        entries = set()
        for place in places:
            last = bisect_right(targets, place)
            for address in reversed(targets[max(0, last - _TRIES) : last]):
                if place - address <= _REACH and leads_to(self.image, address, place):
                    entries.add(self._entry(address))
                    break
        return entries

    def at(self, address: int) -> Reporter:
        """Return the function that a pointer leads to; nothing is known of what it reports."""
        return self._traced([self._entry(address)], set())[address]

    def _entry(self, address: int) -> Entry:
        known = self._functions.is_start(address)
        return Entry(address, Proof.FRAME_TABLE if known else Proof.POINTER)

    def _naming(self, tail: str) -> tuple[set[int], set[int]]:
        # Where such a file's name stands, and the places in code that name it.
        if tail not in self._named:
            files = set(islice(_paths(self.image, tail.encode()), _MAX_PLACES))
            places = {reference.address for reference in find_references(self.image, files)}
            self._named[tail] = files, places
        return self._named[tail]

    def _reporters(self, files: set[int], places: set[int]) -> dict[int, Reporter]:
        known = entries_around(self.image, self._functions, places)
        found = self._traced(known.values(), files)
        # What a function that is proven calls is one, too, though nothing else calls it.
        called = sorted(
            {call.target for r in found.values() for call in r.trace.calls if call.target}
        )
        more = set()
        for place in places - set(known):
            near = [target for target in called if place - _REACH < target <= place]
            if near and leads_to(self.image, near[-1], place):
                more.add(Entry(near[-1], Proof.CALL_TARGET))
        return found | self._traced(more, files)

    def callers(self, target: int) -> list[Reporter]:
        """Return the functions that call an address; nothing is known of what they report."""
        sites = calls_to(self.image, target)
        entries = entries_around(self.image, self._functions, sites).values()
        return list(self._traced(entries, set()).values())

    def _traced(self, entries: Iterable[Entry], files: set[int]) -> dict[int, Reporter]:
        found = {}
        for entry in sorted(set(entries))[:_MAX_FUNCTIONS]:
            reporter = Reporter(entry, self._evaluator.trace(entry.address, _LIMITS))
            for call in reporter.trace.calls:
                _note(self.image, files, reporter, call)
            found[entry.address] = reporter
        return found


def _windows(places: Iterable[int]) -> list[Window]:
    # What lies within reach before the places.
    windows: list[Window] = []
    for place in sorted(places):
        start = max(0, place - _REACH)
        if windows and start <= windows[-1][1]:
            windows[-1] = (windows[-1][0], place)
        else:
            windows.append((start, place))
    return windows


def _paths(image: Image, tail: bytes) -> Iterator[int]:
    # Where a C string that ends so begins: behind the NUL, or whatever else is no text, before it.
    wanted = tail + b"\0"
    for part in image.parts:
        for address, block in image.scan(part, _LONGEST_PATH):
            at = block.find(wanted)
            while at >= 0:
                before = _PATH.search(block, max(0, at - _LONGEST_PATH), at)
                yield address + (before.start() if before else at)
                at = block.find(wanted, at + 1)


def _note(image: Image, files: set[int], reporter: Reporter, call: Invocation) -> None:
    first, second, third, fourth = call.arguments[:4]
    if fourth in files:
        if isinstance(first, int) and isinstance(second, int) and isinstance(third, int):
            reporter.codes.add((first, second, third))
    elif first in files and isinstance(third, int):
        text = image.bytes_at(third, _LONGEST_NAME).split(b"\0", 1)[0]
        if _NAME.fullmatch(text):
            reporter.names.add(text.decode())
    elif second in files and first == Pointer(0, (), 0):
        reporter.frees = True
