# SPDX-License-Identifier: Apache-2.0
"""BoringSSL's reading and writing functions, recognised in code without names.

``int SSL_read(SSL *ssl, void *buf, int num)`` copies from the record it keeps to the buffer and
moves its mark behind what it copied; ``SSL_peek`` does the same without moving the mark, and may
have been built into ``SSL_read`` or be called by it. Both ask
one function that reads a record, which reports SSL_R_UNINITIALIZED and
SSL_R_SSL_HANDSHAKE_FAILURE. ``SSL_write`` reports these two and SSL_R_BAD_LENGTH, and hands object
and buffer on. ``SSL_new`` is the one that reports SSL_R_NULL_SSL_CTX; what it returns is a new
object, since where an object ends reports nothing.

Reasons are those of ``include/openssl/ssl.h``, whose numbers BoringSSL never gives out twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ecapture.binary.calls.openssl import Recognised
from ecapture.binary.calls.reports import Code, Reporter
from ecapture.binary.secrets.evaluate import Pointer, Trace

SOURCE: Final = "ssl_lib.cc"
LIBRARY: Final = 16  # ERR_LIB_SSL
BAD_LENGTH: Final = 111
_NULL_CONTEXT: Final = 185
_HANDSHAKE_FAILURE: Final = 215
_UNINITIALIZED: Final = 226
_OBJECT: Final = Pointer(0, (), 0)
_BUFFER: Final = Pointer(1, (), 0)


def recognise(code: Code) -> Recognised:
    """Return which functions read and write plaintext, and which makes an object.

    What fits two functions is left out.
    """
    reporters = code.reporters(SOURCE)
    reading = {
        address
        for address, reporter in reporters.items()
        if reporter.reasons(LIBRARY) >= {_UNINITIALIZED, _HANDSHAKE_FAILURE}
    }
    rules = {
        "SSL_read": (
            [
                reporter
                for reporter in reporters.values()
                if _calls_one_of(reporter.trace, reading) and _consumes(reporter.trace)
            ]
            or _around_peek(code, reporters, reading),
            "asks for a record, copies it to its buffer and moves on",
        ),
        "SSL_write": (
            [
                reporter
                for reporter in reporters.values()
                if reporter.reasons(LIBRARY) >= {_UNINITIALIZED, _HANDSHAKE_FAILURE, BAD_LENGTH}
                and _hands_on(reporter.trace)
            ],
            "reports what only it reports, and hands object and buffer on",
        ),
        "SSL_new": (
            [r for r in reporters.values() if _NULL_CONTEXT in r.reasons(LIBRARY)],
            "reports what only it reports",
        ),
    }
    return {
        name: (fitting[0].entry, evidence)
        for name, (fitting, evidence) in rules.items()
        if len(fitting) == 1
    }


def _around_peek(
    code: Code, reporters: Mapping[int, Reporter], reading: set[int]
) -> list[Reporter]:
    # Where SSL_peek was not built into it, SSL_read calls that and moves the mark.
    peeking = [
        reporter
        for reporter in reporters.values()
        if _calls_one_of(reporter.trace, reading) and _sources(reporter.trace)
    ]
    if len(peeking) != 1:
        return []
    address, kept = peeking[0].entry.address, _sources(peeking[0].trace)
    return [
        caller
        for caller in code.callers(address)
        if any(
            call.target == address and call.arguments[:2] == (_OBJECT, _BUFFER)
            for call in caller.trace.calls
        )
        and any(write.place in kept for write in caller.trace.writes)
    ]


def _calls_one_of(trace: Trace, targets: set[int]) -> bool:
    return any(call.target in targets and call.arguments[0] == _OBJECT for call in trace.calls)


def _sources(trace: Trace) -> set[Pointer]:
    # The pointers that the object keeps to what is copied to the buffer.
    return {
        Pointer(source.root, source.path[:-1], source.path[-1])
        for call in trace.calls
        for source in call.arguments[1:2]
        if call.arguments[0] == _BUFFER
        and isinstance(source, Pointer)
        and source.root == 0
        and source.path
    }


def _consumes(trace: Trace) -> bool:
    # The very pointer that was copied from is then moved.
    kept = _sources(trace)
    return any(write.place in kept for write in trace.writes)


def _hands_on(trace: Trace) -> bool:
    return any(
        call.target is None and call.arguments[0] == _OBJECT and _BUFFER in call.arguments[1:]
        for call in trace.calls
    )
