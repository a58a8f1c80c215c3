# SPDX-License-Identifier: Apache-2.0
"""A PostgreSQL server as far as a client's handshake sees one: TLS, no password, one answer.

``postgres_stub.py CERTIFICATE KEY KEYLOG VERSION`` prints its port. Source of the messages:
PostgreSQL documentation, "Frontend/Backend Protocol", sections SSL Session Encryption and Message
Formats.
"""

from __future__ import annotations

import contextlib
import socket
import socketserver
import ssl
import sys

SSL_REQUEST = 80877103
certificate, key, keylog, version = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
context.keylog_filename = keylog
context.minimum_version = context.maximum_version = ssl.TLSVersion[f"TLSv1_{version[2]}"]


def exactly(connection: socket.socket, count: int) -> bytes:
    received = b""
    while len(received) < count:
        some = connection.recv(count - len(received))
        if not some:
            raise ConnectionResetError
        received += some
    return received


def message(kind: bytes, content: bytes = b"") -> bytes:
    return kind + (len(content) + 4).to_bytes(4, "big") + content


READY = message(b"Z", b"I")
AUTHENTICATED = message(b"R", bytes(4)) + message(b"S", b"client_encoding\0UTF8\0") + READY
COLUMN = b"answer\0" + bytes(4) + bytes(2) + (25).to_bytes(4, "big") + b"\xff\xff" + b"\xff" * 4
ANSWER = (
    message(b"T", (1).to_bytes(2, "big") + COLUMN + bytes(2))
    + message(b"D", (1).to_bytes(2, "big") + (2).to_bytes(4, "big") + b"42")
    + message(b"C", b"SELECT 1\0")
    + READY
)


class Client(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        with contextlib.suppress(ConnectionResetError, ssl.SSLEOFError):
            self.serve()

    def serve(self) -> None:
        # libpq may ask for GSSAPI first
        while int.from_bytes(exactly(self.request, 8)[4:], "big") != SSL_REQUEST:
            self.request.sendall(b"N")
        self.request.sendall(b"S")
        with context.wrap_socket(self.request, server_side=True) as connection:
            exactly(connection, int.from_bytes(exactly(connection, 4), "big") - 4)
            connection.sendall(AUTHENTICATED)
            while (kind := exactly(connection, 1)) != b"X":
                exactly(connection, int.from_bytes(exactly(connection, 4), "big") - 4)
                if kind == b"Q":
                    connection.sendall(ANSWER)


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True


with Server(("127.0.0.1", 0), Client) as server:
    print(server.server_address[1], flush=True)
    server.serve_forever()
