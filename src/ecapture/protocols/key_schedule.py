# SPDX-License-Identifier: Apache-2.0
"""The secrets of an established TLS 1.3 connection, from what OpenSSL keeps of its key schedule.

After a key update an object holds the updated traffic secrets, and nothing in it tells that there
was one; key logs want the first ones. But those follow from the master secret and the hash of the
transcript up to the server's Finished message (RFC 8446, section 7.1), both of which OpenSSL keeps
to the end (``struct ssl_connection_st`` in ssl/ssl_local.h, 1.1.1 to 4.0). So they are derived, not
read.

Invariant: nothing is returned on trust. The same two inputs must yield the exporter secret that
was read from elsewhere in the object; and the handshake secrets, the Finished key that is kept.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

_ARRAY: Final = 64  # EVP_MAX_MD_SIZE: what OpenSSL reserves for each
_HANDSHAKE, _MASTER, _RESUMPTION, _CLIENT_FINISHED, _SERVER_FINISHED = range(5)
_UP_TO_FINISHED, _UP_TO_HELLO = 5, 6
_HASHES: Final = ("sha256", "sha384")  # of all cipher suites of RFC 8446, appendix B.4


def logged_secrets(kept: bytes, exporter: bytes) -> dict[str, bytes]:
    """Return secrets by their labels, in the order in which a handshake makes them.

    ``kept`` are arrays of 64 bytes: handshake secret, master secret, resumption master secret,
    client's and server's finished secrets, transcript hashes up to the server's Finished and up to
    ServerHello; more may follow. ``exporter`` begins with the exporter secret. Empty if these do
    not belong together.
    """
    arrays = [kept[at : at + _ARRAY] for at in range(0, len(kept), _ARRAY)]
    if len(arrays) <= _UP_TO_HELLO:
        return {}
    for name in _HASHES:
        size = hashlib.new(name).digest_size
        master, finished = arrays[_MASTER][:size], arrays[_UP_TO_FINISHED][:size]
        if not any(master):
            continue
        proof = expand_label(name, master, b"exp master", finished, size)
        if not hmac.compare_digest(proof, exporter[:size]):
            continue
        return {
            **_handshake_secrets(name, size, arrays),
            "CLIENT_TRAFFIC_SECRET_0": expand_label(name, master, b"c ap traffic", finished, size),
            "SERVER_TRAFFIC_SECRET_0": expand_label(name, master, b"s ap traffic", finished, size),
            "EXPORTER_SECRET": proof,
        }
    return {}


def _handshake_secrets(name: str, size: int, arrays: list[bytes]) -> dict[str, bytes]:
    secret, transcript = arrays[_HANDSHAKE][:size], arrays[_UP_TO_HELLO][:size]
    client = expand_label(name, secret, b"c hs traffic", transcript, size)
    server = expand_label(name, secret, b"s hs traffic", transcript, size)
    for traffic, place in ((client, _CLIENT_FINISHED), (server, _SERVER_FINISHED)):
        if expand_label(name, traffic, b"finished", b"", size) == arrays[place][:size]:
            return {
                "CLIENT_HANDSHAKE_TRAFFIC_SECRET": client,
                "SERVER_HANDSHAKE_TRAFFIC_SECRET": server,
            }
    return {}


def expand_label(name: str, secret: bytes, label: bytes, context: bytes, size: int) -> bytes:
    """HKDF-Expand-Label (RFC 8446, section 7.1) for at most one block of the hash ``name``."""
    label = b"tls13 " + label
    request = size.to_bytes(2, "big") + bytes([len(label)]) + label + bytes([len(context)])
    return hmac.digest(secret, request + context + b"\1", name)[:size]
