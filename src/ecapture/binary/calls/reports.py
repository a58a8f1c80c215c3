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
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from ecapture.binary.calls.entries import Entry, entries_around
from ecapture.binary.secrets.evaluate import Evaluator, Invocation, Limits, Pointer, Trace
from ecapture.binary.secrets.functions import Functions
from ecapture.binary.secrets.image import Image
from ecapture.binary.secrets.labels import find_references

_LONGEST_PATH: Final = 300
_LONGEST_NAME: Final = 64
_MAX_PLACES: Final = 8
_MAX_FUNCTIONS: Final = 400
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


def find_reporters(image: Image, tail: str) -> dict[int, Reporter]:
    """Return the functions that name a source file whose path ends in ``tail``, by address."""
    files = set(islice(_paths(image, tail.encode()), _MAX_PLACES))
    if not files:
        return {}
    functions = Functions(image)
    evaluator = Evaluator(image, functions)
    places = {reference.address for reference in find_references(image, files)}
    entries = sorted(set(entries_around(image, functions, places).values()))
    reporters = {}
    for entry in entries[:_MAX_FUNCTIONS]:
        reporter = Reporter(entry, evaluator.trace(entry.address, _LIMITS))
        for call in reporter.trace.calls:
            _note(image, files, reporter, call)
        reporters[entry.address] = reporter
    return reporters


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
