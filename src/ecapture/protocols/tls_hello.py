# SPDX-License-Identifier: Apache-2.0
"""The first words of a TLS handshake, as far as they tell which secrets will come.

Source: RFC 8446, section 4.1.2 and 4.1.3 (and RFC 5246, section 7.4.1): both hellos begin with two
bytes of version and 32 of random, then the session id. A hello may be longer than the piece that is
looked at; whatever is asked of it here stands near its beginning.
"""

from __future__ import annotations

from typing import Final

import msgspec

RECORD_HEADER: Final = 5
RANDOM_END: Final = 4 + 2 + 32
"""How much of a handshake message, from its first byte, has the random."""

_CLIENT, _SERVER = 1, 2
# SHA-256 of "HelloRetryRequest" (RFC 8446, 4.1.3): a ServerHello that is none
_RETRY: Final = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
_EARLY_DATA: Final = 42
_PRE_SHARED_KEY: Final = 41
_MOST_EXTENSIONS: Final = 64  # extensions of a hello; real ones have about twenty


class ServerHello(msgspec.Struct, frozen=True):
    """``tls13``: whether what follows is protected with traffic secrets, not a master secret."""

    tls13: bool


def client_random(message: bytes) -> bytes:
    """The random of a ClientHello (without the header of its record); empty if it is none."""
    if len(message) < RANDOM_END or message[0] != _CLIENT or message[4] != 3:
        return b""
    return message[6:RANDOM_END]


def offers_early_data(message: bytes) -> bool:
    """Whether a ClientHello announces early data, as far as it is there."""
    at = RANDOM_END
    for width in (1, 2, 1):  # session id, cipher suites, compression methods
        at += width + int.from_bytes(message[at : at + width], "big")
    at += 2
    for _ in range(_MOST_EXTENSIONS):
        kind = int.from_bytes(message[at : at + 2], "big")
        if at + 4 > len(message) or kind == _PRE_SHARED_KEY:  # which is always the last
            return False
        if kind == _EARLY_DATA:
            return True
        at += 4 + int.from_bytes(message[at + 2 : at + 4], "big")
    return False


def server_hello(message: bytes) -> ServerHello | None:
    """A ServerHello (without the header of its record); None if it is none, or asks to retry."""
    if len(message) < RANDOM_END or message[0] != _SERVER or message[4] != 3:
        return None
    if message[6:RANDOM_END] == _RETRY:
        return None
    suite = RANDOM_END + 1 + (message[RANDOM_END] if len(message) > RANDOM_END else 0)
    # The suites of TLS 1.3 are its own (RFC 8446, B.4): 0x1301 to 0x1305
    return ServerHello(message[suite : suite + 1] == b"\x13")
