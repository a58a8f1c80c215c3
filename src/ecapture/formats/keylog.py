# SPDX-License-Identifier: Apache-2.0
"""Secrets as a key log, which Wireshark and others decrypt packets with.

One line each: label, client random, secret, the latter two in hexadecimal ("The SSLKEYLOGFILE
Format for TLS", section 2). Nothing else is ever written, so the file may be read while it grows.

Invariants: a line is written once, however often its secret is seen (both ends of a connection on
one machine, a call and a later look at the same object); lines stand in the order in which the
secrets were made; a secret whose client random is not known, and a label that is not of the
format, has no line.
"""

from __future__ import annotations

from typing import Final

from ecapture.events import Event, Secret

LABELS: Final = frozenset(
    {
        "CLIENT_RANDOM",
        "CLIENT_EARLY_TRAFFIC_SECRET",
        "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
        "SERVER_HANDSHAKE_TRAFFIC_SECRET",
        "CLIENT_TRAFFIC_SECRET_0",
        "SERVER_TRAFFIC_SECRET_0",
        "CLIENT_TRAFFIC_SECRET_N",  # what OpenSSL calls the secrets after a key update
        "SERVER_TRAFFIC_SECRET_N",
        "EARLY_EXPORTER_SECRET",
        "EXPORTER_SECRET",
        "ECH_SECRET",
        "ECH_CONFIG",
    }
)
"""The labels of the format, and those that OpenSSL adds."""

_REMEMBERED: Final = 1 << 16


class KeyLogFormat:
    """Events to lines. ``remembered``: how many of the latest lines are not written again."""

    def __init__(self, *, remembered: int = _REMEMBERED) -> None:
        # Imported late: it loads libcrypto, which few captures need and this process else has not.
        from hashlib import blake2b  # noqa: PLC0415

        self._digest = blake2b
        self._limit = remembered
        # Insertion order is age. Digests, so that secrets are not kept longer than needed.
        self._written: dict[bytes, None] = {}

    def encode(self, events: list[Event]) -> list[bytes]:
        """The lines of one batch."""
        return [line for event in events if type(event) is Secret for line in self._line(event)]

    def _line(self, event: Secret) -> list[bytes]:
        if not event.secret or not event.client_random or event.label not in LABELS:
            return []
        line = f"{event.label} {event.client_random.hex()} {event.secret.hex()}\n".encode()
        known = self._digest(line, digest_size=16).digest()
        if known in self._written:
            return []
        if len(self._written) >= self._limit:
            del self._written[next(iter(self._written))]
        self._written[known] = None
        return [line]
