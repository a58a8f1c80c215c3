# SPDX-License-Identifier: Apache-2.0
"""BoringSSL's functions that open and write records of application data, without names.

Optimisation across a whole program builds ``SSL_read`` and ``SSL_write`` into what calls them
(Chromium). What they ask cannot be built in: TLS and DTLS differ there, and the object points to
a table of methods (``SSL_PROTOCOL_METHOD`` in ssl/internal.h), ``is_dtls`` first, then::

    bool ssl_new(SSL *), void ssl_free(SSL *), ...
    ssl_open_record_t open_app_data(SSL *, Span<uint8_t> *out, size_t *out_consumed,
                                    uint8_t *out_alert, Span<uint8_t> in),
    int write_app_data(SSL *, bool *out_needs_handshake, size_t *out_bytes_written,
                       Span<const uint8_t> in), ...

``open_app_data`` opens one record where it lies and tells its content; what is no application data,
such as tickets of TLS 1.3, it puts aside and tells nothing of. ``write_app_data`` tells, as
``SSL_write`` does, how much it took.

Three signs must agree for both:

1. **What it reports** (ssl/s3_pkt.cc): opening, SSL_R_UNEXPECTED_RECORD and
   SSL_R_TOO_MUCH_READ_EARLY_DATA; writing, SSL_R_PROTOCOL_IS_SHUTDOWN and SSL_R_BAD_LENGTH.
2. **What it does with its arguments.** Opening tells two words, or the alert to send; writing says
   at once that no handshake is needed, and how much it took.
3. **Where it stands.** One beside the other, in a table that begins with a zero, between other
   methods.

That functions start there is proven by the table itself, whose pointers the program calls, or
by the unwinder's; pointers may lead to jumps that guard functions. ``ssl_free`` gives up the very
part of the object that ``ssl_new`` made.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from ecapture.binary.calls.boringssl import BAD_LENGTH, LIBRARY
from ecapture.binary.calls.entries import jumps_into
from ecapture.binary.calls.openssl import Recognised
from ecapture.binary.calls.pointers import Pointers
from ecapture.binary.calls.reports import Code, Reporter
from ecapture.binary.secrets.evaluate import Pointer, Read, Trace

SOURCE: Final = "s3_pkt.cc"
OPEN: Final = "tls_open_app_data"
WRITE: Final = "tls_write_app_data"
FREE: Final = "tls_free"

_SHUTDOWN: Final = 194
_UNEXPECTED: Final = 225
_EARLY: Final = 300
_DISCARDED: Final = 1  # of ssl_open_record_t, where success is 0
_FAILED: Final = 4
_SPAN: Final = Pointer(1, (), 0)
_NEEDS_HANDSHAKE: Final = Pointer(1, (), 0)
_WRITTEN: Final = Pointer(2, (), 0)
_ALERT: Final = Pointer(3, (), 0)
_WORD: Final = 8
_MOST_BEFORE: Final = 12  # methods between is_dtls and these two: eight
_LEAST_BEFORE: Final = 5
_LEAST_AFTER: Final = 4


class _Table(NamedTuple):
    # The methods of a table in front of open_app_data, the first of them ssl_new.
    before: tuple[int, ...]


def recognise(code: Code, pointers: Pointers) -> Recognised:
    """Return what opens and writes records of application data, and what frees an object.

    Both or none; what fits two functions is left out.
    """
    reporters = code.pointed(SOURCE, pointers)
    opening = [r for r in reporters.values() if _opens(r)]
    writing = [r for r in reporters.values() if _writes(r)]
    if len(opening) != 1 or len(writing) != 1:
        return {}
    table = _table(code, pointers, opening[0].entry.address, writing[0].entry.address)
    if table is None:
        return {}
    beside = "beside the other in a table of methods"
    found: Recognised = {
        OPEN: (opening[0].entry, f"reports what only it reports, tells a span, {beside}"),
        WRITE: (writing[0].entry, f"reports what only it reports, tells a count, {beside}"),
    }
    making, freeing = (code.at(address) for address in table.before[:2])
    if _frees(making.trace, freeing.trace, writing[0].trace):
        found[FREE] = (freeing.entry, "gives up what the method before it made, in that table")
    return found


def _opens(reporter: Reporter) -> bool:
    writes = reporter.trace.writes
    return (
        reporter.reasons(LIBRARY) >= {_UNEXPECTED, _EARLY}
        and {0, _WORD} <= {at for w in writes for at in _words_of(w.place, w.size, _SPAN)}
        and any(w.place == _ALERT and w.size == 1 for w in writes)
        and {_DISCARDED, _FAILED} <= set(reporter.trace.results)
    )


def _words_of(place: Pointer, size: int, base: Pointer) -> range:
    # Where, from the base on, words were stored.
    if place[:2] != base[:2] or size < _WORD:
        return range(0)
    return range(place.offset - base.offset, place.offset - base.offset + size, _WORD)


def _writes(reporter: Reporter) -> bool:
    writes = reporter.trace.writes
    return (
        reporter.reasons(LIBRARY) >= {_SHUTDOWN, BAD_LENGTH}
        and any((w.place, w.value, w.size) == (_NEEDS_HANDSHAKE, 0, 1) for w in writes)
        and any((w.place, w.size) == (_WRITTEN, _WORD) for w in writes)
    )


def _table(code: Code, pointers: Pointers, opening: int, writing: int) -> _Table | None:
    # The one table that has both, one behind the other.
    found = []
    for place in _places(code, pointers, opening):
        start = place - (_MOST_BEFORE + 1) * _WORD
        words = pointers.words(start, _MOST_BEFORE + 1 + 2 + _LEAST_AFTER)
        before: list[int] = []
        for word in reversed(words[: _MOST_BEFORE + 1]):
            if not word or not code.may_start(word):  # code may begin with the file, at 0
                break
            before.insert(0, code.behind(word))
        first = _MOST_BEFORE - len(before)
        after = words[_MOST_BEFORE + 1 :]
        if (
            _LEAST_BEFORE <= len(before) <= _MOST_BEFORE
            and words[first] == 0  # is_dtls
            and [code.behind(word) for word in after[:2]] == [opening, writing]
            and all(word and code.may_start(word) for word in after)
        ):
            found.append(_Table(tuple(before)))
    return found[0] if len(found) == 1 else None


def _places(code: Code, pointers: Pointers, opening: int) -> list[int]:
    # Where pointers to a function are, or to what only jumps there.
    places = pointers.into([(opening, opening)]).get(opening, [])
    if not places:
        jumps = [site for site, _ in jumps_into(code.image, [(opening, opening)])]
        found = pointers.into([(site, site) for site in sorted(jumps)])
        places = [place for at in found.values() for place in at]
    return places


def _frees(making: Trace, freeing: Trace, using: Trace) -> bool:
    # A word of the object itself that one makes, the other clears, and that is used between.
    made = {w.place for w in making.writes if w.size == _WORD and not isinstance(w.value, int)}
    cleared = {w.place for w in freeing.writes if (w.value, w.size) == (0, _WORD)}
    return any(
        place.root == 0 and not place.path and Read(place, _WORD) in using.reads
        for place in made & cleared
    )
