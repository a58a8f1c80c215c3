# SPDX-License-Identifier: Apache-2.0
"""OpenSSL's reading and writing functions, recognised in code without names.

``SSL_read``, ``SSL_read_ex`` and ``BIO_f_ssl`` share ``ssl_read_internal(ssl, buffer, size,
&read)`` since 1.1.1; writing alike, with flags before the last argument since 3.3. Where the
compiler kept the internal function it is all that is needed; where it was built into its callers,
these are.

Two signs must agree for each:

1. **What it reports.** Since 3.0 a function names itself; before, it gives its number in the
   table of ``include/openssl/sslerr.h`` (``ssl.h`` until 1.1.0).
2. **What it does with its arguments.** The object and the buffer are handed on together, with a
   place for the count: on its own stack (so it returns the count), or its own argument.

``SSL_free`` is the function of this source file that gives its first argument back, and what
programs attached to it under class 0, ``CRYPTO_EX_INDEX_SSL`` (``include/openssl/crypto.h``).
Where it is not found (1.0.2), ``SSL_new`` tells that an object's address is used anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from ecapture.binary.calls.entries import Entry
from ecapture.binary.calls.reports import Code, Reporter
from ecapture.binary.secrets.evaluate import Invocation, Pointer, Trace, Value

SOURCE: Final = "ssl_lib.c"  # 1.0.2 is compiled in its folder
_LIBRARY: Final = 20  # ERR_LIB_SSL
_CODES: Final = {
    "SSL_read": 223,
    "SSL_write": 208,
    "ssl_read_internal": 523,
    "ssl_write_internal": 524,
    "SSL_new": 186,
}
_OBJECT: Final = Pointer(0, (), 0)
_BUFFER: Final = Pointer(1, (), 0)
_STACK: Final = -1

Recognised = dict[str, tuple[Entry, str]]
"""Functions by name, each with its entry and the signs that agreed."""


def recognise(code: Code) -> Recognised:
    """Return which functions read and write plaintext, and which frees an object."""
    reporters = code.reporters(SOURCE)
    found: Recognised = {}
    for public, internal in (
        ("SSL_read", "ssl_read_internal"),
        ("SSL_write", "ssl_write_internal"),
    ):
        found |= _direction(reporters, public, internal)
    freeing = [r for r in reporters.values() if r.frees and _frees_attachments(r.trace)]
    making = [r for r in reporters.values() if _is(r, "SSL_new")]
    if len(freeing) == 1:
        found["SSL_free"] = (freeing[0].entry, "frees its argument and what is attached to it")
    elif len(making) == 1:
        found["SSL_new"] = (making[0].entry, _sign(making[0]))
    return found


def handed_on(trace: Trace) -> Iterator[tuple[Invocation, int, Value]]:
    """Yield calls that get the object, the buffer, and a place for the count.

    With each come the number of the argument that is the place (3, or 4 behind flags), and what
    the place is: on the function's own stack, or one of its own arguments.
    """
    for call in trace.calls:
        if call.arguments[:2] != (_OBJECT, _BUFFER):
            continue
        for number in (3, 4):
            place = call.arguments[number]
            own = isinstance(place, Pointer) and not place.path
            flags = call.arguments[3]
            if own and (number == 3 or flags is None or isinstance(flags, int)):
                yield call, number, place
                break


def on_stack(place: Value) -> bool:
    """Tell whether a place is on the stack of the function that was evaluated."""
    return isinstance(place, Pointer) and place.root == _STACK


def _direction(reporters: Mapping[int, Reporter], public: str, internal: str) -> Recognised:
    inner = {address: r for address, r in reporters.items() if _is(r, internal)}
    found: Recognised = {}
    for reporter in reporters.values():
        if not _is(reporter, public):
            continue
        for call, number, place in handed_on(reporter.trace):
            if not on_stack(place):
                continue
            if call.target in inner:
                name = internal if number == 3 else f"{internal}+flags"
                found[name] = (inner[call.target].entry, f"{_sign(reporter)} and calls it")
            elif call.target is None and reporter.entry.address in inner:
                found[public] = (reporter.entry, f"{_sign(reporter)}, with {internal} built in")
        if not inner and _asks_method(reporter.trace):  # until 1.1.0
            found[public] = (reporter.entry, f"{_sign(reporter)} and hands object and buffer on")
    return found | _remaining(inner, internal, public, found)


def _remaining(
    inner: Mapping[int, Reporter], internal: str, public: str, known: Recognised
) -> Recognised:
    # Built into its callers, the internal function exists several times: beside SSL_read there is
    # SSL_read_ex, which has the same arguments as the internal function.
    taken = {entry.address for entry, _ in known.values()}
    names = [name for name in (internal, f"{public}_ex") if name not in known]
    found: Recognised = {}
    if public not in known and known:
        return found
    for reporter in inner.values():
        places = {
            number
            for call, number, place in handed_on(reporter.trace)
            if call.target is None and place == Pointer(number, (), 0)
        }
        if reporter.entry.address not in taken and places == {3} and names:
            found[names.pop(0)] = (reporter.entry, f"has the code of {internal} in it")
    return found


def _is(reporter: Reporter, name: str) -> bool:
    return name in reporter.names or any(
        (library, function) == (_LIBRARY, _CODES[name]) for library, function, _ in reporter.codes
    )


def _sign(reporter: Reporter) -> str:
    return "names itself" if reporter.names else "reports by its number"


def _asks_method(trace: Trace) -> bool:
    return any(
        call.target is None and call.arguments[:2] == (_OBJECT, _BUFFER) for call in trace.calls
    )


def _frees_attachments(trace: Trace) -> bool:
    return any(call.arguments[:2] == (0, _OBJECT) for call in trace.calls)
