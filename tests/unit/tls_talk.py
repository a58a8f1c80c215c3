# SPDX-License-Identifier: Apache-2.0
"""A TLS conversation in memory: what each side sends, and the lines of its key log."""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

REQUEST = b"GET /secret HTTP/1.1\r\nHost: localhost\r\n\r\n"
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


@dataclass
class Talk:
    """``flights``: (by the server, bytes) in order; ``keys``: the lines of the key log."""

    flights: list[tuple[bool, bytes]] = field(default_factory=list)
    keys: bytes = b""

    @property
    def client_random(self) -> bytes:
        """As it stands in the ClientHello."""
        return self.flights[0][1][11:43]


def talk(folder: Path, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> Talk:
    """A handshake, a request and its response. Needs the program openssl, for a certificate."""
    log, key, certificate = folder / "keys.log", folder / "key.pem", folder / "certificate.pem"
    log.unlink(missing_ok=True)
    # fmt: off
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-subj", "/CN=localhost", "-days", "2", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )
    # fmt: on
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname, client_context.verify_mode = False, ssl.CERT_NONE
    client_context.minimum_version = client_context.maximum_version = version
    client_context.keylog_filename = str(log)
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(certificate, key)
    inboxes, outboxes = [ssl.MemoryBIO(), ssl.MemoryBIO()], [ssl.MemoryBIO(), ssl.MemoryBIO()]
    client = client_context.wrap_bio(inboxes[0], outboxes[0], server_hostname="localhost")
    server = server_context.wrap_bio(inboxes[1], outboxes[1], server_side=True)
    told = Talk()

    def carry() -> None:
        for side in (0, 1):
            sent = outboxes[side].read()
            if sent:
                told.flights.append((bool(side), sent))
                inboxes[1 - side].write(sent)

    finished = [False, False]
    while not all(finished):
        for side, end in enumerate((client, server)):
            try:
                end.do_handshake()
                finished[side] = True
            except ssl.SSLWantReadError:
                pass
            carry()
    client.write(REQUEST)
    carry()
    assert server.read(4096) == REQUEST
    server.write(RESPONSE)
    carry()
    assert client.read(4096) == RESPONSE
    told.keys = b"".join(
        line for line in log.read_bytes().splitlines(keepends=True) if not line.startswith(b"#")
    )
    return told
