# SPDX-License-Identifier: Apache-2.0
"""The internal functions that OpenSSL's exported ones share, found by evaluating these.

``BIO_f_ssl`` (``openssl s_server -www`` and every program that treats TLS as a filter of BIOs)
reads and writes by ``ssl_read_internal`` and ``ssl_write_internal``, not by the exported functions
(ssl/bio_ssl.c since 1.1.1). A stripped library has no names for them, but ``SSL_read`` hands object
and buffer to one with a place for the count on its stack. Where exported functions do nothing else,
the internal function is all that needs a probe, so that no call costs two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ecapture.binary.calls.openssl import handed_on, on_stack
from ecapture.binary.elf import ElfFile
from ecapture.binary.secrets.evaluate import Evaluator, Limits, Pointer, Trace
from ecapture.binary.secrets.functions import Functions, is_stub
from ecapture.binary.secrets.image import Image
from ecapture.binary.secrets.imports import called_by_stub

_PAIRS: Final = (
    ("ssl_read_internal", "SSL_read", "SSL_read_ex"),
    ("ssl_write_internal", "SSL_write", "SSL_write_ex"),
)
_LIMITS: Final = Limits(paths=100, steps=1500)
_MACHINES: Final = ("x86_64", "aarch64")


def inner_functions(
    elf: ElfFile, named: Mapping[str, int]
) -> tuple[dict[str, int], dict[str, str]]:
    """Return the addresses of internal functions, and which named ones do nothing but call them.

    ``named`` are addresses of functions, as linked. Names are those of ``calls.openssl``.

    Raises:
        NotExecutable: the file contradicts itself.
    """
    if elf.machine not in _MACHINES or not named:
        return {}, {}
    image = Image(elf)
    functions = Functions(image)
    evaluator = Evaluator(image, functions)
    found: dict[str, int] = {}
    through: dict[str, str] = {}
    for internal, counting, pointing in _PAIRS:
        if counting not in named:
            continue
        trace = evaluator.trace(named[counting], _LIMITS)
        shared = _shared(image, functions, trace)
        if shared is None:
            continue
        target, number = shared
        name = internal if number == 3 else f"{internal}+flags"
        found[name] = target
        if trace.complete and not _does_it_itself(trace):
            through[counting] = name
        if pointing in named:
            other = evaluator.trace(named[pointing], _LIMITS)
            onward = _goes_on(elf, image, other)
            if _only_calls(other, target, number) or (
                onward is not None and _is_same(evaluator.trace(onward, _LIMITS), target)
            ):
                through[pointing] = name
    return found, through


def _shared(image: Image, functions: Functions, trace: Trace) -> tuple[int, int] | None:
    # The one function of this file that gets a place on the stack for the count.
    targets = {
        (call.target, number)
        for call, number, place in handed_on(trace)
        if call.target is not None and on_stack(place)
    }
    if len(targets) != 1:
        return None
    target, number = targets.pop()
    if not functions.is_start(target) or is_stub(image, target):
        return None
    return target, number


def _does_it_itself(trace: Trace) -> bool:
    return any(call.target is None and on_stack(place) for call, _, place in handed_on(trace))


def _only_calls(trace: Trace, target: int, number: int) -> bool:
    calls = [
        (call.target, at) for call, at, place in handed_on(trace) if place == Pointer(3, (), 0)
    ]
    return trace.complete and (target, number) in calls and (None, 3) not in calls


def _is_same(trace: Trace, target: int) -> bool:
    # All five arguments are handed to the internal function as they came, and to nobody else.
    given = {
        (call.target, call.arguments[:2], call.arguments[3:5]) for call, _, _ in handed_on(trace)
    }
    came = tuple(Pointer(number, (), 0) for number in range(5))
    return trace.complete and given == {(target, came[:2], came[3:5])}


def _goes_on(elf: ElfFile, image: Image, trace: Trace) -> int | None:
    # Since 3.3 SSL_write_ex(ssl, buffer, size, &written) is SSL_write_ex2 with flags before the
    # last argument: an exported function, which is called by way of the loader. Whatever replaces
    # it there hands the work to a libssl, which has its own probes.
    targets = {call.target for call, _, _ in handed_on(trace)}
    target = targets.pop() if len(targets) == 1 else None
    places = {(number, place) for _, number, place in handed_on(trace)}
    if target is None or not trace.complete or places != {(4, Pointer(3, (), 0))}:
        return None
    if not is_stub(image, target):
        return None
    name = called_by_stub(image, target)
    symbol = elf.symbol(name) if name else None
    return symbol.address if symbol is not None else None
