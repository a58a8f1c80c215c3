# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL 10 to 18: what clients ask of a server, and how it ended.

``secure_read`` and ``secure_write`` (src/backend/libpq/be-secure.c) are where a back-end's talk
with its client is plaintext, whatever encrypts it. They are exported by every build, as all of the
server's functions are, because extensions need them; ``exec_simple_query`` and its relatives are
static and have no name in a stripped server. What passes is the protocol itself, so no version and
no structure of the server's need be known.

A back-end that waits for its client sits in ``secure_read`` and came there before us: its first
request is taken from the functions that ``secure_read`` calls again when something has come.
"""

from __future__ import annotations

from ecapture._wire import Direction
from ecapture.plan import served
from ecapture.probes.spec import ProbeSpec

PROBE = ProbeSpec(
    name="postgres",
    summary="statements that clients ask of PostgreSQL servers",
    kinds=("postgres",),
    explicit_option="--postgres",
    required=("secure_read", "secure_write"),
    hooks=(
        # ssize_t secure_read(Port *port, void *ptr, size_t len), and secure_write
        served("secure_read", Direction.READ),
        served("secure_write", Direction.WRITE),
        # ssize_t secure_raw_read(Port *port, void *ptr, size_t len)
        served("secure_raw_read", Direction.READ, inner=True),
        # ssize_t be_tls_read(Port *port, void *ptr, size_t len, int *waitfor)
        served("be_tls_read", Direction.READ, inner=True),
        # ssize_t be_gssapi_read(Port *port, void *ptr, size_t len)
        served("be_gssapi_read", Direction.READ, inner=True),
    ),
)
