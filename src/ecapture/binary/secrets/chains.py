# SPDX-License-Identifier: Apache-2.0
"""From the code that uses a field to the walk that leads to it.

Four kinds of code are read:

- accessors (``SSL_get_client_random`` and the like): what they return or copy;
- the log function: where it takes the client random from that it prints;
- calls of the log function: where the master and exporter secrets stand that it is handed;
- the function that updates traffic keys: which two secrets it takes, one or the other.

OpenSSL keeps the TLS 1.3 secrets in arrays of 64 bytes (``EVP_MAX_MD_SIZE``), in one order from
``early_secret`` to ``server_app_traffic_secret`` (ssl/ssl_local.h, 1.1.1 to 4.0). Forks have put
more of them behind that, so distances from the exporter secret are no evidence. BoringSSL keeps
the write, read and exporter secrets side by side, 48 bytes and a length byte each
(``InplaceVector`` in ssl/internal.h).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from ecapture.binary.secrets.evaluate import Evaluator, Pointer, Scalar, Trace, Value
from ecapture.binary.secrets.sites import Chain, How

RANDOM_LENGTH: Final = 32
MASTER_LENGTH: Final = 48
SECRET_LENGTH: Final = 64

OPENSSL_FROM_CLIENT: Final = {"handshake_secret": -0x1C0, "handshake_hash": -0x40}
BORINGSSL_FROM_EXPORTER: Final = {"write_application": -0x62, "read_application": -0x31}
_BORINGSSL_SECRET: Final = 48

ACCESSORS: Final[tuple[str, ...]] = (
    "SSL_get_client_random",
    "SSL_get_session",
    "SSL_get_rbio",
    "SSL_version",
    "SSL_is_server",
    "SSL_get_current_cipher",
    "SSL_SESSION_get0_cipher",
    "SSL_CIPHER_get_id",
    "SSL_SESSION_get_master_key",
    "SSL_get_state",
    "SSL_state",
    "SSL_in_init",
)
_FURTHEST: Final = 1 << 15  # no structure is larger


def chain(pointer: Pointer, length: int, how: How = How.EVALUATED) -> Chain | None:
    """Turn an address that is rooted at a function's first argument into a chain.

    None where it is rooted elsewhere or is no place within a structure.
    """
    offsets = (*pointer.path, pointer.offset)
    if pointer.root != 0 or not all(0 <= offset < _FURTHEST for offset in offsets):
        return None
    return Chain(offsets, length, how)


def accessor_chains(evaluator: Evaluator, addresses: dict[str, int]) -> dict[str, Chain]:
    """Return the chains that the accessors at these addresses give away."""
    traces = {name: evaluator.trace(addresses[name]) for name in ACCESSORS if name in addresses}
    results = {name: _result(trace) for name, trace in traces.items()}
    found: dict[str, Chain | None] = {
        "session": _pointer_field(results.get("SSL_get_session")),
        "rbio": _pointer_field(results.get("SSL_get_rbio")),
        "version": _number_field(results.get("SSL_version")),
        "is_server": _number_field(results.get("SSL_is_server")),
        "handshake_state": _number_field(results.get("SSL_get_state", results.get("SSL_state"))),
        "in_init": _number_field(results.get("SSL_in_init")),
    }
    if (trace := traces.get("SSL_get_client_random")) is not None:
        found["client_random"] = _copied(trace, RANDOM_LENGTH)
    session = found["session"]
    if session is not None:
        if (trace := traces.get("SSL_SESSION_get_master_key")) is not None:
            found["master_key"] = _behind(session, _copied(trace, MASTER_LENGTH))
        cipher = _pointer_field(results.get("SSL_get_current_cipher"))
        if cipher is None:  # BoringSSL's asks another function for the session
            inner = _pointer_field(results.get("SSL_SESSION_get0_cipher"))
            cipher = _behind(session, inner)
        if cipher is not None:
            found["cipher_id"] = _behind(cipher, _identifier(traces, results))
    return {name: chain for name, chain in found.items() if chain is not None}


def number_field(trace: Trace) -> Chain | None:
    """Return the field whose number an accessor returns."""
    return _number_field(_result(trace))


def _result(trace: Trace) -> Value:
    # A function that may also fail returns a constant then; two different fields are none.
    values = [value for value in trace.results if not isinstance(value, int)]
    return values[0] if len(values) == 1 else None


def _pointer_field(value: Value) -> Chain | None:
    # The field whose content is the pointer.
    if isinstance(value, Pointer) and value.path and not value.offset:
        return chain(Pointer(value.root, value.path[:-1], value.path[-1]), 8)
    return None


def _number_field(value: Value) -> Chain | None:
    return chain(value.place, value.size) if isinstance(value, Scalar) else None


def _identifier(traces: dict[str, Trace], results: dict[str, Value]) -> Chain | None:
    # 4 bytes; OpenSSL 1.0.2 keeps it in a long; BoringSSL reads two bytes and adds the rest.
    value = results.get("SSL_CIPHER_get_id")
    found = _number_field(value) or _pointer_field(value)
    if found is not None:
        return Chain(found.offsets, 4, found.how)
    trace = traces.get("SSL_CIPHER_get_id")
    reads = list(trace.reads) if trace is not None else []
    if len(reads) == 1 and reads[0].size in (2, 4):
        return chain(reads[0].place, reads[0].size)
    return None


def _behind(first: Chain, second: Chain | None) -> Chain | None:
    # From the pointer that the first chain leads to, walk the second one.
    if second is None:
        return None
    return Chain((*first.offsets, *second.offsets), second.length, second.how)


def _copied(trace: Trace, length: int) -> Chain | None:
    # The source of the one block that an accessor copies out: a call's argument, a string move,
    # or, where the copy was written out, the lowest load at the end of the longest walk.
    sources = [source for _, source in trace.copies]
    sources += [value for call in trace.calls for value in call.arguments[1:2]]
    places = {value for value in sources if isinstance(value, Pointer) and _inside(value)}
    if len(places) == 1:
        return chain(places.pop(), length)
    reads = [read.place for read in trace.reads if _inside(read.place)]
    deepest = max((len(place.path) for place in reads), default=0)
    data = [place for place in reads if len(place.path) == deepest and place.offset]
    return chain(min(data), length) if data and not places else None


def _inside(place: Pointer) -> bool:
    return place.root == 0 and (place.path != () or place.offset != 0)


def logged_random(trace: Trace) -> list[Chain]:
    """Return the places that the log function prints 32 bytes of, likeliest first.

    More than one where there are several randoms (OpenSSL 4.0: that of an encrypted ClientHello
    comes second).
    """
    places = [*_passed_with_length(trace), *_runs(trace)]
    chains = [chain(place, RANDOM_LENGTH) for place in dict.fromkeys(places)]
    return [found for found in chains if found is not None]


def _passed_with_length(trace: Trace) -> Iterator[Pointer]:
    for call in trace.calls:
        for value, length in zip(call.arguments, call.arguments[1:], strict=False):
            if length == RANDOM_LENGTH and isinstance(value, Pointer) and _inside(value):
                yield value


def _runs(trace: Trace) -> Iterator[Pointer]:
    # A loop that prints bytes was followed for two rounds: two bytes in a row. A loop that was
    # turned into vector instructions reads two halves of 16.
    for size in (1, 16):
        read = {entry.place for entry in trace.reads if entry.size == size and _inside(entry.place)}
        for place in sorted(read):
            before = place._replace(offset=place.offset - size)
            after = place._replace(offset=place.offset + size)
            if after in read and before not in read:
                yield place


def handed_secret(
    evaluator: Evaluator, sites: Iterable[tuple[int, int]]
) -> tuple[Chain, bool] | None:
    """Return where the secret stands that calls of the log function hand over.

    ``sites`` are (start of the calling function, address of the call). The chain starts from the
    same object as the log function's first argument; its length is what the layout reserves. The
    second value says whether its length is kept in one byte, 48 bytes behind.
    """
    for start, call in sites:
        for arrival in evaluator.arrivals(start, call):
            owner, _, secret, length = arrival.arguments[:4]
            if not isinstance(owner, Pointer) or owner.root != 0 or owner.offset:
                continue
            if not isinstance(secret, Pointer) or secret.path[: len(owner.path)] != owner.path:
                continue
            found = chain(Pointer(0, secret.path[len(owner.path) :], secret.offset), MASTER_LENGTH)
            if found is None or found.offsets == (0,):
                continue
            counted = Scalar(secret._replace(offset=secret.offset + _BORINGSSL_SECRET), 1)
            return found, length == counted
    return None


def updated_secrets(trace: Trace) -> tuple[Chain, Chain] | None:
    """Return the client's and the server's application secret from the update of traffic keys.

    It hands one of the two to one and the same call, and the client's stands first.
    """
    handed: dict[tuple[int, int], set[int]] = {}
    for call in trace.calls:
        for number, value in enumerate(call.arguments):
            if isinstance(value, Pointer) and value.root == 0 and not value.path and value.offset:
                handed.setdefault((call.at, number), set()).add(value.offset)
    pairs = {tuple(sorted(offsets)) for offsets in handed.values() if len(offsets) == 2}
    pairs = {pair for pair in pairs if pair[1] - pair[0] == SECRET_LENGTH}
    if len(pairs) != 1:
        return None
    client, server = (chain(Pointer(0, (), at), SECRET_LENGTH) for at in pairs.pop())
    return (client, server) if client is not None and server is not None else None


def mentions(trace: Trace, places: Iterable[Chain]) -> bool:
    """Tell whether the function names all of these places."""
    named = {(*place.path, place.offset) for place in _mentioned(trace) if place.root == 0}
    return all(place.offsets in named for place in places)


def beside(known: Chain, distances: dict[str, int], length: int) -> dict[str, Chain]:
    """Return the secrets at fixed distances from a known one."""
    *before, last = known.offsets
    return {
        name: Chain((*before, last + distance), length, How.ARITHMETIC)
        for name, distance in distances.items()
        if last + distance > 0
    }


def implied(chains: dict[str, Chain]) -> dict[str, Chain]:
    """Return what follows from other walks of OpenSSL's, beyond what is known already.

    The master key stands in the session. Where the protocol version does not come first in an SSL
    object, the object's type does (``struct ssl_st`` in ssl/ssl_local.h since 3.2).
    """
    found = {}
    master, version = chains.get("master_key"), chains.get("version")
    if "session" not in chains and master is not None and len(master.offsets) > 1:
        found["session"] = Chain(master.offsets[:-1], 8, How.ARITHMETIC)
    if version is not None and version.offsets != (0,):
        found["object_type"] = Chain((0,), 4, How.ARITHMETIC)
    return found


def from_master_function(trace: Trace, session: Chain | None) -> dict[str, Chain]:
    """Read OpenSSL 1.0.2's ``tls1_generate_master_secret``: randoms and the master key.

    It hashes both randoms, which stand 32 bytes apart in ``s->s3``, the server's first
    (ssl/ssl3.h), and moves the result to the session, which has nothing else to do with it.
    """
    places = {place for place in _mentioned(trace) if place.root == 0 and len(place.path) == 1}
    found: dict[str, Chain | None] = {}
    randoms = [
        place for place in places if place._replace(offset=place.offset - RANDOM_LENGTH) in places
    ]
    randoms = [place for place in randoms if session is None or place.path != session.offsets]
    if len(randoms) == 1:
        found["client_random"] = chain(randoms[0], RANDOM_LENGTH)
    if session is not None:
        inside = [place for place in places if place.path == session.offsets and place.offset]
        if inside:
            found["master_key"] = chain(min(inside), MASTER_LENGTH)
    return {name: chain for name, chain in found.items() if chain is not None}


def _mentioned(trace: Trace) -> Iterator[Pointer]:
    for call in trace.calls:
        yield from (value for value in call.arguments if isinstance(value, Pointer))
    for write in trace.writes:
        yield write.place
        if isinstance(write.value, Pointer):
            yield write.value
    for read in trace.reads:
        yield read.place


def stored_in_argument(trace: Trace, argument: int, length: int) -> Chain | None:
    """Return the place whose address a function stores through its argument of this number."""
    values = [
        write.value
        for write in trace.writes
        if write.place == Pointer(argument, (), 0) and isinstance(write.value, Pointer)
    ]
    places = [value for value in values if _inside(value)]
    return chain(places[0], length) if len(set(places)) == 1 else None
